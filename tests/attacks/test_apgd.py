"""Auto-PGD on linear models, whose smallest perturbations are known exactly, on few classes, and at its edges."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from builders import clipped_task, linear, linear_digits
from gauntlet.attacks.apgd import APGD, ENTRY, ENTRY_TARGETED, random_surface_point
from gauntlet.attacks.ops.dlr import TARGETED, UNTARGETED
from gauntlet.attacks.ops.norms import distance
from gauntlet.attacks.ops.random import Draws, active_draws, sample_keys
from gauntlet.attacks.ops.threat import ThreatModel
from solving import assert_same, broken, exact_distance, outcomes, path

LINF, L2 = ThreatModel("Linf", 0.12), ThreatModel("L2", 0.7)
LOSSES = [*UNTARGETED, *TARGETED]


@pytest.fixture(scope="module")
def digits():
    return linear_digits(logistic=False)


@pytest.mark.parametrize("threat", [ThreatModel("Linf", 0.07), ThreatModel("L2", 0.4)], ids=str)
def test_on_a_linear_model_it_breaks_what_can_be_broken_and_nothing_else(digits, threat):
    exact = exact_distance(*digits, threat.norm)
    reachable = exact <= threat.eps
    assert 0.2 < reachable.double().mean() < 0.8
    found = {loss: broken(outcomes(APGD(steps=25, loss=loss), *digits, threat)) for loss in LOSSES}
    for loss, hit in found.items():
        assert (exact[hit] <= threat.eps * (1 + 2e-6)).all(), loss
        assert hit.sum() >= (0.97 if loss in TARGETED else 0.8) * reachable.sum(), loss
    clear = (exact / threat.eps - 1).abs() > 0.01
    assert torch.equal(found["dlr_targeted"][clear], reachable[clear])


@pytest.mark.parametrize("loss", ["ce", "dlr_targeted"])
@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
def test_the_result_does_not_hang_on_the_batch_size(digits, threat, loss):
    model, images, labels = digits
    rule = APGD(steps=7, restarts=2, targets=3, loss=loss)
    small = ThreatModel(threat.norm, threat.eps / 2.4)
    runs = [outcomes(rule, model, images[:12], labels[:12], small, batch_size=size) for size in (1, 3, 12)]
    verdicts = [one.adversarial is not None for one in runs[0]]
    assert 0 < sum(verdicts) < 12
    for run in runs[1:]:
        assert_same(runs[0], run)


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("loss", LOSSES)
def test_few_classes_are_attacked_with_every_loss(loss, classes):
    model, images, labels = clipped_task(classes)
    reference = broken(outcomes(APGD(steps=20, loss="cw"), model, images, labels, ThreatModel("Linf", 0.05)))
    hit = broken(
        outcomes(APGD(steps=20, loss=loss).for_classes(classes), model, images, labels, ThreatModel("Linf", 0.05))
    )
    assert 5 < reference.sum() < 35
    assert hit.sum() >= reference.sum() - 2


@pytest.mark.parametrize("threat", [ThreatModel("Linf", 0.02), ThreatModel("L2", 0.1)], ids=str)
def test_log_odds_makes_the_steps_of_cross_entropy(threat):
    model, images, _ = clipped_task(count=20)
    image = images[model(images).softmax(1).amax(1).argmax()][None]  # so sure that its log odds stay below 0
    label = model(image).argmax(1)
    paths = [torch.cat(path(APGD(steps=9, loss=loss), model, image, label, threat)) for loss in ("ce", "log_odds")]
    torch.testing.assert_close(*paths, rtol=0, atol=1e-9)


def test_scaled_logits_blind_losses_of_probabilities_in_float32_but_no_others(digits):
    model, images, labels = digits
    threat = ThreatModel("Linf", 0.05)
    plain = broken(outcomes(APGD(steps=20), model, images, labels, threat)).sum()
    scaled = linear(1e4 * model[1].weight, 1e4 * model[1].bias).float()
    hits = {
        loss: broken(outcomes(APGD(steps=20, loss=loss), scaled, images.float(), labels, threat)).sum()
        for loss in LOSSES
    }
    for blind in ("ce", "pm"):
        assert hits.pop(blind) < 0.7 * plain
    assert min(hits.values()) >= 0.9 * plain, hits


def test_each_try_takes_the_next_likely_class_as_its_target():
    # Only the fourth class can be reached, through the lower pixels; the targeted ratio towards others lowers it.
    halves = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.4, 0.0], [0.0, 41.0], [0.3, -5.0]])
    model = linear(halves.repeat_interleave(20, 1) / 20, torch.tensor([6.0, 4.0, 3.0, -18.5, 3.0]))
    images, labels = torch.full((6, 1, 4, 10), 0.5, dtype=torch.float64), torch.zeros(6, dtype=torch.int64)
    threat = ThreatModel("Linf", 0.0999)
    assert model(images).argsort(1, descending=True)[0].tolist() == [0, 1, 2, 3, 4]
    few, enough = (
        outcomes(APGD(steps=9, loss="dlr_targeted", targets=n), model, images, labels, threat) for n in (2, 4)
    )
    assert [one.steps for one in few] == [-1] * 6
    assert all(2 * 9 < one.steps <= 3 * 9 for one in enough)


@pytest.mark.parametrize(
    ("settings", "forwards", "backwards"),
    [
        ({"steps": 10}, 11, 10),
        ({"steps": 10, "restarts": 3}, 33, 30),
        ({"steps": 10, "eot": 4}, 41, 40),
        ({"steps": 10, "loss": "dlr_targeted", "targets": 2, "restarts": 2}, 4 * 12, 4 * 10),
    ],
)
def test_a_sample_that_withstands_costs_these_passes(settings, forwards, backwards):
    threat = ThreatModel("Linf", 1e-4)
    for one in outcomes(APGD(**settings), *clipped_task(count=5), threat):
        assert (one.forwards, one.backwards, one.steps, one.rejected) == (forwards, backwards, -1, 0)


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
def test_the_start_lies_on_the_surface_of_the_ball(threat):
    clean = torch.full((50, 1, 8, 8), 0.5, dtype=torch.float64)
    points = random_surface_point(clean, threat, Draws.start(sample_keys(0, "start", [str(i) for i in range(50)])))
    torch.testing.assert_close(distance(points, clean, threat.norm), torch.full((50,), threat.eps).double())


def test_the_average_over_passes_finds_the_direction_that_one_noisy_pass_hides():
    class Noisy(nn.Module):
        def forward(self, x):
            draws = active_draws()
            noise = 8 * draws.normal(x.shape[1:], dtype=x.dtype)
            rise = ((1 + noise) * x).flatten(1).sum(1)
            return torch.stack([torch.zeros_like(rise), rise], 1)

    clean, label = torch.full((1, 1, 16, 16), 0.5, dtype=torch.float64), torch.tensor([0])
    share = {}
    for eot in (1, 400):
        points = path(APGD(steps=1, eot=eot, loss="cw"), Noisy(), clean, label, ThreatModel("Linf", 0.1))
        share[eot] = (points[-1] > clean).double().mean()
    assert share[1] < 0.7
    assert share[400] > 0.95


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"steps": 0}, "steps=0"),
        ({"restarts": 1.5}, "restarts=1.5"),
        ({"eot": True}, "eot=True"),
        ({"rho": 1.5}, "rho=1.5"),
        ({"loss": "dlr-target"}, "dlr_targeted"),
        ({"loss": 3}, "dlr_targeted"),
        ({"step_size": 0.1}, "step_size"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(settings, named):
    for entry in (ENTRY, ENTRY_TARGETED):
        with pytest.raises(ValueError, match=named):
            entry.make(LINF, **settings)


def test_the_targeted_entry_tries_nine_targets_and_no_more_than_there_are_wrong_classes():
    rule = ENTRY_TARGETED.make(LINF, restarts=2)
    assert (
        rule.total_restarts,
        rule.for_classes(10).total_restarts,
        rule.for_classes(4).total_restarts,
        rule.for_classes(2).total_restarts,
    ) == (
        18,
        18,
        6,
        2,
    )
    assert ENTRY_TARGETED.make(LINF, loss="dlr-targeted") == ENTRY_TARGETED.make(LINF) == APGD(loss="dlr_targeted")
    assert ENTRY.make(LINF).for_classes(2) == APGD()
