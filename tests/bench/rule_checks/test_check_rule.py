"""`gauntlet.testing.check_rule`: it passes rules that are right, and names the fault of rules that are wrong."""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
import pytest
import torch

import gauntlet
from builders import slow_unless
from gauntlet import ops
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.registry.catalog import ATTACKS
from gauntlet.attacks.solving.rule import Rule
from gauntlet.bench.rule_checks.problems import problems
from gauntlet.testing import check_rule

SMALL = {
    "steps": 3,
    "restarts": 2,
    "queries": 8,
    "draws": 3,
    "search_steps": 1,
    "targets": 2,
    "classes": 2,
    "probes": 3,
}


def native_rules():
    for name, where in ATTACKS.items():
        module, _, attribute = where.partition(":")
        entry = getattr(importlib.import_module(module), attribute)
        for norm in entry.card.norms:
            rule = entry.make(ThreatModel(norm, 0.1))
            if isinstance(rule, Rule):
                names = {one.name for one in dataclasses.fields(rule)} & SMALL.keys()
                small = dataclasses.replace(rule, **{setting: SMALL[setting] for setting in names})
                yield slow_unless(norm == entry.card.norms[0], small, norm, id=f"{name}-{norm}")


@pytest.mark.parametrize(("rule", "norm"), list(native_rules()))
def test_every_native_rule_passes(rule, norm):
    report = check_rule(rule, norms=(norm,))
    assert len(report.properties) == 4
    assert len(report.strength) == 2 + rule.minimum_norm


# --- planted faults ---


class Point(NamedTuple):
    x: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Right(gauntlet.Rule):
    """Projected gradient ascent, into which each subclass plants one fault."""

    steps: int = 3

    def start(self, oracle):
        return Point(x=ops.random_point(oracle.clean, oracle.threat, oracle.draws))

    def step(self, state, oracle):
        gradient = oracle.gradient(state.x, ops.ce).gradient
        size = oracle.threat.eps / 2
        return Point(
            x=ops.project(state.x + size * ops.steepest(gradient, oracle.threat.norm), oracle.clean, oracle.threat)
        )


class OutsideTheBall(Right):
    def step(self, state, oracle):
        x = state.x + 0.4 * oracle.threat.eps * oracle.gradient(state.x, ops.ce).gradient.sign()
        return Point(x=x.clamp(0, 1))


class LastIterateOutsideTheBall(Right):
    def step(self, state, oracle):
        x = super().step(state, oracle).x
        return Point(x=torch.where(oracle.step[:, None, None, None] == 2, 1 - x, x))


class OutsideTheBox(Right):
    def step(self, state, oracle):
        x, eps = super().step(state, oracle).x, oracle.threat.eps
        return Point(x=(x + 0.5 * eps).clamp(oracle.clean - eps, oracle.clean + eps))


class NotFinite(Right):
    def step(self, state, oracle):
        return Point(x=super().step(state, oracle).x * torch.nan)


class OtherShape(Right):
    def step(self, state, oracle):
        oracle.logits(state.x[:1])
        return state


class DrawsFromTorch(Right):
    def start(self, oracle):
        x = oracle.clean + oracle.threat.eps * (2 * torch.rand_like(oracle.clean) - 1)
        return Point(x=ops.project(x, oracle.clean, oracle.threat))


class DrawsFromNumpy(Right):
    def start(self, oracle):
        noise = torch.from_numpy(np.random.standard_normal(oracle.clean.shape)).to(oracle.clean)
        return Point(x=ops.project(oracle.clean + noise, oracle.clean, oracle.threat))


class DrawsWithAGeneratorOfItsOwn(Right):
    def start(self, oracle):
        noise = torch.randn(oracle.clean.shape, generator=torch.Generator().manual_seed(0)).to(oracle.clean)
        return Point(x=ops.project(oracle.clean + noise, oracle.clean, oracle.threat))


@dataclass(frozen=True, kw_only=True)
class RemembersBetweenRuns(Right):
    calls: list = field(default_factory=list, repr=False)

    def start(self, oracle):
        self.calls.append(1)
        x = oracle.clean + oracle.threat.eps * (-1) ** len(self.calls)
        return Point(x=ops.project(x, oracle.clean, oracle.threat))


class LooksAtOtherSlots(Right):
    def step(self, state, oracle):
        gradient = oracle.gradient(state.x, ops.ce).gradient.mean(0, keepdim=True)
        x = state.x + oracle.threat.eps / 2 * gradient.sign()
        return Point(x=ops.project(x, oracle.clean, oracle.threat))


class StopsWithTheBatch(Right):
    def finished(self, state):
        return torch.full((len(state.x),), len(state.x) > 20)


class EvaluatesWithoutTheOracle(Right):
    def step(self, state, oracle):
        oracle.model(state.x)
        return super().step(state, oracle)


class ChangesItsState(Right):
    def step(self, state, oracle):
        state.x.add_(oracle.threat.eps / 8)
        return Point(x=ops.project(state.x + 0, oracle.clean, oracle.threat))


class ChangesTheCleanImage(Right):
    def start(self, oracle):
        oracle.clean.mul_(0.99)
        return Point(x=oracle.clean.clone())


class SetsTheSlots(Right):
    def step(self, state, oracle):
        oracle.slots = oracle.slots._replace(forwards=oracle.slots.forwards * 0)
        return state


class KeepsAList(Right):
    def start(self, oracle):
        return [oracle.clean]


class KeepsANumber(Right):
    def start(self, oracle):
        return Point(x=0.5)


class KeepsOneRow(Right):
    def start(self, oracle):
        return Point(x=oracle.clean[:1])


class NeedsThreeClasses(Right):
    def step(self, state, oracle):
        oracle.logits(state.x).topk(3, dim=1)
        return state


class NoDataclass(gauntlet.Rule):
    budget = 1

    def start(self, oracle):
        return Point(x=oracle.clean)

    def step(self, state, oracle):
        return state


@dataclass(frozen=True, kw_only=True)
class HasAnAddress(Right):
    loss: object = object()


class VersionAsText(Right):
    version: ClassVar = "1.0"


FAULTS = {
    OutsideTheBall: "It evaluates a point outside the ball, at a distance of .* where eps is",
    LastIterateOutsideTheBall: "It evaluates a point outside the ball, at a distance of",
    OutsideTheBox: r"It evaluates a point outside the box \[0, 1\], with pixels from .* to 1\.",
    NotFinite: "It evaluates a point that is not finite",
    OtherShape: r"It evaluates points of shape \(1, 1, 4, 4\) where the images have shape \(24, 1, 4, 4\)",
    DrawsFromTorch: "It draws from a global random generator",
    DrawsFromNumpy: "It draws from a global random generator",
    DrawsWithAGeneratorOfItsOwn: "samples differ between batch sizes 256 and 7",
    RemembersBetweenRuns: "Two runs with the same seed differ on",
    LooksAtOtherSlots: "samples differ between batch sizes 256 and 7 .* must not look at other slots",
    StopsWithTheBatch: "samples differ between batch sizes",
    EvaluatesWithoutTheOracle: r"The model made [\d,]+ forward and backward passes and the oracle counted [\d,]+",
    ChangesItsState: "`step` changes `x` of its state in place",
    ChangesTheCleanImage: "`start` changes `oracle.clean` in place",
    SetsTheSlots: "It raises AttributeError on .*: a rule sets oracle.slots, which belongs to the solver",
    KeepsAList: "`start` returns a list: return a NamedTuple of tensors",
    KeepsANumber: "`x` of the state is a float: each field must be a tensor",
    KeepsOneRow: r"`x` of the state has shape \(1, 1, 4, 4\) for 24 slots",
    NeedsThreeClasses: "It raises RuntimeError on a linear model with 2 classes under Linf: ",
    NoDataclass: "It is not a frozen dataclass",
    HasAnAddress: "Its repr, .* has a memory address",
    VersionAsText: "Its version is '1.0': set a whole number",
}


def test_the_rule_without_a_fault_passes():
    report = check_rule(Right(), norms=("Linf", "L2"))
    text = str(report).splitlines()
    assert text[0] == "Right(steps=3)"
    assert text[1] == "It stays in the ball and the box [0, 1], and changes no tensor in place."
    assert [line.partition(" it breaks")[0] for line in text[5:]] == [
        f"On 2 {kind} under {norm}" for norm in ("Linf", "L2") for kind in ("linear models", "small networks")
    ]


@pytest.mark.parametrize("wrong", FAULTS, ids=lambda wrong: wrong.__name__)
def test_a_planted_fault_is_named_and_no_other(wrong):
    with pytest.raises(AssertionError, match=FAULTS[wrong]) as refused:
        check_rule(wrong())
    _, *sentences = str(refused.value).splitlines()
    assert len(sentences) == 1, sentences


def test_strength_is_reported_and_not_judged():
    @dataclass(frozen=True)
    class Idle(gauntlet.Rule):
        steps: int = 1

        def start(self, oracle):
            return Point(x=oracle.clean)

        def step(self, state, oracle):
            return state

    first, second = check_rule(Idle()).strength
    assert first.startswith(
        "On 2 linear models under Linf it breaks 0 of the 24 samples that can be broken, in 1.0 passes"
    )
    assert second.startswith("On 2 small networks under Linf it breaks 0 of the 48 samples, in 1.0 passes")


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_the_optimum_of_linear_models_is_exact_and_the_box_plays_no_part(norm):
    for problem in list(problems(norm))[:2]:
        assert problem.breakable == 12
        weight = problem.model[1].weight.double()
        logits = problem.model(problem.images).double()
        assert torch.equal(logits.argmax(1), problem.labels)
        reached = torch.full_like(problem.exact, torch.inf)
        for other in range(problem.classes):
            direction = weight[other] - weight[problem.labels]
            if norm == "Linf":
                step = direction.sign()
            elif norm == "L2":
                step = direction / direction.norm(dim=1, keepdim=True).clamp_min(1e-9)
            else:
                step = torch.zeros_like(direction).scatter(1, direction.abs().argmax(1, keepdim=True), 1.0)
                step = step * direction.sign()
            needed = (logits.gather(1, problem.labels[:, None]).squeeze(1) - logits[:, other]) / (direction * step).sum(
                1
            )
            for sample in (problem.labels != other).nonzero().squeeze(1).tolist():
                point = problem.images[sample].double().flatten() + needed[sample] * step[sample]
                if needed[sample] <= problem.threat.eps:
                    assert 0 <= point.min() <= point.max() <= 1
                reached[sample] = min(reached[sample], needed[sample])
        torch.testing.assert_close(reached, problem.exact, rtol=1e-6, atol=0)
