"""Attacks against linear classifiers, whose smallest adversarial perturbation, box included, is known exactly."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from gauntlet.attacks.cw import CW
from gauntlet.attacks.fgsm import FGSM
from gauntlet.attacks.ops.norms import distance
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.solving.solver import Task, solve
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.verify.verifier import Verifier


def classifier(weight, bias):
    model = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], weight.shape[0]).double())
    model[1].weight.data, model[1].bias.data = weight.double().clone(), bias.double().clone()
    return model.requires_grad_(False).eval()


def attacked(rule, model, images, labels, threat, **options):
    """Distance of the verified example of each sample, infinite where there is none."""
    ids = [f"sample {i}" for i in range(len(labels))]
    verify = Verifier(model, images, labels, ids, threat, seed=0, minimum_norm=rule.minimum_norm)
    found = torch.full((len(labels),), torch.inf, dtype=torch.float64)
    for outcome in solve(rule, model, Task(images, labels, ids, threat, 0, "test"), verify, **options):
        assert outcome.rejected == 0
        if outcome.adversarial is not None:
            point = outcome.adversarial[None]
            assert 0 <= point.min() <= point.max() <= 1
            assert model(point).argmax() != labels[outcome.sample]
            found[outcome.sample] = distance(point, images[outcome.sample : outcome.sample + 1], threat.norm)
    return found


def smallest(model, images, labels, norm, *, box=True):
    """Exact distance of each sample to the nearest point that another class wins, by bisection for each class pair."""
    weight, bias, x = model[1].weight, model[1].bias, images.flatten(1)
    logits = x @ weight.T + bias
    direction = weight[None] - weight[labels][:, None]  # sample, class, pixel
    needed = logits.gather(1, labels[:, None]) - logits  # what the other class must gain
    x = x[:, None].expand_as(direction)

    def moved(amount):
        amount = amount[..., None]
        step = amount * (direction.sign() if norm == "Linf" else direction)
        return (x + step).clamp(0, 1) - x if box else step

    low, high = torch.zeros_like(needed), torch.full_like(needed, 1e9)
    for _ in range(120):
        middle = (low + high) / 2
        enough = (moved(middle) * direction).sum(2) >= needed
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    delta = moved(high)
    size = delta.abs().amax(2) if norm == "Linf" else delta.square().sum(2).sqrt()
    size[(delta * direction).sum(2) < needed] = torch.inf
    size.scatter_(1, labels[:, None], torch.inf)
    return size.amin(1)


def right_only(model, images, labels, count):
    right = (model(images).argmax(1) == labels).nonzero().squeeze(1)[:count]
    return images[right], labels[right]


@pytest.fixture(scope="module")
def digits():
    """A linear classifier of 10 classes, and 120 test images that it classifies correctly."""
    train, test = load_data("digits-train"), load_data("digits")
    fit = LogisticRegression(C=0.5, max_iter=5000).fit(train.images.flatten(1).numpy(), train.labels.numpy())
    model = classifier(torch.tensor(fit.coef_), torch.tensor(fit.intercept_))
    return model, *right_only(model, test.images.double(), test.labels, 120)


@pytest.fixture(scope="module")
def digits_distance(digits):
    return {norm: smallest(*digits, norm) for norm in ("Linf", "L2")}


@pytest.fixture(scope="module")
def two_classes():
    """0 against 1 among the digits, 120 test images; weights of both signs, pixels at 0 and 1."""
    train, test = load_data("digits-train"), load_data("digits")
    fit = LogisticRegression(C=0.05).fit(
        train.images[train.labels < 2].flatten(1).numpy(), train.labels[train.labels < 2]
    )
    model = classifier(torch.tensor(fit.coef_).repeat(2, 1) * torch.tensor([[-0.5], [0.5]]), torch.tensor([-0.1, 0.1]))
    return model, *right_only(model, test.images[test.labels < 2].double(), test.labels[test.labels < 2], 120)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_ground_truth_is_the_textbook_distance_where_the_box_is_far(norm):
    generator = torch.Generator().manual_seed(0)
    model = classifier(torch.randn(4, 12, generator=generator), torch.randn(4, generator=generator) / 10)
    images = 0.5 + 0.02 * torch.randn(30, 1, 3, 4, generator=generator, dtype=torch.float64)
    labels = model(images).argmax(1)
    logits, weight = model(images), model[1].weight
    gap = logits.gather(1, labels[:, None]) - logits
    size = torch.linalg.vector_norm(weight[None] - weight[labels][:, None], ord=1 if norm == "Linf" else 2, dim=2)
    textbook = (gap / size).scatter(1, labels[:, None], torch.inf).amin(1)
    assert textbook.max() < 0.4
    torch.testing.assert_close(smallest(model, images, labels, norm), textbook, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_box_makes_the_exact_distance_larger(digits, digits_distance, norm):
    free = smallest(*digits, norm, box=False)
    assert (digits_distance[norm] >= free - 1e-12).all()
    assert (digits_distance[norm] > 1.05 * free).double().mean() > 0.3


@pytest.mark.parametrize("eps", [0.05, 0.1, 0.2, 0.3, 0.5])
def test_fgsm_breaks_two_class_linear_samples_exactly_where_the_distance_allows(two_classes, eps):
    exact = smallest(*two_classes, "Linf")
    broken = attacked(FGSM(), *two_classes, ThreatModel("Linf", eps)).isfinite()
    clear = (exact - eps).abs() > 1e-6
    assert clear.sum() > 100
    assert torch.equal(broken[clear], (exact <= eps)[clear])


def test_the_two_class_cases_have_samples_on_both_sides(two_classes):
    exact = smallest(*two_classes, "Linf")
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
    ratio = attacked(CW(search_steps=7), *two_classes, ThreatModel("L2", 0.5)) / smallest(*two_classes, "L2")
    assert ratio.min() >= 1 - 1e-6
    assert ratio.median() <= 1.02


@pytest.mark.parametrize("scale", [1e-2, 1e2, 1e3])
def test_the_distance_that_cw_finds_does_not_hang_on_the_scale_of_the_logits(digits, digits_distance, scale):
    model, images, labels = digits
    scaled = classifier(scale * model[1].weight, scale * model[1].bias)
    ratio = attacked(CW(), scaled, images[:40], labels[:40], ThreatModel("L2", 0.5)) / digits_distance["L2"][:40]
    assert ratio.min() >= 1 - 1e-6
    assert ratio.median() <= 1.05


def test_cw_agrees_with_the_exact_distance_for_very_negative_logits(digits, digits_distance):
    model, images, labels = digits
    shifted = classifier(model[1].weight, model[1].bias - 1e4)
    ratio = attacked(CW(), shifted, images[:40], labels[:40], ThreatModel("L2", 0.5)) / digits_distance["L2"][:40]
    assert ratio.min() >= 1 - 1e-6
    assert ratio.median() <= 1.02


def test_scaled_logits_blind_cross_entropy_in_float32_but_not_the_margin_loss(digits, digits_distance):
    # Where the softmax is 1 to the last bit, the gradient of cross-entropy is exactly 0: PGD stays at its random start.
    model, images, labels = digits
    threat = ThreatModel("Linf", 0.1)
    scaled = classifier(1e3 * model[1].weight, 1e3 * model[1].bias).float()
    broken = {
        loss: attacked(PGD(steps=20, loss=loss), scaled, images.float(), labels, threat).isfinite().double().mean()
        for loss in ("ce", "cw")
    }
    reachable = (digits_distance["Linf"] <= threat.eps).double().mean()
    assert broken["cw"] >= 0.9 * reachable
    assert broken["ce"] < broken["cw"] - 0.1
