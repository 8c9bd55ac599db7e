"""Checks of an attack's effort: whether more steps or random points break more samples."""

from __future__ import annotations

from itertools import takewhile

import torch
from torch import Tensor

from gauntlet.attacks.ops.norms import random_point
from gauntlet.attacks.ops.random import Draws, model_randomness
from gauntlet.attacks.solving.cascade import Cascade
from gauntlet.attacks.views.guard import guarded
from gauntlet.attacks.views.rejection_view import reduced
from gauntlet.bench.checks.run_attack import MarginHistory, run_attack, unbroken
from gauntlet.bench.checks.strength import NO_ATTACK, unbroken_by
from gauntlet.bench.checks.subject import Finding, Subject, fired, not_applicable, passed
from gauntlet.bench.executors.executable import Executable
from gauntlet.bench.executors.native import NativeExecutable

NOISE_DRAWS = 10_000
NOISE_DRAWS_SLOW = 200
"""The number for slow defenses."""
_NOISE_SAMPLES = 32
_NOISE_TOGETHER = 64
"""Draws of a sample per pass."""
_SEARCHES = frozenset({"probe", "black-box", "decision-based"})
"""Techniques of stages without gradients."""
_TESTED = 48
LAST_STEPS = 10
IMPROVEMENT = 0.05
"""Share of the clean margin; an attack that gains more in its last steps was stopped too early."""
MORE = 0.002
"""Share of the samples by which two figures may differ; at least `LEAST` samples."""
LEAST = 3


def converged(subject: Subject) -> Finding:
    """Twice the steps and another restart break no more samples (Carlini et al. 2019)."""
    name = "converged"
    few = subject.few(_TESTED).right
    if subject.attack is None or not subject.attack.stages or not len(few.labels):
        return not_applicable(name, "Only native attacks can be run with more steps.")
    harder = subject.attack.harder()
    if all(one.rule is other.rule for one, other in zip(subject.attack.stages, harder.stages, strict=True)):
        return not_applicable(name, "The attack has no steps, queries or restarts that could be doubled.")
    before, after = unbroken_by(few, subject.attack), unbroken_by(few, harder)
    more, count = int((before & ~after).sum()), len(few.labels)
    figures = {"more": more, "standing": int(before.sum()), "samples": count}
    sentence = f"Twice the steps and another restart break {more} more of {int(before.sum())} unbroken samples ({count} samples)"
    if more < _at_least(count):
        return passed(name, f"{sentence}.", **figures)
    return fired(
        name,
        "warn",
        f"{sentence}: the attack was stopped too early. Raise its steps until the figure stays the same.",
        evidence=figures,
        samples=few.named(before & ~after),
    )


def incomplete_optimisation(subject: Subject) -> Finding:
    """The last 10 steps reduce no sample's margin by more than 0.05 of the clean margin (Pintor et al. 2022, indicator 5)."""
    name, few = "incomplete-optimisation", subject.few(_TESTED).right
    if subject.attack is None or not subject.attack.stages or subject.randomised or not len(few.labels):
        return not_applicable(name, "Steps are recorded for native attacks on models that are not randomised.")
    course = MarginHistory()
    left = unbroken(run_attack(few, course.watch(subject.attack.stages)), few.labels.device)
    going = torch.tensor([_improves(course.nearest.get(row, [1.0])) for row in range(len(left))], device=left.device)
    early = left & going
    count, rest = int(early.sum()), int(left.sum())
    figures = {"still_improving": count, "standing": rest}
    sentence = f"For {count} of {rest} unbroken samples, the last {LAST_STEPS} steps gained more than {100 * IMPROVEMENT:.0f} %"
    if count < max(LEAST, 0.05 * rest):
        return passed(name, f"{sentence} of the clean margin.", **figures)
    return fired(
        name,
        "warn",
        f"{sentence} of the clean margin: the attack was stopped while it still made progress. Raise its steps.",
        evidence=figures,
        samples=few.named(early),
    )


def random_noise(subject: Subject, most: int | None = None) -> Finding:
    """10,000 random points in the ball break no sample that the attack left (Carlini et al. 2019).

    `most`: number of points of all samples together, if there is a limit. Points are tried around the samples that the short
    stages of a cascade left; where they break one, the whole attack has to break it too.
    """
    name, few = "random-noise", subject.few(_NOISE_SAMPLES).right
    if subject.attack is None or not len(few.labels):
        return not_applicable(name, NO_ATTACK)
    left, short = _left(few, subject.attack)
    rest = few.of(left.nonzero().squeeze(1))
    standing = len(rest.labels)
    draws = NOISE_DRAWS_SLOW if subject.slow else NOISE_DRAWS
    if most is not None:
        draws = min(draws, most // max(1, standing))
    broken = _broken_by_noise(rest, draws) if standing else torch.zeros_like(rest.labels, dtype=torch.bool)
    if short and broken.any():
        rows = broken.nonzero().squeeze(1)
        broken = broken.index_copy(0, rows, unbroken_by(rest.of(rows), subject.attack))
    count = int(broken.sum())
    figures = {"broken_by_noise": count, "standing": standing, "draws": draws}
    by = "short stages of the attack" if short else "attack"
    sentence = f"{draws:,} random points of the ball break {count} of {standing} samples that the {by} left"
    if not count:
        return passed(name, f"{sentence}.", **figures)
    return fired(
        name,
        "block",
        f"{sentence}{', and that all of it leaves' if short else ''}: random search is stronger than the attack. Use another "
        "attack: --attacks adaptive.",
        needs=(name,),
        evidence=figures,
        samples=rest.named(broken),
    )


def _left(subject: Subject, attack: Executable) -> tuple[Tensor, bool]:
    """The samples to try random points around, bool (N,), and whether only the short stages of the attack left them.

    The later stages of a cascade cost most and break little where gradients are of use: points around what the short ones left
    are points around what the whole attack leaves. Where half of a sample's gradients vanish, or the attack searches by
    decisions, later stages break much: then the whole attack runs.
    """
    row = tuple(takewhile(lambda stage: stage.when is None and stage.technique not in _SEARCHES, attack.stages))
    searches = any("decision-based" in stage.technique for stage in attack.stages)
    if searches or len(row) == len(attack.stages) or all(stage.view for stage in row):
        return unbroken_by(subject, attack), False
    outcomes = run_attack(subject, NativeExecutable("short stages", Cascade(row)))
    if any(outcome.dead for outcome in outcomes if outcome.adversarial is None):
        return unbroken_by(subject, attack), False
    return unbroken(outcomes, subject.labels.device), True


def _broken_by_noise(subject: Subject, count: int) -> Tensor:
    """Samples that random points break, bool (N,): misclassified points are verified."""
    images, labels = subject.images, subject.labels
    every = torch.arange(len(labels), device=labels.device)
    verify = subject.verifier(subject.threat)
    broken = torch.zeros_like(labels, dtype=torch.bool)
    draws = subject.draws("random noise")
    with guarded(subject.pipeline, subject.seed), torch.no_grad():
        for first in range(0, count, _NOISE_TOGETHER):
            rows = every[~broken].repeat(min(_NOISE_TOGETHER, count - first))
            if not len(rows):
                break
            number = first + torch.arange(len(rows), device=rows.device) // int((~broken).sum())
            own = Draws(draws.keys[rows], torch.zeros_like(rows), number)
            points = random_point(images[rows], subject.threat, own)
            with model_randomness(own):
                outputs = subject.pipeline(points)
            logits = reduced(outputs, labels[rows]) if subject.pipeline.rejects else outputs
            wrong = (logits.argmax(1) != labels[rows]).nonzero().squeeze(1)
            if len(wrong):
                won = verify(points[wrong], rows[wrong], number[wrong]).success
                broken[rows[wrong][won]] = True
    return broken


def _improves(path: list[float]) -> bool:
    return len(path) > 1 and path[-min(LAST_STEPS + 1, len(path))] - path[-1] > IMPROVEMENT


def _at_least(count: int) -> float:
    return max(LEAST, MORE * count)
