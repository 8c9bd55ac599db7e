"""Several moves of a search in one pass give what they give one after another."""

from __future__ import annotations

import pytest
import torch

import gauntlet
from builders import slow_unless
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.solver import Meter, Stage, Task, Verification, solve
from gauntlet.attacks.solving.stage_conditions import Near
from gauntlet.attacks.square import Square

COUNT = 12


@pytest.fixture(scope="module")
def model():
    return gauntlet.load_model("cnn.trades_digits").module.requires_grad_(False)


def run(model, threat, stages, *, useful, count=COUNT, batch_size=384, refuse=3):
    """What is known of each sample at the end, and the meter. Of the candidates every `refuse`-th attempt is refused."""
    data = gauntlet.load_data("digits", samples=str(count))
    images, labels = data.images[:], data.labels
    meter, calls = Meter(), []
    handle = model.register_forward_pre_hook(lambda module, given: calls.append(len(given[0])))

    def verify(points, samples, attempt):
        wrong = model(points).argmax(1) != labels[samples]
        held = wrong & ((samples + attempt) % refuse > 0)
        return Verification(held, torch.zeros_like(held), wrong & ~held)

    task = Task(images, labels, list(data.ids), ThreatModel.parse(threat), 0, "t")
    with torch.no_grad():
        found = solve(
            stages, model, task, verify, batch_size=batch_size, classes=10, meter=meter, useful=useful, verify_every=1
        )
        outcomes = sorted(found, key=lambda one: one.sample)
    handle.remove()
    return outcomes, meter, calls


def told(outcome):
    return (
        outcome.sample,
        outcome.adversarial is None,
        outcome.stage,
        outcome.faced,
        outcome.forwards,
        outcome.backwards,
        outcome.taken,
        outcome.disagreements,
        outcome.rival,
    )


@pytest.mark.parametrize(
    ("threat", "rule", "patience"),
    [
        slow_unless(False, "Linf:0.15", Square(queries=400), 0),
        slow_unless(False, "Linf:0.15", Square(queries=400), 50),
        ("Linf:0.12", Square(queries=150, restarts=2), 0),
        slow_unless(False, "L2:0.8", Square(queries=200), 0),
        ("L1:3", Square(queries=200), 60),
        ("Linf:0.15", Square(queries=1), 0),
    ],
)
def test_a_search_that_looks_ahead_has_the_outcomes_counts_and_examples_of_one_that_does_not(
    model, threat, rule, patience
):
    stages = [Stage("search", rule, technique="probe", patience=patience), Stage("last", Square(queries=20), Near(0.2))]
    usual, before, _ = run(model, threat, stages, useful=None)
    ahead, after, _ = run(model, threat, stages, useful=lambda: 256)
    assert [told(one) for one in usual] == [told(one) for one in ahead]
    for one, other in zip(usual, ahead, strict=True):
        assert (one.adversarial is None) or torch.equal(one.adversarial, other.adversarial)
        assert one.near("probe") == pytest.approx(other.near("probe"), abs=1e-5)
        assert one.speculative == 0
    if rule.budget > 1:
        assert after.steps < before.steps


def test_passes_of_moves_that_do_not_count_are_counted_apart(model):
    outcomes, _, calls = run(model, "Linf:0.1", [Stage("search", Square(queries=100))], useful=lambda: 128)
    verified = sum(one.disagreements for one in outcomes) + sum(one.adversarial is not None for one in outcomes)
    assert sum(one.speculative for one in outcomes) > 0
    assert sum(calls) == sum(one.forwards + one.speculative for one in outcomes) + verified


def test_passes_stay_within_two_useful_batches_and_the_batch_size(model):
    stages = [Stage("search", Square(queries=60))]
    assert max(run(model, "Linf:0.05", stages, useful=lambda: 20)[2]) == 36
    assert max(run(model, "Linf:0.05", stages, useful=lambda: 256, batch_size=30)[2]) <= 30


def test_full_batches_do_not_look_ahead(model):
    outcomes, meter, _ = run(model, "Linf:0.05", [Stage("search", Square(queries=60))], useful=lambda: COUNT - 1)
    assert meter.steps == 60
    assert sum(one.speculative for one in outcomes) == 0
