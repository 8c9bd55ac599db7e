"""PGD on a smoothed loss: closed forms on linear models, and a network whose own gradients lead nowhere."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gauntlet
from builders import linear_digits, slow_unless, zoo_digits
from gauntlet.attacks.apgd import APGD
from gauntlet.attacks.gauntlet import budget
from gauntlet.attacks.ops.norms import distance, limit
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.smoothed_pgd import SmoothedPGD
from gauntlet.testing import check_rule
from solving import assert_same, broken, exact_distance, outcomes, path

THREATS = [ThreatModel("Linf", 0.15), ThreatModel("L2", 0.5), ThreatModel("L1", 1.5)]


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_two_class_linear_samples_are_broken_within_their_distance_and_nearly_up_to_it(norm):
    model, images, labels = linear_digits(2, 120)
    exact = exact_distance(model, images, labels, norm)
    threat = ThreatModel(norm, float(exact.median()))
    found = broken(outcomes(SmoothedPGD(share=0.05), model, images, labels, threat))
    assert not found[exact > limit(threat) + 1e-9].any()
    assert found[exact < 0.9 * threat.eps].all()


class Asleep(nn.Module):
    """Class 1 wins where six of ten pixels rise by `eps`; all pixels begin at 0.

    The units that decide are off up to 0.8 of `eps`. Below that others lead back: they gain a little and can never win.
    """

    def __init__(self, eps):
        super().__init__()
        self.eps = eps

    def forward(self, x):
        rise = x.flatten(1) / self.eps
        decisive, decoy = 10 * torch.relu(rise - 0.8), 0.2 * torch.relu(0.8 - rise)
        return torch.stack([torch.full_like(rise[:, 0], 1.2 * rise.shape[1]), (decisive + decoy).sum(1)], 1)


@pytest.fixture
def asleep():
    return Asleep(0.1), torch.zeros(30, 1, 6, 6), torch.zeros(30, dtype=torch.int64), ThreatModel("Linf", 0.1)


@pytest.mark.parametrize(
    "rule", [PGD(steps=80, loss="cw"), APGD(steps=80), APGD(steps=80, loss="cw_targeted")], ids=repr
)
def test_ascents_on_the_loss_itself_are_led_away_from_units_that_are_off(asleep, rule):
    assert not broken(outcomes(rule, *asleep, classes=2)).any()


def test_gradients_of_a_smoothed_loss_switch_units_on(asleep):
    assert broken(outcomes(SmoothedPGD(), *asleep)).all()


def test_the_cascade_tries_smoothed_gradients_and_goes_on_with_them_where_they_come_nearer(asleep):
    stages = [stage for stage in budget("gauntlet", "Linf") if stage.technique == "white-box"]
    found = outcomes(stages, *asleep, classes=2)
    assert broken(found).all()
    assert {one.stage for one in found} <= {"smoothed", "smoothed-long"}
    without = [stage for stage in stages if not stage.label.startswith("smoothed")]
    left = outcomes(without, *asleep, classes=2)
    assert not broken(left).any()


def test_a_long_run_is_for_samples_that_the_trial_came_nearer_to():
    model, images, labels = zoo_digits()
    found = outcomes(
        list(budget("gauntlet", "Linf")), model, images[:60], labels[:60], ThreatModel("Linf", 0.2), classes=10
    )
    left = [one for one in found if one.adversarial is None]
    spared = [one for one in left if "smoothed-long" not in one.faced]
    assert 10 < len(spared) < len(left)
    # Later stages may only have brought the gradients of the loss itself nearer.
    for one in spared:
        assert one.nearest["smoothed"] >= 0.8 * one.nearest["gradient"]


@pytest.mark.parametrize("threat", [slow_unless(one.norm == "Linf", one, id=str(one)) for one in THREATS])
def test_results_do_not_depend_on_the_batch_size(threat):
    _, images, labels = zoo_digits()
    model = gauntlet.load_model("cnn.trades_digits").module.double().eval().requires_grad_(False)
    rule = SmoothedPGD(steps=10, restarts=2)
    alone, three, whole = (
        outcomes(rule, model, images[:20].double(), labels[:20], threat, batch_size=size) for size in (1, 3, 20)
    )
    for others in (three, whole):
        assert_same(alone, others)


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_examples_lie_in_the_ball_and_the_box(threat):
    model, images, labels = zoo_digits()
    found = outcomes(SmoothedPGD(steps=20), model, images, labels, threat)
    rows = [one.sample for one in found if one.adversarial is not None]
    assert rows
    points = torch.stack([found[row].adversarial for row in rows])
    assert (distance(points, images[rows], threat.norm) <= limit(threat)).all()
    assert points.min() >= 0
    assert points.max() <= 1


def test_each_step_costs_one_pass_and_each_restart_one_forward_more():
    model, images, labels = zoo_digits()
    threat = ThreatModel("Linf", 0.01)
    left = [one for one in outcomes(SmoothedPGD(steps=6, restarts=3), model, images, labels, threat) if one.steps < 0]
    assert left
    # The last iterate of a restart is evaluated by a forward pass of its own.
    assert {(one.forwards, one.backwards) for one in left} == {(3 * 7, 3 * 6)}


def test_an_exact_step_takes_the_gradient_at_the_iterate():
    model, images, labels = zoo_digits()
    threat = ThreatModel("L2", 0.5)
    exact = path(SmoothedPGD(steps=4, exact_every=1, decay=0), model, images, labels, threat)
    noisy = path(SmoothedPGD(steps=4, exact_every=8, decay=0), model, images, labels, threat)
    # The first point that is shown is the clean image, or one near to it.
    torch.testing.assert_close(exact[0], images)
    assert (noisy[0] - images).abs().amax(1).max() > 0.001


@pytest.mark.slow
def test_it_is_what_the_solver_expects_of_a_rule():
    check_rule(SmoothedPGD(steps=8, restarts=2), norms=("Linf", "L2", "L1"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"restarts": 0}, "restarts"),
        ({"width": 0}, "width"),
        ({"decay": -1}, "decay"),
        ({"exact_every": 0}, "exact_every"),
        ({"share": 0}, "share"),
        ({"loss": "nothing"}, "nothing"),
    ],
)
def test_settings_that_make_no_sense_are_errors_that_name_them(settings, message):
    with pytest.raises((ValueError, LookupError), match=message):
        SmoothedPGD(**settings)
