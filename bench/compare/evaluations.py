"""`gauntlet.compare`: evaluations and stored runs compared on the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gauntlet.bench.compare.compare import RunComparison, RunSource, compare_results, compare_runs
from gauntlet.bench.run.evaluation import Evaluation
from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.compare.comparison import CompareError
from gauntlet.leaderboard.results import cell_summary as cells


def compare(
    *runs: Evaluation | str | Path, names: Sequence[str] | None = None, model: str = "*", defense: str = "*"
) -> RunComparison:
    """Compare two or more evaluations, or results folders, in pairs on the same samples, as `gauntlet compare` does.

    `names`: of the evaluations, in their order; default `a`, `b`, …, and folders by their path. `model` and `defense` are shell
    wildcards. The result prints as a report; `to_pandas()` has a line for each pair: the difference of robust accuracy with its
    95 % interval, and the p-value of the exact McNemar test, with Holm's correction for several pairs.

    Raises ValueError for fewer than two evaluations, and CompareError where no two rows have the same samples, threat model and
    attacks, with the reason; RunError and StoreError for folders.
    """
    paths = [Path(run) for run in runs if not isinstance(run, Evaluation)]
    if len(paths) == len(runs) and names is None:
        return compare_runs(paths, model=model, defense=defense)
    if len(runs) < 2:
        raise ValueError(f"compare was given {len(runs)} evaluations: give two or more, or results folders")
    if names is not None and (len(names) != len(runs) or len(set(names)) != len(names)):
        raise ValueError(f"names={names!r} do not name {len(runs)} evaluations: give each its own name")
    called = names or [_letter(place) if isinstance(run, Evaluation) else str(run) for place, run in enumerate(runs)]
    found = []
    for name, run in zip(called, runs, strict=True):
        if isinstance(run, Evaluation):
            results, started = run.cells, "" if run.run is None else run.run.context.started
        else:
            stored = load_run(Path(run))
            results, started = tuple(stored.results()), stored.context.started
        if not results:
            raise CompareError(f"evaluation {name!r} has no results of attacks: it was made by hand")
        found.append((RunSource(name, cells.newest_commit(results), started), results))
    return compare_results(found, model=model, defense=defense)


def _letter(place: int) -> str:
    return chr(ord("a") + place) if place < 26 else str(place)
