"""Distances, projections and directions in the norms of the threat models; images are (N, C, H, W)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gauntlet.attacks.ops.l1_ball import project_l1
from gauntlet.attacks.ops.random import Draws
from gauntlet.attacks.ops.rounding import round_towards
from gauntlet.attacks.ops.threat import Norm, ThreatModel
from gauntlet.attacks.ops.threat import limit as limit


def distance(a: Tensor, b: Tensor, norm: Norm) -> Tensor:
    """Distance of each image of `a` from that of `b`, computed in float64, (N,)."""
    delta = (a.to(torch.float64) - b.to(torch.float64)).flatten(1)
    if norm == "Linf":
        return delta.abs().amax(1)
    size: Tensor = torch.linalg.vector_norm(delta, ord=2 if norm == "L2" else 1, dim=1)
    return size


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """Reshape (N,) to (N, 1, …) so that it broadcasts against images."""
    return values.view(-1, *[1] * (like.dim() - 1))


def project(x: Tensor, clean: Tensor, threat: ThreatModel) -> Tensor:
    """A point of the ball and the box near `x`.

    Exact for Linf and L1. For L2 the perturbation is scaled into the ball, rounded towards the clean image (where every pixel
    rounds the same way, the sum would leave the ball) and then clipped to the box: clipping moves each pixel towards its clean
    value, so the point stays in the ball, though it need not be the closest one of the intersection.
    """
    if threat.norm == "Linf":
        return torch.clamp(torch.minimum(torch.maximum(x, clean - threat.eps), clean + threat.eps), 0, 1)
    if threat.norm == "L2":
        center = clean.to(torch.float64)
        delta = x.to(torch.float64) - center
        size = torch.linalg.vector_norm(delta.flatten(1), dim=1).clamp_min(torch.finfo(torch.float64).tiny)
        exact = center + delta * per_image((threat.eps / size).clamp_max(1), x)
        return round_towards(exact, center, x.dtype).clamp(0, 1)
    return project_l1(x, clean, torch.full((len(x),), threat.eps, dtype=torch.float64, device=x.device))


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """The direction of steepest ascent of unit length in the norm: the sign for Linf, the normalised gradient for L2.

    Raises NotImplementedError for anything else; in L1 it would change a single pixel, and attacks use `sparse_ascent`.
    """
    if norm == "Linf":
        return gradient.sign()
    if norm == "L2":
        # In float64, since the squares of the tiny gradients of a confident model underflow in float32.
        size = torch.linalg.vector_norm(gradient.flatten(1).to(torch.float64), dim=1)
        unit = gradient.to(torch.float64) / per_image(torch.where(size > 0, size, 1.0), gradient)
        return unit.to(gradient.dtype)
    raise NotImplementedError(
        f"norm={norm!r} has no steepest direction here: give Linf or L2, such as oracle.threat.norm; in L1 use sparse_ascent"
    )


def random_point(clean: Tensor, threat: ThreatModel, draws: Draws, tag: int = 0) -> Tensor:
    """A point drawn uniformly from the ball around each clean image, then clipped to the box."""
    shape = clean.shape[1:]
    if threat.norm == "Linf":
        delta = (2 * draws.uniform(shape, tag, clean.dtype) - 1) * threat.eps
    elif threat.norm == "L2":
        direction = steepest(draws.normal(shape, tag, clean.dtype), "L2")
        radius = draws.uniform((), tag + 1, torch.float64) ** (1 / math.prod(shape))
        delta = direction * per_image(threat.eps * radius, clean).to(clean.dtype)
    else:
        # Signs and exponential sizes, relative to their sum and one size more, fill the ball evenly. Never 0 or ±1.
        uniform = 2 * draws.uniform(shape, tag, torch.float64) - 1 + 2.0**-24
        sizes, slack = -torch.log1p(-uniform.abs()), -torch.log1p(-draws.uniform((), tag + 1, torch.float64))
        share = threat.eps / (sizes.flatten(1).sum(1) + slack)
        delta = (uniform.sign() * sizes * per_image(share, clean)).to(clean.dtype)
    return project(clean + delta, clean, threat)
