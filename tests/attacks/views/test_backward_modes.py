"""Gradients through operations without gradient: values stay exactly, gradients become those of the identity."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from gauntlet.attacks.views.backward_modes import LeakyMode, StraightThroughMode

OPERATIONS = {
    "round": lambda x: x.round(),
    "round to decimals": lambda x: torch.round(x, decimals=1),
    "floor": torch.floor,
    "ceil": lambda x: torch.ceil(x),
    "sign": lambda x: x.sign(),
    "detach": lambda x: x.detach(),
    "softmax of logits": lambda x: functional.softmax(x, dim=1),
    "sigmoid": torch.sigmoid,
}


def gradient(function, x, mode):
    x = x.clone().requires_grad_()
    with mode:
        value = function(x)
        (found,) = torch.autograd.grad((value * torch.arange(1.0, 5)).sum(), x)
    return value.detach(), found


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_value_is_exact_and_the_gradient_that_of_the_identity(name):
    x = 5 * torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    value, found = gradient(OPERATIONS[name], x, StraightThroughMode())
    assert torch.equal(value, OPERATIONS[name](x))
    assert torch.equal(found, torch.arange(1.0, 5).expand(3, 4))


def test_smooth_operations_keep_their_gradient():
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    for function in (torch.exp, lambda x: functional.softmax(x, dim=-1), lambda x: x.clamp(0, 1), torch.relu):
        value, found = gradient(function, x, StraightThroughMode())
        expected, true = gradient(function, x, torch.enable_grad())
        assert torch.equal(value, expected)
        assert torch.equal(found, true)


def test_a_network_that_rounds_its_input_and_its_output_gets_a_gradient():
    generator = torch.Generator().manual_seed(2)
    inner = nn.Linear(4, 4)
    inner.weight.data = torch.randn(4, 4, generator=generator)

    def masked(x):
        return (functional.softmax(inner((x * 8).round() / 8), dim=1) * 20).round() / 20

    x = torch.rand(3, 4, generator=generator)
    _, blind = gradient(masked, x, torch.enable_grad())
    value, seen = gradient(masked, x, StraightThroughMode())
    assert not blind.any()
    assert torch.equal(value, masked(x).detach())
    assert torch.allclose(seen, (torch.arange(1.0, 5) @ inner.weight).expand(3, 4))


def test_nothing_is_changed_without_gradients():
    x = torch.randn(3, 4)
    with StraightThroughMode(), torch.no_grad():
        assert torch.equal(x.round(), torch.round(x))
        assert not x.detach().requires_grad


@pytest.mark.parametrize("relu", [nn.ReLU(), nn.ReLU(inplace=True), torch.relu, lambda x: x.relu(), functional.relu])
def test_a_unit_that_is_off_passes_on_a_share_of_the_gradient(relu):
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(3))
    value, found = gradient(lambda x: relu(1 * x), x, LeakyMode(slope=0.25))
    assert torch.equal(value, x.clamp_min(0))
    assert torch.equal(found, torch.arange(1.0, 5) * torch.where(x > 0, 1.0, 0.25))
