"""Targets that begin with the class that earlier stages came nearest to, not with the most likely one of the clean image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from gauntlet.attacks.apgd import APGD
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.solver import Stage, Task, solve
from gauntlet.attacks.square import Square
from gauntlet.bench.verify.verifier import Verifier

THREAT = ThreatModel("Linf", 0.2)


class Decoy(nn.Module):
    """Class 1 is the most likely wrong class and out of reach; class 2 is farther from the clean image, and within reach."""

    def forward(self, x):
        flat = x.flatten(1)
        none = torch.zeros_like(flat[:, 0])
        return torch.stack([none, none - 1, 10 * (flat - 0.5).mean(1) - 1.5, none - 3], dim=1)


class Point(NamedTuple):
    x: Tensor


@dataclass(frozen=True)
class Shift(Rule[Point]):
    """Looks at one point, where class 2 is nearer than class 1."""

    by: float = 0.1
    steps: int = 1

    def start(self, oracle):
        return Point(oracle.clean + self.by)

    def step(self, state, oracle):
        oracle.logits(state.x)
        return state


TOWARDS = Stage("towards", APGD(steps=10, loss="cw_targeted", targets=1))


def task(count=3):
    images = torch.full((count, 1, 2, 2), 0.5)
    return Task(images, torch.zeros(count, dtype=torch.int64), [str(i) for i in range(count)], THREAT, 0, "a")


def ordered(found):
    return sorted(found, key=lambda one: one.sample)


def attacked(stages, model=None, count=3, **settings):
    model, one = model or Decoy().eval(), task(count)
    verifier = Verifier(model, one.images, one.labels, one.ids, one.threat, seed=0)
    return ordered(solve(stages, model, one, verifier, classes=4, **settings))


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_a_stage_turns_to_the_class_that_a_stage_before_came_nearest_to(batch_size):
    stages = [Stage("shift", Shift()), replace(TOWARDS, rival_first=True)]
    found = attacked(stages, batch_size=batch_size)
    assert [(one.stage, one.rival) for one in found] == [("towards", 2)] * 3
    assert all(one.adversarial.mean() > 0.6 for one in found)


def test_without_it_the_most_likely_class_is_the_target_and_leads_nowhere():
    found = attacked([Stage("shift", Shift()), TOWARDS])
    assert [one.adversarial for one in found] == [None] * 3


def test_without_a_stage_before_the_most_likely_class_comes_first():
    found = attacked([replace(TOWARDS, rival_first=True)])
    assert [one.adversarial for one in found] == [None] * 3


def test_a_point_that_is_farther_than_the_clean_image_is_passes_the_class_on_that_is_nearest_there():
    # Away from class 2 the nearest class is 1 at all points: the most likely class of the clean image.
    found = attacked([Stage("shift", Shift(by=-0.1)), replace(TOWARDS, rival_first=True)])
    assert [(one.stage, one.rival) for one in found] == [("", 1)] * 3


def test_the_other_targets_follow_in_the_order_of_the_clean_image():
    model = Decoy().eval()
    seen = []

    class Watched(APGD):
        """Notes its targets."""

        def start(self, oracle):
            state = super().start(oracle)
            seen.extend(zip(oracle.restart.tolist(), state.target.tolist(), strict=True))
            return state

    watched = Stage("every", Watched(steps=3, loss="cw_targeted", targets=3), rival_first=True)
    out_of_reach = ThreatModel("Linf", 0.12)
    one = replace(task(1), threat=out_of_reach)
    verifier = Verifier(model, one.images, one.labels, one.ids, out_of_reach, seed=0)
    found = ordered(solve([Stage("shift", Shift()), watched], model, one, verifier, classes=4))
    assert found[0].adversarial is None
    assert seen == [(0, 2), (1, 1), (2, 3)]


def test_restarts_side_by_side_have_the_targets_that_they_have_one_after_another():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4)).eval().requires_grad_(False)
    images = torch.rand(12, 1, 2, 2)
    labels = model(images).argmax(1)
    one = Task(images, labels, [str(i) for i in range(12)], ThreatModel("Linf", 0.1), 0, "a")
    stages = [
        Stage("probe", Square(queries=5)),
        Stage("towards", APGD(steps=5, loss="dlr_targeted", targets=3, restarts=2), rival_first=True),
        Stage("again", APGD(steps=20, loss="cw_targeted", targets=2, restarts=3), rival_first=True),
    ]

    def run(**settings):
        verifier = Verifier(model, one.images, one.labels, one.ids, one.threat, seed=0)
        found = ordered(solve(stages, model, one, verifier, classes=4, **settings))
        return [(o.stage, o.rival, o.forwards, o.backwards, o.nearest, o.adversarial is None) for o in found]

    expected = run(batch_size=12)
    assert run(batch_size=12, useful=lambda: 12) == expected
    assert run(batch_size=5, useful=lambda: 5) == expected
    assert len({stage for stage, *_ in expected}) > 1


def test_it_is_part_of_what_a_stored_result_is_keyed_by():
    assert repr(TOWARDS) != repr(replace(TOWARDS, rival_first=True))
