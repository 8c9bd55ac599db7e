"""Lines of text in columns, for a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence

LEAST = 12
"""Width below which a name is not cut."""


def aligned(lines: Sequence[Sequence[str]], *, left: Collection[int], names: Collection[int], most: int) -> list[str]:
    """One text a line, columns two blanks apart, those of `left` flush left and the others right.

    Where a line would be wider than `most` columns, entries of the columns `names` are cut in the middle, to no less than
    `LEAST`. All lines have the same number of entries.
    """
    widths = [max(width(line[column]) for line in lines) for column in range(len(lines[0]))] if lines else []
    gaps = 2 * (len(widths) - 1)
    while sum(widths) + gaps > most and max((widths[column] for column in names), default=0) > LEAST:
        widest = max(names, key=lambda column: widths[column])
        widths[widest] -= 1
    return [_joined(line, widths, left) for line in lines]


def cut(text: str, most: int) -> str:
    """At most so many columns wide. The middle gives way: a name's beginning says the architecture, its end the recipe."""
    if width(text) <= most:
        return text
    head, tail = list(text[: len(text) // 2]), list(text[len(text) // 2 :])
    while width("".join([*head, "…", *tail])) > most:
        if len(head) >= len(tail):
            head.pop()
        else:
            tail.pop(0)
    return "".join([*head, "…", *tail])


def width(text: str) -> int:
    """Columns that the text takes in a terminal."""
    return sum(_columns(character) for character in text)


def _joined(line: Sequence[str], widths: Sequence[int], left: Collection[int]) -> str:
    entries = []
    for column, (text, room) in enumerate(zip(line, widths, strict=True)):
        shown = cut(text, room)
        blanks = " " * (room - width(shown))
        entries.append(shown + blanks if column in left else blanks + shown)
    return "  ".join(entries).rstrip()


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
