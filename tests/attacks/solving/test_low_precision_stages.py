"""Low precision first, float32 last: which stages see which form, what they cost, and that no verdict gets weaker."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from rounded_factors import emulated_tf32
from torch import nn

import gauntlet
import published
from builders import slow_unless, zoo_digits
from gauntlet.attacks.adaptive import Adaptive, Pipeline
from gauntlet.attacks.autoattack import build as autoattack
from gauntlet.attacks.ddn import DDN
from gauntlet.attacks.gauntlet import budget
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.solving.low_precision import DOUBT, LONG_DOUBT, low_precision_first, rounding, takes_low_precision
from gauntlet.attacks.solving.oracle import AttackError
from gauntlet.attacks.solving.solver import Stage, Task, Verification, solve
from gauntlet.attacks.solving.stage_conditions import NO_HEADWAY, InDoubt
from gauntlet.attacks.square import Square
from gauntlet.bench.models.parts.classifier import Classifier
from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.rows.build_rows import build_rows
from published import CIFAR_NORMALISATION, NEEDS_SHARED, SHARED, shared_images

ZOO = (
    ("cnn.standard_digits", "Linf:0.08"),
    ("cnn.fast_digits", "Linf:0.15"),
    ("cnn.gauss_digits", "Linf:0.05"),
    ("cnn.pgd_digits", "Linf:0.2"),
    ("cnn.trades_digits", "Linf:0.15"),
    ("cnn.mart_digits", "Linf:0.2"),
    ("cnn.awp_digits", "Linf:0.15"),
    ("cnn.ibp_digits", "Linf:0.2"),
    ("cnn.pgd_l2_digits", "L2:0.8"),
)


def standing(model, images, labels, threat, attack, seed, precision):
    """Number of samples that stand, at this precision; TF32 is emulated."""
    with emulated_tf32() if precision == "tf32" else nullcontext():
        done = gauntlet.evaluate(
            model, images, labels, threat=threat, attacks=attack, seed=seed, precision=precision, checks="none"
        )
    return int(done.robust.sum())


def shown(stages):
    return [(stage.label, stage.precision, stage.when) for stage in stages]


# --- which stages ------------------------------------------------------------------------------------------------------


def test_the_first_stages_of_gauntlet_are_in_low_precision_and_near_samples_face_them_again():
    usual = budget("gauntlet", "Linf")
    row, last = usual[:5], usual[5:]
    assert [stage.label for stage in row] == ["margin", "ce", "order", "targets", "probe"]
    found = low_precision_first(usual)
    assert shown(found) == [
        *((stage.label, "low", stage.when) for stage in row),
        ("targets", "review", None),
        ("margin", "full", InDoubt(DOUBT)),
        ("ce", "full", InDoubt(DOUBT)),
        # The ranking of classes is not repeated.
        ("targets", "full", InDoubt(LONG_DOUBT)),
        ("probe", "full", InDoubt(LONG_DOUBT)),
        *((stage.label, "full", stage.when) for stage in last),
    ]
    assert found[5].rule.budget == 3


@pytest.mark.parametrize(
    ("stages", "low"),
    [
        (
            Adaptive("Linf").against(Pipeline(masked=True, twin=True, beneath=True)).stages,
            ["margin", "ce", "order", "targets"],
        ),
        (autoattack(ThreatModel.parse("Linf:0.1")).stages, ["apgd-ce", "apgd-t", "fab-t"]),
        ([Stage("", PGD(steps=3, restarts=2))], [""]),
        ([Stage("", Square(queries=50), technique="black-box")], []),
        ([Stage("", DDN(steps=3))], []),
        ([Stage("far", PGD(steps=3), InDoubt(0.1)), Stage("view", PGD(steps=3), view="twin")], []),
    ],
)
def test_what_may_lift_a_block_or_measures_a_distance_is_in_float32_alone(stages, low):
    found = low_precision_first(stages)
    assert [stage.label for stage in found if stage.precision == "low"] == low
    assert [stage for stage in found if stage.label not in low] == [stage for stage in stages if stage.label not in low]
    assert any(map(takes_low_precision, stages)) is bool(low)
    if not low:
        assert list(found) == list(stages)


# --- what it costs ----------------------------------------------------------------------------------------------------


class Counted(nn.Module):
    """Counts the images of its passes, forward and back."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.passes = [0, 0]

    def forward(self, x):
        self.passes[0] += len(x)
        logits = self.model(x)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: self.back(len(x)))
        return logits.view_as(logits)

    def back(self, count):
        self.passes[1] += count


@pytest.mark.parametrize("useful", [None, lambda: 16])
def test_passes_of_both_forms_are_counted_exactly(useful):
    model, images, labels = zoo_digits("cnn.pgd_digits", 40)
    full, low = Counted(model), Counted(model)
    with torch.no_grad():
        clean = model(images)
    task = Task(images, labels, list(map(str, range(len(images)))), ThreatModel.parse("Linf:0.2"), 0, "t", None, clean)

    def verify(points, samples, attempt):
        with torch.no_grad():
            wrong = full.model(points).argmax(1) != labels[samples]
        return Verification(wrong, torch.zeros_like(wrong), torch.zeros_like(wrong))

    stages = low_precision_first((Stage("one", PGD(steps=4, restarts=2)), Stage("two", PGD(steps=3, loss="cw"))))
    found = list(solve(stages, full, task, verify, classes=10, low=low, batch_size=16, useful=useful))
    spent = sum(one.forwards + one.backwards + one.speculative for one in found)
    assert spent == sum(full.passes) + sum(low.passes)
    assert sum(low.passes) > sum(full.passes) > 0
    left = [one for one in found if one.adversarial is None]
    assert left
    assert all(one.faced[:2] == ("one:low", "two:low") for one in left)
    repeated = {one.sample for one in left if "one" in one.faced}
    assert {one.sample for one in left if min(one.nearest.values()) >= DOUBT} == {one.sample for one in left} - repeated
    assert 0 < len(repeated) < len(left)


@pytest.mark.parametrize("batch_size", [slow_unless(False, 1), 7])
def test_the_batch_size_changes_no_verdict(batch_size):
    model, images, labels = zoo_digits("cnn.trades_digits", 30)
    robust = [
        gauntlet.evaluate(
            model, images, labels, threat="Linf:0.2", attacks="gauntlet:fast", precision="bfloat16",
            checks="none", batch_size=size,
        ).robust.tolist()
        for size in (batch_size, 30)
    ]  # fmt: skip
    assert robust[0] == robust[1]
    assert 0 < sum(robust[0]) < 30


# --- what the record says ---------------------------------------------------------------------------------------------


def test_the_record_says_which_stages_were_in_low_precision(tmp_path):
    model, images, labels = zoo_digits("cnn.trades_digits", 30)
    gauntlet.evaluate(
        model, images, labels, threat="Linf:0.2", attacks="gauntlet:fast", precision="bfloat16", store=tmp_path
    )
    samples = load_run(tmp_path).results()[0].blocks[0].samples
    kept = [faced.split() for faced, robust in zip(samples.faced, samples.robust, strict=True) if robust]
    assert all(faced[:3] == ["margin:low", "targets:low", "probe:low"] for faced in kept)
    assert len({tuple(faced) for faced in kept}) > 1
    broken = [
        faced.split()[-1] for faced, robust in zip(samples.faced, samples.robust, strict=True) if faced and not robust
    ]
    assert "margin:low" in broken


class Steps(nn.Module):
    """Grey levels in sixteenths before the network: no gradient reaches the image."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model((16 * x).round() / 16)


def answered(folder, model, images, labels, attack, precision):
    """What the row of an evaluation answers, and the record's samples."""
    gauntlet.evaluate(model, images, labels, threat="Linf:0.15", attacks=attack, precision=precision, store=folder)
    results = load_run(folder).results()
    (row,) = build_rows(results)
    return row.answered, results[0].blocks[0].samples


@pytest.mark.parametrize("precision", [slow_unless(False, "float32"), "bfloat16"])
def test_where_gradients_vanish_every_standing_sample_faces_all_that_answers_in_float32(tmp_path, precision):
    model, images, labels = zoo_digits("cnn.trades_digits", 12)
    found, samples = answered(tmp_path, Steps(model).eval(), images, labels, "gauntlet:fast", precision)
    assert samples.robust.any()
    assert found >= {"white-box", "bpda", "black-box"}
    for faced in (faced.split() for faced, robust in zip(samples.faced, samples.robust, strict=True) if robust):
        assert {"margin", "targets", "through", "wide"} <= set(faced)


@pytest.mark.parametrize(("attack", "answer"), [("gauntlet:fast", "white-box"), ("pgd(steps=5)", "white-box")])
def test_stages_in_low_precision_answer_nothing(tmp_path, attack, answer):
    given = zoo_digits("cnn.trades_digits", 12)
    for precision in ("float32", "bfloat16"):
        found, samples = answered(tmp_path / precision, *given, attack, precision)
        assert samples.robust.any()
        assert (answer in found) is (precision == "float32")


@pytest.mark.parametrize("attack", ["square(queries=30)", "ddn(steps=2)"])
def test_searches_and_distances_have_the_form_in_float32(tmp_path, attack):
    model, images, labels = zoo_digits("cnn.trades_digits", 4)
    threat = "L2:0.5" if attack.startswith("ddn") else "Linf:0.1"
    gauntlet.evaluate(model, images, labels, threat=threat, attacks=attack, precision="bfloat16", store=tmp_path)
    assert load_run(tmp_path).results()[0].cell.precision == "float32"


class Detached(nn.Module):
    """It has no gradient."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 3)

    def forward(self, x):
        return self.layer(x.flatten(1)).detach()


def test_a_model_without_a_gradient_is_still_an_error_of_the_attack():
    model = Detached().eval()
    images = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    task = Task(images, model(images).argmax(1), list("abcd"), ThreatModel.parse("Linf:0.1"), 0, "t")
    stages = low_precision_first([Stage("", PGD(steps=2))])
    with pytest.raises(AttackError, match="no gradient reaches the input"):
        list(solve(stages, model, task, lambda *given: pytest.fail("no candidate"), classes=3, low=model))


@pytest.mark.parametrize(
    ("form", "share", "above"),
    [("bf16+folded", 1.0, NO_HEADWAY), ("channels_last+fp16", 0.125, NO_HEADWAY), ("tf32", 0.125, math.inf)],
)
def test_what_is_in_doubt_follows_how_coarsely_the_form_rounds(form, share, above):
    assert rounding(form) == share
    stages = (Stage("short", PGD(steps=10)), Stage("long", PGD(steps=20)))
    again = [stage.when for stage in low_precision_first(stages, form) if stage.when is not None]
    assert again == [InDoubt(share * DOUBT, above), InDoubt(share * LONG_DOUBT, above)]


def test_a_form_in_float32_rounds_nothing():
    assert rounding("folded") == rounding("") == 0


# --- strength ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_verdict_gets_weaker():
    model, images, labels = zoo_digits("cnn.pgd_digits", 100)
    found = {
        precision: [
            standing(model, images, labels, "Linf:0.2", attack, seed, precision)
            for attack in ("pgd(steps=10)", "gauntlet:fast")
            for seed in (0, 1)
        ]
        for precision in ("float32", "bfloat16", "tf32")
    }
    assert min(found["float32"]) > 20
    assert max(sum(found["bfloat16"]), sum(found["tf32"])) <= sum(found["float32"])


class Saturated(nn.Module):
    """Probabilities of so steep a softmax that bfloat16 rounds most of its slope away."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return 10 * (20 * self.model(x)).softmax(1)


def test_outputs_that_saturate_lose_no_verdict_to_low_precision():
    model, images, labels = zoo_digits("cnn.trades_digits", 150)
    saturated = Saturated(model).eval()
    found = {
        precision: [
            standing(saturated, images, labels, "Linf:0.2", "pgd(steps=20)", seed, precision) for seed in (0, 1)
        ]
        for precision in ("float32", "bfloat16")
    }
    assert min(found["float32"]) > 20
    assert sum(found["bfloat16"]) <= sum(found["float32"])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "tf32"])
@pytest.mark.parametrize("attack", ["gauntlet", "gauntlet:fast", "pgd(steps=20)", "apgd"])
def test_no_verdict_gets_weaker_over_the_zoo(attack, precision):
    total = {"float32": 0, precision: 0}
    for name, threat in ZOO:
        model, images, labels = zoo_digits(name, 200)
        for seed in (0, 1):
            for one in total:
                total[one] += standing(model, images, labels, threat, attack, seed, one)
    assert total[precision] <= total["float32"]


@pytest.mark.slow
@pytest.mark.skipif(not SHARED, reason=NEEDS_SHARED)
@pytest.mark.parametrize("precision", ["bfloat16", "tf32"])
def test_no_verdict_gets_weaker_on_a_published_network(precision):
    images, labels = shared_images("cifar10", 200)
    network = published.ResNet20()
    state = torch.load(Path(SHARED) / "resnet20_cifar10.th", map_location="cpu", weights_only=True)["state_dict"]
    network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    model = Classifier(network.eval(), **CIFAR_NORMALISATION).eval()
    total = {"float32": 0, precision: 0}
    for radius in (1 / 255, 8 / 255):
        for seed in (0, 1):
            for one in total:
                total[one] += standing(model, images, labels, f"Linf:{radius}", "gauntlet", seed, one)
    assert total[precision] <= total["float32"]
