"""The solver's promises: nothing depends on the batch, counts are exact, and a broken sample is left alone."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from builders import convolution, network, slow_unless, task_of
from gauntlet.attacks.cw import CW
from gauntlet.attacks.fgsm import FGSM
from gauntlet.attacks.ops.norms import distance, project, steepest
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.solving.oracle import AttackError
from gauntlet.attacks.solving.slots import select
from gauntlet.attacks.solving.solver import Task, Verification, solve
from gauntlet.bench.verify.verifier import Verifier
from solving import Recorder, assert_same, broken, never, outcomes, path

N = 13
LINF, L2 = ThreatModel("Linf", 0.03), ThreatModel("L2", 0.15)
RULES = [
    pytest.param(FGSM(), LINF, id="fgsm-Linf"),
    pytest.param(FGSM(), L2, id="fgsm-L2"),
    pytest.param(PGD(steps=6), LINF, id="pgd-Linf"),
    pytest.param(PGD(steps=4, restarts=3), LINF, id="pgd-restarts-Linf"),
    pytest.param(PGD(steps=4, restarts=2, loss="cw"), L2, id="pgd-restarts-L2"),
    pytest.param(PGD(steps=5, random_start=False), L2, id="pgd-from-clean-L2"),
    pytest.param(CW(search_steps=3, steps=15), L2, id="cw"),
]


class Counted(nn.Module):
    """Counts images from outside: forward by what comes in, backward by the gradients that come back."""

    def __init__(self, model):
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0

    def forward(self, x):
        self.forwards += len(x)
        logits = self.model(x)
        if logits.requires_grad:
            logits.register_hook(self.back)
        return logits

    def back(self, gradient):
        self.backwards += len(gradient)


@pytest.fixture(scope="module", params=["convolution", "two layers, odd shape"])
def task(request):
    if request.param == "convolution":
        return task_of(convolution(), (2, 6, 6), N)
    return task_of(network(45, 20, 3, activation=nn.Tanh), (3, 5, 3), N)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize(("rule", "threat"), RULES)
def test_verdicts_counts_and_examples_do_not_depend_on_the_batch_size(rule, threat, batch_size, task):
    whole = outcomes(rule, *task, threat)
    assert_same(outcomes(rule, *task, threat, batch_size=batch_size), whole)


@pytest.mark.parametrize(("rule", "threat"), RULES)
def test_verdicts_counts_and_examples_do_not_depend_on_order_or_company(rule, threat, task):
    model, images, labels = task
    whole = outcomes(rule, *task, threat)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))[:9]
    ids = [f"sample {i}" for i in order.tolist()]
    part = outcomes(rule, model, images[order], labels[order], threat, ids=ids, batch_size=4)
    assert_same(part, [whole[i] for i in order.tolist()])


def test_the_cases_have_broken_and_unbroken_samples(task):
    for rule, threat in ((PGD(steps=6), LINF), (PGD(steps=4, restarts=2, loss="cw"), L2)):
        assert 0 < broken(outcomes(rule, *task, threat)).sum() < N


@dataclass(frozen=True, kw_only=True)
class Watched(PGD):
    """PGD that tells which samples it was asked to start and to step."""

    starts: dict = field(default_factory=dict, compare=False)
    events: list = field(default_factory=list, compare=False)

    def start(self, oracle):
        state = super().start(oracle)
        for sample, restart, x in zip(
            oracle.slots.sample.tolist(), oracle.slots.restart.tolist(), state.x, strict=True
        ):
            self.starts[int(sample), int(restart)] = x
        return state

    def step(self, state, oracle):
        self.events.append(oracle.slots.sample.tolist())
        return super().step(state, oracle)


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
def test_starting_points_are_bitwise_the_same_in_any_batch(threat, task):
    found = []
    for batch_size in (1, 3, 8, 256):
        rule = Watched(steps=1, restarts=3)
        outcomes(rule, *task, threat, verify=never, batch_size=batch_size)
        found.append(rule.starts)
    assert found[0].keys() == {(sample, restart) for sample in range(N) for restart in range(3)}
    for other in found[1:]:
        assert all(torch.equal(other[key], start) for key, start in found[0].items())
    assert not torch.equal(found[0][1, 0], found[0][1, 1])


def test_another_seed_starts_elsewhere(task):
    starts = []
    for seed in (0, 1):
        rule = Watched(steps=1)
        outcomes(rule, *task, LINF, seed=seed)
        starts.append(rule.starts[0, 0])
    assert not torch.equal(*starts)


@pytest.mark.parametrize("refusing", [False, True], ids=["verified", "every candidate refused"])
@pytest.mark.parametrize("batch_size", [3, 256])
@pytest.mark.parametrize(("rule", "threat"), RULES)
def test_passes_are_counted_as_an_observer_of_the_model_counts_them(rule, threat, batch_size, refusing, task):
    model, images, labels = task
    counted = Counted(model)
    verify = never if refusing else Verifier(
        model, images, labels, [str(i) for i in range(N)], threat, seed=0, minimum_norm=rule.minimum_norm
    )  # fmt: skip
    found = outcomes(rule, counted, images, labels, threat, verify=verify, batch_size=batch_size)
    assert sum(one.forwards for one in found) == counted.forwards
    assert sum(one.backwards for one in found) == counted.backwards


def test_a_sample_that_no_candidate_breaks_costs_exactly_the_budget(task):
    rule = PGD(steps=4, restarts=3)
    for one in outcomes(rule, *task, ThreatModel("Linf", 1e-9)):
        assert (one.forwards, one.backwards, one.steps, one.adversarial) == (15, 12, -1, None)
    for one in outcomes(FGSM(), *task, ThreatModel("Linf", 1e-9)):
        assert (one.forwards, one.backwards) == (2, 1)
    for one in outcomes(CW(search_steps=2, steps=10), *task, L2):
        assert (one.forwards, one.backwards) == (21, 20)


def test_a_broken_sample_is_not_evaluated_any_more_and_its_slot_is_refilled(task):
    model, images, labels = task
    rule = Watched(steps=30)
    ids = [str(i) for i in range(N)]
    verify = Verifier(model, images, labels, ids, LINF, seed=0)
    steps_of = defaultdict(int)
    left, read = set(), 0
    for outcome in solve(rule, model, Task(images, labels, ids, LINF, 0, "test"), verify, batch_size=4):
        for batch in rule.events[read:]:
            assert not left & set(batch)
            for sample in batch:
                steps_of[sample] += 1
        read = len(rule.events)
        left.add(outcome.sample)
        if outcome.adversarial is not None:
            assert steps_of[outcome.sample] == outcome.steps
        else:
            assert steps_of[outcome.sample] == rule.steps
    waiting_at = [N - len(set().union(*map(set, rule.events[: i + 1]))) for i in range(len(rule.events))]
    assert all(len(batch) == 4 for batch, waiting in zip(rule.events, waiting_at, strict=True) if waiting)


def test_steps_to_success_run_on_over_restarts(task):
    rule = PGD(steps=2, restarts=20, step_size=0.2)
    successes = [
        one
        for eps in (0.01, 0.02, 0.03, 0.04, 0.05)
        for one in outcomes(rule, *task, ThreatModel("Linf", eps))
        if one.adversarial is not None
    ]
    assert any(one.steps > 2 for one in successes)
    for one in successes:
        restarts = (one.steps - 1) // 2
        assert restarts * 3 < one.forwards <= restarts * 3 + 3


def test_more_restarts_break_no_fewer_samples(task):
    one = outcomes(PGD(steps=4), *task, LINF)
    three = outcomes(PGD(steps=4, restarts=3), *task, LINF)
    for first, again in zip(one, three, strict=True):
        if first.adversarial is not None:
            assert again.adversarial is not None
            assert again.forwards == first.forwards


def test_a_point_refused_in_one_composition_is_counted_and_the_sample_goes_on(task):
    class Splitting:
        def __call__(self, points, samples, attempt):
            no = torch.zeros(len(points), dtype=torch.bool)
            return Verification(no, no, ~no)

    found = outcomes(PGD(steps=6), *task, ThreatModel("Linf", 0.2), verify=Splitting())
    assert all(one.adversarial is None for one in found)
    assert sum(one.disagreements for one in found) > N
    assert all(one.rejected == 0 for one in found)


def test_the_last_iterate_is_evaluated_even_where_an_earlier_candidate_is_refused(task):
    class LastOnly:
        """Success for the very last iterate only: all before it are refused."""

        def __init__(self):
            self.seen = []

        def __call__(self, points, samples, attempt):
            self.seen += attempt.tolist()
            success = attempt >= 7
            return Verification(success, ~success, ~success & success)

    model, images, _ = task
    wrong = model(images).argmin(1)  # misclassified from the start: every iterate is a candidate
    verify = LastOnly()
    found = outcomes(PGD(steps=6), model, images, wrong, LINF, verify=verify)
    assert max(verify.seen) == 7
    assert all(one.adversarial is not None for one in found)


def test_cw_returns_the_closest_of_the_points_that_it_passed(task):
    model, images, labels = task
    spy, ids = Recorder(model), [f"sample {i}" for i in range(N)]
    verify = Verifier(model, images, labels, ids, L2, seed=0, minimum_norm=True)
    found = outcomes(CW(search_steps=3, steps=20), spy, images, labels, L2, verify=verify)
    for i in range(N):
        passed = [x[i] for x, logits in zip(spy.seen, spy.logits, strict=True) if logits[i].argmax() != labels[i]]
        sizes = [distance(x[None], images[i : i + 1], "L2").item() for x in passed]
        example = found[i].adversarial
        assert (example is None) == (not sizes)
        if sizes:
            assert distance(example[None], images[i : i + 1], "L2").item() == pytest.approx(min(sizes), rel=1e-6)


def test_cw_evaluates_its_last_iterate_not_the_clean_image_again(task):
    model, images, labels = task
    assert not torch.equal(path(CW(search_steps=2, steps=5), model, images, labels, L2)[-1], images)


class Corner(nn.Module):
    """Only the first two pixels matter, and clean images have them at exactly 0 and 1."""

    def __init__(self, offset=0.0, scale=1.0, classes=2):
        super().__init__()
        self.offset, self.scale, self.classes = offset, scale, classes

    def forward(self, x):
        flat = x.flatten(1)
        gap = 0.5 - flat[:, 0] - (1 - flat[:, 1])
        others = [-gap - 0.1 * k for k in range(self.classes - 1)]
        return self.scale * torch.stack([gap, *others], dim=1) + self.offset


def saturated(classes=2, dtype=torch.float64):
    images = torch.full((5, 1, 2, 4), 0.5, dtype=dtype)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = 0.0, 1.0
    return images, torch.zeros(5, dtype=torch.int64)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("offset", [0.0, -1e3])
@pytest.mark.parametrize("loss", ["ce", "cw"])
def test_pgd_moves_saturated_pixels(loss, offset, classes):
    images, labels = saturated()
    threats = ThreatModel("Linf", 0.26), ThreatModel("L2", 0.36)
    too_small = ThreatModel("Linf", 0.24), ThreatModel("L2", 0.35)
    model = Corner(offset, classes=classes)
    for threat in threats:
        found = outcomes(PGD(steps=20, loss=loss), model, images, labels, threat)
        assert all(one.adversarial is not None for one in found), threat
    for threat in too_small:
        assert all(one.adversarial is None for one in outcomes(PGD(steps=20, loss=loss), model, images, labels, threat))


def test_fgsm_moves_saturated_pixels():
    images, labels = saturated()
    assert all(
        one.adversarial is not None for one in outcomes(FGSM(), Corner(), images, labels, ThreatModel("Linf", 0.26))
    )


@pytest.mark.parametrize(
    ("offset", "scale", "classes"),
    [
        slow_unless(classes == usual, offset, scale, classes)
        for offset, scale, usual in ((0.0, 1.0, 3), (-1e3, 1.0, 2), (0.0, 1e3, 2), (0.0, 1e-2, 3))
        for classes in (2, 3)
    ],
)
def test_cw_moves_saturated_pixels_by_the_smallest_amount(offset, scale, classes):
    images, labels = saturated(dtype=torch.float32)
    for one in outcomes(CW(search_steps=7), Corner(offset, scale, classes), images, labels, L2):
        size = distance(one.adversarial[None], images[:1], "L2").item()
        # The nearest point of the boundary shares 0.5 between the two pixels.
        assert 0.5 / 2**0.5 - 1e-6 <= size <= 1.02 * 0.5 / 2**0.5 + 0.002
        rest = (one.adversarial - images[0]).flatten()[2:]
        assert rest.abs().max() < 1e-6


def test_a_class_that_is_never_predicted_is_no_obstacle():
    class Blind(nn.Module):
        """Class 2 of the three has the logit −1e9 always."""

        def forward(self, x):
            two = Corner()(x)
            return torch.cat([two, torch.full_like(two[:, :1], -1e9)], dim=1)

    images, labels = saturated()
    for rule, threat in (
        (PGD(steps=20), ThreatModel("Linf", 0.26)),
        (PGD(steps=20, loss="cw"), ThreatModel("L2", 0.4)),
    ):
        found = outcomes(rule, Blind(), images, labels, threat)
        assert all(one.adversarial is not None for one in found)


def test_samples_labelled_with_a_class_that_is_never_predicted_are_broken_at_once():
    images, _ = saturated()
    labels = torch.full((5,), 2)
    model = nn.Sequential(Corner(classes=2), nn.ConstantPad1d((0, 1), -100.0))
    for one in outcomes(PGD(steps=5), model, images, labels, LINF):
        assert (one.forwards, one.steps) == (1, 1)


class NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()


@pytest.mark.parametrize("way", ["detached", "parameters alone", "no derivative"])
def test_a_model_without_gradient_is_refused_with_the_way_out(task, way):
    class Without(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            if way == "no derivative":
                return task[0](NoBackward.apply(x))
            return task[0](x.detach()) + (self.bias if way == "parameters alone" else 0)

    with pytest.raises(AttackError, match=r"no gradient reaches the input.*BPDA"):
        outcomes(PGD(steps=2), Without(), *task[1:], LINF)


def test_a_gradient_that_is_not_finite_moves_nothing_and_poisons_nothing():
    class Cliff(nn.Module):
        """The square root has an infinite gradient at 0, which 0 · ∞ turns into NaN for every pixel."""

        def forward(self, x):
            return Corner()(x) + 0 * (x.flatten(1)[:, :1] * 0).sqrt()

    images, labels = saturated()
    for rule, threat in ((PGD(steps=3), LINF), (CW(search_steps=2, steps=3), L2)):
        for one in outcomes(rule, Cliff(), images, labels, threat):
            assert one.rejected == 0


def test_the_images_of_the_task_are_left_as_they_were(task):
    model, images, labels = task
    before = images.clone()
    outcomes(PGD(steps=4, restarts=2), model, images, labels, LINF, batch_size=3)
    outcomes(CW(search_steps=2, steps=5), model, images, labels, L2, batch_size=3)
    assert torch.equal(images, before)


def test_an_interrupted_run_has_given_what_was_finished(task):
    model, images, labels = task
    ids = [str(i) for i in range(N)]
    verify = Verifier(model, images, labels, ids, LINF, seed=0)
    running = solve(PGD(steps=3), model, Task(images, labels, ids, LINF, 0, "test"), verify, batch_size=2)
    first = [next(running) for _ in range(4)]
    running.close()
    whole = outcomes(PGD(steps=3), *task, LINF)
    for one in first:
        assert (one.adversarial is None) == (whole[one.sample].adversarial is None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threat", [ThreatModel("Linf", 8 / 255), ThreatModel("L2", 0.5)], ids=str)
def test_projection_stays_inside_ball_and_box_and_leaves_inner_points_alone(threat, dtype):
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(6, 3, 64, 64, generator=generator, dtype=dtype).round(decimals=1)
    far = project(clean + torch.randn(clean.shape, generator=generator, dtype=dtype), clean, threat)
    slack = 1.2e-7 if threat.norm == "Linf" else 1e-6
    assert 0 <= far.min() <= far.max() <= 1
    assert (distance(far, clean, threat.norm) <= threat.eps + slack).all()
    inner = (clean + 1e-4 * torch.randn(clean.shape, generator=generator, dtype=dtype)).clamp(0, 1)
    torch.testing.assert_close(project(inner, clean, threat), inner, rtol=0, atol=1e-7)


def test_the_direction_of_a_gradient_too_small_for_float32_squares_is_found():
    tiny = torch.full((2, 1, 2, 2), 1e-30)
    torch.testing.assert_close(steepest(tiny, "L2"), torch.full((2, 1, 2, 2), 0.5))
    assert torch.equal(steepest(0 * tiny, "L2"), 0 * tiny)


def test_all_slots_in_their_order_are_the_same_slots():
    class State(NamedTuple):
        x: torch.Tensor

    state = State(torch.arange(3))
    assert select(state, np.arange(3)) is state
    assert select(state, np.array([1, 0, 2])).x.tolist() == [1, 0, 2]
    assert select(state, np.arange(2)).x.tolist() == [0, 1]
    assert select(state, np.arange(0)).x.tolist() == []
