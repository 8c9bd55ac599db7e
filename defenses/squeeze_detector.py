"""Detection by feature squeezing: Xu, Evans, Qi, "Feature squeezing: detecting adversarial examples in deep neural networks".

NDSS 2018, section V: an image is rejected if the output changes much when the image is squeezed. He et al. (WOOT 2017, arXiv
1706.04701) broke it with an attack that keeps both outputs similar.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.validators import number
from gauntlet.attacks.views.interception.soft import with_identity_gradient
from gauntlet.defenses import bit_depth, median
from gauntlet.defenses.pipeline.bpda import straight_through
from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry
from gauntlet.defenses.pipeline.detector import DetectorModel


class SqueezeScore(nn.Module):
    """The largest L1 distance, over the squeezers, between the probabilities of the image and of the squeezed image."""

    def __init__(self, squeezers: Sequence[nn.Module], substitutes: Sequence[nn.Module | None]) -> None:
        """Modules from images to images (N, C, H, W), and the modules whose gradient BPDA uses (None: the identity)."""
        super().__init__()
        self.squeezers = nn.ModuleList(squeezers)
        self.substitutes = substitutes

    def forward(self, model: Callable[[Tensor], Tensor], images: Tensor, logits: Tensor) -> Tensor:
        """(N,), from 0 to 2."""
        probabilities = logits.softmax(1)
        return torch.stack(
            [(model(squeezer(images)).softmax(1) - probabilities).abs().sum(1) for squeezer in self.squeezers]
        ).amax(0)

    def attack_view(self) -> nn.Module:
        """The same score with a useful gradient, see `SqueezeScoreView`."""
        return SqueezeScoreView(self)


class SqueezeScoreView(nn.Module):
    """The same score with another gradient: of the divergence KL(own ‖ squeezed), straight through the squeezers.

    The distance saturates: it is 2 for confident predictions of different classes. The own output is constant in the gradient, so
    that the output for the squeezed image follows it; otherwise the gradient would lead back to the right class. On 300 digits
    the standard network keeps 56 % accuracy under PGD-40, with the gradient of the distance 70 %.
    """

    def __init__(self, score: SqueezeScore) -> None:
        """Shares the score's parts."""
        super().__init__()
        self.score = score
        self.squeezers = nn.ModuleList(map(straight_through, score.squeezers, score.substitutes))

    def forward(self, model: Callable[[Tensor], Tensor], images: Tensor, logits: Tensor) -> Tensor:
        """(N,), from 0 to 2."""
        fixed = logits.detach()
        probabilities, parts = fixed.softmax(1), []
        for squeezer in self.squeezers:
            logits_squeezed = model(squeezer(images))
            distance = (logits_squeezed.detach().softmax(1) - probabilities).abs().sum(1)
            divergence = (probabilities * (fixed.log_softmax(1) - logits_squeezed.log_softmax(1))).sum(1)
            parts.append(with_identity_gradient(divergence, distance))
        return torch.stack(parts).amax(0)


def build(bits: int = 1, window: int = 1, threshold: float = 1.0) -> Callable[[nn.Module], DetectorModel]:
    """Squeezers: `bits` of colour depth, and the median over `window` × `window` pixels (1: none).

    `threshold`: the least score of rejected images, between 0 and 2. The paper uses the threshold that 5 % of the clean
    training images exceed, and for MNIST 1 bit and a window of 2, which is too large for the 8 pixels of the embedded digits.
    """
    number("threshold", threshold, above=0, below=2)
    squeezers, substitutes = [bit_depth.build(bits), median.build(window)], [None, median.substitute(window)]
    used = len(squeezers) if window > 1 else 1
    return lambda model: DetectorModel(model, SqueezeScore(squeezers[:used], substitutes[:used]), threshold)


ENTRY = DefenseEntry(
    DefenseCard(
        name="squeeze_detector",
        summary="rejects where squeezing the image changes the answer",
        source="Xu et al. 2018, arXiv 1704.01155; ART FeatureSqueezing, SpatialSmoothing",
        library="adversarial-robustness-toolbox",
        differentiable=False,
        randomised=False,
        kind="model",
        rejects=True,
    ),
    build,
)
