"""Text in aligned columns, for a terminal."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

MIN_NAME_WIDTH = 12
"""Width to which a column of names is shortened at most."""

_END_ALONE = 0.4
"""Cost of leaving the end alone of a part of a name (of `digits`, `…its`), in its characters."""
_OFF_MIDDLE = 0.01
"""The same for each character that is kept on one side more than on the other, where nothing is shared."""
_PART = re.compile(r"[A-Za-z0-9]+|.", re.DOTALL)


def aligned(lines: Sequence[Sequence[str]], *, left: Collection[int], names: Collection[int], width: int) -> list[str]:
    """Align lines of as many entries each, two blanks between columns; columns in `left` are aligned left, others right.

    If a line would be wider than `width`, entries of the columns `names` are shortened where they agree (see `shortened`), to
    no less than `MIN_NAME_WIDTH`, and never so far that two different entries of a column look the same. If that is not enough,
    one blank is left between columns.
    """
    widths = [max(text_width(line[column]) for line in lines) for column in range(len(lines[0]))] if lines else []
    gaps = 2 * (len(widths) - 1)
    shown = {column: {line[column]: line[column] for line in lines} for column in names}
    open_columns = set(names)
    while sum(widths) + gaps > width:
        open_columns = {column for column in open_columns if widths[column] > MIN_NAME_WIDTH}
        if not open_columns:
            break
        widest = max(sorted(open_columns), key=lambda column: widths[column])
        narrower = shortened(list(shown[widest]), widths[widest] - 1)
        if len(set(narrower.values())) < len(narrower):
            open_columns.remove(widest)
            continue
        widths[widest] -= 1
        shown[widest] = narrower
    gap = "  " if sum(widths) + gaps <= width else " "
    return [
        _joined(
            [shown[column][text] if column in shown else text for column, text in enumerate(line)], widths, left, gap
        )
        for line in lines
    ]


def shortened(texts: Collection[str], width: int) -> dict[str, str]:
    """Each of the texts, at most `width` columns wide.

    An ellipsis replaces what a text shares with most of the others (of `cnn.fast_digits` among other `cnn.…_digits` one of the
    ends), and about the middle where nothing is shared: the beginning of a model's name is the architecture, the end the recipe.
    """
    shares = Counter(part for text in dict.fromkeys(texts) for part in set(_PART.findall(text)))
    return {text: _cut(text, width, shares) for text in texts}


def text_width(text: str) -> int:
    """The number of columns that the text takes in a terminal."""
    return sum(_character_width(character) for character in text)


def _cut(text: str, width: int, shares: Mapping[str, int]) -> str:
    """The text without the run of characters that tells it least from the others."""
    excess = text_width(text) - width
    if excess <= 0:
        return text
    costs, places, cuts = [0.0], [0], [0.0]
    for part in _PART.findall(text):
        rarity = 1 / shares[part]
        for character in part:
            costs.append(costs[-1] + rarity)
            places.append(places[-1] + _character_width(character))
            cuts.append(rarity)
        cuts[-1] = 0.0
    best = math.inf, 0, len(text)
    end = 0
    for start in range(len(text)):
        while end < len(text) and places[end] - places[start] <= excess:
            end += 1
        if places[end] - places[start] <= excess:
            break
        lost = costs[end] - costs[start]
        off_middle = _OFF_MIDDLE * abs(start + end - len(text)) * (lost / (end - start)) ** 2
        # Of equals the last: an ellipsis at the end of names reads best.
        best = min(best, (round(lost + _END_ALONE * cuts[end] + off_middle, 2), -start, end))
    return f"{text[: -best[1]]}…{text[best[2] :]}" if best[1] else f"…{text[best[2] :]}"


def _joined(line: Sequence[str], widths: Sequence[int], left: Collection[int], gap: str) -> str:
    entries = []
    for column, (text, width) in enumerate(zip(line, widths, strict=True)):
        blanks = " " * (width - text_width(text))
        entries.append(text + blanks if column in left else blanks + text)
    return gap.join(entries).rstrip()


def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
