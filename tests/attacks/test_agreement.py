"""The same attack by three libraries: torchattacks, ART and this one agree where they are asked for the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gauntlet
from builders import network

pytestmark = pytest.mark.slow

SEEDS = range(5)
STEPS, EPS = 10, 0.1
NATIVE, OTHERS = "pgd", ("torchattacks.PGD", "art.ProjectedGradientDescent")


@pytest.fixture(scope="module")
def model():
    train = gauntlet.load_data("digits-train")
    model = network(64, 64, 10)
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(150):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(train.images), train.labels).backward()
        optimiser.step()
    return model


@pytest.fixture(scope="module")
def found(model):
    """Robust accuracies in percent, one a seed, by attack; the same eps, steps and step size for all."""
    data = gauntlet.load_data("digits")
    attacks = [f"{name}(steps={STEPS}, step_size=0.25)" for name in (NATIVE, *OTHERS)]
    columns = {name: [] for name in (NATIVE, *OTHERS)}
    for seed in SEEDS:
        result = gauntlet.evaluate(model, data, threat=f"Linf:{EPS}", attacks=attacks, seed=seed)
        for name, robust in zip(columns, result.per_attack["robust_accuracy"], strict=True):
            columns[name].append(100 * robust)
        assert result.clean_accuracy > 0.9
    return columns


@pytest.mark.parametrize("other", OTHERS)
def test_pgd_agrees_with_another_library_over_five_seeds(other, found):
    native, foreign = found[NATIVE], found[other]
    assert 10 < min(native) <= max(native) < 90, "an attack that breaks all or nothing tells nothing"
    assert max(min(native), min(foreign)) <= min(max(native), max(foreign)), (native, foreign)
    assert abs(sum(native) - sum(foreign)) / len(SEEDS) <= 1, (native, foreign)


def test_the_native_attack_is_not_the_weaker_one(found):
    # It evaluates every iterate, the others the last one only.
    for other in OTHERS:
        assert sum(found[NATIVE]) <= sum(found[other]) + 0.5 * len(SEEDS)
