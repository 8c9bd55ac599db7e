"""Anti-adversary layer: Alfarra et al., "Combating adversaries with anti-adversaries", AAAI 2022.

Before classification the image is optimised so that the model becomes more confident of its prediction. Croce et al.,
"Evaluating the adversarial robustness of adaptive test-time defenses" (ICML 2022, arXiv 2202.13711) showed that the gain
vanishes under adaptive attacks: a misclassified image is pushed further into the wrong class.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from gauntlet.attacks.ops.validators import positive, whole_number
from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry


class PurifiedModel(nn.Module):
    """f(x + γ), where γ results from signed gradient steps that lower the cross-entropy of f(x + γ) to f's prediction at x.

    γ consists of signs, which are constant in a small neighbourhood, so that autograd with a constant γ gives the true gradient
    almost everywhere. As in the authors' code, images are not clipped to the box. The loss is summed over the images, not
    averaged: the signs are the same, without underflow in large batches.
    """

    def __init__(self, model: nn.Module, steps: int, step_size: float) -> None:
        """`model`: images to logits (N, K)."""
        super().__init__()
        self.model = model
        self.steps = steps
        self.step_size = step_size
        # New modules are in training mode; this module takes the mode of the wrapped model.
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W), also under no_grad; gradients of parameters are not changed."""
        moved: Tensor = self.model(images + self._anti_adversary(images.detach()))
        return moved

    def _anti_adversary(self, images: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            # A copy, since tensors made in inference mode do not support autograd.
            x = images.clone()
            move = torch.zeros_like(x)
            predicted = self.model(x).detach().argmax(1)
            for _ in range(self.steps):
                point = (x + move).requires_grad_()
                loss = functional.cross_entropy(self.model(point), predicted, reduction="sum")
                move = move - self.step_size * torch.autograd.grad(loss, point)[0].sign()
        return move

    def extra_repr(self) -> str:
        """Number and size of the steps."""
        return f"steps={self.steps}, step_size={self.step_size:g}"


def build(steps: int = 2, step_size: float = 0.15) -> Callable[[nn.Module], PurifiedModel]:
    """`steps` of `step_size`, in units of the [0, 1] pixel range; default two steps of 0.15 as in the paper."""
    whole_number("steps", steps, 1, 1_000)
    positive("step_size", step_size)
    return lambda model: PurifiedModel(model, steps, float(step_size))


ENTRY = DefenseEntry(
    DefenseCard(
        name="purify",
        summary="moves the image towards what the model predicts (anti-adversary)",
        source="Alfarra et al. 2022, arXiv 2103.14347",
        differentiable=True,
        randomised=False,
        kind="model",
        test_time_gradient=True,
    ),
    build,
)
