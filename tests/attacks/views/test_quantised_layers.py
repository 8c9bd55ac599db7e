"""Under interception quantised networks have the gradient of the network in floating point, and their own values."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from gauntlet.attacks.views.backward_modes import backward_mode

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*an autograd kernel was not registered"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch.ao"),
]
IMAGES = torch.rand(16, 2, 8, 8, generator=torch.Generator().manual_seed(0))


class Residual(nn.Module):
    """Convolution with groups, stride and padding, a sum, pooling and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.after = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
        self.first = nn.Conv2d(2, 8, 3, stride=2, padding=1)
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2), nn.ReLU())
        self.plus = torch.ao.nn.quantized.FloatFunctional()
        self.last = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 12), nn.ReLU(), nn.Linear(12, 4))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 4)."""
        x = self.first(self.before(x))
        return self.after(self.last(self.plus.add(x, self.second(x))))


def statically(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    model.qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")
    torch.ao.quantization.prepare(model, inplace=True)
    model(IMAGES)
    return torch.ao.quantization.convert(model)


def fused(model: nn.Module) -> nn.Module:
    pairs = [["second.0", "second.1"], ["last.2", "last.3"]]
    return statically(torch.ao.quantization.fuse_modules(model, pairs))


def dynamically(model: nn.Module) -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)


def halved(model: nn.Module) -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.float16)


@pytest.mark.parametrize("quantise", [statically, fused, dynamically, halved])
def test_the_gradient_is_that_of_the_network_in_floating_point(quantise):
    plain = Residual().eval()
    model = quantise(plain)
    x = IMAGES.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(plain(x)[:, 0].sum(), x)
    with torch.no_grad():
        values = model(IMAGES)
    with backward_mode("through", len(x)) as completed:
        output = completed(model(x.clone()))
    assert torch.equal(output.detach(), values)
    (gradient,) = torch.autograd.grad(output[:, 0].sum(), x)
    alike = cosine_similarity(gradient.flatten(1), wanted.flatten(1))
    # Rounding moves the inputs of a few ReLU units over 0.
    assert float(alike.mean()) > 0.9
