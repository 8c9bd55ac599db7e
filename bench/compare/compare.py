"""Comparing the rows of stored runs."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.compare.comparison import CompareError, Comparison, RunRow, compare
from gauntlet.leaderboard.compare.comparison_export import pairs_frame
from gauntlet.leaderboard.compare.comparison_report import comparison_text
from gauntlet.leaderboard.report import html
from gauntlet.leaderboard.results.summary import AnyResult, newest_commit, summaries
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.ranks import unrank_reasons
from gauntlet.leaderboard.rows.worst_case import row_key


@dataclass(frozen=True)
class RunSource:
    """A run of a comparison."""

    name: str
    """The folder's name, or its path if several folders have the same name."""
    commit: str
    """The commit of the newest block, with `-dirty` if tracked files differed; empty if it is unknown."""
    started: str
    """ISO 8601."""

    @property
    def line(self) -> str:
        """Name, commit and time, for the report."""
        return f"{self.name}: commit {self.commit[:12] or 'unknown'}{'-dirty' * self.commit.endswith('-dirty')}, {self.started}"


@dataclass(frozen=True, eq=False, repr=False)
class RunComparison:
    """A comparison with its runs. Its text is the report of `gauntlet compare`."""

    comparison: Comparison
    sources: tuple[RunSource, ...]

    @property
    def plain_sources(self) -> list[dict[str, str]]:
        """The runs as plain values, for JSON."""
        return [asdict(source) for source in self.sources]

    def to_pandas(self) -> pd.DataFrame:
        """A line for each pair of rows: difference, interval and p-value, as `gauntlet compare --format csv`."""
        return pairs_frame(self.comparison)

    def __repr__(self) -> str:
        return comparison_text(self.comparison, [source.line for source in self.sources])

    def _repr_html_(self) -> str:
        """Tables for a notebook, one for each group of comparable rows."""
        parts = []
        for group in self.comparison.groups:
            rows = [
                [
                    f"{group.rows[pair.first].label} − {group.rows[pair.second].label}",
                    f"{100 * pair.estimate:+.1f} [{100 * pair.interval[0]:+.1f}, {100 * pair.interval[1]:+.1f}]",
                    f"{pair.only_first} / {pair.only_second}",
                    "–" if pair.p_value is None else f"{pair.p_value:.2g}",
                ]
                for pair in group.differences
            ]
            caption = f"{group.threat}, data {group.data}, suite {group.suite}, n = {group.n}"
            parts.append(
                html.table(
                    caption, ["difference of robust accuracy", "points [95 %]", "only first / second", "p"], rows
                )
            )
        return "".join(parts)


def compare_runs(paths: Sequence[Path], *, model: str = "*", defense: str = "*") -> RunComparison:
    """Compare the rows of results folders (their latest runs) or `runs/…` folders.

    `model` and `defense` are shell wildcards: only matching rows are compared, and the correction for multiple tests covers only
    their pairs. Replays are left out if there are several runs: each replays the examples of its own folder, so they are
    different attacks. Raises RunError, StoreError, and CompareError if there is nothing to compare.
    """
    runs = [load_run(path) for path in paths]
    if len({run.folder.resolve() for run in runs}) < len(runs):
        raise CompareError(f"a run is given twice among {', '.join(map(str, paths))}: give each once")
    found = []
    for name, run in zip(_names(paths), runs, strict=True):
        results = run.summaries()
        found.append((RunSource(name, newest_commit(results), run.context.started), results))
    return compare_results(found, model=model, defense=defense)


def compare_results(
    found: Sequence[tuple[RunSource, Sequence[AnyResult]]], *, model: str = "*", defense: str = "*"
) -> RunComparison:
    """Compare the rows of several runs' results, as `compare_runs`. Raises CompareError."""
    rows = [row for source, results in found for row in _rows(results, source.name, replays=len(found) == 1)]
    chosen = [row for row in rows if _matches(row.row.model, model) and _matches(row.row.defense, defense)]
    if rows and not chosen:
        raise CompareError(
            f"no row matches model {model!r} and defense {defense!r}: see `gauntlet show {found[0][0].name}`"
        )
    return RunComparison(compare(chosen), tuple(source for source, _ in found))


def _rows(results: Sequence[AnyResult], source: str, *, replays: bool) -> list[RunRow]:
    cells = summaries(results)
    compared = [result for result in cells if (replays or not result.cell.replays) and not result.cell.corrupts]
    # All techniques of a row decide whether it has a rank, those of replays included.
    whole = {row.key: row for row in build_rows(cells)}
    rows = []
    for row in build_rows(compared):
        same = whole[row.key]
        complete = replace(row, techniques=row.techniques | same.techniques, answered=row.answered | same.answered)
        members = tuple(result for result in compared if row_key(result.cell) == row.key)
        rows.append(RunRow(replace(complete, unranked=unrank_reasons(complete)), members, source))
    return rows


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


def _names(paths: Sequence[Path]) -> list[str]:
    short = [path.resolve().name for path in paths]
    times = Counter(short)
    return [name if times[name] == 1 else str(path) for name, path in zip(short, paths, strict=True)]
