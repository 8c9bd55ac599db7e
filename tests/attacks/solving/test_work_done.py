"""The share of an attack's work that is done: exact where nothing is broken, and 1 at the end of every attack."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from builders import network
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.solving import work_done
from gauntlet.attacks.solving.solver import Stage
from gauntlet.attacks.solving.stage_conditions import Masked, Near
from gauntlet.attacks.square import Square
from solving import assert_same, outcomes

THREAT = ThreatModel("Linf", 0.2)


@pytest.fixture(autouse=True)
def every_turn(monkeypatch):
    monkeypatch.setattr(work_done, "EVERY", 0.0)


class Constant(nn.Module):
    """Never misclassified."""

    def forward(self, x):
        return torch.tensor([1.0, 0.0], dtype=x.dtype) + 0 * x.flatten(1)[:, :1]


def task(count=20):
    images = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return images, torch.zeros(count, dtype=torch.int64)


@pytest.mark.parametrize("restarts", [1, 3])
def test_of_samples_that_stand_the_share_is_that_of_the_steps(restarts):
    shares = []
    outcomes(PGD(steps=10, restarts=restarts), Constant(), *task(), THREAT, batch_size=20, progress=shares.append)
    turns = [turn / (10 * restarts) for turn in range(1, 10 * restarts + 1)]
    # A turn that evaluates last iterates makes no step.
    assert sorted(set(shares)) == pytest.approx(turns)
    assert shares == sorted(shares)


def test_a_stage_that_waits_for_its_turn_counts():
    shares = []
    stages = [Stage("one", PGD(steps=4)), Stage("two", PGD(steps=6, restarts=2))]
    outcomes(stages, Constant(), *task(8), THREAT, batch_size=8, progress=shares.append)
    assert max(share for share in shares if share < 0.3) == pytest.approx(4 / 16)
    assert shares[-1] == 1


def test_a_stage_whose_condition_no_sample_has_met_is_not_expected():
    shares = []
    stages = [Stage("one", PGD(steps=4)), Stage("rare", Square(queries=1000), Near(-1.0))]
    outcomes(stages, Constant(), *task(8), THREAT, batch_size=8, progress=shares.append)
    assert shares[0] == pytest.approx(1 / 4)
    assert shares[-1] == 1


def test_the_share_stays_in_its_range_ends_at_1_and_changes_nothing():
    model, (images, _) = nn.Sequential(nn.Flatten(), network(16, 12, 3)).double(), task(30)
    labels = model(images).argmax(1)
    stages = [
        Stage("first", PGD(steps=3)),
        Stage("near", PGD(steps=5, restarts=2, loss="cw"), Near(0.8)),
        Stage("masked", Square(queries=20), Masked()),
        Stage("last", PGD(steps=10)),
    ]
    shares = []
    watched = outcomes(stages, model, images, labels, THREAT, batch_size=7, progress=shares.append)
    assert_same(watched, outcomes(stages, model, images, labels, THREAT, batch_size=7))
    assert len(shares) > 20
    assert all(0 <= share <= 1 for share in shares)
    assert shares[-1] == 1


def test_an_attack_on_no_samples_reports_nothing():
    shares = []
    outcomes(PGD(steps=3), Constant(), *task(0), THREAT, progress=shares.append)
    assert shares == []
