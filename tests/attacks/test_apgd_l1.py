"""L1-APGD and SLIDE: on linear models, where the smallest L1 perturbations are known, and beside the authors' code."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

import solving
from builders import clipped_task, linear_digits, zoo_digits
from gauntlet.attacks import apgd, pgd
from gauntlet.attacks.apgd_l1 import APGDL1, timetable
from gauntlet.attacks.autoattack import ENTRY as AUTOATTACK
from gauntlet.attacks.gauntlet import BUDGETS, DEFAULT
from gauntlet.attacks.ops.dlr import TARGETED, UNTARGETED
from gauntlet.attacks.ops.norms import distance
from gauntlet.attacks.ops.random import Draws, sample_keys
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.registry.suites import SUITES, suite_members
from gauntlet.attacks.slide import SLIDE
from gauntlet.attacks.solving.solver import Stage
from solving import Recorder, assert_same, broken, distances, exact_distance, path

EPS = 0.5
L1 = ThreatModel("L1", EPS)
LOSSES = [*UNTARGETED, *TARGETED]


def outcomes(attack, model, images, labels, threat=L1, **options):
    """Outcomes in the order of the samples, all examples inside the ball."""
    found = solving.outcomes(attack, model, images, labels, threat, **options)
    sizes = distances(found, model, images, labels, "L1")
    assert (sizes[sizes.isfinite()] <= threat.eps * (1 + 1e-12)).all()
    return found


@pytest.fixture(scope="module", params=[2, 3, 10])
def digits(request):
    """A linear model of the first digits, images, and their exact distances."""
    task = linear_digits(request.param, 100, logistic=False)
    return *task, exact_distance(*task, "L1")


@pytest.mark.parametrize("multi_eps", [True, False])
def test_on_a_linear_model_it_breaks_what_can_be_broken_and_nothing_else(digits, multi_eps):
    model, images, labels, exact = digits
    classes = model[1].out_features
    threat = ThreatModel("L1", float(exact.quantile(0.5)))
    reachable = exact <= threat.eps
    for loss in LOSSES:
        rule = APGDL1(steps=30, loss=loss, multi_eps=multi_eps).for_classes(classes)
        hit = broken(outcomes(rule, model, images, labels, threat))
        assert (exact[hit] <= threat.eps * (1 + 1e-9)).all(), loss
        # Logits divided by their lead weigh all classes nearly alike, and a step in L1 has few pixels for them.
        least = 0.2 if loss == "mifpe" else 0.9 if loss in TARGETED else 0.7
        assert hit.sum() >= least * reachable.sum(), loss
        if loss == "dlr_targeted" and multi_eps:
            clear = (exact / threat.eps - 1).abs() > 0.01
            assert torch.equal(hit[clear], reachable[clear])


def test_slide_breaks_most_of_what_can_be_broken_and_nothing_else(digits):
    model, images, labels, exact = digits
    threat = ThreatModel("L1", float(exact.quantile(0.5)))
    for loss in ("ce", "cw"):
        hit = broken(outcomes(SLIDE(loss=loss), model, images, labels, threat))
        assert (exact[hit] <= threat.eps * (1 + 1e-9)).all()
        assert hit.sum() >= 0.8 * (exact <= threat.eps).sum()


RULES = [
    pytest.param(APGDL1(steps=8, restarts=2, targets=3, loss="dlr_targeted"), id="apgd-t"),
    pytest.param(APGDL1(steps=30, multi_eps=False), id="apgd one radius"),
    pytest.param(SLIDE(steps=8, restarts=2), id="slide"),
]


@pytest.fixture(scope="module")
def small():
    return clipped_task(count=12)


@pytest.mark.parametrize("rule", RULES)
def test_the_result_does_not_hang_on_the_batch_size(small, rule):
    runs = [outcomes(rule, *small, batch_size=size) for size in (1, 3, 12)]
    assert 0 < sum(one.adversarial is not None for one in runs[0]) < 12
    for run in runs[1:]:
        assert_same(runs[0], run)


@pytest.mark.parametrize(
    ("rule", "forwards", "backwards"),
    [
        (APGDL1(steps=10), 13, 12),
        (APGDL1(steps=10, multi_eps=False), 11, 10),
        (APGDL1(steps=10, eot=4, multi_eps=False), 41, 40),
        (APGDL1(steps=10, loss="dlr_targeted", targets=2, restarts=2), 4 * 14, 4 * 12),
        (SLIDE(steps=10, restarts=3), 33, 30),
    ],
)
def test_a_sample_that_withstands_costs_these_passes(small, rule, forwards, backwards):
    for one in outcomes(rule, *small, ThreatModel("L1", 1e-4)):
        assert (one.forwards, one.backwards, one.steps, one.rejected) == (forwards, backwards, -1, 0)


def test_the_radii_are_three_two_and_one_eps_and_checkpoints_come_every_four_percent():
    rows = timetable(100, True)
    assert [radius for radius, _, _ in rows] == [3] * 31 + [2] * 31 + [1] * 40
    assert [i for i, (radius, following, _) in enumerate(rows) if following != radius] == [30, 61]
    assert [i for i, row in enumerate(timetable(100, False)) if row[2]] == list(range(4, 100, 4))
    for steps in (3, 4, 5, 10, 77):
        assert len(timetable(steps, True)) == APGDL1(steps=steps).budget == steps + 2


def test_every_iterate_lies_in_the_ball_of_its_radius_and_the_box(small):
    images = small[1]
    radii = [radius for radius, _, _ in timetable(20, True)] + [1]
    for radius, points in zip(radii, path(APGDL1(steps=20), *small, L1), strict=True):
        assert 0 <= points.min() <= points.max() <= 1
        assert (distance(points, images, "L1") <= radius * EPS * (1 + 1e-12)).all()


@pytest.fixture(scope="module")
def trained():
    return zoo_digits("cnn.pgd_digits")


def official(model, threat, steps, loss, multi_eps, targets, seed=0):
    """The authors' attack at the same budget."""
    common = {"n_iter": steps, "norm": "L1", "eps": threat.eps, "use_largereps": multi_eps, "seed": seed}
    if loss == "dlr_targeted":
        return APGDAttack_targeted(model, n_target_classes=targets, **common)
    return APGDAttack(model, loss=loss, **common)


@pytest.mark.parametrize("multi_eps", [True, False])
@pytest.mark.parametrize("loss", ["ce", "dlr", "dlr_targeted"])
def test_the_path_is_that_of_the_authors_code_step_for_step(monkeypatch, trained, loss, multi_eps):
    model, images, labels = trained
    threat, same = ThreatModel("L1", 3.0), 0
    rule = APGDL1(steps=50, loss=loss, multi_eps=multi_eps, targets=1)
    for image, label in zip(images[:6].split(1), labels[:6].split(1), strict=True):
        theirs = Recorder(model)
        ours = path(rule, model, image, label, threat)
        noise = Draws.start(sample_keys(0, "test", ["sample 0"])).normal(image.shape[1:])
        with monkeypatch.context() as patch, torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            patch.setattr(torch, "randn", lambda shape, noise=noise: noise.clone())
            patch.setattr(torch, "randn_like", lambda like, noise=noise: noise.clone())
            official(theirs, threat, 50, loss, multi_eps, 1).perturb(image, label)
        # Theirs looks at the clean image once more.
        mine, other = torch.cat(ours), torch.cat(theirs.seen)[1:]
        assert len(mine) == len(other) == rule.budget + 1 + (loss == "dlr_targeted")
        same += bool((mine - other).abs().max() < 1e-4)
    # Theirs computes in float32, where nearly equal entries of a gradient may change places: of 6 paths 0 or 1 part.
    assert same >= 5


@pytest.mark.parametrize("loss", ["ce", "dlr_targeted"])
def test_verdicts_differ_from_the_authors_code_no_more_than_its_seeds_do(trained, loss):
    model, images, labels = trained
    threat = ThreatModel("L1", 1.2)
    rule = APGDL1(steps=20, loss=loss, targets=2)
    ours = [~broken(outcomes(rule, *trained, threat, seed=seed)) for seed in range(4)]
    theirs = []
    for seed in range(4):
        with torch.random.fork_rng():
            points = official(model, threat, 20, loss, True, 2, seed).perturb(images, labels)
        theirs.append(model(points).argmax(1) == labels)
    counts = [[int(one.sum()) for one in side] for side in (ours, theirs)]
    assert 30 < min(map(min, counts)) <= max(map(max, counts)) < 80
    spread = [int((a != b).sum()) for a, b in itertools.combinations(theirs, 2)]
    between = [int((a != b).sum()) for a, b in itertools.product(ours, theirs)]
    assert sum(between) / len(between) <= sum(spread) / len(spread) + 2, (spread, between)
    assert abs(sum(counts[0]) - sum(counts[1])) <= 3 * 4, counts


def test_the_names_build_the_rules_of_the_norm():
    assert apgd.ENTRY.make(L1) == APGDL1()
    assert apgd.ENTRY_TARGETED.make(L1, targets=5) == APGDL1(loss="dlr_targeted", targets=5)
    assert apgd.ENTRY.make(ThreatModel("L2", EPS)) == apgd.APGD()
    assert pgd.ENTRY.make(L1, steps=7) == SLIDE(steps=7)


def test_autoattack_in_l1_is_the_authors_ensemble():
    stages = dict(zip(("ce", "t", "fab", "square"), AUTOATTACK.make(L1).stages, strict=True))
    assert stages["ce"] == Stage("apgd-ce", APGDL1(restarts=5))
    assert stages["t"] == Stage("apgd-t", APGDL1(loss="dlr_targeted", targets=5))
    assert (stages["fab"].rule.classes, stages["square"].rule.queries) == (9, 5000)
    rand = AUTOATTACK.make(L1, version="rand").stages
    assert [stage.rule for stage in rand] == [APGDL1(eot=20, multi_eps=False, loss=loss) for loss in ("ce", "dlr")]


def test_both_cascades_run_in_l1_and_leave_no_more_than_their_first_stages(trained):
    model, images, labels = trained
    images, labels, threat = images[:40], labels[:40], ThreatModel("L1", 1.2)
    slide = broken(outcomes(SLIDE(steps=8, loss="cw"), model, images, labels, threat))
    for cascade in (DEFAULT.make(threat), AUTOATTACK.make(threat, steps=10, queries=20)):
        found = outcomes(cascade.stages, model, images, labels, threat, classes=10)
        hit = torch.tensor([one.adversarial is not None for one in found])
        assert slide.sum() < hit.sum() < 40
        assert len({one.stage for one in found}) > 2
    assert [stage.label for stage in DEFAULT.make(threat).stages] == [stage.label for stage in BUDGETS["gauntlet"]]


def test_every_suite_has_attacks_for_l1():
    for name in SUITES:
        assert suite_members(name, "L1")


@pytest.mark.parametrize(
    ("entry", "settings", "named"),
    [
        (apgd.ENTRY, {"steps": 2}, "steps=2 is too few"),
        (apgd.ENTRY, {"restarts": 1.5}, "restarts=1.5"),
        (apgd.ENTRY, {"multi_eps": 1}, "multi_eps=1"),
        (apgd.ENTRY, {"loss": "dlr-target"}, "dlr_targeted"),
        (apgd.ENTRY, {"rho": 0.5}, "no setting 'rho'"),
        (pgd.ENTRY, {"share": 0.0}, "share=0.0"),
        (pgd.ENTRY, {"share": 1.5}, "share=1.5"),
        (pgd.ENTRY, {"step_size": -1.0}, "step_size=-1.0"),
        (pgd.ENTRY, {"random_start": False, "restarts": 2}, "restarts > 1"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(entry, settings, named):
    with pytest.raises(ValueError, match=named):
        entry.make(L1, **settings)
