"""Attacks towards a class: every rule against closed-form truth, the verifier, and attacks of libraries."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import solving
from builders import linear, slow_unless
from gauntlet.attacks.adapters.run_whole import run_whole
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.oracle import AttackError
from gauntlet.attacks.solving.solver import Task
from gauntlet.attacks.views.targeted_view import Towards
from gauntlet.bench.verify.verdicts import NonFiniteLogitsError
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.leaderboard.report.formatting import target_meaning
from solving import assert_same, built, distances

CLASSES = 5


# Every rule, where the smallest perturbation is known: the class is the brightest of the first five pixels


def brightest(scale=1.0, dtype=torch.float64):
    return linear(scale * torch.eye(12)[:CLASSES], dtype=dtype)


def pictures(count=60):
    images = torch.rand(count, 1, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return images, images.flatten(1)[:, :CLASSES].argmax(1)


def smallest(images, targets, norm):
    """The target's pixel must rise, and those above it sink, to one level. That never leaves the box."""
    pixels = images.flatten(1)[:, :CLASSES]
    own, others = pixels.gather(1, targets[:, None]), pixels.scatter(1, targets[:, None], -torch.inf)
    if norm == "Linf":
        return (others.amax(1) - own.squeeze(1)) / 2
    # The level is the mean of the pixels that move, which are the brightest ones and the target's: the smallest cost of
    # the levels below which no pixel sinks.
    top = others.sort(1, descending=True).values[:, : CLASSES - 1]
    levels = torch.stack([(own.squeeze(1) + top[:, :n].sum(1)) / (n + 1) for n in range(1, CLASSES)], 1)
    valid = levels <= top
    sunk = (top[:, None] - levels[:, :, None]).clamp_min(0).square().sum(2)
    cost = ((levels - own).square() + sunk).sqrt()
    return cost.masked_fill(~valid, torch.inf).amin(1)


def outcomes(attack, model, images, labels, threat, **options):
    targets = threat.targets(labels, CLASSES)
    return solving.outcomes(attack, model, images, labels, threat, targets=targets, classes=CLASSES, **options)


def attacked(attack, model, images, labels, threat):
    """Distance of the example of each sample, infinite where there is none."""
    found, targets = outcomes(attack, model, images, labels, threat), threat.targets(labels, CLASSES)
    return distances(found, model, images, labels, threat.norm, targets)


INSIDE = {
    "pgd": 0.06,
    "pgd(loss=cw)": 0.06,
    "apgd": 0.01,
    "apgd(loss=dlr)": 0.01,
    "apgd-t": 0.01,
    "gauntlet": 0.01,
    "autoattack(steps=40, queries=20)": 0.01,
}
"""Attacks, and the share of eps below it in which they may miss: steps that do not shrink go past a sharp corner."""


@pytest.mark.parametrize(
    ("text", "norm", "target"),
    [
        slow_unless(text != "gauntlet" or (norm, target) == ("Linf", "next"), text, norm, target)
        for text in INSIDE
        for norm in ("Linf", "L2")
        for target in ("next", "3")
    ],
)
def test_the_target_is_reached_exactly_where_its_region_is_within_eps(text, norm, target):
    images, labels = pictures()
    attackable = ThreatModel(norm, 1.0, target).targets(labels, CLASSES) != labels
    images, labels = images[attackable], labels[attackable]
    exact = smallest(images, ThreatModel(norm, 1.0, target).targets(labels, CLASSES), norm)
    threat = ThreatModel(norm, float(exact.median()), target)
    share = exact / threat.eps
    clear = (share < 1 - INSIDE[text]) | (share > 1 + 1e-6)
    assert clear.sum() >= 40
    found = attacked(text, brightest(), images, labels, threat).isfinite()
    assert torch.equal(found[clear], share[clear] < 1)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_square_and_noise_reach_the_target_nowhere_beyond_eps_and_often_within(norm):
    images, labels = pictures()
    exact = smallest(images, (labels + 1) % CLASSES, norm)
    threat = ThreatModel(norm, float(exact.median()), "next")
    for text, least in (("square(queries=300)", 0.3), ("noise", 0.1)):
        found = attacked(text, brightest(), images, labels, threat).isfinite()
        assert (exact[found] <= threat.eps * (1 + 1e-6)).all()
        assert found.sum() >= least * (exact <= threat.eps).sum()


@pytest.mark.parametrize(
    ("text", "norms", "median"),
    [
        ("fab", ("Linf", "L2"), 1.05),
        ("fab-t", ("Linf", "L2"), 1.05),
        ("fmn", ("Linf", "L2"), 1.01),
        ("ddn", ("L2",), 1.01),
        ("cw(search_steps=5)", ("L2",), 1.01),
        ("deepfool", ("Linf", "L2"), 1.1),
        ("hop_skip_jump(queries=600, probes=30)", ("L2",), 1.15),
        slow_unless(False, "hop_skip_jump(queries=600, probes=30)", ("Linf",), 1.15),
    ],
)
def test_a_minimum_norm_attack_finds_the_smallest_move_into_the_target_class(text, norms, median):
    images, labels = pictures(40)
    for norm in norms:
        exact = smallest(images, (labels + 1) % CLASSES, norm)
        ratio = attacked(text, brightest(), images, labels, ThreatModel(norm, 0.1, "next")) / exact
        assert ratio.isfinite().all()
        assert ratio.min() >= 1 - 1e-6
        assert ratio.median() <= median


def test_an_attack_towards_a_class_needs_more_than_one_towards_any():
    images, labels = pictures()
    near = attacked("fmn", brightest(), images, labels, ThreatModel("L2", 0.1, "next"))
    any_class = Verifier(brightest(), images, labels, [str(i) for i in range(60)], ThreatModel("L2", 0.1), seed=0)
    assert (any_class.measure(images, torch.arange(60)).margin.abs() / 2**0.5 <= near + 1e-9).all()


@pytest.mark.parametrize(
    "text", ["pgd(steps=5)", "apgd-t(steps=5)", "square(queries=40)", "fab(steps=5)", "gauntlet:fast"]
)
def test_neither_batch_size_nor_company_changes_a_sample_s_outcome(text):
    images, labels = pictures(24)
    threat = ThreatModel("Linf", 0.2, "next")
    whole = outcomes(text, brightest(), images, labels, threat)
    for batch_size in (1, 7):
        again = outcomes(text, brightest(), images, labels, threat, batch_size=batch_size)
        assert_same(whole, again)
        assert [one.stage for one in whole] == [one.stage for one in again]


class Level(nn.Module):
    """The class `ahead` leads on grey images; on all others, classes 0 and 1 share the largest logit."""

    def __init__(self, ahead):
        super().__init__()
        self.ahead = ahead

    def forward(self, x):
        logits = torch.zeros(len(x), CLASSES, dtype=x.dtype)
        grey = (x - 0.5).flatten(1).abs().amax(1) < 1e-3
        logits[:, :2], logits[:, self.ahead] = (~grey).double()[:, None], 1.0
        return logits


@pytest.mark.parametrize(("label", "target", "reached"), [(1, "0", True), (0, "1", False)])
def test_a_tie_counts_only_where_the_target_comes_first(label, target, reached):
    grey, threat = torch.full((1, 1, 3, 4), 0.5, dtype=torch.float64), ThreatModel("Linf", 0.1, target)
    (one,) = outcomes("noise(draws=3)", Level(label), grey, torch.tensor([label]), threat)
    assert (one.adversarial is not None) == reached
    assert one.forwards == (1 if reached else 3)


class Broken(nn.Module):
    """Class 4 has this logit away from grey."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        logits = x.flatten(1)[:, :CLASSES].clone()
        logits[:, 4] = torch.where((x - 0.5).flatten(1).abs().amax(1) > 0.01, self.value, logits[:, 4])
        return logits


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_reported_even_in_a_class_that_plays_no_part(value):
    images = torch.full((1, 1, 3, 4), 0.5, dtype=torch.float64)
    with pytest.raises(NonFiniteLogitsError, match="NaN or infinite"):
        outcomes("noise", Broken(value), images, torch.tensor([0]), ThreatModel("Linf", 0.1, "1"))


def test_minus_infinity_takes_a_class_out_and_is_reported_where_it_is_that_of_the_label():
    images = torch.full((1, 1, 3, 4), 0.5, dtype=torch.float64)
    (one,) = outcomes("noise", Broken(-torch.inf), images, torch.tensor([0]), ThreatModel("Linf", 0.1, "1"))
    assert one.adversarial is not None
    verify = Verifier(Broken(-torch.inf), images, torch.tensor([4]), ["a"], ThreatModel("Linf", 0.1), seed=0)
    with pytest.raises(NonFiniteLogitsError, match="of the label or of the target is −inf"):
        verify.measure(images + 0.05, torch.tensor([0]))


def test_a_model_without_a_gradient_is_refused_towards_a_class_too():
    class Detached(nn.Module):
        def forward(self, x):
            return x.detach().flatten(1)[:, :CLASSES]

    with pytest.raises(AttackError, match="no gradient"):
        outcomes("fgsm", Detached(), *pictures(2), ThreatModel("Linf", 0.1, "next"))


def test_a_task_whose_targets_and_threat_model_do_not_fit_is_refused():
    images, labels = pictures(2)
    with pytest.raises(ValueError, match=r"no targets are given for threat model L2:1\.0:target=3"):
        Task(images, labels, ["a", "b"], ThreatModel("L2", 1, 3), 0, "test")
    with pytest.raises(ValueError, match=r"targets are given for threat model L2:1\.0:"):
        Task(images, labels, ["a", "b"], ThreatModel("L2", 1), 0, "test", labels + 1)
    with pytest.raises(ValueError, match="sample b has its target as label"):
        Task(images, torch.tensor([0, 3]), ["a", "b"], ThreatModel("L2", 1, 3), 0, "test", torch.tensor([3, 3]))


# Judging


def test_the_verifier_counts_the_target_alone_and_its_margin_is_negative_there():
    images, labels = pictures(30)
    threat = ThreatModel("Linf", 1.0, "2")
    keep = labels != 2
    images, labels = images[keep], labels[keep]
    every = torch.arange(len(labels))
    verify = Verifier(brightest(), images, labels, [str(i) for i in every], threat, seed=0)
    towards_it, elsewhere = images.clone(), images.clone()
    towards_it[:, 0, 0, 2] = 1
    wrong = (labels + 1 + (labels == 1).long()) % CLASSES  # neither the label nor 2
    elsewhere.view(len(every), -1)[every, wrong] = 1
    assert verify(towards_it, every, every).success.all()
    assert not verify(elsewhere, every, every).success.any()
    measured = verify.measure(towards_it, every)
    assert (measured.margin < 0).all()
    assert (measured.wrong_share == 1).all()
    measured = verify.measure(elsewhere, every)
    torch.testing.assert_close(measured.margin, 1 - images[:, 0, 0, 2])
    assert (measured.wrong_share == 0).all()


def test_a_sample_of_the_target_s_class_is_measured_as_without_a_target():
    images, labels = pictures(30)
    every = torch.arange(30)
    ids = [str(i) for i in every]
    one = Verifier(brightest(), images, labels, ids, ThreatModel("L2", 1), seed=0).measure(images, every)
    other = Verifier(brightest(), images, labels, ids, ThreatModel("L2", 1, "2"), seed=0).measure(images, every)
    own = labels == 2
    assert own.any()
    assert torch.equal(one.margin[own], other.margin[own])
    assert (other.wrong_share == 0).all()


def test_what_robust_means_towards_a_class_is_one_sentence():
    assert target_meaning("Linf:8/255") == ""
    assert re.fullmatch(
        r"[^.]*classified correctly clean and not moved to class 3[^.]*\.", target_meaning("L2:1.0:target=3")
    )
    assert "the class after its label" in target_meaning("L2:1.0:target=next")
    assert "drawn for it" in target_meaning("L2:1.0:target=random")


# Attacks of libraries


@pytest.mark.parametrize(
    "text",
    [
        "torchattacks.PGD(steps=20)",
        "torchattacks.FAB(steps=10)",
        "art.ProjectedGradientDescent(steps=20)",
        "art.AutoProjectedGradientDescent(steps=20)",
    ],
)
def test_an_attack_of_a_library_is_led_to_each_sample_s_own_target(text):
    images, labels = (tensor.float() if tensor.is_floating_point() else tensor for tensor in pictures(30))
    model = brightest(scale=10.0, dtype=torch.float32)
    exact = smallest(images.double(), (labels + 1) % CLASSES, "Linf")
    threat = ThreatModel("Linf", float(exact.median()), "next")
    targets = threat.targets(labels, CLASSES)
    points, forwards, _ = run_whole(built(text, threat), model, images, labels, 0, targets)
    assert forwards > 0
    ids = [str(i) for i in range(30)]
    every = torch.arange(30)
    found = Verifier(model, images, labels, ids, threat, seed=0)(points, every, every).success
    assert not found[exact > 1.01 * threat.eps].any()
    assert found.sum() >= 0.9 * (exact <= threat.eps).sum()
    assert torch.equal(model(points[found]).argmax(1), targets[found])


def test_a_library_s_attack_that_needs_more_classes_says_that_towards_a_class_there_are_two():
    images, labels = pictures(2)
    with pytest.raises(ValueError, match="towards a class, any model has two"):
        run_whole(built("torchattacks.APGDT", ThreatModel("Linf", 0.1, 3)), brightest(), images, labels, 0, labels + 1)


def test_a_model_seen_towards_a_class_is_in_the_mode_of_the_model():
    assert not Towards(brightest().eval(), 1).training
    assert Towards(brightest().train(), 1).training
