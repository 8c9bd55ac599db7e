"""Projections onto a hyperplane within the box, against linear programs and bisection, and onto balls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, linprog

from gauntlet.attacks.ops.box_projection import dual_size, inner, move_to_hyperplane, shrink_to_ball
from gauntlet.attacks.ops.norms import distance
from gauntlet.attacks.ops.threat import NORMS


def exact_move(x, w, gain, norm):
    """Smallest norm of d with ⟨w, d⟩ = gain and x + d in the box, for one point; None where there is none."""
    if norm == "L2":
        # d = clip(λ·w) for the λ at which it gains enough.
        def moved(level):
            return np.clip(x + level * w, 0, 1) - x

        end = 1.01 * np.sign(gain) * max(1 / abs(v) for v in w if v)
        if abs(w @ moved(end)) < abs(gain):
            return None
        return np.linalg.norm(moved(brentq(lambda level: w @ moved(level) - gain, 0, end, xtol=1e-15, rtol=1e-14)))
    size = len(x)
    bounds = [(0, 1 - v) for v in x] + [(0, v) for v in x]
    if norm == "L1":
        found = linprog(np.ones(2 * size), A_eq=[[*w, *-w]], b_eq=[gain], bounds=bounds)
    else:
        below = np.hstack([np.eye(size), np.eye(size), -np.ones((size, 1))])
        found = linprog(
            [0] * 2 * size + [1], A_ub=below, b_ub=np.zeros(size), A_eq=[[*w, *-w, 0]], b_eq=[gain],
            bounds=[*bounds, (0, None)],
        )  # fmt: skip
    return found.fun if found.success else None


@pytest.fixture(scope="module")
def hyperplanes():
    """Points with saturated pixels, normals with zeros and of very different sizes, and gains in and out of reach."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(60, 1, 3, 4, generator=generator, dtype=torch.float64)
    x[::2] = torch.where(x[::2] < 0.3, 0.0, torch.where(x[::2] > 0.8, 1.0, x[::2]))
    normal = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    normal[::3] = torch.where(normal[::3].abs() < 0.5, 0.0, normal[::3])
    normal[::5] = normal[::5].sign()  # ties
    gain = 3 * torch.randn(60, generator=generator, dtype=torch.float64)
    return x, normal, gain


@pytest.mark.parametrize("norm", NORMS)
def test_the_projection_is_the_exact_one(norm, hyperplanes):
    x, normal, gain = hyperplanes
    move = move_to_hyperplane(x, normal, gain, norm)
    assert 0 <= (x + move).min() <= (x + move).max() <= 1
    size, reached = distance(x + move, x, norm), 0
    for i in range(len(x)):
        exact = exact_move(x[i].flatten().numpy(), normal[i].flatten().numpy(), float(gain[i]), norm)
        if exact is None:
            continue
        reached += 1
        assert float(inner(move, normal)[i]) == pytest.approx(float(gain[i]), abs=1e-12)
        assert float(size[i]) == pytest.approx(exact, rel=1e-6)
    assert 30 < reached < len(x)


@pytest.mark.parametrize("norm", NORMS)
def test_a_hyperplane_out_of_reach_is_approached_as_far_as_the_box_allows(norm, hyperplanes):
    x, normal, gain = hyperplanes
    move = move_to_hyperplane(x, normal, 1e3 * gain, norm)
    sign = gain.sign().view(-1, 1, 1, 1) * normal.sign()
    corner = torch.where(sign > 0, 1 - x, torch.where(sign < 0, -x, 0.0))
    torch.testing.assert_close(inner(move, normal), inner(corner, normal))


@pytest.mark.parametrize("norm", NORMS)
def test_a_normal_of_zeros_moves_nothing_and_a_tiny_one_in_float32_as_a_large_one(norm, hyperplanes):
    x, normal, gain = (tensor.float() for tensor in hyperplanes)
    assert not move_to_hyperplane(x, torch.zeros_like(normal), gain, norm).any()
    tiny = move_to_hyperplane(x, normal * 2.0**-100, gain * 2.0**-100, norm)
    assert tiny.dtype == torch.float32
    torch.testing.assert_close(tiny, move_to_hyperplane(x, normal, gain, norm))


def test_the_dual_norm_is_the_largest_slope_in_the_unit_ball(hyperplanes):
    _, normal, _ = hyperplanes
    flat = normal.flatten(1)
    torch.testing.assert_close(dual_size(normal, "Linf"), inner(normal, normal.sign()))
    torch.testing.assert_close(dual_size(normal, "L2").square(), flat.square().sum(1))
    torch.testing.assert_close(dual_size(normal, "L1"), flat.abs().amax(1))


@pytest.mark.parametrize("norm", NORMS)
def test_shrinking_gives_the_nearest_point_of_the_ball(norm):
    generator = torch.Generator().manual_seed(1)
    delta = torch.randn(20, 1, 3, 3, generator=generator, dtype=torch.float64)
    radius = torch.rand(20, generator=generator, dtype=torch.float64) * 3
    near = shrink_to_ball(delta, radius, norm)
    assert (distance(near, torch.zeros_like(near), norm) <= radius * (1 + 1e-12)).all()
    for _ in range(200):
        other = torch.randn(delta.shape, generator=generator, dtype=torch.float64)
        other *= (radius / distance(other, torch.zeros_like(other), norm)).view(-1, 1, 1, 1)
        # The angle at the projection between the point and any other point of a convex set is at least a right one.
        assert ((delta - near) * (other - near)).sum((1, 2, 3)).max() <= 1e-12
