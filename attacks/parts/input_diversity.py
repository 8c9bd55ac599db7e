"""Input diversity: Xie et al., "Improving transferability of adversarial examples with input diversity", CVPR 2019."""

from __future__ import annotations

import torch
from torch import Tensor

from gauntlet.attacks.ops.norms import per_image
from gauntlet.attacks.ops.random import Draws


def diversify(x: Tensor, draws: Draws, *, probability: float, least: float, tag: int = 0) -> Tensor:
    """Each image (N, C, H, W) is, with `probability`, shrunk to a random size at a random place on black, else unchanged.

    `least`: the smallest size, as a share of the image's sides, between 0 and 1. The new length of a side of n pixels is uniform
    on the whole numbers from ⌊least · n⌋ (at most n − 1) to n − 1, the other side is in proportion, and the place in the frame
    is uniform. Interpolation is bilinear, with aligned pixel centres. Each image has its own draws. Differentiable in `x`;
    unchanged images are returned bit for bit.

    Departures from section 3.3 and the authors' code (cihangxie/DI-2-FGSM): they enlarge 299 pixels to 299–329, by repeating
    pixels, on a frame of 330, which needs a network for images of any size. Here, as in torchattacks, the frame is the image,
    and its content has the same share of it. They fill with 0 in images of [-1, 1], which is mid-grey; here the fill is black.
    They draw once for the whole batch, and never the last place in the frame: a frame with one pixel to spare leaves no choice,
    and on digits of 8 pixels the attack would not be random.
    """
    chance, scale, down, across = draws.uniform((4,), tag, torch.float64).unbind(1)
    rows = _placing(x.shape[2], least, scale, down).to(x.dtype)
    columns = _placing(x.shape[3], least, scale, across).to(x.dtype)
    # Matrix products, since the backward pass of grid_sample adds in a varying order on a GPU.
    moved = rows[:, None] @ x @ columns[:, None].mT
    return torch.where(per_image(chance < probability, x), moved, x)


def _placing(length: int, least: float, scale: Tensor, place: Tensor) -> Tensor:
    """Matrices (N, length, length) that shrink a side and place it in the frame, for uniform draws (N,)."""
    smallest = max(1, min(int(least * length), length - 1))
    side = smallest + (scale * (length - smallest)).floor()
    offset = (place * (length - side + 1)).floor()
    pixel = torch.arange(length, dtype=scale.dtype, device=scale.device)
    row = pixel - offset[:, None]
    source = ((row + 0.5) * (length / side)[:, None] - 0.5).clamp(0, length - 1)
    weights = (1 - (source[:, :, None] - pixel).abs()).clamp_min(0)
    inside = (row >= 0) & (row < side[:, None])
    return weights * inside[:, :, None]
