"""HopSkipJump: labels only, exact counts, and distances near the exact ones of linear models."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

from builders import linear, slow_unless
from gauntlet.attacks.hop_skip_jump import ENTRY, HopSkipJump
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.verify.verifier import Verifier
from solving import assert_same, distances, exact_distance, outcomes

NORMS = ["Linf", "L2"]


def attacked(rule, model, images, labels, threat, **options):
    """Outcomes, and the distance of each example, infinite where there is none."""
    found = outcomes(rule, model, images, labels, threat, **options)
    return found, distances(found, model, images, labels, threat.norm)


def central(shape=(1, 5, 5), classes=2, n=16, dtype=torch.float64):
    """A linear model, images in the middle of the box, and the exact distances by norm: the box is far."""
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(classes, math.prod(shape), generator=generator, dtype=torch.float64)
    images = (0.4 + 0.2 * torch.rand(n, *shape, generator=generator, dtype=torch.float64)).to(dtype)
    model = linear(weight, -(weight.to(dtype) @ images.flatten(1).mean(0)), dtype=dtype)
    labels = model(images).argmax(1)
    return model, images, labels, {norm: exact_distance(model, images, labels, norm).double() for norm in NORMS}


@pytest.mark.parametrize(
    ("norm", "classes"),
    [("Linf", 2), ("L2", 3), slow_unless(False, "Linf", 3), slow_unless(False, "L2", 2)],
)
def test_the_distance_is_never_below_the_exact_one_and_comes_near(norm, classes):
    model, images, labels, exact = central(classes=classes)
    _, sizes = attacked(HopSkipJump(queries=1200, probes=50), model, images, labels, ThreatModel(norm, 0.1))
    ratio = sizes / exact[norm]
    assert ratio.min() >= 1 - 1e-9
    assert ratio.median() <= {"L2": 1.05, "Linf": 1.2}[norm]
    # The first misclassified image may be of a class that is not the nearest.
    assert ratio.max() <= {2: 1.4, 3: 2}[classes]


@pytest.mark.parametrize("norm", [slow_unless(norm == "L2", norm) for norm in NORMS])
def test_single_precision_comes_as_near(norm):
    model, images, labels, exact = central(dtype=torch.float32)
    _, sizes = attacked(HopSkipJump(queries=700, probes=50), model, images, labels, ThreatModel(norm, 0.1))
    ratio = sizes / exact[norm]
    assert ratio.min() >= 1 - 1e-4
    assert ratio.median() <= {"L2": 1.1, "Linf": 1.3}[norm]


@pytest.mark.parametrize("norm", [slow_unless(norm == "Linf", norm) for norm in NORMS])
def test_more_queries_come_nearer(norm):
    model, images, labels, _ = central()
    medians = [
        attacked(HopSkipJump(queries=queries), model, images, labels, ThreatModel(norm, 0.1))[1].median()
        for queries in (60, 200, 600)
    ]
    assert medians[2] < medians[1] < medians[0]


def test_restarts_meet_nearer_classes():
    model, images, labels, exact = central(classes=4)
    sizes = []
    for restarts in (1, 3):
        rule = HopSkipJump(queries=300, restarts=restarts, probes=30)
        found, size = attacked(rule, model, images, labels, ThreatModel("L2", 0.1))
        assert {one.forwards for one in found} == {300 * restarts}
        sizes.append(size / exact["L2"])
    assert (sizes[1] <= sizes[0]).all()
    assert sizes[1].mean() < 0.95 * sizes[0].mean()


@pytest.mark.parametrize("norm", NORMS)
def test_every_query_of_the_budget_is_made_and_counted(norm):
    class Counted(nn.Module):
        seen = 0

        def forward(self, x):
            self.seen += len(x)
            return model(x)

    model, images, labels, _ = central(n=5)
    counted, rule = Counted(), HopSkipJump(queries=137)
    verify = Verifier(model, images, labels, list("abcde"), ThreatModel(norm, 0.1), seed=0, minimum_norm=True)
    found = outcomes(
        rule, counted, images, labels, ThreatModel(norm, 0.1), ids=list("abcde"), verify=verify, batch_size=2
    )
    assert [(one.forwards, one.backwards) for one in found] == [(137, 0)] * 5
    assert counted.seen == 5 * 137


@pytest.mark.parametrize("norm", [slow_unless(norm == "L2", norm) for norm in NORMS])
def test_only_the_predicted_label_is_used(norm):
    class LabelsOnly(nn.Module):
        def forward(self, x):
            logits = model(x)
            return one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)

    model, images, labels, _ = central(classes=3, n=8)
    rule, threat = HopSkipJump(queries=300, probes=30), ThreatModel(norm, 0.1)
    _, sizes = attacked(rule, model, images, labels, threat)
    _, bare = attacked(rule, LabelsOnly(), images, labels, threat)
    # The solver wants a little room where it sees logits; the search itself is the same.
    torch.testing.assert_close(bare, sizes, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("stop", "norm", "shape"),
    [
        slow_unless(shape == (2, 6, 6) and stop == (norm == "L2"), stop, norm, shape)
        for stop in (False, True)
        for norm in NORMS
        for shape in ((2, 6, 6), (3, 5, 3))
    ],
)
def test_verdicts_counts_and_examples_do_not_depend_on_the_batch_size(stop, norm, shape):
    model, images, labels, exact = central(shape, classes=3, n=5)
    rule = HopSkipJump(queries=90, probes=10, stop_inside=stop)
    threat = ThreatModel(norm, 3 * float(exact[norm].median()))
    whole, _ = attacked(rule, model, images, labels, threat)
    for size in (1, 3):
        assert_same(attacked(rule, model, images, labels, threat, batch_size=size)[0], whole)


@pytest.mark.parametrize("norm", [slow_unless(norm == "Linf", norm) for norm in NORMS])
def test_stop_inside_ends_at_the_first_point_inside_eps(norm):
    model, images, labels, exact = central()
    threat = ThreatModel(norm, 2 * float(exact[norm].median()))
    rule = HopSkipJump(queries=600, probes=40, stop_inside=True)
    found, sizes = attacked(rule, model, images, labels, threat)
    inside = sizes.isfinite()
    assert (sizes[inside] <= threat.eps * (1 + 1e-6)).all()
    assert inside[exact[norm] < 0.6 * threat.eps].all()
    assert not inside[exact[norm] > threat.eps].any()
    assert all((one.forwards < 600) == bool(hit) for one, hit in zip(found, inside, strict=True))


@pytest.mark.parametrize(("norm", "exact"), [("Linf", 0.25), ("L2", 0.125**0.5)])
def test_pixels_at_both_ends_of_the_box_move(norm, exact):
    class Difference(nn.Module):
        def forward(self, x):
            gap = x[:, 0, -1, -1] - x[:, 0, 0, 0] - 0.5
            return torch.stack([gap, -gap], 1)

    images = torch.full((6, 1, 3, 4), 0.5)
    images[:, 0, 0, 0], images[:, 0, -1, -1] = 0.0, 1.0
    labels = torch.zeros(6, dtype=torch.int64)
    _, sizes = attacked(HopSkipJump(queries=500, probes=50), Difference(), images, labels, ThreatModel(norm, 0.1))
    assert (sizes >= exact - 1e-6).all()
    assert sizes.median() <= 1.1 * exact


def test_where_all_fine_noise_has_the_true_label_coarse_noise_is_tried():
    class Bright(nn.Module):
        def forward(self, x):
            light = x.flatten(1).mean(1)
            return torch.stack([torch.full_like(light, 0.62), light], 1)

    images, labels = torch.full((8, 1, 16, 16), 0.3), torch.zeros(8, dtype=torch.int64)
    _, sizes = attacked(HopSkipJump(queries=300), Bright(), images, labels, ThreatModel("Linf", 0.1))
    assert (sizes >= 0.32 - 1e-5).all()
    assert sizes.isfinite().all()


def test_a_model_that_never_errs_costs_the_budget_and_is_not_broken():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.tensor([1.0, 0.0]).repeat(len(x), 1)

    images, labels = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    found, sizes = attacked(HopSkipJump(queries=40), Constant(), images, labels, ThreatModel("L2", 0.1))
    assert sizes.isinf().all()
    assert [one.forwards for one in found] == [40] * 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 0}, "queries=0"),
        ({"probes": 0}, "probes=0"),
        ({"gamma": -1.0}, "gamma=-1.0"),
        ({"stop_inside": 1}, "stop_inside=1"),
        ({"steps": 3}, "steps"),
    ],
)
def test_a_bad_setting_is_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        ENTRY.make(ThreatModel("L2", 0.1), **settings)
