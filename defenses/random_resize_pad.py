"""Random resizing and padding: Xie et al., "Mitigating adversarial effects through randomization", ICLR 2018, section 3.2."""

from __future__ import annotations

from torch import Tensor, nn

from gauntlet.attacks.ops.validators import number
from gauntlet.attacks.parts.input_diversity import diversify
from gauntlet.defenses.pipeline.card import DefenseCard, DefenseEntry
from gauntlet.defenses.pipeline.randomness import RESIZE_PAD, draws_for


class RandomResizePad(nn.Module):
    """Shrink each image to a random size and put it at a random place of a black frame of the original size.

    A side of n pixels becomes any whole number from ⌊least · n⌋ to n with equal probability, the other side in proportion;
    every place in the frame is equally likely. With draws from the caller, size and place depend on sample and step alone.

    Departures from the paper, which enlarges 299 pixels to 299–330 on a frame of 331: the frame has the size of the image,
    because most models accept a single size, with the same share of content; shrinking is bilinear, not by nearest
    neighbour, so that every pixel has a gradient.
    """

    def __init__(self, least: float) -> None:
        """`least`: the smallest size, as a share of the image's sides."""
        super().__init__()
        self.least = least

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W), shrunk and padded with black."""
        side = max(images.shape[2:])
        smaller = side - max(1, min(int(self.least * side), side - 1))
        # The whole frame is one of the possible sizes.
        return diversify(
            images, draws_for(images), probability=smaller / (smaller + 1), least=self.least, tag=RESIZE_PAD
        )

    def extra_repr(self) -> str:
        """The smallest size."""
        return f"least={self.least:g}"


def build(least: float = 0.9) -> RandomResizePad:
    """`least`: the smallest size, as a share of the image's sides, between 0 and 1; about 0.9 in the paper."""
    number("least", least, above=0, below=1)
    return RandomResizePad(float(least))


ENTRY = DefenseEntry(
    DefenseCard(
        name="random_resize_pad",
        summary="shrinks to a random size, at a random place on black",
        source="Xie et al. 2018, arXiv 1711.01991",
        differentiable=True,
        randomised=True,
    ),
    build,
)
