"""The cascades break nothing that is proven robust, in any norm: closed forms, the exact solver, and certified bounds."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from builders import linear_digits, network, slow_unless
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.strength.networks import load_data_of, load_network
from gauntlet.defenses.certificates.certify import certify
from gauntlet.defenses.certificates.exact_milp import exact_linf
from gauntlet.defenses.training.catalog import RECIPES
from gauntlet.defenses.training.loop import fit
from published import NEEDS_SHARED, SHARED
from solving import broken, exact_distance, outcomes

# The thorough cascade has the rules of `gauntlet`, with larger budgets.
BUDGETS = pytest.mark.parametrize(
    "budget", ["gauntlet:fast", "gauntlet", pytest.param("gauntlet:thorough", marks=pytest.mark.slow)]
)
QUICK = [("gauntlet:fast", "Linf"), ("gauntlet:fast", "L1"), ("gauntlet", "Linf")]
"""The searches of certified samples that are tested by default; `gauntlet:fast` has certificates in L2 of its own below."""


def run(budget, model, images, labels, threat):
    """bool (N,): the samples that the cascade breaks. It looks at what it finds alone, without the proof."""
    return broken(outcomes(budget, model, images, labels, threat, batch_size=256, classes=10))


@pytest.fixture(scope="module")
def digits():
    return linear_digits(count=40)


@pytest.mark.parametrize(
    ("norm", "budget"),
    [
        slow_unless(budget == "gauntlet:fast" or (budget, norm) == ("gauntlet", "L2"), norm, budget)
        for norm in ("Linf", "L2", "L1")
        for budget in ("gauntlet:fast", "gauntlet", "gauntlet:thorough")
    ],
)
def test_on_a_linear_model_exactly_the_samples_within_eps_are_broken(digits, norm, budget):
    sizes = exact_distance(*digits, norm)
    eps = sizes.median().item() + 1e-4
    found = run(budget, *digits, ThreatModel(norm, eps))
    assert not (found & (sizes > eps)).any()
    # In L1 the last hundredth of the radius is not asked for.
    assert found[sizes < (0.99 if norm == "L1" else 0.999) * eps].all()


@pytest.fixture(scope="module")
def decided():
    """A ReLU network 64-16-10 trained by FGSM, digits that it classifies correctly, and their exact verdicts."""
    threat = ThreatModel("Linf", 0.15)
    train, test = load_data("digits-train"), load_data("digits")
    model = network(64, 16, 10).train()
    fit(model, train.images, train.labels, RECIPES["fast"], threat=threat, seed=0)
    model.requires_grad_(False)
    right = (model(test.images).argmax(1) == test.labels).nonzero().squeeze(1)[:100]
    images, labels = test.images[right], test.labels[right]
    exact = exact_linf(model, images, labels, threat.eps)
    assert exact.robust.sum() > 10
    return model, images, labels, threat, exact


@BUDGETS
def test_on_a_small_relu_network_only_samples_with_an_example_are_broken(decided, budget):
    *problem, exact = decided
    found = run(budget, *problem)
    assert not (found & exact.robust).any()
    # A cascade that breaks nothing would pass, too.
    assert (exact.broken & ~found).sum() <= 0.02 * exact.broken.sum()


@pytest.fixture(scope="module")
def certified():
    """The interval-trained network of the zoo, the first digits, and those that bounds certify at Linf 0.15."""
    model, data = load_model("cnn.ibp_digits").module, load_data("digits", samples=24)
    proof = certify(model, data.images, data.labels, ThreatModel("Linf", 0.15)).certified
    assert proof.sum() > 15
    return model, data.images, data.labels, proof


@pytest.mark.parametrize(
    ("budget", "norm"),
    [
        slow_unless((budget, norm) in QUICK, budget, norm)
        for budget, norm in (
            *itertools.product(["gauntlet:fast", "gauntlet"], ["Linf", "L2", "L1"]),
            ("gauntlet:thorough", "Linf"),
        )
    ],
)
def test_no_sample_with_a_certificate_is_broken(certified, budget, norm):
    model, images, labels, proof = certified
    # A ball in L2 or L1 lies within that of the same radius in Linf.
    assert not run(budget, model, images[proof], labels[proof], ThreatModel(norm, 0.15)).any()


@pytest.mark.parametrize("budget", ["gauntlet:fast", slow_unless(False, "gauntlet")])
def test_no_sample_with_a_certificate_in_l2_is_broken(certified, budget):
    model, images, labels, _ = certified
    threat = ThreatModel("L2", 0.3)
    proof = certify(model, images, labels, threat).certified
    assert proof.sum() > 3
    assert not run(budget, model, images[proof], labels[proof], threat).any()


@pytest.mark.skipif(not SHARED, reason=NEEDS_SHARED)
def test_the_provably_robust_mnist_network_keeps_its_bound():
    threat, folder = ThreatModel("Linf", 0.1), Path(SHARED)
    model, data = load_network("wong_kolter_mnist", folder).module, load_data_of("wong_kolter_mnist", folder, 24)
    proof = certify(model, data.images, data.labels, threat, time_limit=0.5).certified
    assert proof.sum() > 20
    for budget in ("gauntlet:fast", "gauntlet", "gauntlet:thorough"):
        assert not run(budget, model, data.images[proof], data.labels[proof], threat).any()
