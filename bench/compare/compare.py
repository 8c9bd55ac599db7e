"""Comparing stored runs: the rows of each, and the runs' names."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from gauntlet.bench.run.run_folder import Run, load_run
from gauntlet.leaderboard.compare.comparison import CompareError, Comparison, RunRow, compare
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import CellResult
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.ranks import unrank_reasons
from gauntlet.leaderboard.rows.row import LeaderboardRow
from gauntlet.leaderboard.rows.worst_case import row_key


@dataclass(frozen=True)
class Source:
    """One of the runs."""

    name: str
    """The name of the folder; its path if several folders have that name."""
    commit: str
    """Of the newest block, with `-dirty` if tracked files differed; empty if unknown."""
    started: str
    """ISO 8601."""

    @property
    def line(self) -> str:
        """One line with all fields."""
        return f"{self.name}: commit {self.commit[:12] or 'unknown'}{'-dirty' * self.commit.endswith('-dirty')}, {self.started}"


@dataclass(frozen=True, eq=False)
class Compared:
    """A comparison with its runs."""

    comparison: Comparison
    sources: tuple[Source, ...]

    @property
    def plain_sources(self) -> list[dict[str, str]]:
        """The runs as plain values."""
        return [asdict(source) for source in self.sources]


def compare_runs(paths: Sequence[Path], *, model: str = "*", defense: str = "*") -> Compared:
    """Compare the rows of one or more results folders (their latest runs) or `runs/…` folders.

    `model` and `defense` are shell wildcards: only rows that match take part, and only their pairs count in the correction.
    Replays of several runs are left out: each tries the examples of its own folder, so they are different attacks. Raises
    RunError, StoreError, and CompareError if there is nothing to compare.
    """
    runs = [load_run(path) for path in paths]
    if len({run.folder.resolve() for run in runs}) < len(runs):
        raise CompareError(f"a run is given twice among {', '.join(map(str, paths))}: give each once")
    sources, contenders = [], []
    for name, run in zip(_names(paths), runs, strict=True):
        results = run.results()
        sources.append(Source(name, cells.newest_commit(results), run.context.started))
        contenders += _contenders(run, results, name, replays=len(runs) == 1)
    chosen = [one for one in contenders if _matches(one.row.model, model) and _matches(one.row.defense, defense)]
    if contenders and not chosen:
        raise CompareError(f"no row matches model {model!r} and defense {defense!r}: see `gauntlet show {paths[0]}`")
    return Compared(compare(chosen), tuple(sources))


def _contenders(run: Run, results: Sequence[CellResult], source: str, *, replays: bool) -> list[RunRow]:
    tried = [
        result
        for cell, result in zip(run.plan.cells, results, strict=True)
        if (replays or not cell.info.replays) and not cell.info.corrupts
    ]
    # The techniques of a row decide on its rank, those of replays included.
    techniques = {_key(row): row.techniques for row in build_rows(results)}
    found = []
    for row in build_rows(tried):
        known = replace(row, techniques=row.techniques | techniques[_key(row)])
        members = tuple(result for result in tried if row_key(result.cell) == _key(row))
        found.append(RunRow(replace(known, unranked=unrank_reasons(known)), members, source))
    return found


def _key(row: LeaderboardRow) -> tuple[str, str, str, str, str]:
    return row.model, row.defense, row.threat, row.data, row.suite


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


def _names(paths: Sequence[Path]) -> list[str]:
    short = [path.resolve().name for path in paths]
    times = Counter(short)
    return [name if times[name] == 1 else str(path) for name, path in zip(short, paths, strict=True)]
