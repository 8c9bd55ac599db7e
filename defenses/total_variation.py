"""Total variation minimisation: Guo et al., "Countering adversarial images using input transformations", ICLR 2018, 4.3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from gauntlet.attacks.ops.validators import number, positive, whole_number
from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry
from gauntlet.defenses.pipeline.randomness import TOTAL_VARIATION, draws_for
from gauntlet.defenses.pipeline.through_numpy import ThroughNumpy, art_preprocessor


class TotalVariation(nn.Module):
    """Replace each image by the smoothest image that agrees with a random choice of its pixels, by ART's TotalVarMin.

    ART takes images with channels last, and draws pixels from NumPy's global generator, which is seeded here from the sample's
    draws before each image and restored at the end. This is not thread-safe.
    """

    def __init__(self, minimise: Callable[[Any], tuple[Any, Any]]) -> None:
        """`minimise`: ART's TotalVarMin, for arrays (N, H, W, C)."""
        super().__init__()
        self.minimise = minimise

    def forward(self, images: Tensor) -> Tensor:
        """Smoothed images (N, C, H, W), without a gradient."""
        seeds = draws_for(images).bits(4, TOTAL_VARIATION).tolist()
        state = np.random.get_state()
        try:
            smoothed: Tensor = ThroughNumpy(lambda array: (self._each(array, seeds), None))(images)
            return smoothed
        finally:
            np.random.set_state(state)

    def _each(self, array: Any, seeds: list[list[int]]) -> Any:
        result = np.empty_like(array)
        for index, seed in enumerate(seeds):
            np.random.seed(seed)
            smooth, _ = self.minimise(np.moveaxis(array[index : index + 1], 1, -1))
            result[index] = np.moveaxis(smooth[0], -1, 0)
        return result


def build(prob: float = 0.5, lamb: float = 0.1, norm: int = 2, max_iter: int = 10) -> TotalVariation:
    """`prob`: share of the pixels kept; `lamb`: weight of the total variation, in the norm 1 or 2; `max_iter`: of L-BFGS.

    The paper keeps half of the pixels with a weight of 0.03. ART's objective has the norm of the change of the kept pixels, not
    its square: below a weight of about 0.05 the image itself is the minimum, and with ART's defaults (0.3 and 0.5) the digits
    are smoothed away. Therefore the default is 0.1.
    """
    number("prob", prob, above=0, below=1)
    positive("lamb", lamb)
    whole_number("norm", norm, 1, 2)
    whole_number("max_iter", max_iter, 1, 10_000)
    smoothing = art_preprocessor("TotalVarMin")
    return TotalVariation(smoothing(prob=prob, lamb=lamb, norm=norm, max_iter=max_iter, clip_values=(0.0, 1.0)))


ENTRY = DefenseEntry(
    DefenseCard(
        name="total_variation",
        summary="the smoothest image that agrees with a random choice of pixels",
        source="Guo et al. 2018, arXiv 1711.00117; ART TotalVarMin",
        library="adversarial-robustness-toolbox",
        differentiable=False,
        randomised=True,
        samples=60,
    ),
    build,
)
