"""Signs: what an attack's course says of a sample, which stages ask for it, and what they cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from gauntlet.attacks.apgd import APGD
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.solving.oracle import AttackError
from gauntlet.attacks.solving.solver import Outcome, Stage, Task, solve
from gauntlet.attacks.solving.stage_conditions import Masked, Near, Smoothed, nearness
from gauntlet.attacks.square import Square
from gauntlet.bench.verify.verifier import Verifier
from solving import outcomes

N = 12
LINF = ThreatModel("Linf", 0.05)


def near(logits, clean, labels):
    return nearness(*(torch.tensor(one, dtype=torch.float64) for one in (logits, clean)), torch.tensor(labels))


# Nearness.


def test_nearness_is_what_is_left_of_the_clean_margin():
    clean = [[3.0, 1.0, -1.0]] * 4
    found = near([[2.0, 1.0, -1.0], [3.0, 1.0, -1.0], [1.0, 1.5, 0.0], [5.0, 0.0, 0.0]], clean, [0] * 4)
    assert found.tolist() == [0.5, 1.0, -0.25, 2.5]


@pytest.mark.parametrize("scale", [1e-6, 0.5, 1e6])
@pytest.mark.parametrize("shift", [-1e3, 0.0, 7.0])
def test_nearness_does_not_change_with_scale_and_shift(scale, shift):
    generator = torch.Generator().manual_seed(0)
    logits, clean = torch.randn(2, 50, 6, generator=generator, dtype=torch.float64)
    labels = clean.argmax(1)
    expected = nearness(logits, clean, labels)
    assert expected.isfinite().all()
    torch.testing.assert_close(nearness(scale * (logits + shift), scale * (clean + shift), labels), expected)


def test_nearness_is_zero_on_a_tie_and_infinite_without_a_clean_margin():
    clean = [[3.0, 1.0, -1.0], [2.0, 2.0, 0.0], [1.0, 2.0, 0.0]]
    assert near([[2.0, 2.0, 0.0]] * 3, clean, [0, 0, 0]).tolist() == [0.0, math.inf, math.inf]


@pytest.mark.parametrize(
    "logits", [[math.inf, 0.0, 0.0], [-math.inf, 0.0, 0.0], [math.nan, 0.0, 1.0], [0.0, math.inf, 1.0]]
)
def test_logits_that_are_not_finite_say_nothing_of_nearness(logits):
    assert near([logits], [[2.0, 1.0, 0.0]], [0]).tolist() == [math.inf]


def test_a_class_that_is_never_predicted_plays_no_part():
    assert near([[2.0, 1.0, -math.inf]], [[5.0, 1.0, -math.inf]], [0]).tolist() == [0.25]


# Signs on outcomes made by hand.


@pytest.mark.parametrize(
    ("nearest", "shown"),
    [
        ({}, False),
        ({"gradient": 0.2}, False),
        ({"gradient": 0.1}, False),
        ({"gradient": 0.09}, True),
        ({"gradient": 0.2, "probe": 0.05}, True),
        ({"gradient": 0.05, "probe": 0.2}, True),
        ({"gradient": 0.2, "substitute": 0.05}, True),
        ({"gradient": -0.01}, True),
        ({"probe": math.inf}, False),
        ({"gradient": 0.2, "smoothed": 0.05}, False),
    ],
)
def test_near_asks_whether_any_stage_came_nearer(nearest, shown):
    assert Near(0.1)(Outcome(0, nearest=nearest)) is shown


@pytest.mark.parametrize(
    ("counts", "nearest", "shown"),
    [
        ((0, 0), {}, False),
        ((10, 4), {"gradient": 0.2}, False),
        ((10, 5), {"gradient": 0.2}, True),
        ((10, 10), {"gradient": 0.2}, True),
        ((0, 0), {"probe": 0.2}, True),
        ((10, 0), {"gradient": 0.2, "probe": 0.2}, False),
        ((10, 0), {"gradient": 0.2, "probe": 0.3}, False),
        ((10, 0), {"gradient": 0.2, "probe": 0.19}, True),
        ((10, 0), {"gradient": math.inf, "probe": math.inf}, False),
    ],
)
def test_masked_asks_whether_gradients_vanished_or_a_probe_came_nearer(counts, nearest, shown):
    gradients, vanished = counts
    assert Masked()(Outcome(0, gradients=gradients, vanished=vanished, nearest=nearest)) is shown


@pytest.mark.parametrize(
    ("nearest", "shown"),
    [
        ({}, False),
        ({"gradient": 0.2}, False),
        ({"gradient": 0.2, "smoothed": 0.2}, False),
        ({"gradient": 0.2, "smoothed": 0.17}, False),
        ({"gradient": 0.2, "smoothed": 0.15}, True),
        ({"gradient": 0.2, "probe": 0.1, "smoothed": 0.15}, True),
        ({"smoothed": 0.9}, True),
        ({"gradient": -0.1, "smoothed": -0.09}, False),
        ({"gradient": math.inf, "smoothed": math.inf}, False),
    ],
)
def test_smoothed_asks_whether_gradients_of_a_smoothed_loss_came_clearly_nearer(nearest, shown):
    assert Smoothed()(Outcome(0, nearest=nearest)) is shown


def test_signs_are_part_of_what_a_stored_result_is_keyed_by():
    # Cascades are keyed by their text: other thresholds must read otherwise.
    assert repr(Near(0.1)) != repr(Near(0.2)) != repr(Masked())
    assert repr(Stage("a", PGD(), Near(0.1))) != repr(Stage("a", PGD()))
    assert repr(Stage("a", PGD(), None, "leaky")) != repr(Stage("a", PGD()))


# Stages.


class Levels(nn.Module):
    """Three classes. The first pixel says how far class 1 is behind, the second how much of the gradient is real."""

    def forward(self, x):
        flat = x.flatten(1)
        # A sample's own level is what no perturbation changes much: pixels count a tenth.
        gap = flat[:, 0] - 0.5 - 0.1 * (flat[:, 2:] - 0.5).mean(1)
        return torch.stack([0.5 * gap, -0.5 * gap, torch.full_like(gap, -1.0)], dim=1)


class Flat(Levels):
    """The same values where the second pixel is bright, but no gradient there."""

    def forward(self, x):
        logits = super().forward(x)
        return torch.where(x.flatten(1)[:, 1:2] > 0.5, logits.detach(), logits)


def levels(bright=()):
    """Images at twelve levels; those in `bright` have the second pixel bright."""
    images = torch.full((N, 1, 2, 3), 0.5, dtype=torch.float64)
    images[:, 0, 0, 0] = torch.linspace(0.52, 0.95, N, dtype=torch.float64)
    images[:, 0, 0, 1] = 0.2
    images[list(bright), 0, 0, 1] = 0.8
    return images


@dataclass(frozen=True, kw_only=True)
class Seen(PGD):
    """PGD that tells which samples it faced."""

    faced: tuple[set[int], ...] = (set(),)

    def start(self, oracle):
        self.faced[0].update(oracle.slots.sample.tolist())
        return super().start(oracle)


def run(stages, model, images, labels=None, threat=LINF, **options):
    """Outcomes in the order of the samples."""
    labels = torch.zeros(len(images), dtype=torch.int64) if labels is None else labels
    targets = threat.targets(labels, 3) if threat.target else None
    return outcomes(stages, model, images, labels, threat, targets=targets, classes=3, **options)


def test_a_sample_skips_the_stages_whose_sign_it_does_not_show():
    near_ones, all_of_them = Seen(steps=2, faced=(set(),)), Seen(steps=3, faced=(set(),))
    stages = (Stage("first", PGD(steps=4)), Stage("near", near_ones, Near(0.15)), Stage("all", all_of_them))
    found = run(stages, Levels(), levels(), batch_size=5)
    standing = {one.sample for one in found if one.stage != "first"}
    expected = {i for i in standing if found[i].near("gradient") < 0.15}
    assert near_ones.faced[0] == expected
    assert all_of_them.faced[0] == standing - {one.sample for one in found if one.stage == "near"}
    assert 0 < len(expected) < len(standing) < N
    for one in found:
        if one.stage == "" and one.sample in expected:
            # The first pass is that of the clean image.
            assert (one.forwards, one.backwards) == (1 + 5 + 3 + 4, 4 + 2 + 3)
        elif one.stage == "":
            assert (one.forwards, one.backwards) == (1 + 5 + 4, 4 + 3)


def test_a_sample_that_no_later_stage_faces_comes_out_at_once():
    stages = (Stage("first", PGD(steps=4)), Stage("near", PGD(steps=50), Near(0.15)))
    images, labels = levels(), torch.zeros(N, dtype=torch.int64)
    ids = [str(i) for i in range(N)]
    verify = Verifier(Levels(), images, labels, ids, LINF, seed=0)
    order = [one.sample for one in solve(stages, Levels(), Task(images, labels, ids, LINF, 0, "signs"), verify)]
    found = run(stages, Levels(), images)
    short, long = ([one.sample for one in found if (one.taken > 4) == late] for late in (False, True))
    assert len(short) > 3
    assert len(long) > 0
    assert max(map(order.index, short)) < min(map(order.index, (i for i in long if found[i].stage == "")))


def test_gradients_that_vanish_are_counted_for_the_sample_they_vanish_for():
    bright = (1, 4, 10)
    stages = (Stage("first", PGD(steps=6)), Stage("never", PGD(), Near(-9.0)))
    # They are counted where no stage asks for a sign, too: a record says which samples stand with masked gradients.
    for attack in (stages, PGD(steps=6)):
        for one in run(attack, Flat(), levels(bright), batch_size=5):
            assert one.vanished == (one.backwards if one.sample in bright else 0)
            assert one.masked == (one.sample in bright)


def test_a_gradient_that_is_not_finite_has_vanished():
    class Cliff(Levels):
        def forward(self, x):
            # The square root's gradient at 0 is infinite, and 0 · ∞ not a number.
            return super().forward(x) + (0 * x.flatten(1)).sum(1, keepdim=True).sqrt()

    stages = (Stage("first", PGD(steps=3)), Stage("wide", Square(queries=5), Masked()))
    for one in run(stages, Cliff(), levels()):
        assert one.vanished == one.backwards
        assert (one.masked_fallback > 0) == (one.stage != "first")


def test_only_passes_of_stages_for_masked_samples_count_as_widened():
    bright = (1, 4, 10)
    stages = (
        Stage("first", PGD(steps=4)),
        Stage("wide", Square(queries=7), Masked()),
        Stage("through", PGD(steps=3), Masked(), "through"),
        Stage("near", PGD(steps=5), Near(0.6)),
        Stage("all", PGD(steps=2)),
    )
    found = run(stages, Flat(), levels(bright), batch_size=5)
    for one in found:
        if one.sample not in bright:
            assert one.masked_fallback == 0
        elif one.stage == "":
            # The wide search, and 3 steps with the last iterate's evaluation: neither the near stage nor the last.
            assert one.masked_fallback == 7 + 3 + 4
            assert one.forwards + one.backwards > one.masked_fallback + 9
    assert any(one.masked_fallback for one in found)


def test_a_probe_that_comes_nearer_than_the_gradients_is_a_sign():
    class Misleading(Levels):
        """Its gradient points the wrong way."""

        def forward(self, x):
            logits = super().forward(x)
            return 2 * logits.detach() - logits

    stages = (
        Stage("first", PGD(steps=4)),
        Stage("probe", Square(queries=20)),
        Stage("wide", Square(queries=9), Masked()),
    )
    honest, misled = run(stages, Levels(), levels()), run(stages, Misleading(), levels())
    assert all(one.masked_fallback == 0 for one in honest)
    left = [one for one in misled if one.stage in ("", "wide")]
    assert len(left) > 6
    assert all(one.masked_fallback > 0 and one.vanished == 0 for one in left)
    assert all(one.near("probe") < one.near("gradient") for one in left)


def test_a_model_without_gradient_is_an_error_unless_signs_are_kept():
    class Cut(Levels):
        def forward(self, x):
            return super().forward(x.detach())

    with pytest.raises(AttackError, match="no gradient reaches the input"):
        run((Stage("first", PGD(steps=2)),), Cut(), levels())
    stages = (Stage("first", PGD(steps=2)), Stage("through", PGD(steps=6), Masked(), "through"))
    found = run(stages, Cut(), levels())
    assert all(one.vanished == 2 for one in found if one.stage == "")
    plain = run(PGD(steps=6), Levels(), levels())
    assert {one.stage for one in found} >= {"through", ""}
    assert sum(one.adversarial is not None for one in found) >= sum(one.adversarial is not None for one in plain)


@pytest.mark.parametrize("target", ["next", "1"])
def test_gated_stages_work_towards_a_class(target):
    threat = ThreatModel("Linf", 0.05, target)
    bright = (1, 4, 10)
    stages = (
        Stage("first", PGD(steps=4)),
        Stage("probe", Square(queries=5)),
        Stage("wide", Square(queries=30), Masked()),
        Stage("near", APGD(steps=8, loss="dlr_targeted", targets=3), Near(0.3)),
    )
    found = run(stages, Flat(), levels(bright), threat=threat, batch_size=5)
    plain = run(stages, Flat(), levels(bright), batch_size=5)
    for one, other in zip(found, plain, strict=True):
        # Class 1 is the only one that can be reached: both problems are the same.
        assert (one.adversarial is None) == (other.adversarial is None)
        assert (one.masked_fallback > 0) == (other.masked_fallback > 0)
        assert one.near("gradient", "probe") == pytest.approx(other.near("gradient", "probe"), abs=0.02)
    assert {one.sample for one in found if one.masked_fallback} >= {i for i in bright if found[i].stage in ("", "wide")}
    far = run(stages, Flat(), levels(bright), threat=ThreatModel("Linf", 0.05, "2"))
    assert all(one.adversarial is None for one in far)
    # Class 2 is far, whatever the second logit does.
    assert all(one.near("gradient", "probe") > 0.3 for one in far)


def test_near_is_asked_of_two_classes_too():
    class Two(Levels):
        def forward(self, x):
            return super().forward(x)[:, :2]

    rule = Seen(steps=2, faced=(set(),))
    images = levels()
    ids, labels = [str(i) for i in range(N)], torch.zeros(N, dtype=torch.int64)
    verify = Verifier(Two(), images, labels, ids, LINF, seed=0)
    stages = (Stage("first", PGD(steps=4)), Stage("near", rule, Near(0.3)))
    found = list(solve(stages, Two(), Task(images, labels, ids, LINF, 0, "signs"), verify, classes=2))
    assert 0 < len(rule.faced[0]) < sum(one.stage != "first" for one in found)
