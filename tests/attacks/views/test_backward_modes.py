"""Leaky ReLU units: values stay exactly, and units that are off pass on a share of the gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from gauntlet.attacks.views.backward_modes import LeakyMode


def gradient(function, x, mode):
    x = x.clone().requires_grad_()
    with mode:
        value = function(x)
        (found,) = torch.autograd.grad((value * torch.arange(1.0, 5)).sum(), x)
    return value.detach(), found


@pytest.mark.parametrize("relu", [nn.ReLU(), nn.ReLU(inplace=True), torch.relu, lambda x: x.relu(), functional.relu])
def test_a_unit_that_is_off_passes_on_a_share_of_the_gradient(relu):
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(3))
    value, found = gradient(lambda x: relu(1 * x), x, LeakyMode(slope=0.25))
    assert torch.equal(value, x.clamp_min(0))
    assert torch.equal(found, torch.arange(1.0, 5) * torch.where(x > 0, 1.0, 0.25))
