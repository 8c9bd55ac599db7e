"""A budget that follows what it gains: a sample goes on where its pace would suffice, and is given up where it would not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from builders import Function, linear
from gauntlet.attacks.apgd import APGD
from gauntlet.attacks.fab import FAB
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.solver import Stage
from gauntlet.attacks.square import Square
from gauntlet.attacks.square import State as SquareState
from solving import Recorder, assert_same, exact_distance, never, outcomes

LINF = ThreatModel("Linf", 0.1)
BUDGET, PATIENCE = 64, 4


class State(NamedTuple):
    steps: Tensor
    first: Tensor
    slope: Tensor


@dataclass(frozen=True)
class Logarithmic(Rule[State]):
    """Its gap after t steps is a − b·log2(t), with a and b from the first two pixels of the clean image, in tenths."""

    restarts: int = 1

    @property
    def budget(self) -> int:
        return BUDGET

    def start(self, oracle):
        pixels = (10 * oracle.clean.flatten(1).double()).round()
        first = torch.where(pixels[:, 0] == 10, torch.inf, pixels[:, 0])
        return State(torch.zeros_like(oracle.labels), first, pixels[:, 1])

    def step(self, state, oracle):
        oracle.logits(oracle.clean)
        return state._replace(steps=state.steps + 1)

    def last(self, state):
        return None

    def gap(self, state):
        return state.first - state.slope * state.steps.double().log2()


def logarithmic(pairs, rule=None, patience=PATIENCE, **options):
    """Forward passes of a sample for each pair (a, b)."""
    images = torch.zeros(len(pairs), 1, 1, 2)
    images[:, 0, 0] = torch.tensor(pairs) / 10
    model = linear(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), torch.tensor([9.0, 0.0]), dtype=torch.float32)
    stage = Stage("only", rule or Logarithmic(), patience=patience)
    found = outcomes([stage], model, images, torch.zeros(len(pairs), dtype=torch.int64), LINF, **options)
    return [one.forwards for one in found]


def test_a_sample_goes_on_where_its_pace_suffices_and_is_given_up_at_the_second_look_where_it_does_not():
    # Of 64 steps, log2(64) = 6 doublings: a gap of 6 with a slope of 1 closes at the very end, one of 7 does not.
    assert logarithmic([(6, 1), (7, 1), (9, 2), (9, 0), (0, 0)]) == [64, 8, 64, 8, 64]


def test_a_gap_that_stays_unknown_is_given_up():
    assert logarithmic([(10, 0)]) == [8]


def test_without_patience_every_sample_has_the_whole_budget():
    assert logarithmic([(7, 1), (10, 0)], patience=0) == [64, 64]


def test_a_restart_is_looked_at_afresh():
    assert logarithmic([(6, 1), (7, 1)], Logarithmic(restarts=3)) == [192, 24]


@pytest.mark.parametrize("size", [1, 2])
def test_which_samples_share_a_batch_plays_no_part(size):
    pairs = [(6, 1), (7, 1), (9, 0), (9, 2), (5, 1)]
    assert logarithmic(pairs, batch_size=size) == logarithmic(pairs)
    assert logarithmic(pairs[::-1], batch_size=size) == logarithmic(pairs)[::-1]


def test_patience_is_part_of_the_key_and_its_absence_is_not():
    assert "patience" not in repr(Stage("only", Square(queries=9)))
    assert "patience=4" in repr(Stage("only", Square(queries=9), patience=4))


def central(n=12):
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(2, 36, generator=generator)
    images = 0.4 + 0.2 * torch.rand(n, 1, 6, 6, generator=generator)
    model = linear(weight, -(weight @ images.flatten(1).mean(0)), dtype=torch.float32)
    return model, images, model(images).argmax(1)


def test_a_search_that_is_given_up_has_made_the_first_queries_of_the_whole_search():
    model, images, labels = central()
    recorders = {patience: Recorder(model) for patience in (0, 20)}
    counts = {}
    for patience, recorder in recorders.items():
        stages = [Stage("only", Square(queries=200), patience=patience)]
        found = outcomes(stages, recorder, images, labels, ThreatModel("Linf", 0.01), verify=never, batch_size=99)
        counts[patience] = [one.forwards for one in found]
    assert counts[0] == [200] * len(images)
    assert min(counts[20]) == 40
    for query in range(min(counts[20])):
        assert torch.equal(recorders[0].seen[query], recorders[20].seen[query])


@pytest.mark.parametrize("probabilities", [False, True])
def test_search_spends_less_on_what_cannot_be_broken_and_breaks_as_before_what_it_can(probabilities):
    logits, images, labels = central(20)
    model = torch.nn.Sequential(logits, torch.nn.Softmax(1)) if probabilities else logits
    exact = exact_distance(logits, images, labels, "Linf")
    threat = ThreatModel("Linf", float(exact.median()))
    whole, given = (
        outcomes([Stage("only", Square(queries=400), patience=p)], model, images, labels, threat) for p in (0, 50)
    )
    for one, other, nearest in zip(whole, given, exact, strict=True):
        if other.adversarial is not None or one.forwards <= 100:
            assert_same([one], [other])
        if nearest > 1.5 * threat.eps:
            assert (one.forwards, other.forwards) == (400, 100)
    assert sum(one.adversarial is not None for one in given) >= 0.3 * len(given)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_the_gap_of_probabilities_is_the_margin_of_the_logits_behind_them(temperature):
    logits = torch.tensor([[4.0, 1.0, -2.0], [0.5, 0.25, 0.0]], dtype=torch.float64)
    nothing = torch.zeros(2)
    gaps = {}
    for name, outputs in {"scores": logits, "probabilities": (logits / temperature).softmax(1)}.items():
        margin = outputs[:, 0] - outputs[:, 1]
        state = SquareState(nothing, margin, outputs[:, 0], outputs.sum(1), *[nothing] * 6)
        gaps[name] = Square().gap(state)
    torch.testing.assert_close(gaps["probabilities"], gaps["scores"] / temperature)


STEPS = 64


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(
    "rule",
    [
        APGD(steps=STEPS, loss="cw_targeted", targets=1),
        APGD(steps=STEPS, loss="dlr_targeted", targets=1),
        APGD(steps=STEPS, loss="cw"),
        FAB(steps=STEPS, classes=1, stop_inside=True),
    ],
    ids=["cw_targeted", "dlr_targeted", "cw", "fab"],
)
def test_ascents_and_projections_give_up_what_cannot_be_broken_and_break_what_can(rule, norm):
    # On a linear model the verdict is known: a sample can be broken where its exact distance is within eps.
    model, images, labels = central(24)
    exact = exact_distance(model, images, labels, norm)
    threat = ThreatModel(norm, float(exact.median()) * 1.0001)
    whole, given = (outcomes([Stage("only", rule, patience=p)], model, images, labels, threat) for p in (0, 4))
    within = (exact < 0.999 * threat.eps).tolist()
    beyond = (exact > 1.05 * threat.eps).tolist()
    assert any(within)
    assert any(beyond)
    for one, other, inside, outside in zip(whole, given, within, beyond, strict=True):
        if inside:
            assert one.adversarial is not None
            assert_same([one], [other])
        if outside:
            assert other.adversarial is None
            assert other.taken == 8 < one.taken == STEPS


@pytest.mark.parametrize(
    "rule",
    [APGD(steps=STEPS, loss="cw_targeted", targets=1), FAB(steps=STEPS, classes=1, stop_inside=True)],
    ids=["apgd", "fab"],
)
def test_a_restart_whose_gradients_vanish_has_its_whole_budget(rule):
    # Vanished gradients say that gradients are masked: how many are seen must not depend on how early a stage gives up.
    model = Function(lambda x: 0 * x.flatten(1)[:, :3] + torch.tensor([3.0, 1.0, 0.0]))
    images = torch.full((4, 1, 6, 6), 0.5)
    labels = torch.zeros(4, dtype=torch.int64)
    whole, given = (outcomes([Stage("only", rule, patience=p)], model, images, labels, LINF) for p in (0, 4))
    assert_same(whole, given)
    assert all(one.vanished == one.gradients == STEPS for one in given)


@pytest.mark.parametrize("rule", [APGD(steps=STEPS), APGD(steps=STEPS, loss="log_odds"), FAB(steps=STEPS)], ids=str)
def test_rules_that_know_no_gap_have_their_whole_budget(rule):
    model, images, labels = central(4)
    threat = ThreatModel("Linf", 0.1 * float(exact_distance(model, images, labels, "Linf").min()))
    whole, given = (outcomes([Stage("only", rule, patience=p)], model, images, labels, threat) for p in (0, 4))
    assert_same(whole, given)
