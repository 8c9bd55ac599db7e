"""The table, the Markdown report and the picture of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from gauntlet.attacks.registry.settings import Setting
from gauntlet.bench.sweep.convergence import AxisVerdict, PointOutcome, by_series
from gauntlet.bench.sweep.grid import Axis, settings_text
from gauntlet.leaderboard.pictures.sweep_curves import SweepPoint, accuracy_against_setting
from gauntlet.leaderboard.report.csv_writer import typed_frame
from gauntlet.leaderboard.report.formatting import number, with_interval
from gauntlet.leaderboard.results.escape import fenced
from gauntlet.leaderboard.results.escape import markdown as safe

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.figure import Figure

_FIGURES = {
    "attack": "string",
    "threat": "string",
    "n": "Int64",
    "seeds": "Int64",
    "clean_accuracy": "float64",
    "robust_accuracy": "float64",
    "robust_low": "float64",
    "robust_high": "float64",
    "seed_least": "float64",
    "seed_most": "float64",
    "forwards_per_sample": "float64",
    "backwards_per_sample": "float64",
    "seconds": "float64",
}

READING = (
    "Robust accuracy is the share of the n samples that are classified correctly when clean and under the attack with these "
    "settings, for every seed, with the 95 % Clopper-Pearson interval in brackets. Passes are forward / backward, summed over "
    "the seeds. Converged means that larger values of the setting do not break significantly more samples. It says nothing about "
    "other attacks: an attack that is misled by masked gradients converges too."
)


def sweep_frame(outcomes: Sequence[PointOutcome], axes: Sequence[Axis]) -> pd.DataFrame:
    """A row for each setting: a column for each axis (Int64, float64 or string), then the figures; accuracies in [0, 1].

    `seed_least` and `seed_most` are the smallest and largest robust accuracies of a seed.
    """
    dtypes = {axis.name: _dtype(axis.values) for axis in axes} | _FIGURES
    return typed_frame([_line(one, axes) for one in outcomes], dtypes)


def sweep_markdown(
    title: str,
    outcomes: Sequence[PointOutcome],
    axis_verdicts: Sequence[AxisVerdict],
    failures: Sequence[str],
    command: str,
) -> str:
    """The report: verdicts, table, failures, and the command that reproduces it."""
    parts = [f"# Sweep: {safe(title)}", "\n".join(f"- {safe(one.sentence)}" for one in axis_verdicts)]
    if outcomes:
        seeds = len(outcomes[0].by_seed) > 1
        header = [
            "setting",
            "threat model",
            "robust",
            "n",
            *(["single seeds"] if seeds else []),
            "passes a sample",
            "s",
        ]
        rule = [":--", ":--", *["--:"] * (len(header) - 2)]
        lines = [_entries(one, seeds) for one in outcomes]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *lines]))
    if failures:
        parts.append("## Errors\n\n" + "\n".join(f"- {safe(one, 600)}" for one in failures))
    parts += [READING, "## Reproduce", fenced(command)]
    return "\n\n".join(part for part in parts if part) + "\n"


def sweep_figure(title: str, outcomes: Sequence[PointOutcome], axes: Sequence[Axis]) -> Figure:
    """Robust accuracy against the main axis and against cost. Raises PicturesMissingError without matplotlib."""
    main, series = by_series(outcomes, axes)
    marks = {
        name: [SweepPoint(_shown(one.point.values[main.name]), one.accuracy, one.passes) for one in members]
        for name, members in series.items()
    }
    n = len(outcomes[0].robust)
    return accuracy_against_setting(
        marks, main.name, f"{title}\nn {n}, bars: 95 % intervals", joined=main.kind == "budget"
    )


def _line(one: PointOutcome, axes: Sequence[Axis]) -> dict[str, Any]:
    low, high = one.accuracy.interval
    single = [seed.estimate for seed in one.by_seed]
    values = one.point.values
    return {
        axis.name: str(values[axis.name]) if _dtype(axis.values) == "string" else values[axis.name] for axis in axes
    } | {
        "attack": one.point.attack,
        "threat": one.point.threat,
        "n": len(one.robust),
        "seeds": len(single),
        "clean_accuracy": float(one.correct.mean()),
        "robust_accuracy": one.accuracy.estimate,
        "robust_low": low,
        "robust_high": high,
        "seed_least": min(single),
        "seed_most": max(single),
        "forwards_per_sample": one.forwards,
        "backwards_per_sample": one.backwards,
        "seconds": one.seconds,
    }


def _entries(one: PointOutcome, seeds: bool) -> list[str]:
    single = [f"{100 * seed.estimate:.1f}" for seed in one.by_seed]
    return [
        safe(settings_text(one.point)),
        safe(one.point.threat),
        with_interval(one.accuracy),
        str(len(one.robust)),
        *([", ".join(single)] if seeds else []),
        f"{number(one.forwards)} / {number(one.backwards)}",
        number(one.seconds),
    ]


def _dtype(values: Sequence[Setting]) -> str:
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        return "string"
    return "Int64" if all(isinstance(value, int) for value in values) else "float64"


def _shown(value: Setting) -> float | str:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
