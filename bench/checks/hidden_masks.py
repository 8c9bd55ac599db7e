"""Networks with undeclared gradient masking, which the checks must notice: for the matrix in docs/checks.md and for tests.

Each is the undefended network of the zoo with a change in its forward pass that does not make it more robust.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gauntlet.bench.models.catalog import MODELS

Transform = Callable[[Tensor], Tensor]


class MaskedNetwork(nn.Module):
    """A model between two functions."""

    def __init__(self, model: nn.Module, before: Transform | None = None, after: Transform | None = None) -> None:
        """`before` maps images (N, C, H, W), `after` what the model makes of them, to outputs (N, K); None changes nothing."""
        super().__init__()
        self.model = model
        self.before = before
        self.after = after
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Outputs (N, K)."""
        outputs: Tensor = self.model(images if self.before is None else self.before(images))
        return outputs if self.after is None else self.after(outputs)


class TestTimeAscent(nn.Module):
    """A model that moves the image by gradient ascent on its predicted class before it is classified."""

    def __init__(self, model: nn.Module, steps: int = 2, size: float = 0.05) -> None:
        super().__init__()
        self.model = model
        self.steps = steps
        self.size = size
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K)."""
        moved = images.detach()
        for _ in range(self.steps):
            with torch.enable_grad():
                point = moved.requires_grad_()
                (gradient,) = torch.autograd.grad(self.model(point).amax(1).sum(), point)
            moved = (point.detach() + self.size * gradient.sign()).clamp(0, 1)
        logits: Tensor = self.model(images + (moved - images).detach())
        return logits


def undefended() -> nn.Module:
    """The network that all of them are built on."""
    return MODELS.get("cnn.standard_digits").build()


def scaled_logits() -> nn.Module:
    """The cross-entropy saturates: its gradient rounds to zero."""
    return MaskedNetwork(undefended(), after=lambda logits: 1000 * logits)


def rounded_softmax() -> nn.Module:
    """Rounding has the derivative zero."""
    return MaskedNetwork(undefended(), after=lambda logits: logits.softmax(1).round(decimals=2))


def softmax() -> nn.Module:
    """Probabilities where logits are expected."""
    return MaskedNetwork(undefended(), after=lambda logits: logits.softmax(1))


def quantised_input() -> nn.Module:
    """Pixels of three bits."""
    return MaskedNetwork(undefended(), before=lambda images: (7 * images).round() / 7)


def detached_input() -> nn.Module:
    """The input is detached from autograd."""
    return MaskedNetwork(undefended(), before=lambda images: images.detach())


def noisy_input() -> nn.Module:
    """Gaussian noise from torch's global generator, without keys."""
    return MaskedNetwork(undefended(), before=lambda images: images + 0.1 * torch.randn_like(images))


def optimising() -> nn.Module:
    """Two steps of gradient ascent at test time; autograd treats them as the identity."""
    return TestTimeAscent(undefended())


MASKS: tuple[str, ...] = (
    "scaled_logits",
    "rounded_softmax",
    "softmax",
    "quantised_input",
    "detached_input",
    "noisy_input",
    "optimising",
)
"""Names of the factories, for `gauntlet run --model gauntlet.bench.checks.hidden_masks:NAME`."""
