"""Text in aligned columns, for a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence

MIN_NAME_WIDTH = 12
"""Width to which a column of names is shortened at most."""


def aligned(lines: Sequence[Sequence[str]], *, left: Collection[int], names: Collection[int], width: int) -> list[str]:
    """Align lines of as many entries each, two blanks between columns; columns in `left` are aligned left, others right.

    If a line would be wider than `width`, entries of the columns `names` are shortened in the middle, to no less than
    `MIN_NAME_WIDTH`.
    """
    widths = [max(text_width(line[column]) for line in lines) for column in range(len(lines[0]))] if lines else []
    gaps = 2 * (len(widths) - 1)
    while sum(widths) + gaps > width and max((widths[column] for column in names), default=0) > MIN_NAME_WIDTH:
        widest = max(names, key=lambda column: widths[column])
        widths[widest] -= 1
    return [_joined(line, widths, left) for line in lines]


def shortened(text: str, width: int) -> str:
    """The text, at most `width` columns wide.

    The middle is replaced by an ellipsis: the beginning of a model's name is the architecture, the end the recipe.
    """
    if text_width(text) <= width:
        return text
    head, tail = list(text[: len(text) // 2]), list(text[len(text) // 2 :])
    while text_width("".join([*head, "…", *tail])) > width:
        if len(head) >= len(tail):
            head.pop()
        else:
            tail.pop(0)
    return "".join([*head, "…", *tail])


def text_width(text: str) -> int:
    """The number of columns that the text takes in a terminal."""
    return sum(_character_width(character) for character in text)


def _joined(line: Sequence[str], widths: Sequence[int], left: Collection[int]) -> str:
    entries = []
    for column, (text, width) in enumerate(zip(line, widths, strict=True)):
        entry = shortened(text, width)
        blanks = " " * (width - text_width(entry))
        entries.append(entry + blanks if column in left else blanks + entry)
    return "  ".join(entries).rstrip()


def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
