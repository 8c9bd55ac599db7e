"""Anti-adversary layer: Alfarra et al., "Combating adversaries with anti-adversaries", AAAI 2022.

Before the model answers, the image is moved so as to make it more certain of what it predicts already: optimisation at test
time. Croce et al., "Evaluating the adversarial robustness of adaptive test-time defenses" (ICML 2022, arXiv 2202.13711) found
nothing left of its gain: an image that the model misclassifies is pushed further into the wrong class.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from gauntlet.attacks.ops.validators import positive, whole_number
from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry


class PurifiedModel(nn.Module):
    """f(x + γ), where γ comes from signed gradient steps down the cross-entropy of f(x + γ) to f's prediction at x.

    γ is made of signs, which do not change in a small neighbourhood: autograd, for which it is a constant, gives the true
    gradient almost everywhere. Like the authors' code it does not clip to the box. The loss is summed over the images, not
    averaged: the same signs, but no underflow in large batches.
    """

    def __init__(self, model: nn.Module, steps: int, step_size: float) -> None:
        """`model`: images to logits (N, K)."""
        super().__init__()
        self.model = model
        self.steps = steps
        self.step_size = step_size
        # A module is born in training mode; this one follows what it wraps.
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W); works without gradients too, and leaves those of parameters alone."""
        moved: Tensor = self.model(images + self._anti_adversary(images.detach()))
        return moved

    def _anti_adversary(self, images: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            # A copy: tensors made in inference mode take no part in autograd.
            x = images.clone()
            move = torch.zeros_like(x)
            predicted = self.model(x).detach().argmax(1)
            for _ in range(self.steps):
                point = (x + move).requires_grad_()
                loss = functional.cross_entropy(self.model(point), predicted, reduction="sum")
                move = move - self.step_size * torch.autograd.grad(loss, point)[0].sign()
        return move

    def extra_repr(self) -> str:
        """Steps and their size."""
        return f"steps={self.steps}, step_size={self.step_size:g}"


def build(steps: int = 2, step_size: float = 0.15) -> Callable[[nn.Module], PurifiedModel]:
    """`steps` of `step_size`, in units of the [0, 1] pixel range: the paper's two steps of 0.15."""
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
