"""The leaderboard as plain text for a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence

from gauntlet.leaderboard.report import formatting
from gauntlet.leaderboard.report.comparisons import describe_comparisons, rank, separate
from gauntlet.leaderboard.report.notes import Surface, checks_off, lifted_notes, row_notes, verdict, wrapped
from gauntlet.leaderboard.report.text_columns import aligned
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.rows.references import Reference
from gauntlet.leaderboard.rows.row import LeaderboardRow

WIDTH = 100
"""Width of a table, if names can be shortened enough."""
NARROWEST, WIDEST = 80, 160

_NAMES = ("model", "defense", "worst attack")
"""Columns whose entries may be shortened."""
_LEFT = (*_NAMES, "robust % [95 %]")
_USED: Mapping[str, Callable[[LeaderboardRow], bool]] = {
    "defense": lambda row: row.defense != "none",
    "corr. %": lambda row: row.corruption is not None,
    "proven %": lambda row: row.bracket is not None,
}
"""Columns that are left out unless a row has something to show in them."""


def terminal_width() -> int:
    """The width of the terminal within `NARROWEST` and `WIDEST`; `WIDTH` where the output is no terminal."""
    return min(max(shutil.get_terminal_size((WIDTH, 24)).columns, NARROWEST), WIDEST)


def terminal_report(
    rows: Sequence[LeaderboardRow], surface: Surface, width: int = WIDTH, *, checks: str = ""
) -> Iterator[str]:
    """The lines of the tables, why rows have no rank, what flags advise, what lifted blocks, and the verdict in words.

    `checks`: the checks that the run made, as in `RunContext`.
    """
    yield from terminal_table(rows, width).splitlines()
    notes = [*row_notes(rows, surface), *lifted_notes(rows), *([checks_off(surface)] if checks == "none" else [])]
    for lines in (notes, verdict(rows)):
        if lines:
            yield ""
            yield from wrapped(lines, width)


def terminal_table(rows: Sequence[LeaderboardRow], width: int = WIDTH) -> str:
    """A table per threat model (and per data set and suite, if there are several); empty if there are no rows.

    A table fits the width if names can be shortened enough. A row that did not finish shows its status in place of the worst
    attack.
    """
    sections: dict[tuple[str, str, str], list[LeaderboardRow]] = {}
    for row in rows:
        sections.setdefault((row.threat, row.data, row.suite), []).append(row)
    return "\n\n".join(_table(_title(key, width), members, width) for key, members in sections.items())


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


def _title(section: tuple[str, str, str], width: int) -> str:
    line, sentence = " · ".join(map(visible, section)), visible(formatting.target_meaning(section[0]))
    return "\n".join([line, *wrapped([sentence], width, indent="")]) if sentence else line


def _table(title: str, rows: Sequence[LeaderboardRow], width: int) -> str:
    several = separate(rows)
    entries = [_entries(row, several) for row in rows]
    columns = {
        name: [entry[name] for entry in entries]
        for name in entries[0]
        if name not in _USED or any(map(_USED[name], rows))
    }
    lines = [tuple(columns), *zip(*columns.values(), strict=True)]
    left, names = ({number for number, name in enumerate(columns) if name in among} for among in (_LEFT, _NAMES))
    note = wrapped([visible(describe_comparisons(rows))], width, indent="") if several else ()
    return "\n".join([title, *aligned(lines, left=left, names=names, width=width), *note])


def _entries(row: LeaderboardRow, several: bool) -> dict[str, str]:
    """The entries of a line by the headers of their columns; `several`: comparisons, which are named before the rank."""
    return {
        "rank": rank(row, named=several),
        "model": visible(row.model),
        "defense": visible(row.defense),
        "clean %": formatting.percent(row.clean),
        "corr. %": formatting.corrupted(row).partition(" ")[0],
        "proven %": formatting.percent(row.bracket.certified) if row.bracket else formatting.NOTHING,
        "robust % [95 %]": formatting.robust(row),
        "n": str(row.robust.n),
        "worst attack": row.status.upper() if row.status != "ok" else visible(row.worst_attack or formatting.NOTHING),
        "s": formatting.number(row.seconds),
    }
