"""The leaderboard as plain text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from gauntlet.leaderboard.report import formatting
from gauntlet.leaderboard.report.comparisons import describe_comparisons, rank, separate
from gauntlet.leaderboard.report.text_columns import aligned
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.rows.references import Reference
from gauntlet.leaderboard.rows.row import LeaderboardRow

WIDTH = 100
"""Width of a table, if names can be shortened enough."""

_HEADER = ("rank", "model", "defense", "clean %", "proven %", "robust % [95 %]", "n", "worst attack", "s")
_CORRUPTED = "corr. %"
"""Header of the column after the clean accuracy, if a row has corruptions."""
_NAMES = (1, 2, 7)
"""Columns whose entries may be shortened."""


def terminal_table(rows: Sequence[LeaderboardRow]) -> str:
    """A table per threat model (and per data set and suite, if there are several); empty if there are no rows.

    A table fits 100 columns if names can be shortened enough. A row that did not finish shows its status in place of the worst
    attack.
    """
    sections: dict[tuple[str, str, str], list[LeaderboardRow]] = {}
    for row in rows:
        sections.setdefault((row.threat, row.data, row.suite), []).append(row)
    return "\n\n".join(_table(_title(key), members) for key, members in sections.items())


def describe_references(references: Sequence[Reference]) -> Iterator[str]:
    """A line for each published figure, beside the measured one."""
    for reference in references:
        row, published, measured = reference.row, reference.published, reference.measured
        low, high = measured.interval
        figure = f"robust {row.threat}" if reference.figure == "robust" else reference.figure
        by = ", ".join(filter(None, [reference.attack, f"n={published.n:,}" if published.n else ""]))
        yield (
            f"published {row.model} {figure}: {100 * reference.stated:.1f} %{f' ({by})' if by else ''}; "
            f"measured {100 * measured.estimate:.1f} % [{100 * low:.1f}, {100 * high:.1f}] (n={measured.n}): "
            f"{100 * reference.difference:+.1f} points, "
            f"{'covered by the interval' if reference.covered else 'not covered'}"
        )


def _title(section: tuple[str, str, str]) -> str:
    line, sentence = " · ".join(map(visible, section)), visible(formatting.target_meaning(section[0]))
    return f"{line}\n{sentence}" if sentence else line


def _table(title: str, rows: Sequence[LeaderboardRow]) -> str:
    several = separate(rows)
    lines = [_HEADER, *((rank(row, named=several), *_line(row)) for row in rows)]
    names, left = _NAMES, {*_NAMES, 5}
    if any(row.corruption is not None for row in rows):
        corrupted = [_CORRUPTED, *(formatting.corrupted(row).partition(" ")[0] for row in rows)]
        lines = [(*line[:4], entry, *line[4:]) for line, entry in zip(lines, corrupted, strict=True)]
        names, left = (1, 2, 8), {1, 2, 6, 8}
    note = textwrap.wrap(visible(describe_comparisons(rows)), WIDTH)
    return "\n".join([title, *aligned(lines, left=left, names=names, width=WIDTH), *note])


def _line(row: LeaderboardRow) -> tuple[str, ...]:
    return (
        visible(row.model),
        visible(row.defense),
        formatting.percent(row.clean),
        formatting.percent(row.bracket.certified) if row.bracket else formatting.NOTHING,
        formatting.robust(row),
        str(row.robust.n),
        row.status.upper() if row.status != "ok" else visible(row.worst_attack or formatting.NOTHING),
        formatting.number(row.seconds),
    )
