"""Defenses that fool a naive attack, on the standard network at Linf 0.15: what it reports, and what adaptive attacks leave.

The figures beside each were measured elsewhere with other starts and, for input defenses, other weights: direction and rough
size must agree.
"""

from __future__ import annotations

import pytest
import torch

import gauntlet
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.models.cnn import cnn
from gauntlet.bench.registries import DEFENSES
from gauntlet.defenses.training.catalog import RECIPES
from gauntlet.defenses.training.loop import fit

pytestmark = pytest.mark.slow

LINF = ThreatModel("Linf", 0.15)
N = 200

# defense, whether the network is trained on defended images, naive and adaptive accuracy in percent
INPUT = [
    ("bit_depth(bits=2)", True, 48.8, 42.0),
    ("jpeg(quality=15)", True, 29.5, 14.0),
    ("median(window=3)", True, 33.4, 7.3),
    ("thermometer", False, 16.2, 7.7),
]
OUTPUT = [
    ("scaled", 96.9, 7.3),
    ("rounded", 96.6, 7.3),
    ("reverse_sigmoid", 89.8, 7.3),
]


@pytest.fixture(scope="module")
def data():
    return gauntlet.load_data("digits", samples=str(N))


def trained_on(defense):
    """The standard recipe's network on images that went through the defense."""
    train = gauntlet.load_data("digits-train")
    name, _, settings = defense.partition("(")
    values = dict(part.split("=") for part in settings.rstrip(")").split(",") if part)
    transform = DEFENSES.get(name).make(**{key: int(value) for key, value in values.items()})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = cnn()
        fit(model, transform(train.images), train.labels, RECIPES["standard"], threat=LINF, seed=0)
    return model.eval()


def figures(model, data, defense):
    result = gauntlet.evaluate(model, data, threat=LINF, attacks=["naive", "adaptive"], defense=defense)
    found = {row["attack"]: 100 * row["robust_accuracy"] for row in result.per_attack.to_dict("records")}
    alone = gauntlet.evaluate(model, data, threat=LINF, attacks="naive", defense=defense)
    return found["naive"], 100 * float(result.robust_accuracy), alone.flags


@pytest.mark.parametrize(("defense", "trained", "naive", "adaptive"), INPUT, ids=[row[0] for row in INPUT])
def test_an_input_defense_looks_better_to_the_naive_attack(defense, trained, naive, adaptive, data):
    model = trained_on(defense) if trained else gauntlet.load_model("cnn.standard_digits").module
    seen, left, flags = figures(model, data, defense)
    assert left < seen
    assert abs(seen - naive) < 15
    assert left < adaptive + 8
    assert any(flag.stands({"naive"}) for flag in flags)


@pytest.mark.parametrize(("defense", "naive", "adaptive"), OUTPUT, ids=[row[0] for row in OUTPUT])
def test_an_output_defense_that_looks_robust_is_broken_and_flagged_where_only_the_naive_attack_is_run(
    defense, naive, adaptive, data
):
    model = gauntlet.load_model("cnn.standard_digits").module
    seen, left, flags = figures(model, data, defense)
    assert seen > 85
    assert abs(seen - naive) < 5
    assert left < 50
    assert abs(left - adaptive) < 5
    assert any(flag.stands({"naive"}) for flag in flags)


def test_an_honest_robust_model_carries_no_blocking_flag(data):
    model = gauntlet.load_model("cnn.trades_digits").module
    result = gauntlet.evaluate(model, data, threat=LINF, attacks="adaptive")
    assert not [flag.name for flag in result.flags if flag.severity == "block"]
    assert 0.70 < float(result.robust_accuracy) < 0.82
