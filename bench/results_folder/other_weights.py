"""Rows of one name whose runs evaluated different weights: only the newest run's row is in the tables, so that it is said."""

from __future__ import annotations

from gauntlet.bench.results_folder.all_runs import ShownRuns


def other_weights(runs: ShownRuns) -> list[str]:
    """A sentence for each model of which an older run evaluated other weights under the same name. Raises StoreError."""
    if len(runs.shown) < 2:
        return []
    found: dict[str, dict[str, frozenset[str]]] = {}
    for run in runs.shown:
        weights: dict[str, set[str]] = {}
        for cell in run.plan.cells:
            if digest := run.summary(cell).weights:
                weights.setdefault(cell.info.model, set()).add(digest)
        for model, digests in weights.items():
            found.setdefault(model, {})[run.folder.name] = frozenset(digests)
    lines = []
    for model, of_run in found.items():
        newest, *_ = of_run
        older = [name for name, digests in of_run.items() if not digests & of_run[newest]]
        if older:
            lines.append(
                f"{model}: run {', '.join(older)} evaluated other weights under this name; its rows of run {newest} stand in for "
                "them. Ask for both in one run, or in folders of their own, to have a row for each"
            )
    return lines
