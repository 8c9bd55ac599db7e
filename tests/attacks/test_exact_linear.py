"""Attacks against linear classifiers, whose smallest adversarial perturbation, box included, is known exactly."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import linprog

from builders import linear, linear_digits
from gauntlet.attacks.cw import CW
from gauntlet.attacks.fgsm import FGSM
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import PGD
from solving import attacked, exact_distance


@pytest.fixture(scope="module")
def digits():
    return linear_digits(count=120)


@pytest.fixture(scope="module")
def digits_distance(digits):
    return {norm: exact_distance(*digits, norm) for norm in ("Linf", "L2")}


@pytest.fixture(scope="module")
def two_classes():
    """0 against 1 among the digits."""
    return linear_digits(2, 120)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_ground_truth_is_the_textbook_distance_where_the_box_is_far(norm):
    generator = torch.Generator().manual_seed(0)
    model = linear(torch.randn(4, 12, generator=generator), torch.randn(4, generator=generator) / 10)
    images = 0.5 + 0.02 * torch.randn(30, 1, 3, 4, generator=generator, dtype=torch.float64)
    labels = model(images).argmax(1)
    logits, weight = model(images), model[1].weight
    gap = logits.gather(1, labels[:, None]) - logits
    size = torch.linalg.vector_norm(weight[None] - weight[labels][:, None], ord=1 if norm == "Linf" else 2, dim=2)
    textbook = (gap / size).scatter(1, labels[:, None], torch.inf).amin(1)
    assert textbook.max() < 0.4
    torch.testing.assert_close(exact_distance(model, images, labels, norm), textbook, rtol=1e-9, atol=1e-12)


def test_the_ground_truth_in_l1_is_that_of_linear_programs(digits):
    model, images, labels = digits
    for image, label, found in zip(
        images[:5], labels[:5], exact_distance(model, images[:5], labels[:5], "L1"), strict=True
    ):
        pixels, logits = image.flatten().tolist(), model(image[None])[0]
        bounds = [(0, 1 - value) for value in pixels] + [(0, value) for value in pixels]
        sizes = []
        for other in set(range(10)) - {int(label)}:
            slope = (model[1].weight[other] - model[1].weight[label]).tolist()
            rise = [[*(-one for one in slope), *slope]]
            program = linprog([1] * 128, A_ub=rise, b_ub=[float(logits[other] - logits[label])], bounds=bounds)
            sizes.append(program.fun if program.success else torch.inf)
        assert float(found) == pytest.approx(min(sizes), rel=1e-9)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_box_makes_the_exact_distance_larger(digits, digits_distance, norm):
    free = exact_distance(*digits, norm, box=False)
    assert (digits_distance[norm] >= free - 1e-12).all()
    assert (digits_distance[norm] > 1.05 * free).double().mean() > 0.3


@pytest.mark.parametrize("eps", [0.05, 0.1, 0.2, 0.3, 0.5])
def test_fgsm_breaks_two_class_linear_samples_exactly_where_the_distance_allows(two_classes, eps):
    exact = exact_distance(*two_classes, "Linf")
    broken = attacked(FGSM(), *two_classes, ThreatModel("Linf", eps)).isfinite()
    clear = (exact - eps).abs() > 1e-6
    assert clear.sum() > 100
    assert torch.equal(broken[clear], (exact <= eps)[clear])


def test_the_two_class_cases_have_samples_on_both_sides(two_classes):
    exact = exact_distance(*two_classes, "Linf")
    assert exact.min() < 0.3 < exact.max()


@pytest.mark.parametrize("loss", ["ce", "cw"])
@pytest.mark.parametrize("threat", [ThreatModel("Linf", 0.1), ThreatModel("L2", 0.6)], ids=str)
def test_pgd_never_breaks_a_sample_beyond_its_distance_and_nearly_all_within(digits, digits_distance, threat, loss):
    exact = digits_distance[threat.norm]
    found = attacked(PGD(steps=20, loss=loss), *digits, threat)
    reachable = exact <= threat.eps
    assert 0.2 < reachable.double().mean() < 0.9
    assert (exact[found.isfinite()] <= threat.eps + 2e-6).all()
    # The loss need not climb towards the nearest class: cross-entropy misses up to a sixth of what can be reached.
    assert found.isfinite().sum() >= {"ce": 0.8, "cw": 0.9}[loss] * reachable.sum()


def test_fgsm_is_never_better_than_exact_on_ten_classes(digits, digits_distance):
    for eps in (0.05, 0.1, 0.15):
        found = attacked(FGSM(), *digits, ThreatModel("Linf", eps))
        assert found.isfinite().any()
        assert (digits_distance["Linf"][found.isfinite()] <= eps + 1e-6).all()


def test_cw_finds_the_smallest_perturbation_within_two_percent(digits, digits_distance):
    exact = digits_distance["L2"]
    found = attacked(CW(), *digits, ThreatModel("L2", 0.5))
    assert found.isfinite().all()
    ratio = found / exact
    assert ratio.min() >= 1 - 1e-6
    assert ratio.median() <= 1.02
    assert ratio.quantile(0.95) <= 1.1


def test_cw_finds_the_smallest_perturbation_of_two_classes(two_classes):
    ratio = attacked(CW(search_steps=7), *two_classes, ThreatModel("L2", 0.5)) / exact_distance(*two_classes, "L2")
    assert ratio.min() >= 1 - 1e-6
    assert ratio.median() <= 1.02


@pytest.mark.parametrize("scale", [1e-2, 1e2, 1e3])
def test_the_distance_that_cw_finds_does_not_hang_on_the_scale_of_the_logits(digits, digits_distance, scale):
    model, images, labels = digits
    scaled = linear(scale * model[1].weight, scale * model[1].bias)
    ratio = attacked(CW(), scaled, images[:40], labels[:40], ThreatModel("L2", 0.5)) / digits_distance["L2"][:40]
    assert ratio.min() >= 1 - 1e-6
    assert ratio.median() <= 1.05


def test_cw_agrees_with_the_exact_distance_for_very_negative_logits(digits, digits_distance):
    model, images, labels = digits
    shifted = linear(model[1].weight, model[1].bias - 1e4)
    ratio = attacked(CW(), shifted, images[:40], labels[:40], ThreatModel("L2", 0.5)) / digits_distance["L2"][:40]
    assert ratio.min() >= 1 - 1e-6
    assert ratio.median() <= 1.02


def test_scaled_logits_blind_cross_entropy_in_float32_but_not_the_margin_loss(digits, digits_distance):
    # Where the softmax is 1 to the last bit, the gradient of cross-entropy is exactly 0: PGD stays at its random start.
    model, images, labels = digits
    threat = ThreatModel("Linf", 0.1)
    scaled = linear(1e3 * model[1].weight, 1e3 * model[1].bias).float()
    broken = {
        loss: attacked(PGD(steps=20, loss=loss), scaled, images.float(), labels, threat).isfinite().double().mean()
        for loss in ("ce", "cw")
    }
    reachable = (digits_distance["Linf"] <= threat.eps).double().mean()
    assert broken["cw"] >= 0.9 * reachable
    assert broken["ce"] < broken["cw"] - 0.1
