"""Evidence where no example can be planted: a view of the pipeline falls, and its examples break the pipeline.

The undefended twin, or an inner view, is a model with gradients of use. Where it falls to at most 5 % at the radius of the row,
at least 95 % of its examples break the pipeline too, and the attack that made the figure breaks those samples as well, the
attack works here. A view that falls alone says nothing of the pipeline; nor does one that stands.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from gauntlet.attacks.adaptive import BENEATH, TWIN
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.slide import SLIDE
from gauntlet.attacks.solving.cascade import Cascade
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.solver import Stage
from gauntlet.attacks.views.backward_modes import Backward
from gauntlet.bench.checks.run_attack import run_attack, stage_models, unbroken
from gauntlet.bench.checks.subject import Finding, Subject, not_applicable, passed
from gauntlet.bench.executors.native import NativeExecutable
from gauntlet.defenses.pipeline.defended_model import DefendedModel

STANDING = 0.05
"""Largest robust accuracy of a view that falls."""
CARRIED = 0.95
"""Least share of the examples of a view that break the pipeline, and of these that the attack breaks too."""
LEAST = 3
"""Fewer samples than this are no evidence."""
STEPS, RESTARTS = 40, 2
VIEWS = 4
"""Largest number of views that are tried: declared ones, then the strongest inner ones."""


def carried_over(subject: Subject) -> list[Finding]:
    """A finding for each view of the subject's pipeline, until one of them passes."""
    findings: list[Finding] = []
    views = sorted(stage_models(subject).items(), key=lambda named: named[0] not in (TWIN, BENEATH))
    for name, view in views[:VIEWS]:
        try:
            findings.append(_carried_over(subject, name, view))
        except Exception as error:
            # Views run the user's code, as checks do.
            findings.append(not_applicable(name, f"It cannot be attacked: {type(error).__name__}: {error}"))
        if findings[-1].result == "passed":
            break
    return findings


def _carried_over(subject: Subject, name: str, view: nn.Module) -> Finding:
    bare = replace(subject, pipeline=DefendedModel(view, differentiable=True, randomised=False), victim=None)
    both = (bare.correct & subject.correct).nonzero().squeeze(1)
    count = len(both)
    if subject.attack is None or count < LEAST:
        return not_applicable(name, f"Only {count} samples are right both in the view and in the pipeline.")
    norm = subject.threat.norm
    rule: Rule[Any] = SLIDE(steps=STEPS, loss="cw") if norm == "L1" else PGD(steps=STEPS, loss="cw", restarts=RESTARTS)
    device = subject.labels.device
    # As the attack sees the view: some need an intercepted pass.
    backward: Backward = next((stage.backward for stage in subject.attack.stages if stage.view == name), "true")
    alone = NativeExecutable("the view", Cascade((Stage("view", rule, backward=backward),)))
    standing = unbroken(run_attack(bare.of(both), alone), device)
    fallen = subject.of(both[~standing])
    if int(standing.sum()) > STANDING * count:
        return not_applicable(name, f"{int(standing.sum())} of {count} samples stand in the view itself.")
    along = NativeExecutable("along the view", Cascade((Stage("view", rule, None, backward, name, "transfer"),)))
    carried = ~unbroken(run_attack(fallen, along), device)
    examples, both_broken = len(fallen.labels), int(carried.sum())
    sentence = f"{both_broken} of {examples} examples of the view break the pipeline"
    if both_broken < CARRIED * examples:
        return not_applicable(name, f"{sentence}.")
    left = unbroken(run_attack(fallen, subject.attack), device)
    missed = int((carried & left).sum())
    sentence = f"{sentence}; the attack misses {missed} of these"
    if missed > (1 - CARRIED) * both_broken:
        return not_applicable(name, f"{sentence}.")
    figures = {"standing": int(standing.sum()), "samples": count, "examples": examples, "carried over": both_broken}
    return passed(name, f"{sentence}.", **figures, missed=missed)
