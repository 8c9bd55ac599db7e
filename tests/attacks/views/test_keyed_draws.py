"""Which randomised models draw by key, and that several draws in one pass are the draws of several passes."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from gauntlet.attacks.ops.losses import cw
from gauntlet.attacks.ops.random import active_draws, sample_keys
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.parts.several_draws import drawn_gradients, drawn_logits
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.slots import new_slots
from gauntlet.attacks.views.keyed_draws import draws_by_key
from gauntlet.bench.verify.verifier import Verifier

COUNT, PIXELS = 3, 16
LINF = ThreatModel("Linf", 0.1)
IMAGES = 0.3 + 0.4 * torch.rand(COUNT, 1, 4, 4, generator=torch.Generator().manual_seed(0))
KEYS = sample_keys(0, "t", [str(i) for i in range(COUNT)])
LABELS = torch.tensor([0, 1, 0])


class Noisy(nn.Module):
    """A quadratic score with normal noise from `source`; the largest batch and the number of passes are kept."""

    def __init__(self, source):
        super().__init__()
        self.source, self.passes, self.largest = source, 0, 0

    def forward(self, x):
        self.passes, self.largest = self.passes + 1, max(self.largest, len(x))
        score = (x.flatten(1).square() * torch.linspace(-1, 1, PIXELS)).sum(1) + 0.5 * self.source(self, x)
        return torch.stack([-score, score, score - 1], 1)


def by_key(model, x):
    draws = active_draws()
    return draws.normal((), 200) if draws is not None else torch.randn(len(x))


def shared_by_the_batch(model, x):
    return by_key(model, x)[:1].expand(len(x))


def switched(pick):
    """By key, and a coin for the whole batch beside it."""
    return lambda model, x: by_key(model, x) + float(pick())


OWN = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("source", "keyed"),
    [
        (by_key, True),
        (lambda model, x: torch.randn(len(x)), False),
        (lambda model, x: torch.zeros(len(x)), False),
        (shared_by_the_batch, False),
        (switched(lambda: random.random() < 0.5), False),
        (switched(lambda: np.random.rand() < 0.5), False),
        (switched(lambda: torch.rand(()) < 0.5), False),
        (switched(lambda: OWN.random() < 0.5), False),
        (lambda model, x: by_key(model, x) + x.flatten(1).mean(), False),
    ],
)
def test_only_models_whose_draws_depend_on_nothing_but_keys_draw_by_key(source, keyed):
    before = torch.get_rng_state(), random.getstate()
    assert draws_by_key(Noisy(source), IMAGES, KEYS) is keyed
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_a_model_is_asked_once_and_a_single_pass_suffices_where_it_takes_no_draws():
    model = Noisy(by_key)
    assert [draws_by_key(model, IMAGES, KEYS) for _ in range(3)] == [True] * 3
    assert model.passes == 9
    plain = Noisy(lambda model, x: torch.zeros(len(x)))
    assert not draws_by_key(plain, IMAGES, KEYS)
    assert plain.passes == 1


def test_a_model_that_takes_no_larger_batch_does_not_draw_by_key():
    class Narrow(Noisy):
        def forward(self, x):
            if len(x) > COUNT:
                raise ValueError("too many images")
            return super().forward(x)

    assert not draws_by_key(Narrow(by_key), IMAGES, KEYS)


def oracle_of(model, room):
    clean = torch.tensor([[2.0, 0.0, -1.0], [0.0, 2.0, 1.0], [2.0, 0.0, -1.0]])
    slots = new_slots(torch.arange(COUNT), IMAGES, LABELS, LABELS, clean, KEYS, KEYS, keep_end=True)
    oracle = Oracle(model, LINF, slots, minimum_norm=False, watch=True)
    oracle.room = room
    return oracle


def both(frozen, draw):
    """An oracle with one draw a pass and one with five passes in two, after `draw` at two points."""
    oracles = [oracle_of(Noisy(by_key), room) for room in (0, 3 * COUNT)]
    results = [[draw(oracle, points, frozen) for points in (IMAGES, IMAGES + 0.05)] for oracle in oracles]
    return oracles, results


@pytest.mark.parametrize("frozen", [False, True])
def test_draws_in_one_pass_are_those_of_single_passes_with_the_same_counts(frozen):
    oracles, results = both(frozen, lambda oracle, x, fixed: torch.stack(drawn_logits(oracle, x, 5, frozen=fixed)))
    torch.testing.assert_close(results[0], results[1])
    _agree(*oracles)
    assert oracles[0].model.largest == COUNT
    # Beside the nine passes that ask whether it draws by key.
    assert oracles[1].model.passes == 9 + 4


@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_in_one_pass_are_those_of_single_passes_with_losses_that_know_the_slots(frozen):
    weights = torch.tensor([1.0, 2.0, 3.0])

    def draw(oracle, x, fixed):
        passes = drawn_gradients(oracle, x, lambda logits, labels: weights * cw(logits, labels), 5, frozen=fixed)
        return [torch.stack(column) for column in zip(*passes, strict=True)]

    oracles, results = both(frozen, draw)
    torch.testing.assert_close(results[0], results[1])
    _agree(*oracles)


def _agree(first, second):
    for name, one, other in zip(first.slots._fields, first.slots, second.slots, strict=True):
        if name == "known":
            assert [column.tolist() for column in one] == [column.tolist() for column in other]
        else:
            torch.testing.assert_close(one, other, msg=name)


def test_a_verifier_judges_by_the_same_draws_in_one_pass_as_in_many():
    class Alone(Noisy):
        """Takes few images, so that draws are made one by one."""

        def forward(self, x):
            if len(x) > COUNT:
                raise ValueError("too many images")
            return super().forward(x)

    points = (IMAGES + torch.tensor([0.0, 0.05, 0.1])[:, None, None, None]).clamp(0, 1)
    every = torch.arange(COUNT)
    verdicts = []
    for model in (Noisy(by_key), Alone(by_key)):
        verify = Verifier(model, IMAGES, LABELS, ["a", "b", "c"], LINF, seed=0, randomised=True)
        measured = verify.measure(points, every)
        held = [verify(points, every, every + attempt).success for attempt in range(10)]
        verdicts.append((measured.wrong_share, measured.wrong_share_scored, measured.prediction, measured.margin, held))
    torch.testing.assert_close(verdicts[0], verdicts[1])
    held = torch.stack(verdicts[0][-1])
    assert 0 < int(held.sum()) < held.numel()
