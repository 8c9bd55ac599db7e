"""Rows of one name whose runs evaluated different models: only the newest run's row is in the tables, so that it is said."""

from __future__ import annotations

from collections.abc import Hashable

from gauntlet.bench.config.model_ref import given_settings
from gauntlet.bench.results_folder.all_runs import ShownRuns


def other_weights(runs: ShownRuns) -> list[str]:
    """A sentence for each model of which an older run evaluated other weights, or other settings, under the same name.

    Settings are those beside the weights, such as mean and std.

    Raises StoreError.
    """
    if len(runs.shown) < 2:
        return []
    weights: dict[str, dict[str, set[Hashable]]] = {}
    settings: dict[str, dict[str, set[Hashable]]] = {}
    for run in runs.shown:
        for cell in run.plan.cells:
            name = cell.info.model
            if digest := run.summary(cell).weights:
                weights.setdefault(name, {}).setdefault(run.folder.name, set()).add(digest)
                settings.setdefault(name, {}).setdefault(run.folder.name, set()).add(tuple(given_settings(cell.model)))
    lines = []
    for model, of_run in weights.items():
        newest, *_ = of_run
        # Mean and std are buffers of the model, and so part of the digest.
        other = _differ(settings[model])
        kinds = [(other, "other settings"), ([run for run in _differ(of_run) if run not in other], "other weights")]
        lines += [
            f"{model}: run {', '.join(older)} evaluated {kind} under this name; its rows of run {newest} stand in for "
            "them. Ask for both in one run, or in folders of their own, to have a row for each"
            for older, kind in kinds
            if older
        ]
    return lines


def _differ(of_run: dict[str, set[Hashable]]) -> list[str]:
    """The runs that share nothing with the newest one, which is the first."""
    newest, *_ = of_run
    return [name for name, found in of_run.items() if not found & of_run[newest]]
