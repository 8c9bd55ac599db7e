"""Projections end inside the ball that the verifier accepts, whatever rounds which way."""

from __future__ import annotations

import pytest
import torch

import gauntlet
from builders import Function
from gauntlet.attacks.ops.norms import distance, limit, project
from gauntlet.attacks.ops.threat import ThreatModel


@pytest.mark.parametrize("text", ["Linf:0.009", "L2:0.25", "L2:0.01", "L1:7", "L1:0.2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_projection_stays_inside_where_every_pixel_rounds_the_same_way(text, dtype):
    threat = ThreatModel.parse(text)
    clean = torch.linspace(0.05, 0.95, 400, dtype=dtype)[:, None, None, None].expand(400, 1, 28, 28)
    for far in (-1.0, 1.0):
        point = project(clean + far, clean, threat)
        size = distance(point, clean, threat.norm)
        assert (size <= threat.eps + (2**-23 if threat.norm == "Linf" else 1e-13)).all()
        assert (size <= limit(threat)).all()
        room = distance((clean + far).clamp(0, 1), clean, threat.norm)
        assert (size >= 0.999 * room.clamp_max(threat.eps)).all()


def test_a_point_inside_is_not_moved():
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(20, 3, 8, 8, generator=generator)
    point = (clean + 0.01 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    for norm in ("Linf", "L2", "L1"):
        assert torch.equal(project(point, clean, ThreatModel(norm, 1.0 if norm == "Linf" else 30.0)), point)


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "apgd", "gauntlet:fast", "fmn"])
def test_images_whose_pixels_round_alike_are_attacked_in_l2(attack):
    # The boundary is at distances of 0.03 to 0.11.
    model = Function(lambda x: torch.stack([x.mean((1, 2, 3)) - 0.6, 0.6 - x.mean((1, 2, 3))], 1) * 100).eval()
    images = torch.linspace(0.601, 0.604, 20)[:, None, None, None].expand(20, 1, 28, 28).clone()
    found = gauntlet.evaluate(
        model, images, torch.zeros(20, dtype=torch.int64), threat="L2:0.25", attacks=attack, checks="none"
    )
    assert not found.robust.any()
    assert not any(flag.name == "invalid-candidates" for flag in found.flags)
