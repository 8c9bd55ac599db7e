"""MALT: the order of targets on models whose boundaries are known, and costs that do not grow with the number of classes."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

import gauntlet.attacks.solving.stage_queue as queues
from builders import linear, slow_unless
from gauntlet.attacks.apgd import APGD
from gauntlet.attacks.apgd_l1 import APGDL1
from gauntlet.attacks.gauntlet import budget
from gauntlet.attacks.malt import TargetOrder, build
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.parts.apgd_common import likely_target
from gauntlet.attacks.solving.solver import Stage, Task, Verification, solve

SIDE = 3
DUAL = {"Linf": 1, "L2": 2, "L1": torch.inf}


def affine(classes, seed=0):
    """A linear model with rows of very different sizes, so that the likeliest class is not the nearest one; image and label."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, SIDE * SIDE, generator=generator, dtype=torch.float64)
    weight = (
        weight * torch.logspace(-1, 1, classes, dtype=torch.float64)[torch.randperm(classes, generator=generator), None]
    )
    image = torch.rand(6, 1, SIDE, SIDE, generator=generator, dtype=torch.float64)
    model = linear(weight)
    logits = model(image)
    return model, image, logits.argmax(1), weight


def nobody(points, samples, attempt):
    nothing = torch.zeros(len(points), dtype=torch.bool)
    return Verification(nothing, nothing, nothing)


class Targets(APGDL1):
    """Notes the class of each start, and goes nowhere."""

    noted: ClassVar[list] = []

    def start(self, oracle):
        known, targets = oracle.slots.known, likely_target(oracle, self.targets)
        Targets.noted += zip(known.sample.tolist(), known.restart.tolist(), targets.tolist(), strict=True)
        return super().start(oracle)

    def step(self, state, oracle):
        oracle.logits(oracle.clean)
        return state


def attacked(stages, model, images, labels, norm, batch_size=256, seed=0):
    task = Task(images, labels, [str(i) for i in range(len(labels))], ThreatModel(norm, 1e-3), seed, "test")
    classes = model(images[:1]).shape[1]
    return sorted(
        solve(stages, model, task, nobody, classes=classes, batch_size=batch_size), key=lambda one: one.sample
    )


@pytest.mark.parametrize("norm", sorted(DUAL))
@pytest.mark.parametrize("batch_size", [2, 256])
def test_targets_follow_the_distance_of_their_boundaries(norm, batch_size):
    model, images, labels, weight = affine(40)
    Targets.noted = []
    stages = [
        Stage("order", TargetOrder(candidates=39)),
        Stage("next", Targets(steps=1, loss="cw_targeted", multi_eps=False), rival_first=True),
    ]
    attacked(stages, model, images, labels, norm, batch_size)
    logits = model(images)
    for sample, label in enumerate(labels.tolist()):
        slope = (weight - weight[label]).norm(p=DUAL[norm], dim=1)
        distance = (logits[sample, label] - logits[sample]) / slope
        distance[label] = torch.inf
        expected = distance.argsort()[:9].tolist()
        likeliest = int(logits[sample].scatter(0, torch.tensor(label), -torch.inf).argmax())
        # The class that the first stage came nearest to is the likeliest one of the clean image, where it made all its passes.
        expected = [likeliest, *[one for one in expected if one != likeliest]][:9]
        found = [target for _, _, target in sorted(one for one in Targets.noted if one[0] == sample)]
        assert found == expected
    likely = [logits[s].scatter(0, labels[s], -torch.inf).topk(9).indices.tolist() for s in range(len(labels))]
    assert [[t for _, _, t in sorted(n for n in Targets.noted if n[0] == s)] for s in range(len(labels))] != likely


def test_only_the_likeliest_candidates_are_ranked():
    model, images, labels, _ = affine(40)
    Targets.noted = []
    stages = [
        Stage("order", TargetOrder(candidates=4)),
        Stage("next", Targets(steps=1, loss="cw_targeted", multi_eps=False), rival_first=True),
    ]
    attacked(stages, model, images, labels, "Linf")
    for sample in range(len(labels)):
        likely = model(images)[sample].scatter(0, labels[sample], -torch.inf).topk(9).indices.tolist()
        found = [target for _, _, target in sorted(one for one in Targets.noted if one[0] == sample)]
        assert sorted(found[:4]) == sorted(likely[:4])
        assert found[4:] == likely[4:]


@pytest.mark.parametrize(
    ("attack", "norm"),
    [
        ("gauntlet", "Linf"),
        slow_unless(False, "gauntlet", "L2"),
        slow_unless(False, "gauntlet", "L1"),
        ("gauntlet:fast", "Linf"),
        slow_unless(False, "gauntlet:thorough", "Linf"),
        ("malt", "L1"),
    ],
)
def test_passes_and_slots_do_not_grow_with_the_number_of_classes(attack, norm, monkeypatch):
    """Nothing is broken, so that every sample has its whole budget."""
    held = []

    def watched(queue, shared):
        answer = queues.step(queue, shared)
        running = queue.running
        held.append(
            0 if running is None else sum(one.numel() for one in running.state if isinstance(one, torch.Tensor))
        )
        return answer

    monkeypatch.setattr("gauntlet.attacks.solving.solver.step", watched)
    threat = ThreatModel(norm, 1e-3)
    stages = build(threat, steps=10).stages if attack == "malt" else budget(attack, norm)
    (ranked,) = (stage.rule.candidates for stage in stages if stage.rule.ranks_targets)
    passes, steps, state = {}, {}, {}
    for classes in (10, 100, 1000):
        model, images, labels, _ = affine(classes)
        # Far from every boundary: conditions on nearness hold for no sample, whatever the number of classes.
        model[1].bias[labels] += 1000
        labels = model(images).argmax(1)
        held.clear()
        outcomes = attacked(stages, model, images, labels, norm)
        passes[classes] = max(one.forwards + one.backwards for one in outcomes)
        steps[classes], state[classes] = len(held), max(held)
    for classes in (100, 1000):
        # Above ten classes there is the ranking, a forward and a backward pass for each of a fixed number of candidates.
        assert passes[classes] == passes[10] + 2 * min(ranked, classes - 1)
        assert steps[classes] == steps[10] + min(ranked, classes - 1)
    # One candidate more than a model of a hundred classes has.
    assert state[1000] <= state[100] + len(labels)


def test_ten_classes_are_attacked_without_a_ranking():
    model, images, labels, _ = affine(10)
    for outcome in attacked(budget("gauntlet", "Linf"), model, images, labels, "Linf"):
        assert "order" not in outcome.faced


def test_malt_beats_targets_by_likelihood_where_the_nearest_class_is_unlikely():
    """The nearest boundary is that of a class which is among the least likely ones."""
    classes = 40
    weight = torch.zeros(classes, SIDE * SIDE, dtype=torch.float64)
    weight[30] = 50.0 / SIDE**2
    bias = torch.zeros(classes, dtype=torch.float64)
    bias[0], bias[30] = 4.0, -27.0
    bias[1:30] = 1.0
    model = linear(weight, bias)
    images = torch.full((4, 1, SIDE, SIDE), 0.5, dtype=torch.float64)
    labels = torch.zeros(4, dtype=torch.int64)
    threat = ThreatModel("Linf", 0.2)
    task = Task(images, labels, list("abcd"), threat, 0, "test")

    def verify(points, samples, attempt):
        wrong = model(points).argmax(1) != labels[samples]
        return Verification(wrong, torch.zeros_like(wrong), torch.zeros_like(wrong))

    likely = list(solve(APGD(steps=10, loss="cw_targeted"), model, task, verify, classes=classes))
    malt = list(solve(build(threat, steps=10).stages, model, task, verify, classes=classes))
    assert all(one.adversarial is None for one in likely)
    assert all(one.adversarial is not None for one in malt)
