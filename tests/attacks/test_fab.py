"""FAB and FAB-T: distances against the exact ones of linear models, passes, and agreement with torchattacks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torchattacks
from sklearn.linear_model import LogisticRegression
from torch import nn

import gauntlet
from gauntlet.attacks import fab
from gauntlet.attacks.fab import FAB
from gauntlet.attacks.ops.box_projection import inner, move_to_hyperplane
from gauntlet.attacks.ops.norms import distance
from gauntlet.attacks.ops.threat import NORMS, ThreatModel
from gauntlet.attacks.solving.solver import Task, Verification, solve
from gauntlet.bench.verify.verifier import Verifier

BOTH = [pytest.param(True, id="targeted"), pytest.param(False, id="untargeted")]


def outcomes(rule, model, images, labels, threat, *, judge=None, seed=0, **options):
    ids = [f"sample {i}" for i in range(len(labels))]
    verify = judge or Verifier(model, images, labels, ids, threat, seed=seed, minimum_norm=rule.minimum_norm)
    found = list(solve(rule, model, Task(images, labels, ids, threat, seed, "test"), verify, **options))
    return sorted(found, key=lambda outcome: outcome.sample)


def attacked(rule, model, images, labels, threat, **options):
    """Distance of the verified example of each sample, infinite where there is none."""
    size = torch.full((len(labels),), torch.inf, dtype=torch.float64)
    for one in outcomes(rule, model, images, labels, threat, **options):
        assert one.rejected == 0
        if one.adversarial is not None:
            assert 0 <= one.adversarial.min() <= one.adversarial.max() <= 1
            assert model(one.adversarial[None]).argmax() != labels[one.sample]
            size[one.sample] = distance(one.adversarial[None], images[one.sample][None], threat.norm)
    return size


def smallest(model, images, labels, norm):
    """Exact distance to the nearest point that another class wins. The projection has tests of its own."""
    weight, bias = model[1].weight, model[1].bias
    logits = images.flatten(1) @ weight.T + bias
    size = torch.full_like(logits, torch.inf)
    for k in range(logits.shape[1]):
        normal = (weight[k] - weight[labels]).view_as(images)
        gap = logits.gather(1, labels[:, None]).squeeze(1) - logits[:, k]
        move = move_to_hyperplane(images, normal, gap, norm)
        reached = (inner(move, normal) - gap).abs() < 1e-9
        size[:, k] = torch.where(reached & (labels != k), distance(images + move, images, norm), torch.inf)
    return size.amin(1)


def linear_digits(classes, count):
    """A linear classifier of the first digits in float64, and images that it classifies correctly."""
    train, test = gauntlet.load_data("digits-train"), gauntlet.load_data("digits")
    kept = train.labels < classes
    fit = LogisticRegression(C=0.5, max_iter=5000).fit(train.images[kept].flatten(1).numpy(), train.labels[kept])
    weight, bias = torch.tensor(fit.coef_).double(), torch.tensor(fit.intercept_).double()
    if classes == 2:
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, classes).double()).requires_grad_(False).eval()
    model[1].weight.data, model[1].bias.data = weight, bias
    images, labels = test.images.double(), test.labels
    right = ((model(images).argmax(1) == labels) & (labels < classes)).nonzero().squeeze(1)[:count]
    return model, images[right], labels[right]


@pytest.fixture(scope="module")
def ten():
    return linear_digits(10, 80)


@pytest.fixture(scope="module")
def network():
    """A small network of 4 classes in float64, and images with saturated pixels."""
    generator = torch.Generator().manual_seed(4)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4)).double()
    model.requires_grad_(False).eval()
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 3)
    images = torch.rand(11, 2, 6, 6, generator=generator, dtype=torch.float64)
    images[::3] = images[::3].round()
    return model, images, model(images).argmax(1)


@pytest.mark.parametrize("targeted", BOTH)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_no_distance_is_below_the_exact_one_and_the_median_is_within_half_a_percent(classes, norm, targeted):
    model, images, labels = linear_digits(classes, 80 if classes == 10 else 30)
    exact = smallest(model, images, labels, norm)
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
    exact = smallest(*ten, "L2")
    found = {n: attacked(FAB(steps=10, search_steps=n), *ten, ThreatModel("L2", 0.5)) / exact for n in (0, 3)}
    assert (found[3] <= found[0]).all()
    assert found[0].median() > 1.004
    assert found[3].median() < 1.001


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_the_scale_of_the_logits_does_not_matter_in_float32(scale, ten):
    model, images, labels = ten
    scaled = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).requires_grad_(False).eval()
    scaled[1].weight.data, scaled[1].bias.data = scale * model[1].weight.float(), scale * model[1].bias.float()
    images, labels = images[:30].float(), labels[:30]
    ratio = attacked(FAB(steps=20), scaled, images, labels, ThreatModel("Linf", 0.1)) / smallest(*ten, "Linf")[:30]
    assert ratio.min() >= 1 - 1e-5
    assert ratio.median() <= 1.005


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("stop_inside", [False, True])
@pytest.mark.parametrize("targeted", BOTH)
@pytest.mark.parametrize("norm", NORMS)
def test_nothing_depends_on_the_batch_size(norm, targeted, stop_inside, batch_size, network):
    threat = ThreatModel(norm, {"Linf": 0.03, "L2": 0.15, "L1": 0.6}[norm])
    rule = FAB(targeted=targeted, steps=4, restarts=2, stop_inside=stop_inside).for_classes(4)
    alone = outcomes(rule, *network, threat, batch_size=batch_size)
    together = outcomes(rule, *network, threat)
    assert any(one.adversarial is not None for one in together)
    for one, other in zip(alone, together, strict=True):
        assert (one.forwards, one.backwards, one.steps) == (other.forwards, other.backwards, other.steps)
        assert (one.adversarial is None) == (other.adversarial is None)
        if other.adversarial is not None:
            torch.testing.assert_close(one.adversarial, other.adversarial, rtol=0, atol=1e-9)


class Never:
    """A verifier that refuses everything."""

    def __call__(self, points, samples, attempt):
        no = torch.zeros(len(points), dtype=torch.bool)
        return Verification(no, no, no)


@pytest.mark.parametrize("stop_inside", [False, True])
def test_fab_t_makes_one_pass_for_each_target_and_step(stop_inside, network):
    rule = FAB(steps=7, restarts=2, stop_inside=stop_inside).for_classes(4)
    for one in outcomes(rule, *network, ThreatModel("L2", 1e-6), judge=Never()):
        # And one forward pass for the last iterate of each try; a final search follows only where a try found something.
        searches = one.backwards - 3 * 2 * 7
        assert searches in ({0} if stop_inside else range(0, 19, 3))
        assert one.forwards == one.backwards + rule.total_restarts


def test_untargeted_fab_makes_one_pass_for_each_class_and_step_and_one_for_each_misclassified_iterate(network):
    rule = FAB(targeted=False, steps=7, restarts=2, stop_inside=True).for_classes(4)
    found = outcomes(rule, *network, ThreatModel("L2", 1e-6), judge=Never())
    for one in found:
        assert 2 * 7 * 3 <= one.backwards <= 2 * 7 * 4
        assert one.forwards == one.backwards + rule.total_restarts
    assert max(one.backwards for one in found) > 2 * 7 * 3


def test_a_sample_broken_inside_eps_is_left_alone_at_once(ten):
    exact = smallest(*ten, "Linf")
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

        def judge(points, samples, attempt, seen=seen):
            seen.append(int(Targets()(points).argmax(1)))
            return Never()(points, samples, attempt)

        outcomes(rule, Targets(), image, label, ThreatModel("Linf", 0.5), judge=judge)
        assert seen[-1] == target


def test_restarts_differ_by_seed_and_never_make_the_result_worse(network):
    threat = ThreatModel("L2", 0.4)
    once = FAB(targeted=False, steps=3, search_steps=0).for_classes(4)
    alone = attacked(once, *network, threat)
    again = [attacked(replace(once, restarts=4), *network, threat, seed=seed) for seed in range(3)]
    assert all((found <= alone).all() for found in again)
    assert any((found < alone).any() for found in again)
    assert not torch.equal(again[0], again[1])
    assert torch.equal(again[1], attacked(replace(once, restarts=4), *network, threat, seed=1))


@pytest.mark.parametrize("targeted", BOTH)
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_fab_agrees_with_torchattacks_and_is_not_the_weaker_one(norm, targeted):
    # From the clean image nothing is random: five groups of images take the place of five seeds. Without the final search,
    # which the other lacks, the groups' mean distances are 0.978 to 1.006 of the other's.
    model = gauntlet.load_model("cnn.trades_digits").module.requires_grad_(False).eval()
    data = gauntlet.load_data("digits")
    right = (model(data.images).argmax(1) == data.labels).nonzero().squeeze(1)[:100]
    images, labels = data.images[right], data.labels[right]
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
