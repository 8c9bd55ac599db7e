"""Random points of the ball."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gauntlet.attacks.noise import ENTRY, Noise
from gauntlet.attacks.ops.norms import distance
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.solver import Task, Verification, solve
from gauntlet.bench.verify.verifier import Verifier

LINF, L2, L1 = ThreatModel("Linf", 0.2), ThreatModel("L2", 0.7), ThreatModel("L1", 7.0)
CASES = [
    pytest.param(Noise(draws=30), LINF, id="uniform-Linf"),
    pytest.param(Noise(draws=30, corners=True), LINF, id="corners-Linf"),
    pytest.param(Noise(draws=30), L2, id="uniform-L2"),
    pytest.param(Noise(draws=30), L1, id="uniform-L1"),
]


class Never:
    """A verifier that refuses everything."""

    def __call__(self, points, samples, attempt):
        no = torch.zeros(len(points), dtype=torch.bool)
        return Verification(no, no, no)


class Spy(nn.Module):
    """Keeps every batch of points."""

    def __init__(self, model):
        super().__init__()
        self.model, self.points = model, []

    def forward(self, x):
        self.points.append(x.clone())
        return self.model(x)


@pytest.fixture(scope="module")
def task():
    generator = torch.Generator().manual_seed(2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(70, 3)).double().requires_grad_(False)
    model[1].weight.copy_(torch.randn(3, 70, generator=generator, dtype=torch.float64))
    images = torch.rand(11, 2, 5, 7, generator=generator, dtype=torch.float64)
    images[::3] = images[::3].round()
    model[1].bias.copy_(-(model[1].weight @ images.flatten(1).mean(0)))
    return model, images, model(images).argmax(1)


def attacked(rule, model, images, labels, threat, *, judge=None, **options):
    ids = [f"sample {i}" for i in range(len(labels))]
    judge = judge or Verifier(model, images, labels, ids, threat, seed=0)
    found = solve(rule, model, Task(images, labels, ids, threat, 0, "test"), judge, **options)
    return sorted(found, key=lambda one: one.sample)


@pytest.mark.parametrize(("rule", "threat"), CASES)
def test_every_point_lies_in_the_ball_and_the_box_and_none_comes_twice(rule, threat, task):
    model, images, labels = task
    spy = Spy(model)
    found = attacked(rule, spy, images, labels, threat, judge=Never())
    assert [(one.forwards, one.backwards, one.rejected) for one in found] == [(30, 0, 0)] * len(labels)
    assert len(spy.points) == 30
    for points in spy.points:
        assert 0 <= points.min() <= points.max() <= 1
        assert (distance(points, images, threat.norm) <= threat.eps * (1 + 1e-9)).all()
    assert len({tuple(points[1].flatten().tolist()) for points in spy.points}) == 30


def test_corners_move_every_pixel_by_eps_each_way_about_half_the_time(task):
    model, images, labels = task
    spy = Spy(model)
    attacked(Noise(draws=200, corners=True), spy, images, labels, LINF, judge=Never())
    up = torch.stack([points > images for points in spy.points]).double()
    for points in spy.points:
        corner = torch.where(points > images, images + LINF.eps, images - LINF.eps).clamp(0, 1)
        assert torch.equal(points[images.frac() > 0], corner[images.frac() > 0])
    inner = (images > 0) & (images < 1)
    assert (up.mean(0)[inner] - 0.5).abs().max() < 0.2
    assert abs(up.mean(0)[inner].mean() - 0.5) < 0.01


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.2), ("L2", 0.4), ("L1", 0.4)])
def test_uniform_points_fill_the_ball_as_their_volume_does(norm, eps):
    images = torch.full((400, 1, 2, 2), 0.5, dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double().requires_grad_(False)
    spy = Spy(model)
    attacked(
        Noise(draws=5), spy, images, model(images).argmax(1), ThreatModel(norm, eps), judge=Never(), batch_size=400
    )
    size = torch.cat([distance(points, images, norm) for points in spy.points]) / eps
    # In four dimensions half the volume lies within 0.5 ** (1/4) of the radius, in any norm.
    assert (size < 0.5**0.25).double().mean() == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(("rule", "threat"), CASES)
def test_verdicts_counts_and_examples_do_not_depend_on_the_batch_size(rule, threat, task):
    whole = attacked(rule, *task, threat)
    assert {one.adversarial is None for one in whole} == {True, False}
    for size in (1, 3):
        for one, same in zip(attacked(rule, *task, threat, batch_size=size), whole, strict=True):
            assert (one.forwards, one.backwards) == (same.forwards, same.backwards)
            assert (one.adversarial is None) == (same.adversarial is None)
            assert one.adversarial is None or torch.equal(one.adversarial, same.adversarial)


def test_corners_break_more_than_points_of_the_inside(task):
    broken = [
        sum(one.adversarial is not None for one in attacked(Noise(draws=200, corners=corners), *task, LINF))
        for corners in (False, True)
    ]
    assert 0 < broken[0] < broken[1]


@pytest.mark.parametrize(
    ("threat", "settings", "message"),
    [
        (LINF, {"draws": 0}, "draws=0"),
        (LINF, {"corners": 1}, "corners=1"),
        (L2, {"corners": True}, "for Linf"),
        (LINF, {"steps": 3}, "steps"),
    ],
)
def test_a_bad_setting_is_refused_by_name(threat, settings, message):
    with pytest.raises(ValueError, match=message):
        ENTRY.make(threat, **settings)
