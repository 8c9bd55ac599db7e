"""The leaderboard as plain text for a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from gauntlet.leaderboard import formatting
from gauntlet.leaderboard.escape import visible
from gauntlet.leaderboard.row import Row

WIDTH = 100
"""Columns that a table tries to fit."""

_HEADER = ("rank", "model", "defense", "clean %", "proven %", "robust % [95 %]", "n", "worst attack", "s")
_NAMES = (1, 2, 7)
"""Columns that may be cut."""
_LEAST = 12
"""Width below which a name is not cut."""


def terminal_table(rows: Sequence[Row]) -> str:
    """A table per threat model (and data and suite, where there are several), empty where there are no rows.

    Fits 100 columns where names can be cut to 12 characters for it. A row that did not finish shows its status in the
    place of the worst attack.
    """
    sections: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        sections.setdefault((row.threat, row.data, row.suite), []).append(row)
    return "\n\n".join(_table(_title(key), members) for key, members in sections.items())


def _title(section: tuple[str, str, str]) -> str:
    line, sentence = " · ".join(map(visible, section)), visible(formatting.meaning(section[0]))
    return f"{line}\n{sentence}" if sentence else line


def _table(title: str, rows: Sequence[Row]) -> str:
    lines = [_HEADER, *map(_line, rows)]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(_HEADER))]
    gaps = 2 * (len(widths) - 1)
    while sum(widths) + gaps > WIDTH and max(widths[column] for column in _NAMES) > _LEAST:
        widest = max(_NAMES, key=lambda column: widths[column])
        widths[widest] -= 1
    return "\n".join([title, *(_aligned(line, widths) for line in lines)])


def _line(row: Row) -> tuple[str, ...]:
    return (
        formatting.rank(row),
        visible(row.model),
        visible(row.defense),
        formatting.percent(row.clean),
        formatting.percent(row.bracket.certified) if row.bracket else formatting.NOTHING,
        formatting.robust(row),
        str(row.robust.n),
        row.status.upper() if row.status != "ok" else visible(row.worst_attack or formatting.NOTHING),
        formatting.number(row.seconds),
    )


def _aligned(line: tuple[str, ...], widths: Sequence[int]) -> str:
    cells = []
    for column, (text, width) in enumerate(zip(line, widths, strict=True)):
        shown = _cut(text, width)
        blanks = " " * (width - _width(shown))
        cells.append(shown + blanks if column in (*_NAMES, 5) else blanks + shown)
    return "  ".join(cells).rstrip()


def _cut(text: str, width: int) -> str:
    """The middle gives way: a name's beginning says the architecture, its end the recipe."""
    if _width(text) <= width:
        return text
    head, tail = list(text[: len(text) // 2]), list(text[len(text) // 2 :])
    while _width("".join([*head, "…", *tail])) > width:
        if len(head) >= len(tail):
            head.pop()
        else:
            tail.pop(0)
    return "".join([*head, "…", *tail])


def _width(text: str) -> int:
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
