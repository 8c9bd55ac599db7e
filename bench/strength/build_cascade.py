"""`gauntlet stages`: a cascade chosen by gain on half of the networks, and what it leaves on the other half."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gauntlet.bench.speed.measure import torch_threads
from gauntlet.bench.strength.cascade_trials import BEGIN, joined, offered, other_images, run_candidates
from gauntlet.bench.strength.conditions import SAMPLES, Condition
from gauntlet.bench.strength.greedy_cascade import Pick, Trial, apply, build
from gauntlet.bench.strength.networks import is_published, load_data_of

CANDIDATES = (
    "apgd(steps=20, loss=cw)",
    "apgd(steps=20, loss=pm)",
    "apgd(steps=20, loss=mifpe)",
    "apgd(steps=30)",
    "apgd-t(steps=10)",
    "apgd-t(steps=10, loss=cw_targeted)",
    "apgd-t(steps=20, loss=cw_targeted, targets=1)",
    "apgd-t(steps=30, loss=cw_targeted, targets=3)",
    "apgd-t(steps=100, loss=cw_targeted, targets=1, restarts=3)",
    "apgd-warm(warm_up=random, passes=4, steps=20, restarts=5)",
    "apgd-warm(warm_up=parts, passes=10, steps=20, restarts=2)",
    "apgd-warm(warm_up=probable_parts, passes=20, steps=20, restarts=2)",
    "fab(steps=15, classes=3, stop_inside=True)",
    "fab-t(steps=30, classes=3, stop_inside=True)",
    "square(queries=100)",
    "square(queries=500)",
    "square(queries=2000)",
)
"""Default candidates. Attacks of plugins are candidates too, such as the conjugate directions of `examples/acg`."""


@dataclass(frozen=True)
class BuildConfig:
    """The settings of the search."""

    conditions: Sequence[Condition]
    candidates: Sequence[str] = CANDIDATES
    networks: Path | None = None
    """The folder with the files of published networks; None: the zoo alone."""
    samples: int = SAMPLES
    """Number of images of each network, on either half."""
    seed: int = 0
    least_gain: float = 0.1
    """Least number of newly broken samples for each thousand passes."""


def build_cascade(setup: BuildConfig, progress: Callable[[str], None]) -> str:
    """For each norm of the conditions: the stages chosen on the networks that are not held out, and what they do on the others.

    Chosen on training images, or for published networks on images that `gauntlet strength` does not use; tested on the images
    that it uses. Raises as `run_candidates`, and FileNotFoundError for a missing file of a network.
    """
    held = [one for one in setup.conditions if setup.networks is not None or not is_published(one.network)]
    lines: list[str] = []
    with torch_threads(1):
        for norm in dict.fromkeys(one.threat.norm for one in held):
            of_norm = [one for one in held if one.threat.norm == norm]
            chosen = [one for one in of_norm if one.half == "for choosing"]
            if not chosen:
                lines += [f"{norm}: no network to choose by", ""]
                continue
            ran = [_trials(one, setup, setup.candidates, progress, other=True) for one in chosen]
            begin, trials = _united(ran)
            stages = build(offered(trials, 4.0 if norm == "L1" else 1.0), begin=[begin], least_gain=setup.least_gain)
            names = list(dict.fromkeys(one.name for one in stages))
            lines += [f"{norm}: chosen on {', '.join(map(str, chosen))}", "", *_table([begin, *stages]), ""]
            for one in (one for one in of_norm if one.half == "held out"):
                first, *rest = _trials(one, setup, names, progress, other=False)
                again = {trial.name: trial for trial in rest}
                tested = [first, *(_limited(again[stage.name], stage.near) for stage in stages)]
                last = apply(tested)[-1]
                lines.append(
                    f"{one}, held out: {last.standing} of {len(first.broken)} stand, {_mean(tested):.0f} passes a sample"
                )
            lines.append("")
    return "\n".join(lines).rstrip()


def _trials(
    condition: Condition, setup: BuildConfig, names: Sequence[str], progress: Callable[[str], None], *, other: bool
) -> list[Trial]:
    load = other_images if other else load_data_of
    data = load(condition.network, setup.networks, setup.samples)
    trials = []
    for trial in run_candidates(names, condition, data, setup.networks, setup.seed):
        trials.append(trial)
        progress(f"{condition}, {trial.name}: {int(trial.broken.sum())} of {len(trial.broken)} broken")
    return trials


def _united(ran: Sequence[Sequence[Trial]]) -> tuple[Trial, list[Trial]]:
    """The first trial, and the others on the samples that it leaves, all conditions together."""
    begin, *trials = (joined(same) for same in zip(*ran, strict=True))
    assert begin.name == BEGIN
    return begin, trials


def _limited(trial: Trial, near: float) -> Trial:
    return Trial(trial.name, trial.broken, trial.passes, trial.nearness, near)


def _mean(stages: Sequence[Trial]) -> float:
    return sum(one.passes for one in apply(stages)) / len(stages[0].broken)


def _table(stages: Sequence[Trial]) -> list[str]:
    rows = ["| stage | near | faced | broke | passes each | standing |", "| --- | --- | --- | --- | --- | --- |"]
    return [*rows, *(_row(one) for one in apply(stages))]


def _row(pick: Pick) -> str:
    near = "" if np.isinf(pick.near) else f"{pick.near:g}"
    each = pick.passes / pick.faced if pick.faced else 0.0
    return f"| {pick.name} | {near} | {pick.faced} | {pick.broke} | {each:.0f} | {pick.standing} |"
