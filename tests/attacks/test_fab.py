"""FAB and FAB-T: distances against the exact ones of linear models, passes, and agreement with torchattacks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torchattacks
from torch import nn

from builders import convolution, linear, linear_digits, task_of, zoo_digits
from gauntlet.attacks import fab
from gauntlet.attacks.fab import FAB
from gauntlet.attacks.ops.norms import distance
from gauntlet.attacks.ops.threat import NORMS, ThreatModel
from solving import assert_same, attacked, exact_distance, never, outcomes

BOTH = [pytest.param(True, id="targeted"), pytest.param(False, id="untargeted")]


@pytest.fixture(scope="module")
def ten():
    return linear_digits(10, 80)


@pytest.fixture(scope="module")
def small():
    return task_of(convolution(), (2, 6, 6), 11)


@pytest.mark.parametrize("targeted", BOTH)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_no_distance_is_below_the_exact_one_and_the_median_is_within_half_a_percent(classes, norm, targeted):
    model, images, labels = linear_digits(classes, 80 if classes == 10 else 30)
    exact = exact_distance(model, images, labels, norm)
    reached = exact.isfinite()
    assert reached.sum() > 15
    rule = FAB(targeted=targeted, steps=20).for_classes(classes)
    found = attacked(rule, model, images, labels, ThreatModel(norm, 0.3))
    ratio = found[reached] / exact[reached]
    assert ratio.min() >= 1 - 1e-6
    assert ratio.median() <= 1.005
    # The nearest boundary of the moment need not be that of the nearest class: FAB-T tries them all.
    assert ratio.max() <= (1.01 if targeted else 1.4)


def test_the_final_search_takes_away_most_of_the_overshoot(ten):
    exact = exact_distance(*ten, "L2")
    found = {n: attacked(FAB(steps=10, search_steps=n), *ten, ThreatModel("L2", 0.5)) / exact for n in (0, 3)}
    assert (found[3] <= found[0]).all()
    assert found[0].median() > 1.004
    assert found[3].median() < 1.001


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_the_scale_of_the_logits_does_not_matter_in_float32(scale, ten):
    model, images, labels = ten
    scaled = linear(scale * model[1].weight, scale * model[1].bias, dtype=torch.float32)
    images, labels = images[:30].float(), labels[:30]
    ratio = (
        attacked(FAB(steps=20), scaled, images, labels, ThreatModel("Linf", 0.1)) / exact_distance(*ten, "Linf")[:30]
    )
    assert ratio.min() >= 1 - 1e-5
    assert ratio.median() <= 1.005


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("stop_inside", [False, True])
@pytest.mark.parametrize("targeted", BOTH)
@pytest.mark.parametrize("norm", NORMS)
def test_nothing_depends_on_the_batch_size(norm, targeted, stop_inside, batch_size, small):
    threat = ThreatModel(norm, {"Linf": 0.03, "L2": 0.15, "L1": 0.6}[norm])
    rule = FAB(targeted=targeted, steps=4, restarts=2, stop_inside=stop_inside).for_classes(4)
    alone = outcomes(rule, *small, threat, batch_size=batch_size)
    together = outcomes(rule, *small, threat)
    assert any(one.adversarial is not None for one in together)
    assert_same(alone, together)


@pytest.mark.parametrize("stop_inside", [False, True])
def test_fab_t_makes_one_pass_for_each_target_and_step(stop_inside, small):
    rule = FAB(steps=7, restarts=2, stop_inside=stop_inside).for_classes(4)
    for one in outcomes(rule, *small, ThreatModel("L2", 1e-6), verify=never):
        # And one forward pass for the last iterate of each try; a final search follows only where a try found something.
        searches = one.backwards - 3 * 2 * 7
        assert searches in ({0} if stop_inside else range(0, 19, 3))
        assert one.forwards == one.backwards + rule.total_restarts


def test_untargeted_fab_makes_one_pass_for_each_class_and_step_and_one_for_each_misclassified_iterate(small):
    rule = FAB(targeted=False, steps=7, restarts=2, stop_inside=True).for_classes(4)
    found = outcomes(rule, *small, ThreatModel("L2", 1e-6), verify=never)
    for one in found:
        assert 2 * 7 * 3 <= one.backwards <= 2 * 7 * 4
        assert one.forwards == one.backwards + rule.total_restarts
    assert max(one.backwards for one in found) > 2 * 7 * 3


def test_a_sample_broken_inside_eps_is_left_alone_at_once(ten):
    exact = exact_distance(*ten, "Linf")
    eps = float(exact.median())
    rule = FAB(steps=20, stop_inside=True)
    found = outcomes(rule, *ten, ThreatModel("Linf", eps))
    sizes = attacked(rule, *ten, ThreatModel("Linf", eps))
    broken = sizes.isfinite()
    assert (sizes[broken] <= eps + 2e-7).all()
    assert torch.equal(broken[(exact / eps - 1).abs() > 0.01], (exact <= eps)[(exact / eps - 1).abs() > 0.01])
    spent = torch.tensor([float(one.backwards) for one in found])
    assert (spent[~broken] == 9 * 20).all()
    assert spent[broken].mean() < 60


class Targets(nn.Module):
    """Logits that read off which class is sought: each class has a pixel of its own."""

    def forward(self, x):
        return x.flatten(1) * 1.0


def test_the_nth_try_goes_to_the_nth_likeliest_wrong_class():
    image = torch.tensor([0.9, 0.2, 0.3, 0.25], dtype=torch.float64).view(1, 1, 2, 2)
    label = torch.tensor([0])
    for n, target in enumerate([2, 3, 1], start=1):
        rule = FAB(classes=n, steps=3, stop_inside=True)

        seen = []

        def verify(points, samples, attempt, seen=seen):
            seen.append(int(Targets()(points).argmax(1)))
            return never(points, samples, attempt)

        outcomes(rule, Targets(), image, label, ThreatModel("Linf", 0.5), verify=verify)
        assert seen[-1] == target


def test_restarts_differ_by_seed_and_never_make_the_result_worse(small):
    threat = ThreatModel("L2", 0.4)
    once = FAB(targeted=False, steps=3, search_steps=0).for_classes(4)
    alone = attacked(once, *small, threat)
    again = [attacked(replace(once, restarts=4), *small, threat, seed=seed) for seed in range(3)]
    assert all((found <= alone).all() for found in again)
    assert any((found < alone).any() for found in again)
    assert not torch.equal(again[0], again[1])
    assert torch.equal(again[1], attacked(replace(once, restarts=4), *small, threat, seed=1))


@pytest.mark.parametrize("targeted", BOTH)
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_fab_agrees_with_torchattacks_and_is_not_the_weaker_one(norm, targeted):
    # From the clean image nothing is random: five groups of images take the place of five seeds. Without the final search,
    # which the other lacks, the groups' mean distances are 0.978 to 1.006 of the other's.
    model, images, labels = zoo_digits()
    other = torchattacks.FAB(model, norm=norm, eps=100.0, steps=20)
    theirs = torch.full((len(labels),), torch.inf, dtype=torch.float64)
    with torch.random.fork_rng():
        for n in (2, 3, 4) if targeted else (0,):
            if targeted:
                other.target_class = model(images).argsort(dim=1)[:, -n]
                found = other.attack_single_run_targeted(images.clone(), labels.clone())
            else:
                found = other.attack_single_run(images.clone(), labels.clone())
            size = distance(found, images, norm)
            theirs = torch.minimum(theirs, torch.where(model(found).argmax(1) != labels, size, torch.inf))
    rule = FAB(targeted=targeted, classes=3 if targeted else 9, steps=20, search_steps=0)
    ours = attacked(rule, model, images, labels, ThreatModel(norm, 0.15))
    assert theirs.isfinite().all()
    assert ours.isfinite().all()
    ratios = [float(ours[group::5].mean() / theirs[group::5].mean()) for group in range(5)]
    assert all(0.96 < ratio < 1.02 for ratio in ratios), ratios
    assert ours.mean() <= 1.01 * theirs.mean(), ratios


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"restarts": 1.5}, "restarts=1.5"),
        ({"classes": 0}, "classes=0"),
        ({"search_steps": -1}, "search_steps=-1"),
        ({"alpha_max": 1.5}, "alpha_max=1.5 must be a finite number, at least 0 and at most 1"),
        ({"beta": 0.0}, "beta=0.0"),
        ({"eta": 0.9}, "eta=0.9"),
        ({"stop_inside": "yes"}, "stop_inside='yes' must be True or False"),
        ({"overshoot": 1.0}, "overshoot"),
        ({"targeted": False}, "targeted"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        fab.TARGETED.make(ThreatModel("Linf", 0.1), **settings)


def test_both_entries_seek_the_minimum_norm_and_have_no_more_targets_than_wrong_classes():
    for entry, tries in ((fab.TARGETED, 9), (fab.ENTRY, 1)):
        rule = entry.make(ThreatModel("L2", 0.1))
        assert entry.card.minimum_norm
        assert rule.minimum_norm
        assert rule.total_restarts == tries
    assert fab.TARGETED.make(ThreatModel("L2", 0.1)).for_classes(3).total_restarts == 2
    assert fab.ENTRY.make(ThreatModel("L2", 0.1)).for_classes(3).budget == 100 * (2 + 1) + 3
