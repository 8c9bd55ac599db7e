"""The leaderboard as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from gauntlet.leaderboard.report import formatting
from gauntlet.leaderboard.report.columns import aligned
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.rows.row import Row

WIDTH = 100
"""Columns that a table tries to fit."""

_HEADER = ("rank", "model", "defense", "clean %", "proven %", "robust % [95 %]", "n", "worst attack", "s")
_CORRUPTED = "corr. %"
"""Heads a column after the clean accuracy, where a row has one."""
_NAMES = (1, 2, 7)
"""Columns that may be cut."""


def terminal_table(rows: Sequence[Row]) -> str:
    """A table per threat model (and data and suite, where there are several), empty where there are no rows.

    Fits 100 columns where names can be cut for it. A row that did not finish shows its status in the
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
    names, left = _NAMES, {*_NAMES, 5}
    if any(row.corruption is not None for row in rows):
        corrupted = [_CORRUPTED, *(formatting.corrupted(row).partition(" ")[0] for row in rows)]
        lines = [(*line[:4], entry, *line[4:]) for line, entry in zip(lines, corrupted, strict=True)]
        names, left = (1, 2, 8), {1, 2, 6, 8}
    return "\n".join([title, *aligned(lines, left=left, names=names, most=WIDTH)])


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
