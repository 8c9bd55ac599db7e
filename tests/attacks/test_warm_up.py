"""Auto-PGD after a warm-up: its steps on linear models, where they are known, and what the solver expects of a rule."""

from __future__ import annotations

import pytest
import torch

from builders import linear, slow_unless
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.solver import Task, Verification, solve
from gauntlet.attacks.warm_up import WarmUp
from gauntlet.testing import check_rule

WEIGHT = torch.tensor([[1.0, -2.0, 0.5, -1.0], [-0.5, 1.0, 2.0, 0.3], [0.2, 0.7, -1.0, 0.9]])
BIAS = torch.tensor([9.0, 1.0, 0.0])
IMAGE = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
EPS = 0.1


def nobody(points, samples, attempt):
    nothing = torch.zeros(len(points), dtype=torch.bool)
    return Verification(nothing, nothing, nothing)


def visited(rule, images=IMAGE, norm="Linf", eps=EPS, batch_size=256):
    """The points that the rule puts to the model (restarts one after another), as moves from the image."""
    model, points = linear(WEIGHT, BIAS), []
    model.register_forward_pre_hook(lambda module, inputs: points.append(inputs[0].detach().clone()))
    labels = torch.zeros(len(images), dtype=torch.int64)
    task = Task(images, labels, [str(i) for i in range(len(images))], ThreatModel(norm, eps), 0, "test")
    list(solve(rule, model, task, nobody, classes=3, batch_size=batch_size))
    return torch.cat(points) - images[:1]


def test_the_parts_of_the_margin_are_ascended_one_in_each_restart():
    moves = visited(WarmUp(warm_up="parts", passes=2, steps=3, restarts=2)).flatten(1)
    per_restart = 2 + 3 + 1
    assert len(moves) == 2 * per_restart
    # The first step is as long as the ball is wide: it ends in a corner. Another class than the second is never the largest.
    assert torch.allclose(moves[1], -EPS * WEIGHT[0].sign().double())
    assert torch.allclose(moves[per_restart + 1], EPS * WEIGHT[1].sign().double())


def test_a_warm_up_of_probabilities_goes_where_their_gradients_lead():
    moves = visited(WarmUp(warm_up="probable_parts", passes=2, steps=3)).flatten(1)
    start = (IMAGE.flatten(1) + moves[:1]).requires_grad_()
    p = (start @ WEIGHT.T.double() + BIAS).softmax(1)
    (-p[0, 0]).backward()
    assert torch.allclose(moves[1], (moves[0] + 2 * EPS * start.grad[0].sign()).clamp(-EPS, EPS))


def test_random_logits_are_weighted_anew_in_each_restart_and_alike_in_all_steps():
    moves = visited(WarmUp(warm_up="random", passes=3, steps=2, restarts=40)).flatten(1)
    corners = moves.view(40, 3 + 2 + 1, 4)[:, 1]
    assert torch.allclose(corners.abs(), torch.full_like(corners, EPS))
    # On a linear model the direction stays the same as long as the weights do.
    assert torch.equal(corners, moves.view(40, 6, 4)[:, 2])
    assert len({tuple(one.sign().tolist()) for one in corners}) > 4


def test_in_l2_steps_have_the_length_of_the_schedule():
    moves = visited(WarmUp(warm_up="parts", passes=2, steps=2), norm="L2").flatten(1)
    down = -WEIGHT[0].double() / WEIGHT[0].double().norm()
    first = moves[0] + 2 * EPS * down
    first = first * (EPS / first.norm()).clamp_max(1)
    assert torch.allclose(moves[1], first, atol=1e-9)
    second = first + EPS * down
    assert torch.allclose(moves[2], second * (EPS / second.norm()).clamp_max(1), atol=1e-9)


def test_slots_in_different_phases_do_not_disturb_each_other():
    images = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rule = WarmUp(warm_up="random", passes=2, steps=4, restarts=3, loss="dlr_targeted", targets=2)
    together, alone = (visited(rule, images, batch_size=size) for size in (2, 1))
    key = [tuple(round(value, 9) for value in row) for row in together.flatten(1).tolist()]
    other = [tuple(round(value, 9) for value in row) for row in alone.flatten(1).tolist()]
    assert sorted(key) == sorted(other)


@pytest.mark.parametrize(
    ("warm_up", "norm"),
    [
        slow_unless((warm_up, norm) == ("parts", "Linf"), warm_up, norm)
        for warm_up in ("random", "parts", "probable_parts")
        for norm in ("Linf", "L2")
    ],
)
def test_it_is_what_the_solver_expects_of_a_rule(warm_up, norm):
    check_rule(WarmUp(warm_up=warm_up, passes=2, steps=6, restarts=2), (norm,))


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"warm_up='odi'.*random"):
        WarmUp(warm_up="odi")
    with pytest.raises(ValueError, match="passes"):
        WarmUp(passes=0)
