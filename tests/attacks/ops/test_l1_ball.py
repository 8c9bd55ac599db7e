"""The L1 ball in the box: the exact projection against a quadratic program and a root finder, and sparse steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize

from gauntlet.attacks.ops.l1_ball import project_l1, sparse_ascent
from gauntlet.attacks.ops.norms import distance, project, random_point, steepest
from gauntlet.attacks.ops.random import Draws, sample_keys
from gauntlet.attacks.ops.threat import ThreatModel


@pytest.fixture(scope="module")
def points():
    """Points in and out of the box, around images with saturated pixels, with ties, and radii from tiny to slack."""
    generator = torch.Generator().manual_seed(0)
    clean = (2 * torch.rand(80, 1, 3, 4, generator=generator, dtype=torch.float64) - 0.5).clamp(0, 1)
    x = clean + torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    x[::3] = clean[::3] + 0.2 * (x[::3] - clean[::3])
    x[::5] = (4 * x[::5]).round() / 4
    x[7], x[11] = clean[7], clean[11].clamp(0.2, 0.8)
    radius = 4 * torch.rand(80, generator=generator, dtype=torch.float64) ** 2 + 1e-3
    return x, clean, radius


def reference(x, clean, radius):
    """The projection of one point, flat and in numpy, by a root of the sum of changes."""
    delta = x - clean
    room = np.where(delta > 0, 1 - clean, clean)

    def changes(level):
        return np.clip(np.abs(delta) - level, 0, room)

    if changes(0).sum() <= radius:
        return clean + np.sign(delta) * changes(0)
    level = brentq(lambda level: changes(level).sum() - radius, 0, np.abs(delta).max(), xtol=1e-15, rtol=1e-14)
    return clean + np.sign(delta) * changes(level)


def test_the_projection_is_that_of_a_root_finder_in_the_box_and_the_ball(points):
    x, clean, radius = points
    near = project_l1(x, clean, radius)
    assert 0 <= near.min() <= near.max() <= 1
    size = distance(near, clean, "L1")
    assert (size <= radius * (1 + 1e-12)).all()
    assert 0.3 < (size > radius * (1 - 1e-9)).double().mean() < 1, "some points end on the surface, some inside"
    for one, center, r, found in zip(x, clean, radius, near, strict=True):
        exact = reference(one.flatten().numpy(), center.flatten().numpy(), float(r))
        np.testing.assert_allclose(found.flatten().numpy(), exact, rtol=0, atol=1e-12)


def test_a_quadratic_program_finds_no_nearer_point(points):
    x, clean, radius = (tensor[:25] for tensor in points)
    near = project_l1(x, clean, radius)
    for one, center, r, found in zip(x, clean, radius, near, strict=True):
        target, start = one.flatten().numpy(), center.flatten().numpy()
        # Upwards and downwards changes apart, so that the norm is linear.
        bounds = [(0, 1 - v) for v in start] + [(0, v) for v in start]

        def gap(change, target=target, start=start):
            return start + change[: len(start)] - change[len(start) :] - target

        best = minimize(
            lambda change, gap=gap: float(gap(change) @ gap(change)),
            np.zeros(2 * len(start)),
            jac=lambda change, gap=gap: 2 * np.concatenate([gap(change), -gap(change)]),
            bounds=bounds,
            constraints={"type": "ineq", "fun": lambda change, r=r: float(r) - change.sum()},
            method="SLSQP",
            options={"maxiter": 300, "ftol": 1e-13},
        )
        assert float((found - one).square().sum()) <= best.fun + 1e-7


def test_the_angle_to_every_other_point_of_the_set_is_at_least_a_right_one(points):
    x, clean, radius = points
    near = project_l1(x, clean, radius)
    generator = torch.Generator().manual_seed(1)
    for _ in range(100):
        far = clean + torch.randn(clean.shape, generator=generator, dtype=torch.float64)
        other = project_l1(far, clean, radius * torch.rand(1, generator=generator, dtype=torch.float64))
        assert ((x - near) * (other - near)).sum((1, 2, 3)).max() <= 1e-12


@pytest.mark.parametrize("eps", [0.5, 12.0, 200.0])
def test_rounding_to_float32_takes_no_point_out_of_the_ball_and_leaves_unchanged_pixels_as_they_are(eps):
    generator = torch.Generator().manual_seed(2)
    clean = torch.rand(20, 3, 16, 16, generator=generator)
    threat = ThreatModel("L1", eps)
    far = clean + torch.randn(clean.shape, generator=generator)
    near = project(far, clean, threat)
    assert near.dtype == torch.float32
    size = distance(near, clean, "L1")
    assert (size <= eps).all()
    assert (size >= eps * (1 - 1e-3)).all()
    if eps < 20:
        assert 0 < (near != clean).double().mean() < 0.1
        exact = project_l1(far.double(), clean.double(), torch.full((20,), eps))
        torch.testing.assert_close(near, exact.float(), rtol=0, atol=1.2e-7)


def test_points_of_the_ball_are_their_own_projection_and_a_batch_projects_each_alone(points):
    x, clean, radius = points
    near = project_l1(x, clean, radius)
    torch.testing.assert_close(project_l1(near, clean, radius), near, rtol=0, atol=1e-14)
    alone = torch.cat([project_l1(x[i : i + 1], clean[i : i + 1], radius[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(alone, near, rtol=0, atol=1e-15)
    assert torch.equal(project_l1(clean, clean, radius), clean)


def test_a_sparse_step_has_length_one_and_takes_the_largest_entries():
    gradient = torch.tensor([[0.1, -3.0, 2.0, 0.5], [1.0, -1.0, 1.0, 0.2], [0.0, 0.0, -5.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    step = sparse_ascent(gradient, torch.tensor([2, 1, 3, 2]))
    assert torch.equal(step[0], torch.tensor([0.0, -0.5, 0.5, 0.0]))
    torch.testing.assert_close(step[1], torch.tensor([1.0, -1.0, 1.0, 0.0]) / 3)  # ties go together
    assert torch.equal(step[2], torch.tensor([0.0, 0.0, -1.0, 0.0]))
    assert not step[3].any()


def test_random_points_of_the_ball_point_everywhere_and_fill_it_evenly():
    clean = torch.full((3000, 1, 1, 3), 0.5, dtype=torch.float64)
    draws = Draws.start(sample_keys(0, "noise", [str(i) for i in range(3000)]))
    delta = (random_point(clean, ThreatModel("L1", 0.4), draws) - clean).flatten(1)
    share = delta.abs().sum(1) / 0.4
    assert share.max() <= 1
    # Volume grows as the third power of the radius, and the parts of the sum are uniform on the simplex.
    for at in (0.3, 0.6, 0.9):
        assert (share < at).double().mean() == pytest.approx(at**3, abs=0.03)
    assert (delta > 0).double().mean(0).tolist() == pytest.approx([0.5] * 3, abs=0.03)
    part = delta[:, 0].abs() / delta.abs().sum(1)
    assert (part < 0.5).double().mean() == pytest.approx(0.75, abs=0.03)


def test_the_steepest_direction_is_refused_with_the_way_out():
    with pytest.raises(NotImplementedError, match="sparse_ascent"):
        steepest(torch.ones(1, 1, 2, 2), "L1")
