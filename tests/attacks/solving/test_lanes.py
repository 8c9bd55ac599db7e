"""Restarts that run side by side give what restarts one after another give, and what they cost for nothing is counted apart."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import pytest
import torch

import gauntlet
from builders import slow_unless
from gauntlet.attacks.apgd import APGD
from gauntlet.attacks.gauntlet import budget
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.solving import lanes, stage_queue, stage_state
from gauntlet.attacks.solving.batch_size import LEAST_USEFUL, MOST_USEFUL, Meter, useful_batch
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.solver import Stage, Task, solve
from gauntlet.attacks.square import Square
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.verify.verifier import Verifier

COUNT = 24


def outcomes(attack, eps, useful, *, batch_size=256, norm="Linf", seed=0):
    data, model = gauntlet.load_data("digits"), load_model("cnn.standard_digits").module.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    images, labels, ids = data.images[:COUNT], data.labels[:COUNT], list(data.ids[:COUNT])
    threat = ThreatModel(norm, eps)
    verify = Verifier(model, images, labels, ids, threat, seed=seed)
    meter = Meter()
    found = solve(
        attack,
        model,
        Task(images, labels, ids, threat, seed, "t"),
        verify,
        batch_size=batch_size,
        classes=10,
        meter=meter,
        useful=None if useful is None else lambda: useful,
    )
    return sorted(found, key=lambda one: one.sample), meter.steps


def same(first, second):
    for field in fields(first):
        one, other = getattr(first, field.name), getattr(second, field.name)
        if field.name == "adversarial":
            assert (one is None) == (other is None)
            assert one is None or torch.equal(one, other)
        elif field.name == "nearest":
            # Batches of other sizes round otherwise.
            assert one == pytest.approx(other, rel=1e-4)
        elif field.name != "speculative":
            assert one == other, field.name


ATTACKS = {
    "pgd": PGD(steps=10, restarts=7, loss="cw"),
    "apgd": APGD(steps=20, restarts=4),
    "targets": APGD(steps=15, loss="dlr_targeted"),
    "patient": [Stage("patient", APGD(steps=40, restarts=3, loss="cw_targeted", targets=3), patience=5)],
    "square": Square(queries=40, restarts=3),
    "cascade": budget("gauntlet", "Linf"),
    "thorough cascade": budget("gauntlet:thorough", "Linf"),
    "search from ends": (
        Stage("margin", PGD(steps=3, restarts=5, loss="cw")),
        Stage("targets", APGD(steps=5, loss="dlr_targeted")),
    ),
}


@pytest.mark.parametrize(
    ("attack", "eps"),
    [
        slow_unless(name != "thorough cascade" or eps == 0.05, attack, eps, id=f"{eps}-{name}")
        for name, attack in ATTACKS.items()
        for eps in (0.05, 0.08, 0.12)
    ],
)
def test_outcomes_are_those_of_restarts_one_after_another(attack, eps):
    wanted, steps = outcomes(attack, eps, None)
    found, fewer = outcomes(attack, eps, 64)
    for one, other in zip(wanted, found, strict=True):
        same(one, other)
    assert fewer < steps
    assert all(one.speculative == 0 for one in wanted)


@pytest.mark.parametrize("batch_size", [slow_unless(False, 1), 3, slow_unless(False, 8)])
def test_small_batches_hold_the_same(batch_size):
    wanted, _ = outcomes(ATTACKS["targets"], 0.08, None)
    found, _ = outcomes(ATTACKS["targets"], 0.08, 16, batch_size=batch_size)
    for one, other in zip(wanted, found, strict=True):
        same(one, other)


def test_passes_of_restarts_that_were_not_needed_are_counted_apart():
    found, _ = outcomes(ATTACKS["pgd"], 0.08, 256)
    broken_later = [one for one in found if one.adversarial is not None and one.speculative]
    assert broken_later
    assert all(one.speculative == 0 for one in found if one.adversarial is None)


def test_the_useful_batch_is_a_power_of_two_within_bounds_and_measured_once():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    found = useful_batch(model, torch.rand(1, 1, 8, 8))
    assert LEAST_USEFUL <= found <= MOST_USEFUL
    assert found & (found - 1) == 0
    made = len(calls)
    assert useful_batch(model, torch.rand(1, 1, 8, 8)) == found
    assert len(calls) == made


def test_measuring_the_useful_batch_leaves_the_global_generator_alone():
    class Noisy(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1) + torch.randn(len(x), 64)

    before = torch.get_rng_state()
    useful_batch(Noisy(), torch.rand(1, 1, 8, 8, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_useful_batch_is_no_larger_than_what_is_attacked_and_an_error_ends_the_measurement():
    class Small(torch.nn.Module):
        def forward(self, x):
            if len(x) > 8:
                raise ValueError("built for at most 8 images")
            return x.flatten(1)

    assert useful_batch(Small(), torch.rand(1, 1, 8, 8), 8) <= 8
    assert useful_batch(Small(), torch.rand(1, 1, 8, 8)) == LEAST_USEFUL


@dataclass(frozen=True)
class SecondWins(Rule):
    """The first restart fails after ten steps; any other one answers with noise at once."""

    steps: int = 10
    restarts: int = 40

    def start(self, oracle):
        return Position(oracle.clean)

    def step(self, state, oracle):
        far = (oracle.clean + 0.3).clamp(0, 1)
        first = (oracle.restart == 0).view(-1, 1, 1, 1)
        oracle.logits(torch.where(first, oracle.clean, far))
        return state


class Position(NamedTuple):
    point: torch.Tensor


class Dark(torch.nn.Module):
    def forward(self, x):
        gap = 0.7 - x.flatten(1).mean(1)
        return torch.stack([gap, -gap], 1)


def solved(rule, useful, count=1, batch_size=256):
    images, labels = torch.full((count, 1, 2, 2), 0.5), torch.zeros(count, dtype=torch.int64)
    ids, threat = [str(row) for row in range(count)], ThreatModel("Linf", 0.4)
    verify = Verifier(Dark(), images, labels, ids, threat, seed=0)
    task = Task(images, labels, ids, threat, 0, "t")
    return list(solve(rule, Dark(), task, verify, batch_size=batch_size, classes=2, useful=useful))


def test_restarts_after_one_that_wins_are_not_begun_again():
    (one,), (other,) = solved(SecondWins(), None), solved(SecondWins(), lambda: 16)
    same(one, other)
    assert other.speculative <= 15


@pytest.mark.parametrize("useful", [None, lambda: 16], ids=["one after another", "side by side"])
def test_no_sample_is_lost_wherever_memory_runs_out(useful, monkeypatch):
    calls, failing = [0], [0]

    def counted(function):
        def call(*args):
            calls[0] += 1
            if calls[0] == failing[0]:
                raise torch.cuda.OutOfMemoryError("out of memory")
            return function(*args)

        return call

    for module in (lanes, stage_queue, stage_state):
        for name in ("join", "select"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, counted(getattr(module, name)))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    wanted = sorted(solved(SecondWins(restarts=3), useful, 5, 16), key=lambda one: one.sample)
    for place in range(1, calls[0] + 1):
        calls[0], failing[0] = 0, place
        found = sorted(solved(SecondWins(restarts=3), useful, 5, 16), key=lambda one: one.sample)
        assert len(found) == 5
        for one, other in zip(wanted, found, strict=True):
            same(one, other)
