"""Examples that no rounding decides are verified together at the end of a block, with the same results as one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import gauntlet
from gauntlet.attacks.ops.certainty import Certainty
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.solver import Task, solve
from gauntlet.attacks.square import Square
from gauntlet.bench.verify.sample_record import examine_clean
from gauntlet.bench.verify.settle import settled
from gauntlet.bench.verify.verifier import Verifier

N = 60


class Step(nn.Module):
    """Class 1 where the mean of the image is above `edge`."""

    def __init__(self, edge):
        super().__init__()
        self.edge = edge

    def forward(self, x):
        gap = self.edge - x.flatten(1).mean(1)
        return torch.stack([gap, -gap], dim=1)


@pytest.fixture(scope="module")
def digits():
    data, model = gauntlet.load_data("digits", samples=N), gauntlet.load_model("cnn.standard_digits").module
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.eval(), data.images, data.labels, list(data.ids)


def of(digits, threat):
    model, images, labels, ids = digits
    verify = Verifier(model, images, labels, ids, threat, seed=0)
    clean = examine_clean(verify, [range(N)])
    rows = clean.attacked.nonzero().squeeze(1)
    task = Task(images[rows], labels[rows], [ids[row] for row in rows.tolist()], threat, 0, "test")
    return verify, task, rows


def seen(outcomes):
    """All that a record keeps of the outcomes."""
    return [
        (one.sample, one.forwards, one.backwards, one.steps, one.stage, one.rejected, one.adversarial is None)
        for one in sorted(outcomes, key=lambda one: one.sample)
    ]


@pytest.mark.parametrize("rule", [PGD(steps=10, restarts=2), Square(queries=60)], ids=["pgd", "square"])
@pytest.mark.parametrize("eps", [0.05, 0.15])
def test_the_outcomes_are_those_of_candidates_verified_one_by_one(digits, rule, eps):
    verify, task, rows = of(digits, ThreatModel("Linf", eps))
    asked = []

    def judge(points, samples, attempt):
        asked.append(len(points))
        return verify(points, rows[samples], attempt)

    at_once = sorted(solve(rule, verify.model, task, judge), key=lambda one: one.sample)
    before = sum(asked)
    asked.clear()
    together = sorted(solve(rule, verify.model, task, judge, certainty=verify.certainty), key=lambda one: one.sample)
    waiting = [one for one in together if one.unverified]
    assert len(waiting) + sum(asked) == before
    assert len(waiting) > 0.9 * before > 0
    outcomes = [replace(one, sample=int(rows[one.sample])) for one in together]
    outcomes = settled(
        verify, outcomes, range(N), again=None if not waiting else lambda samples: pytest.fail("refused")
    )
    assert not any(one.unverified for one in outcomes)
    assert seen(outcomes) == seen(replace(one, sample=int(rows[one.sample])) for one in at_once)
    assert all(
        torch.equal(one.adversarial, other.adversarial)
        for one, other in zip(together, at_once, strict=True)
        if one.adversarial is not None
    )


def test_what_is_near_the_boundary_is_verified_at_once():
    logits, labels = torch.tensor([[0.0, 1e-6], [0.0, 1e-3], [0.0, 1.0], [1.0, 0.0]]), torch.zeros(4, dtype=torch.int64)
    assert Certainty(1e-7).sure(logits, labels).tolist() == [False, True, True, False]
    # What batches differ by, and the rounding of large logits, make more of them near.
    assert Certainty(1e-4).sure(logits, labels).tolist() == [False, False, True, False]
    assert Certainty(1e-7).sure(logits + 1e4, labels).tolist() == [False, False, True, False]


def test_low_precision_is_sure_of_what_is_far_by_the_measure_of_the_clean_image():
    logits, labels = torch.tensor([[0.0, 0.5], [0.0, 1.5]]), torch.zeros(2, dtype=torch.int64)
    clean = torch.tensor([[10.0, 0.0], [10.0, 0.0]])
    low = Certainty(1e-7, coarse=0.1).of(low=True)
    assert low is not None
    assert low.sure(logits, labels, clean).tolist() == [False, True]
    assert Certainty(1e-7).of(low=True) is None


def test_a_form_that_sees_successes_where_there_are_none_gives_the_outcomes_of_candidates_verified_one_by_one():
    images, labels = torch.full((6, 1, 2, 2), 0.5), torch.zeros(6, dtype=torch.int64)
    images[3:] = 0.6
    ids, threat = [str(number) for number in range(6)], ThreatModel("Linf", 0.15)
    verify = Verifier(Step(0.7), images, labels, ids, threat, seed=0)
    examine_clean(verify, [range(6)])
    task, form = Task(images, labels, ids, threat, 0, "test"), Step(0.61)
    rule = PGD(steps=10, step_size=0.2)

    def again(samples):
        found = solve(
            rule,
            form,
            task.of(samples),
            lambda points, some, attempt: verify(points, torch.tensor(samples)[some], attempt),
        )
        return [replace(one, sample=samples[one.sample]) for one in found]

    strict = list(solve(rule, form, task, verify))
    hasty = list(solve(rule, form, task, verify, certainty=verify.certainty))
    assert all(one.unverified for one in hasty)
    outcomes = settled(verify, hasty, range(6), again)
    assert seen(outcomes) == seen(strict)
    assert [one.adversarial is None for one in sorted(outcomes, key=lambda one: one.sample)] == [True] * 3 + [False] * 3
    # The passes that were made for nothing are counted apart.
    assert sum(one.speculative for one in outcomes) > 0


def test_a_model_whose_answers_depend_on_the_batch_has_every_candidate_verified_at_once():
    verify = Verifier(
        Step(0.7),
        torch.full((2, 1, 2, 2), 0.5),
        torch.zeros(2, dtype=torch.int64),
        ["a", "b"],
        ThreatModel("Linf", 0.1),
        seed=0,
    )
    examine_clean(verify)
    assert verify.certainty is not None
    verify.alone = True
    assert verify.certainty is None


def test_what_is_measured_of_a_blocks_clean_images_depends_on_no_other_block(digits):
    model, images, labels, ids = digits
    threat = ThreatModel("Linf", 0.1)
    both = examine_clean(Verifier(model, images, labels, ids, threat, seed=0), [range(40), range(40, N)])
    second = Verifier(model, images[40:], labels[40:], ids[40:], threat, seed=0)
    alone = examine_clean(second, [range(N - 40)])
    assert torch.equal(both.measured.margin[40:], alone.measured.margin)


class Small(nn.Module):
    """Class 1 where the mean is above 0.7; memory runs out above `limit` images."""

    def __init__(self, limit):
        super().__init__()
        self.limit, self.sizes = limit, []

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.limit:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        gap = 0.7 - x.flatten(1).mean(1)
        return torch.stack([gap, -gap], dim=1)


def test_full_batches_are_halved_where_memory_runs_out_and_stay_so():
    images, labels = torch.full((50, 1, 2, 2), 0.5), torch.zeros(50, dtype=torch.int64)
    model = Small(limit=16)
    verify = Verifier(model, images, labels, [str(number) for number in range(50)], ThreatModel("Linf", 0.3), seed=0)
    clean = examine_clean(verify, [range(50)])
    assert clean.measured.margin.tolist() == pytest.approx([0.4] * 50)
    model.sizes.clear()
    assert verify.together(images + 0.25, torch.arange(50)).success.all()
    assert max(model.sizes) <= 16


class Crowded(nn.Module):
    """Class 1 where the mean of the image is above `edge`; in batches of more than 16 images, above a lower one. Images
    below both get the same logits in any batch."""

    def __init__(self, edge=0.6, lower=0.55):
        super().__init__()
        self.edge, self.lower = edge, lower

    def forward(self, x):
        mean = x.flatten(1).mean(1)
        gap = (self.lower if len(x) > 16 else self.edge) - mean
        gap = torch.where(mean < self.lower - 0.002, 0.7 - mean, gap + 0.1 * gap.sign())
        return torch.stack([gap, -gap], dim=1)


def test_where_a_block_shows_that_answers_depend_on_the_batch_its_other_examples_are_judged_alone_and_attacked_again():
    images, labels = torch.full((60, 1, 2, 2), 0.545), torch.zeros(60, dtype=torch.int64)
    images[40:] = 0.2
    result = gauntlet.evaluate(
        Crowded().eval(), images, labels, threat="Linf:0.06", attacks="pgd(steps=20)", checks="none", device="cpu"
    )
    # Alone, 40 of them cross the edge at the end of their attack; in large batches sooner.
    assert result.robust_accuracy == 20 / 60
    assert "batch-dependent" in [flag.name for flag in result.flags]


class Turned(nn.Module):
    """A linear model whose classes are turned round in batches of more than 16."""

    def forward(self, x):
        gap = 0.7 - x.flatten(1).mean(1)
        return torch.stack([gap, -gap] if len(x) <= 16 else [-gap, gap], dim=1)


def test_clean_images_of_a_model_that_depends_on_the_batch_are_measured_in_batches_of_one_size():
    images, labels = torch.full((40, 1, 2, 2), 0.5), torch.zeros(40, dtype=torch.int64)
    verify = Verifier(Turned(), images, labels, [str(i) for i in range(40)], ThreatModel("Linf", 0.1), seed=0)
    clean = examine_clean(verify, [range(40)])
    assert clean.attacked.all()
    assert verify.certainty is None


class Centred(nn.Module):
    """Subtracts half of the batch's mean."""

    def forward(self, x):
        gap = 0.2 - (x - x.mean(0, keepdim=True) / 2).flatten(1).mean(1)
        return torch.stack([gap, -gap], dim=1)


def test_a_run_of_a_model_that_depends_on_the_batch_is_resumed(tmp_path):
    images = torch.rand(60, 1, 2, 2, generator=torch.Generator().manual_seed(0)) / 2
    labels = torch.zeros(60, dtype=torch.int64)
    options = {"threat": "Linf:0.1", "checks": "none", "device": "cpu", "store": tmp_path}
    gauntlet.evaluate(Centred().eval(), images, labels, attacks="pgd(steps=3)", **options)
    again = gauntlet.evaluate(Centred().eval(), images, labels, attacks="pgd(steps=3)", **options)
    assert 0 < again.robust_accuracy < 1


class State(NamedTuple):
    point: Tensor


@dataclass(frozen=True)
class Astray(Rule[State]):
    """Leaves the ball, and says nothing of it."""

    budget: ClassVar[int] = 3

    def start(self, oracle):
        return State(oracle.clean)

    def step(self, state, oracle):
        oracle.logits((oracle.clean + 0.5).clamp(0, 1))
        return state

    def last(self, state):
        return None


@pytest.mark.usefixtures("registries_as_before")
def test_examples_outside_the_ball_are_rejected_and_flagged_where_rounding_to_8_bits_would_bring_them_back():
    card = AttackCard(name="astray", summary="leaves the ball", source="none", norms=("Linf",), kind="white-box")
    gauntlet.register_attack("astray", AttackEntry(card, lambda threat: Astray()))
    images, labels = torch.full((20, 1, 2, 2), 128 / 255), torch.zeros(20, dtype=torch.int64)
    result = gauntlet.evaluate(
        Step(0.7).eval(), images, labels, threat="Linf:0.3", attacks="astray", checks="none", device="cpu"
    )
    assert result.robust_accuracy == 1
    assert "invalid-candidates" in [flag.name for flag in result.flags]


def test_one_success_of_those_judged_together_is_judged_alone_though_none_of_them_is_audited():
    count = 60
    images, labels = torch.full((count, 1, 2, 2), 0.5), torch.zeros(count, dtype=torch.int64)
    verify = Verifier(
        Crowded(), images, labels, [str(number) for number in range(count)], ThreatModel("Linf", 0.3), seed=0
    )
    verify.calibrate(verify.logits(images))
    rows = (~verify.audited(torch.arange(count))).nonzero().squeeze(1)
    assert len(rows) > 32
    assert not verify.depends
    verify.together(images[rows] + 0.08, rows)
    assert verify.depends
