"""Where the seconds of a run went, as lines to print and as `profile.csv`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from gauntlet.leaderboard.report.csv_writer import NUMBER, TEXT, csv_text, typed_frame
from gauntlet.leaderboard.report.text_columns import aligned
from gauntlet.leaderboard.results.atomic_files import replace_text
from gauntlet.leaderboard.results.spent import PARTS, Spent
from gauntlet.leaderboard.results.summary import AnyResult

PROFILE: Final = "profile.csv"
PROFILE_DTYPES: Final = {
    "model": TEXT,
    "defense": TEXT,
    "attack": TEXT,
    "threat": TEXT,
    "part": TEXT,
    "stage": TEXT,
    "seconds": NUMBER,
}
"""Columns of `profile.csv`: a line for each part of a cell, and one for each stage of its attack, whose part is `stage`."""
_WIDTH = 10_000
"""Nothing here is shortened."""


def profile_lines(results: Sequence[AnyResult], process: float | None = None) -> Iterator[str]:
    """The seconds of all cells by part, and those of the stages of attacks.

    `process`: seconds since this process was started; what no cell took is then shown as start-up and tables.
    """
    total = _total(results)
    every = sum(total.seconds.values())
    yield ""
    yield "Where the seconds went, of the runs that computed these cells:"
    lines: list[tuple[str, float]] = [(part, total.seconds[part]) for part in PARTS if part in total.seconds]
    lines += [(f"attack, {label}", seconds) for label, seconds in total.stages.items() if label]
    yield from _table(lines, every)
    if process is not None and process > every:
        yield f"and {process - every:.2f} s of this process for start-up, imports and tables"


def write_profile(path: Path, results: Sequence[AnyResult]) -> None:
    """Write `profile.csv`. Raises WriteError."""
    lines = []
    for result in results:
        spent, cell = result.spent or Spent(), result.cell
        names = {"model": cell.model, "defense": cell.defense, "attack": cell.attack, "threat": cell.threat}
        lines += [{**names, "part": part, "stage": "", "seconds": one} for part, one in spent.seconds.items()]
        lines += [
            {**names, "part": "stage", "stage": label, "seconds": one} for label, one in spent.stages.items() if label
        ]
    replace_text(path, csv_text(typed_frame(lines, PROFILE_DTYPES)))


def _total(results: Sequence[AnyResult]) -> Spent:
    return sum((result.spent for result in results if result.spent is not None), Spent())


def _table(lines: Sequence[tuple[str, float]], every: float) -> list[str]:
    entries = [(f"  {name}", f"{seconds:.2f} s", f"{100 * seconds / every:.1f} %") for name, seconds in lines]
    return aligned(entries, left={0}, names=(), width=_WIDTH)
