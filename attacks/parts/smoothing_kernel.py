"""Gaussian smoothing of gradients: Dong et al., "Evading defenses to transferable adversarial examples by
translation-invariant attacks", CVPR 2019."""

from __future__ import annotations

import torch
from torch import Tensor


def smooth(gradient: Tensor, length: int, sigmas: float) -> Tensor:
    """Each channel of (N, C, H, W) convolved with a Gaussian kernel of `length` × `length` weights that sum to 1.

    `length` is odd. From its middle to its edge the kernel spans `sigmas` standard deviations. Beyond the image the gradient is
    0, and the kernel may be larger than the image (section 3.2; the authors' code has 15 and 3).
    """
    return (
        _band(gradient.shape[2], length, sigmas, gradient)
        @ gradient
        @ _band(gradient.shape[3], length, sigmas, gradient)
    )


def scaled_length(side: int) -> int:
    """The odd length in proportion to a side of `side` pixels, as 15 is to 299 in the paper; at least 3."""
    return 2 * max(1, round(7 * side / 299)) + 1


def _band(side: int, length: int, sigmas: float, like: Tensor) -> Tensor:
    """The convolution along one side as a symmetric matrix (side, side)."""
    radius = length // 2
    pixel = torch.arange(max(side, length), dtype=torch.float64, device=like.device)
    weights = torch.exp(-0.5 * (pixel * sigmas / max(radius, 1)) ** 2) * (pixel <= radius)
    weights = weights / (2 * weights.sum() - 1)
    apart = torch.arange(side, device=like.device)
    return weights[(apart[:, None] - apart).abs()].to(like.dtype)
