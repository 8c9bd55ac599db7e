"""Bounds and the exact solver for small ReLU networks, and attacks measured against that ground truth."""

from __future__ import annotations

import ctypes
import sys
import time

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import nn

import gauntlet
from builders import network, seeded, slow_unless
from gauntlet.attacks.ops.losses import margin
from gauntlet.defenses.certificates.exact_milp import exact_linf, worst_margin
from gauntlet.defenses.certificates.ibp_crown_bounds import margin_bounds
from gauntlet.defenses.certificates.relu_program import Program, minimise
from gauntlet.defenses.training.catalog import RECIPES
from gauntlet.defenses.training.loop import fit

EPS = 0.15


def convolutional():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(4, 6, (1, 2), dilation=(1, 2), groups=2, bias=False), nn.Dropout(0.5)),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3, padding="same"),
        nn.Flatten(),
        nn.Linear(3 * 1 * 4, 8),
        nn.ReLU(),
        nn.Linear(8, 4),
    )


def case(name):
    """A network, images with pixels at 0 and 1, labels that it gives, and an eps."""
    generator = torch.Generator().manual_seed(5)
    build, shape, eps = {
        "dense": (lambda: network(12, 10, 10, 4), (1, 3, 4), 0.1),
        "convolutional": (convolutional, (2, 5, 5), 0.1),
        "linear": (lambda: network(12, 4), (1, 3, 4), 0.2),
    }[name]
    model = seeded(build).double()
    images = (1.4 * torch.rand(40, *shape, generator=generator, dtype=torch.float64) - 0.2).clamp(0, 1)
    return model, images, model(images).argmax(1), eps


def gaps(model, points, labels):
    """logit[label] - logit[j], infinite at the label."""
    with torch.no_grad():
        logits = model(points)
    return (logits.gather(1, labels[:, None]) - logits).scatter(1, labels[:, None], torch.inf)


def sampled(model, images, labels, eps, seed=0):
    """The smallest gap to each class over random points, corners, and corners that the gradient points to."""
    generator = torch.Generator().manual_seed(seed)
    least = gaps(model, images, labels)
    low, high = (images - eps).clamp_min(0), (images + eps).clamp_max(1)
    for draw in range(40):
        share = torch.rand(images.shape, generator=generator, dtype=torch.float64)
        x = low + (high - low) * (share.round() if draw % 2 else share)
        least = torch.minimum(least, gaps(model, x, labels))
    for j in range(least.shape[1]):
        x = images
        for _ in range(5):
            x = x.detach().requires_grad_()
            logits = model(x)
            (logits.gather(1, labels[:, None]).sum() - logits[:, j].sum()).backward()
            x = torch.where(x.grad > 0, low, torch.where(x.grad < 0, high, images))
            least = torch.minimum(least, gaps(model, x, labels))
    return least


@pytest.fixture(scope="module")
def digits():
    return gauntlet.load_data("digits")


def trained(recipe):
    train = gauntlet.load_data("digits-train")
    model = network(64, 16, 10)
    fit(model, train.images, train.labels, RECIPES[recipe], threat=gauntlet.ThreatModel("Linf", EPS), seed=0)
    return model


@pytest.fixture(scope="module", params=[pytest.param("standard", marks=pytest.mark.slow), "fast"])
def decided(request, digits):
    """A 64-16-10 network and its exact verdicts on the 797 test images, with the seconds they took."""
    model = trained(request.param)
    began = time.process_time()
    verdicts = exact_linf(model, digits.images, digits.labels, EPS)
    return model, verdicts, time.process_time() - began


@pytest.mark.parametrize("method", ["ibp", "crown"])
@pytest.mark.parametrize("name", ["dense", "convolutional", "linear"])
def test_no_point_of_the_ball_has_a_smaller_margin_than_the_bound(name, method):
    model, images, labels, eps = case(name)
    bounds = margin_bounds(model, images, labels, eps, method=method)
    least = sampled(model, images, labels, eps)
    assert bounds.dtype == torch.float64
    assert bounds.shape == least.shape
    assert (bounds <= least + 1e-12).all()
    assert bounds.gather(1, labels[:, None]).isinf().all()


@pytest.mark.parametrize("eps", [1e-9, 0.01, 0.1])
def test_bounds_come_as_close_as_the_ball_is_small(eps):
    for name in ("dense", "convolutional"):
        model, images, labels, _ = case(name)
        clean = gaps(model, images, labels)
        off = (clean - margin_bounds(model, images, labels, eps))[clean.isfinite()]
        assert (off >= 0).all()
        assert off.max() < 10 * eps


@pytest.mark.parametrize("method", ["ibp", "crown"])
def test_bounds_of_a_linear_model_are_its_exact_margins_within_the_box(method):
    model, images, labels, eps = case("linear")
    weight, bias, x = model[1].weight.detach(), model[1].bias.detach(), images.flatten(1)
    direction = weight[labels][:, None] - weight
    corner = torch.where(direction > 0, (x - eps).clamp_min(0)[:, None], (x + eps).clamp_max(1)[:, None])
    exact = (direction * corner).sum(2) + bias[labels][:, None] - bias
    exact = exact.scatter(1, labels[:, None], torch.inf)
    torch.testing.assert_close(margin_bounds(model, images, labels, eps, method=method), exact, rtol=1e-12, atol=1e-12)
    found = exact_linf(model, images, labels, eps)
    assert torch.equal(found.robust, exact.amin(1) > 0)
    assert torch.equal(found.broken, exact.amin(1) < 0)
    assert 0 < found.broken.sum() < len(labels)
    worst = worst_margin(model, images, labels, eps)
    torch.testing.assert_close(worst.upper, exact.amin(1), rtol=0, atol=1e-9)
    torch.testing.assert_close(worst.lower, exact.amin(1), rtol=0, atol=1e-9)


def test_crown_is_never_looser_than_intervals_and_on_average_tighter():
    for name in ("dense", "convolutional"):
        model, images, labels, eps = case(name)
        crown, ibp = (margin_bounds(model, images, labels, eps, method=method) for method in ("crown", "ibp"))
        assert (crown >= ibp - 1e-12).all()
        other = crown.isfinite()
        assert (crown - ibp)[other].mean() > 0.1 * (gaps(model, images, labels) - ibp)[other].mean()


def test_bounds_do_not_hang_on_how_samples_are_batched():
    model, images, labels, eps = case("convolutional")
    torch.testing.assert_close(
        margin_bounds(model, images, labels, eps, batch_size=7), margin_bounds(model, images, labels, eps)
    )


def test_the_model_and_its_gradients_are_left_as_they_are():
    model, images, labels, eps = case("dense")
    model = model.float().train()
    before = [p.clone() for p in model.parameters()]
    exact_linf(model, images[:5], labels[:5], eps)
    assert model.training
    assert all(torch.equal(p, q) and p.grad is None for p, q in zip(model.parameters(), before, strict=True))
    assert all(p.dtype == torch.float32 and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("seed", [slow_unless(seed < 2, seed) for seed in range(4)])
def test_the_worst_margin_agrees_with_a_fine_grid_over_two_pixels(seed):
    model = network(2, 3, 2, seed=seed).double()
    with torch.no_grad():
        model[1].weight.mul_(5)
        model[3].weight.mul_(5)
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(12, 2, generator=generator, dtype=torch.float64)
    labels, eps = model(images).argmax(1), 0.25
    found, verdicts = worst_margin(model, images, labels, eps), exact_linf(model, images, labels, eps)
    steps = torch.linspace(0, 1, 401, dtype=torch.float64)
    share = torch.cartesian_prod(steps, steps)
    slope = (model[3].weight[0] - model[3].weight[1]).abs() @ model[1].weight.abs().sum(1)
    for i in range(len(images)):
        low, high = (images[i] - eps).clamp_min(0), (images[i] + eps).clamp_max(1)
        with torch.no_grad():
            grid = margin(model(low + (high - low) * share), labels[i].expand(len(share))).min()
        # Between grid points the margin falls by at most its slope times half a step of 2 eps / 400.
        assert grid - slope * eps / 400 - 1e-6 <= found.lower[i] <= found.upper[i] <= grid + 1e-6
        assert bool(verdicts.broken[i]) == bool(found.upper[i] < 0)
    assert (found.gap <= 1e-5).all()


@pytest.mark.parametrize("count", [4, pytest.param(15, marks=pytest.mark.slow)])
def test_the_worst_margin_of_deep_and_convolutional_networks_lies_between_bound_and_attack(count):
    for name in ("dense", "convolutional"):
        model, images, labels, eps = case(name)
        found = worst_margin(model, images[:count], labels[:count], eps)
        bound = margin_bounds(model, images[:count], labels[:count], eps).amin(1)
        attacked = sampled(model, images[:count], labels[:count], eps).amin(1)
        assert (found.gap <= 1e-5).all()
        assert (found.lower >= bound - 1e-9).all()
        assert (found.upper <= attacked + 1e-6).all()
        assert (found.lower - bound).max() > 1e-3, "the bound alone must not be exact here"
        assert (found.point - images[:count]).abs().max() <= eps + 1e-12
        torch.testing.assert_close(margin(model(found.point), labels[:count]), found.upper, rtol=0, atol=1e-12)


def needle(rest):
    """The other class wins only close to (0.7, 0.3), where the margin is `rest`; the gradient is 0 elsewhere."""
    model = network(2, 4, 1, 2).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]]))
        model[1].bias.copy_(torch.tensor([-0.7, 0.7, -0.3, 0.3], dtype=torch.float64))
        model[3].weight.fill_(-100)
        model[3].bias.fill_(1)
        model[5].weight.copy_(torch.tensor([[0.0], [1.0]]))
        model[5].bias.copy_(torch.tensor([1 + rest, 0.0], dtype=torch.float64))
    return model


def test_a_network_that_no_short_attack_breaks_is_broken_by_the_search():
    model, labels = needle(-0.5), torch.tensor([0, 0])
    images = torch.tensor([[0.52, 0.44], [0.2, 0.2]], dtype=torch.float64)
    found = exact_linf(model, images, labels, 0.2)
    assert found.searched[0]
    assert found.broken.tolist() == [True, False]
    assert found.robust.tolist() == [False, True]
    torch.testing.assert_close(found.witness[0], torch.tensor([0.7, 0.3]).double(), rtol=0, atol=0.006)
    assert worst_margin(model, images, labels, 0.2).upper.tolist() == pytest.approx([-0.5, 0.5], abs=1e-5)


@pytest.mark.parametrize(("rest", "verdict"), [(1e-3, "robust"), (1e-8, "open"), (-1e-3, "broken")])
def test_the_search_leaves_open_what_rounding_could_turn(rest, verdict):
    found = exact_linf(needle(rest), torch.tensor([[0.52, 0.44]]), torch.tensor([0]), 0.2)
    assert {name: bool(getattr(found, name)) for name in ("robust", "open", "broken")} == {
        name: name == verdict for name in ("robust", "open", "broken")
    }


def test_all_digits_are_decided_in_time(decided):
    _, verdicts, seconds = decided
    assert seconds < 10
    assert not verdicts.open.any()
    assert torch.equal(verdicts.robust, ~verdicts.broken)
    assert verdicts.robust.sum() > 80
    assert verdicts.broken.sum() > 80
    assert verdicts.searched.sum() > 20, "bounds and attack alone must not decide everything here"


def test_every_witness_is_misclassified_and_inside(decided, digits):
    model, verdicts, _ = decided
    clean, broken = digits.images.double(), verdicts.broken
    with torch.no_grad():
        wrong = trained_double(model)(verdicts.witness).argmax(1) != digits.labels
    assert wrong[broken].all()
    assert (verdicts.witness - clean).abs().max() <= EPS + 1e-12
    assert verdicts.witness.min() >= 0
    assert verdicts.witness.max() <= 1
    assert torch.equal(verdicts.witness[~broken], clean[~broken])
    assert (verdicts.upper[broken] <= 0).all()
    assert (verdicts.lower[verdicts.robust] > 0).all()
    assert (verdicts.lower <= verdicts.upper).all()


def trained_double(model):
    copied = network(64, 16, 10).double().eval()
    copied.load_state_dict({name: tensor.double() for name, tensor in model.state_dict().items()})
    return copied


@pytest.mark.slow
def test_no_attack_breaks_a_sample_that_is_proven_robust_and_pgd_misses_few(decided, digits):
    model, verdicts, _ = decided
    found = gauntlet.evaluate(
        model,
        digits,
        threat=f"Linf:{EPS}",
        attacks=["pgd(steps=40, restarts=2)", "pgd(steps=40, loss=cw)"],
        device="cpu",
    )
    disputed = (~found.robust & verdicts.robust).nonzero().squeeze(1)
    # The verifier works in float32 and allows its rounding at the ball's edge: margins within that may be told apart.
    closest = worst_margin(model, digits.images[disputed], digits.labels[disputed], EPS)
    assert (closest.upper < 1e-5).all()
    missed = found.robust & verdicts.broken
    assert missed.double().mean() < 0.08
    chosen = missed.nonzero().squeeze(1)[:10]
    worst = worst_margin(model, digits.images[chosen], digits.labels[chosen], EPS)
    assert (worst.upper < 0).all()
    assert (worst.gap < 1e-4).all()


def test_the_worst_margin_agrees_with_the_verdict(decided, digits):
    model, verdicts, _ = decided
    hard = (verdicts.searched & verdicts.robust).nonzero().squeeze(1)[:15]
    rows = torch.cat([torch.arange(15), hard])
    worst = worst_margin(model, digits.images[rows], digits.labels[rows], EPS)
    assert (worst.gap < 1e-4).all()
    assert torch.equal(worst.upper < 0, verdicts.broken[rows])
    assert torch.equal(worst.lower > 0, verdicts.robust[rows])
    assert (verdicts.lower[rows] <= worst.upper + 1e-5).all()
    assert (verdicts.upper[rows] >= worst.lower - 1e-5).all()


def test_a_misclassified_clean_image_is_its_own_witness(decided, digits):
    model, verdicts, _ = decided
    with torch.no_grad():
        row = int((model(digits.images).argmax(1) != digits.labels).nonzero()[0])
    found = exact_linf(model, digits.images[row : row + 1], digits.labels[row : row + 1], 1e-4)
    assert found.broken.all()
    assert verdicts.broken[row]
    assert (found.witness - digits.images[row : row + 1]).abs().max() == 0


def test_a_margin_closer_to_zero_than_rounding_can_tell_is_open():
    model = network(2, 2).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 0], [0, 0]]))
        model[1].bias.zero_()
    labels = torch.tensor([0, 0, 0])
    images = torch.tensor([[0.2 + 1e-8, 0.5], [0.2 + 1e-3, 0.5], [0.2 - 1e-3, 0.5]], dtype=torch.float64)
    with torch.no_grad():
        model[1].bias[1] = 0.1
    found = exact_linf(model, images, labels, 0.1)
    assert found.open.tolist() == [True, False, False]
    assert found.robust.tolist() == [False, True, False]
    assert found.broken.tolist() == [False, False, True]


def test_what_the_time_limit_cuts_off_is_open_and_never_robust(decided, digits):
    model, verdicts, _ = decided
    hasty = exact_linf(model, digits.images, digits.labels, EPS, time_limit=1e-9)
    assert hasty.open.any()
    assert not (hasty.robust & ~verdicts.robust).any()
    assert not (hasty.broken & ~verdicts.broken).any()
    left = worst_margin(model, digits.images[hasty.open], digits.labels[hasty.open], EPS, time_limit=1e-9)
    assert (left.gap > 1e-3).any()


def test_no_samples_give_no_verdicts():
    model, images, labels, eps = case("dense")
    assert exact_linf(model, images[:0], labels[:0], eps).robust.shape == (0,)
    assert margin_bounds(model, images[:0], labels[:0], eps).shape == (0, 4)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [nn.Flatten(), nn.Linear(16, 4), nn.Sigmoid(), nn.Linear(4, 2)],
            "computes sigmoid, for which no bound is known",
        ),
        ([nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(16, 2)], "statistics of the batch"),
        ([nn.Sequential(nn.MaxPool2d(2)), nn.Flatten(), nn.Linear(4, 2)], "computes max_pool2d"),
        ([nn.Linear(4, 2), nn.Flatten()], r"put nn.Flatten\(\) before linear layers"),
        (
            [nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.Linear(16, 2)],
            "computes reflection_pad2d",
        ),
        ([nn.Conv2d(1, 1, 3)], "at least 2 classes"),
        ([nn.Flatten(2), nn.Linear(16, 2)], r"shape \(1, 2\) a sample"),
    ],
)
@pytest.mark.parametrize("function", [margin_bounds, exact_linf, worst_margin])
def test_an_operation_that_is_not_supported_is_refused_by_name(function, layers, message):
    with pytest.raises(ValueError, match=message):
        function(nn.Sequential(*layers), torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), 0.1)


def test_a_hook_is_part_of_what_a_model_computes():
    model, images, labels, eps = case("dense")
    before = margin_bounds(model, images, labels, eps)
    model[-1].register_forward_hook(lambda module, arguments, output: output + torch.tensor([1.0, 0, 0, 0]))
    after = margin_bounds(model, images, labels, eps)
    others = labels != 0
    torch.testing.assert_close(after[others, 0], before[others, 0] - 1, rtol=0, atol=1e-9)


def test_a_model_that_changes_between_passes_is_refused():
    class Counting(nn.Module):
        passes = 0

        def forward(self, x):
            self.passes += 1
            return x * self.passes

    model, images, labels, eps = case("dense")
    with pytest.raises(ValueError, match="something else than its traced operations"):
        margin_bounds(nn.Sequential(Counting(), *model), images, labels, eps)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": -0.1}, "eps"),
        ({"images": torch.full((2, 12), 1.5)}, r"images\[0\] has pixels outside"),
        ({"images": torch.full((2, 12), torch.nan)}, r"images\[0\] has pixels outside"),
        ({"labels": torch.tensor([0, 4])}, r"labels\[1\] = 4 is outside 0\.\.3"),
        ({"labels": torch.tensor([0.0, 1.0])}, "whole numbers"),
        ({"labels": torch.tensor([0])}, "shape"),
        ({"time_limit": 0.0}, "time_limit=0.0"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(change, message):
    arguments = {"images": torch.rand(2, 12), "labels": torch.tensor([0, 1]), "eps": 0.1} | change
    with pytest.raises(ValueError, match=message):
        exact_linf(network(12, 8, 4), **arguments)


def test_a_network_too_large_to_write_out_is_refused_by_the_search_but_not_by_the_bounds():
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 72 * 72, 2))
    images, labels = torch.rand(1, 1, 72, 72), torch.tensor([0])
    with pytest.raises(ValueError, match="margin_bounds for larger networks"):
        exact_linf(model, images, labels, 0.01)
    assert margin_bounds(model, images, labels, 0.01).isfinite().sum() == 1


@pytest.fixture
def noisy(monkeypatch):
    """A solver that prints from C, with C's buffer as it is where the output is no terminal; gives what prints from C."""
    libc = ctypes.CDLL(None)
    stdout = ctypes.c_void_p.in_dll(libc, "stdout")
    libc.fflush(None)
    libc.setvbuf(stdout, None, 0, 4096)
    real = scipy.optimize.milp

    def milp(*arguments, **settings):
        libc.printf(b"a line from C\n")
        libc.printf(b"half a line from C")
        return real(*arguments, **settings)

    monkeypatch.setattr(scipy.optimize, "milp", milp)
    yield libc.printf
    libc.fflush(None)
    libc.setvbuf(stdout, None, 2, 0)  # without a buffer: nothing of other tests is kept in it


def half():
    """The program of one binary variable v <= 0.5, minimised."""
    one = np.ones(1)
    written = Program(np.ones((1, 1)), one, np.array([1]), np.ones((1, 1)), np.zeros(1))
    return minimise(one, 0.5, written, 1.0).x.tolist()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="C's library is found by this name on Linux")
def test_what_the_solver_prints_from_c_does_not_reach_the_output_and_nothing_else_is_lost(noisy, capfd):
    noisy(b"before ")
    assert half() == [0]
    noisy(b"after")
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr() == ("before after", "")


def test_a_process_without_an_output_solves_too(monkeypatch):
    def closed(descriptor):
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr("os.dup", closed)
    assert half() == [0]
