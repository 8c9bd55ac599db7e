"""Random points of the ball."""

from __future__ import annotations

import pytest
import torch

from builders import linear
from gauntlet.attacks.noise import ENTRY, Noise
from gauntlet.attacks.ops.norms import distance
from gauntlet.attacks.ops.threat import ThreatModel
from solving import Recorder, assert_same, broken, never, outcomes, path

LINF, L2, L1 = ThreatModel("Linf", 0.2), ThreatModel("L2", 0.7), ThreatModel("L1", 7.0)
CASES = [
    pytest.param(Noise(draws=30), LINF, id="uniform-Linf"),
    pytest.param(Noise(draws=30, corners=True), LINF, id="corners-Linf"),
    pytest.param(Noise(draws=30), L2, id="uniform-L2"),
    pytest.param(Noise(draws=30), L1, id="uniform-L1"),
]


@pytest.fixture(scope="module")
def task():
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(3, 70, generator=generator, dtype=torch.float64)
    images = torch.rand(11, 2, 5, 7, generator=generator, dtype=torch.float64)
    images[::3] = images[::3].round()
    model = linear(weight, -(weight @ images.flatten(1).mean(0)))
    return model, images, model(images).argmax(1)


@pytest.mark.parametrize(("rule", "threat"), CASES)
def test_every_point_lies_in_the_ball_and_the_box_and_none_comes_twice(rule, threat, task):
    model, images, labels = task
    spy = Recorder(model)
    found = outcomes(rule, spy, images, labels, threat, verify=never)
    assert [(one.forwards, one.backwards, one.rejected) for one in found] == [(30, 0, 0)] * len(labels)
    assert len(spy.seen) == 30
    for points in spy.seen:
        assert 0 <= points.min() <= points.max() <= 1
        assert (distance(points, images, threat.norm) <= threat.eps * (1 + 1e-9)).all()
    assert len({tuple(points[1].flatten().tolist()) for points in spy.seen}) == 30


def test_corners_move_every_pixel_by_eps_each_way_about_half_the_time(task):
    images = task[1]
    seen = path(Noise(draws=200, corners=True), *task, LINF)
    up = torch.stack([points > images for points in seen]).double()
    for points in seen:
        corner = torch.where(points > images, images + LINF.eps, images - LINF.eps).clamp(0, 1)
        assert torch.equal(points[images.frac() > 0], corner[images.frac() > 0])
    inner = (images > 0) & (images < 1)
    assert (up.mean(0)[inner] - 0.5).abs().max() < 0.2
    assert abs(up.mean(0)[inner].mean() - 0.5) < 0.01


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.2), ("L2", 0.4), ("L1", 0.4)])
def test_uniform_points_fill_the_ball_as_their_volume_does(norm, eps):
    images = torch.full((400, 1, 2, 2), 0.5, dtype=torch.float64)
    model = linear(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1]]))
    seen = path(Noise(draws=5), model, images, model(images).argmax(1), ThreatModel(norm, eps))
    size = torch.cat([distance(points, images, norm) for points in seen]) / eps
    # In four dimensions half the volume lies within 0.5 ** (1/4) of the radius, in any norm.
    assert (size < 0.5**0.25).double().mean() == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(("rule", "threat"), CASES)
def test_verdicts_counts_and_examples_do_not_depend_on_the_batch_size(rule, threat, task):
    whole = outcomes(rule, *task, threat)
    assert {one.adversarial is None for one in whole} == {True, False}
    for size in (1, 3):
        assert_same(outcomes(rule, *task, threat, batch_size=size), whole)


def test_corners_break_more_than_points_of_the_inside(task):
    counts = [broken(outcomes(Noise(draws=200, corners=corners), *task, LINF)).sum() for corners in (False, True)]
    assert 0 < counts[0] < counts[1]


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
