"""The losses that APGD ascends."""

from __future__ import annotations

import pytest
import torch

from gauntlet.attacks.ops.dlr import TARGETED, UNTARGETED, ce_targeted, dlr, dlr_targeted, log_odds
from gauntlet.attacks.ops.losses import ce, cw


@pytest.mark.parametrize("target", [1, 2])
def test_with_three_classes_the_targeted_ratio_is_not_constant_for_any_target(target):
    logits = torch.tensor([[3.0, 1.0, 0.0]], requires_grad=True)
    value = dlr_targeted(logits, torch.tensor([0]), torch.tensor([target]))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert gradient[0, 0] < 0 < gradient[0, target]


def test_the_losses_are_those_of_the_paper():
    logits = torch.tensor([[1.0, 7.0, 4.0, -2.0, 3.0], [9.0, 1.0, 2.0, 5.0, 3.0]])
    labels, targets = torch.tensor([1, 3]), torch.tensor([4, 0])
    torch.testing.assert_close(dlr(logits, labels), torch.tensor([-(7 - 4) / (7 - 3), -(5 - 9) / (9 - 3)]))
    ratio = torch.tensor([-(7 - 3) / (7 - (3 + 1) / 2), -(5 - 9) / (9 - (3 + 2) / 2)])
    torch.testing.assert_close(dlr_targeted(logits, labels, targets), ratio)
    for loss in (dlr, lambda z, y: dlr_targeted(z, y, targets)):
        torch.testing.assert_close(loss(1e3 * logits - 50, labels), loss(logits, labels))
    torch.testing.assert_close(torch.nn.functional.softplus(log_odds(logits, labels)), ce(logits, labels))


def test_the_targeted_cross_entropy_is_the_logarithm_of_the_targets_probability():
    logits, labels = torch.tensor([[1.0, -2.0, 4.0]]), torch.tensor([2])
    probability = logits.softmax(1)[:, 1]
    torch.testing.assert_close(ce_targeted(logits, labels, torch.tensor([1])), probability.log())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_every_loss_has_a_finite_gradient_that_lowers_the_label(classes, dtype):
    logits = (100 * torch.linspace(1, -1, classes, dtype=dtype) ** 3 - 1000).expand(3, -1).clone().requires_grad_()
    labels, targets = torch.zeros(3, dtype=torch.int64), torch.ones(3, dtype=torch.int64)
    named = {name: loss(logits, labels) for name, loss in UNTARGETED.items()}
    named |= {name: loss(logits, labels, targets) for name, loss in TARGETED.items()}
    for name, value in named.items():
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        assert value.shape == (3,), name
        assert value.dtype == dtype, name
        assert gradient.isfinite().all(), name
        if name not in ("ce", "pm"):  # which saturate
            assert (gradient[:, 0] < 0).all(), name


def test_equal_logits_give_finite_ratios():
    logits, labels, targets = torch.zeros(2, 5), torch.tensor([0, 3]), torch.tensor([1, 2])
    assert dlr(logits, labels).tolist() == dlr_targeted(logits, labels, targets).tolist() == [0, 0]


def test_two_classes_fall_back_to_the_margin():
    logits, labels = torch.tensor([[2.0, -1.0], [0.5, 4.0]]), torch.tensor([0, 0])
    for loss in (dlr, log_odds, lambda z, y: dlr_targeted(z, y, 1 - y)):
        torch.testing.assert_close(loss(logits, labels), cw(logits, labels))


def test_the_probability_margin_is_the_difference_of_two_probabilities_and_its_gradient_the_papers():
    logits = torch.tensor([[2.0, 1.0, -1.0, 0.5], [0.0, 3.0, 1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0])
    p = logits.detach().softmax(1)
    value = UNTARGETED["pm"](logits, labels)
    assert torch.allclose(value, torch.stack([p[0, 1] - p[0, 0], p[1, 1] - p[1, 0]]))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    # d p_j / d z = p_j (e_j - p): of the likeliest other class, minus that of the label.
    unit = torch.eye(4, dtype=torch.float64)
    expected = torch.stack([p[i, 1] * (unit[1] - p[i]) - p[i, 0] * (unit[0] - p[i]) for i in range(2)])
    assert torch.allclose(gradient, expected)


def test_scaled_cross_entropy_has_a_gradient_however_confident_the_model_is():
    logits = torch.tensor([[2.0, 1.0, -1.0, 0.5], [0.0, 3.0, 1.0, 2.0]])
    labels = torch.tensor([0, 1])
    # Both have distances of 1 between the two largest logits, so that it is cross-entropy there.
    values = UNTARGETED["mifpe"](logits, labels)
    assert torch.allclose(values, UNTARGETED["ce"](logits, labels))
    confident = (1e4 * logits).requires_grad_()
    scaled = UNTARGETED["mifpe"](confident, labels)
    assert torch.allclose(scaled, values, rtol=1e-4)
    (gradient,) = torch.autograd.grad(scaled.sum(), confident)
    assert (gradient != 0).all()
    (lost,) = torch.autograd.grad(UNTARGETED["ce"](confident, labels).sum(), confident)
    assert (lost == 0).all()


def test_scaled_cross_entropy_is_finite_where_the_two_largest_logits_are_equal():
    logits = torch.tensor([[1.0, 1.0, 0.0]], requires_grad=True)
    value = UNTARGETED["mifpe"](logits, torch.tensor([0]))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
