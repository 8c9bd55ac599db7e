"""Gaussian noise on the input at inference, as in Cohen, Rosenfeld, Kolter (ICML 2019), with a single draw per pass."""

from __future__ import annotations

from torch import Tensor, nn

from gauntlet.attacks.ops.validators import positive
from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry
from gauntlet.defenses.pipeline.randomness import INPUT_NOISE, draws_for


class InputNoise(nn.Module):
    """images + sigma · normal noise, clipped to [0, 1].

    With draws from the caller (`gauntlet.attacks.ops.random.model_randomness`) the same sample at the same step gets the same
    noise in any batch. Without draws the noise comes from torch's global generator.
    """

    def __init__(self, sigma: float) -> None:
        """`sigma`: standard deviation of the noise."""
        super().__init__()
        self.sigma = sigma

    def forward(self, images: Tensor) -> Tensor:
        """Noisy images (N, C, H, W). Raises ValueError if the draws are for another number of samples."""
        noise = draws_for(images).normal(images.shape[1:], tag=INPUT_NOISE, dtype=images.dtype)
        return (images + self.sigma * noise).clamp(0, 1)

    def extra_repr(self) -> str:
        """The standard deviation."""
        return f"sigma={self.sigma:g}"


def build(sigma: float = 0.1) -> InputNoise:
    """`sigma`: standard deviation in units of the [0, 1] pixel range. Raises ValueError unless positive and finite."""
    positive("sigma", sigma)
    return InputNoise(float(sigma))


ENTRY = DefenseEntry(
    DefenseCard(
        name="input_noise",
        summary="adds Gaussian noise, clipped to the box",
        source="Cohen et al. 2019, arXiv 1902.02918 (one draw, no vote)",
        differentiable=True,
        randomised=True,
    ),
    build,
)
