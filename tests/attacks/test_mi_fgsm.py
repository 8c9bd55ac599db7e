"""MI-FGSM with input diversity and smoothed gradients: closed forms, and the same attacks of torchattacks."""

from __future__ import annotations

import pytest
import torch
import torchattacks
from torch import nn
from torch.nn.functional import avg_pool2d

import gauntlet
from builders import linear, slow_unless, zoo_digits
from gauntlet.attacks.mi_fgsm import DIVERSE, ENTRY, MIFGSM, SMOOTHED
from gauntlet.attacks.ops.norms import distance
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import PGD
from solving import assert_same, broken, outcomes, path

LINF, L2 = ThreatModel("Linf", 0.1), ThreatModel("L2", 0.5)
ALL = MIFGSM(steps=6, diversity=0.5, kernel=3, kernel_sigmas=1)


def last_iterates(rule, model, images, labels, threat, seed=0):
    """Where the attack ends if no success counts."""
    return path(rule, model, images, labels, threat, seed=seed)[-1]


def drawn(classes, generator):
    """A linear classifier of images of 4 by 5 pixels."""
    weight = torch.randn(classes, 20, generator=generator)
    return linear(weight, torch.randn(classes, generator=generator) / 10)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def digits():
    return zoo_digits()


@pytest.fixture(scope="module")
def enlarged(digits):
    """The same, of 32 pixels and three channels, as torchattacks' kernel needs them, shown on grey."""

    class Shrinking(nn.Module):
        def forward(self, images):
            return avg_pool2d(images, 4).mean(1, keepdim=True)

    model, images, labels = digits
    large = images.repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1).contiguous()
    return nn.Sequential(Shrinking(), model).eval(), large, labels


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
def test_two_class_linear_samples_break_exactly_where_their_distance_allows(generator, threat):
    model = drawn(2, generator)
    images = 0.5 + 0.08 * torch.randn(200, 1, 4, 5, generator=generator, dtype=torch.float64)
    logits, labels = model(images), model(images).argmax(1)
    slope = model[1].weight[0] - model[1].weight[1]
    # Far from the box, every step goes the same way.
    exact = (logits[:, 0] - logits[:, 1]).abs() / torch.linalg.vector_norm(slope, ord=1 if threat is LINF else 2)
    threat = ThreatModel(threat.norm, float(exact.median()))
    clear = (exact - threat.eps).abs() > 1e-6
    assert clear.sum() > 190
    assert torch.equal(broken(outcomes(MIFGSM(), model, images, labels, threat))[clear], (exact <= threat.eps)[clear])


@pytest.mark.parametrize("rule", [MIFGSM(loss="cw"), ALL], ids=["momentum", "all three"])
def test_no_three_class_sample_is_broken_beyond_its_distance(generator, rule):
    model = drawn(3, generator)
    images = 0.5 + 0.05 * torch.randn(200, 1, 4, 5, generator=generator, dtype=torch.float64)
    logits, labels, weight = model(images), model(images).argmax(1), model[1].weight
    size = (weight[None] - weight[labels][:, None]).abs().sum(2)
    exact = ((logits.gather(1, labels[:, None]) - logits) / size).scatter(1, labels[:, None], torch.inf).amin(1)
    threat = ThreatModel("Linf", float(exact.median()))
    found = broken(outcomes(rule, model, images, labels, threat))
    assert (exact[found] <= threat.eps + 2e-6).all()
    assert found.sum() >= (30 if rule is ALL else 95), "100 can be broken; smoothing and diversity change the direction"


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
def test_without_momentum_it_is_pgd_from_the_clean_image(digits, threat):
    plain = last_iterates(MIFGSM(steps=5, decay=0, step_size=0.3), *digits, threat)
    pgd = last_iterates(PGD(steps=5, step_size=0.3, random_start=False), *digits, threat)
    torch.testing.assert_close(plain, pgd, rtol=0, atol=2e-6)
    momentum = last_iterates(MIFGSM(steps=5, step_size=0.3), *digits, threat)
    assert (momentum - pgd).abs().max() > 0.01


@pytest.mark.parametrize(
    ("rule", "threat"),
    [
        pytest.param(MIFGSM(), ThreatModel("L2", 1), id="momentum-L2"),
        pytest.param(ALL, ThreatModel("Linf", 0.2), id="all three-Linf"),
        slow_unless(False, MIFGSM(), ThreatModel("Linf", 0.2), id="momentum-Linf"),
        slow_unless(False, ALL, ThreatModel("L2", 1), id="all three-L2"),
    ],
)
def test_results_do_not_depend_on_the_batch_size(digits, rule, threat):
    model, images, labels = digits
    model = gauntlet.load_model("cnn.trades_digits").module.double().eval().requires_grad_(False)
    alone, three, whole = (
        outcomes(rule, model, images[:30].double(), labels[:30], threat, batch_size=size) for size in (1, 3, 30)
    )
    assert 0 < sum(one.adversarial is not None for one in alone) < 30
    for others in (three, whole):
        assert_same(alone, others)


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
def test_black_and_white_pixels_move_inwards_and_the_points_stay_in_ball_and_box(digits, threat):
    model, images, labels = digits
    images = images.round()
    ends = last_iterates(ALL, model, images, labels, threat)
    assert 0 <= ends.min() <= ends.max() <= 1
    assert (distance(ends, images, threat.norm) <= threat.eps * (1 + 1e-5)).all()
    assert ((ends > 0) & (images == 0)).any()
    assert ((ends < 1) & (images == 1)).any()


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
def test_without_any_gradient_the_point_stays_where_it_is(threat):
    class Constant(nn.Module):
        def forward(self, images):
            return (0 * images).flatten(1).sum(1, keepdim=True) + torch.tensor([1.0, 0.0])

    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    ends = last_iterates(ALL, Constant(), images, torch.zeros(4, dtype=torch.int64), threat)
    assert torch.equal(ends, images)


def test_gradients_as_small_as_float32_has_them_keep_their_direction(generator):
    model = drawn(2, generator).float()
    tiny = linear(model[1].weight * 1e-30, dtype=torch.float32)
    images = torch.rand(5, 1, 4, 5, generator=generator)
    labels = model(images).argmax(1)
    usual, small = (last_iterates(MIFGSM(loss="cw"), one, images, labels, L2) for one in (model, tiny))
    torch.testing.assert_close(usual, small, rtol=0, atol=1e-5)


class Bright(nn.Module):
    """Class 0 for images whose mean is above 0.5; it counts the others that it is shown."""

    def __init__(self):
        super().__init__()
        self.dark = 0

    def forward(self, images):
        mean = images.flatten(1).mean(1)
        self.dark += int((mean < 0.5).sum())
        return torch.stack([mean, 1 - mean], 1)


def test_a_transformed_point_that_is_misclassified_is_no_success():
    images, labels = torch.full((6, 1, 8, 8), 0.6), torch.zeros(6, dtype=torch.int64)
    model, rule = Bright(), MIFGSM(steps=4, diversity=1, diversity_size=0.5)

    def unexpected(points, samples, attempt):
        raise AssertionError("a candidate was noticed")

    for one in outcomes(rule, model, images, labels, ThreatModel("Linf", 0.01), verify=unexpected):
        # The last iterate is evaluated as it is, once.
        assert (one.adversarial, one.forwards, one.backwards) == (None, 5, 4)
    assert model.dark == 6 * 4


def test_a_success_is_noticed_where_the_draw_leaves_the_iterate_alone():
    images, labels = torch.full((40, 1, 8, 8), 0.51), torch.zeros(40, dtype=torch.int64)
    threat = ThreatModel("Linf", 0.1)
    found = outcomes(MIFGSM(diversity=0.5), Bright(), images, labels, threat)
    assert all(one.adversarial is not None for one in found)
    steps = {one.steps for one in found}
    # Inside after the second step; noticed in the third or, by an own draw of each sample, later.
    assert min(steps) == 3
    assert len(steps) >= 3
    assert {one.steps for one in outcomes(MIFGSM(diversity=1), Bright(), images, labels, threat)} == {10}


def test_momentum_ends_where_torchattacks_ends(digits):
    model, images, labels = digits
    rule = MIFGSM(steps=8, step_size=0.2, decay=0.8)
    theirs = torchattacks.MIFGSM(model, eps=LINF.eps, alpha=0.2 * LINF.eps, steps=8, decay=0.8)(images, labels)
    ours = last_iterates(rule, model, images, labels, LINF)
    # A gradient that rounds to the other sign sends a pixel elsewhere.
    assert ((ours - theirs).abs().flatten(1).amax(1) < 1e-5).double().mean() >= 0.95
    lost = model(theirs).argmax(1) != labels
    assert 5 < lost.sum() < 90
    assert broken(outcomes(rule, model, images, labels, LINF))[lost].double().mean() >= 0.95, "it sees every iterate"


def test_smoothed_momentum_ends_where_torchattacks_ends(enlarged):
    model, images, labels = enlarged
    attack = torchattacks.TIFGSM(model, eps=0.15, alpha=0.03, steps=5, decay=1.0, len_kernel=7, diversity_prob=0)
    ours = last_iterates(MIFGSM(steps=5, step_size=0.2, kernel=7), model, images, labels, ThreatModel("Linf", 0.15))
    close = (ours - attack(images, labels)).abs() < 1e-5
    assert close.double().mean() >= 0.999


def test_input_diversity_agrees_with_torchattacks_over_five_seeds(enlarged):
    model, images, labels = enlarged
    ours, theirs = [], []
    for seed in range(5):
        rule = MIFGSM(steps=8, step_size=0.2, diversity=0.7)
        ends = last_iterates(rule, model, images, labels, ThreatModel("Linf", 0.15), seed)
        ours.append(int((model(ends).argmax(1) == labels).sum()))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            attack = torchattacks.DIFGSM(
                model, eps=0.15, alpha=0.03, steps=8, decay=1.0, resize_rate=0.9, diversity_prob=0.7
            )
            theirs.append(int((model(attack(images, labels)).argmax(1) == labels).sum()))
    assert 10 < min(ours) <= max(ours) < 95, ours
    # Its draws are shared by the batch: its spread is the wider one.
    assert abs(sum(ours) - sum(theirs)) / 5 <= 3, (ours, theirs)


def test_the_entries_are_one_rule_with_other_settings():
    assert ENTRY.make(LINF) == MIFGSM()
    assert DIVERSE.make(L2) == MIFGSM(diversity=0.5)
    assert SMOOTHED.make(LINF) == MIFGSM(diversity=0.5, kernel=None)
    assert SMOOTHED.make(LINF, kernel=5, diversity=0, steps=20) == MIFGSM(kernel=5, steps=20)
    with pytest.raises(ValueError, match=r"'ti-fgsm' has no setting 'restarts'"):
        SMOOTHED.make(LINF, restarts=2)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("steps", 0),
        ("step_size", 0.0),
        ("decay", -0.1),
        ("decay", float("nan")),
        ("loss", "hinge"),
        ("diversity", 1.5),
        ("diversity_size", 1),
        ("diversity_size", 0),
        ("kernel", 4),
        ("kernel", 0),
        ("kernel_sigmas", 0.0),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(setting, value):
    with pytest.raises(ValueError, match=setting):
        MIFGSM(**{setting: value})
