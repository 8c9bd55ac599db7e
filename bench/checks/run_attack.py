"""Running attacks for checks: with the solver and the verifier of cells, on correctly classified samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from gauntlet.attacks.adaptive import BENEATH, TWIN
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.cascade import Cascade
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.solver import Outcome, Stage
from gauntlet.attacks.solving.wrapped_rule import WrappedRule
from gauntlet.attacks.views.guard import guarded
from gauntlet.bench.checks.subject import Subject
from gauntlet.bench.executors.executable import Executable, Trial
from gauntlet.bench.executors.native import NativeExecutable

Wrap = Callable[[nn.Module], nn.Module]
"""Wraps the pipeline, and every model that replaces it for an attack, with a deliberate change."""


def run_attack(
    subject: Subject, attack: Executable, *, threat: ThreatModel | None = None, wrap: Wrap = lambda model: model
) -> list[Outcome]:
    """Attack the subject's samples, all of which must be classified correctly; returns an outcome each, in their order.

    Stages of a cascade that need a model which the subject does not have (a twin, without a defense) are skipped.
    `threat`: default that of the subject. `wrap`: see `Wrap`; successes are those of the wrapped pipeline.
    """
    threat = replace(threat or subject.threat, target="")
    model = wrap(subject.pipeline)
    victim = subject.view if subject.victim is None else subject.victim
    trial = Trial(
        model=model,
        view=wrap(subject.view),
        victim=wrap(victim),
        images=subject.images,
        labels=subject.labels,
        ids=subject.ids,
        threat=threat,
        seed=subject.seed,
        verify=subject.verifier(threat, model),
        classes=_classes(subject, model),
        randomised=subject.randomised,
        rejects=subject.pipeline.rejects,
        views={name: wrap(view) for name, view in stage_models(subject).items()},
    )
    with guarded(model, subject.seed):
        return attack.attempt(trial)


def unbroken(outcomes: list[Outcome], device: torch.device | str = "cpu") -> Tensor:
    """Samples that the attack did not break, bool (N,)."""
    return torch.tensor([outcome.adversarial is None for outcome in outcomes], dtype=torch.bool, device=device)


def stage_models(subject: Subject) -> dict[str, nn.Module]:
    """The models that stages may attack in place of the pipeline, by name."""
    stand_ins = {BENEATH: subject.pipeline.beneath, TWIN: subject.pipeline.twin}
    return {**subject.views, **{name: view for name, view in stand_ins.items() if view is not None}}


def whole_box(threat: ThreatModel, images: Tensor) -> ThreatModel:
    """The threat model whose ball around any image contains the whole box [0, 1]."""
    pixels = images[0].numel()
    return ThreatModel(threat.norm, {"Linf": 1.0, "L2": pixels**0.5, "L1": float(pixels)}[threat.norm])


@dataclass
class MarginHistory:
    """The lowest margin of each sample after each step of an attack, as a share of the clean margin."""

    nearest: dict[int, list[float]] = field(default_factory=dict)

    def watch(self, stages: Sequence[Stage]) -> NativeExecutable:
        """An attack of these stages with every step recorded. Margins are tracked if a stage has a condition."""
        watched = [replace(stage, rule=_Watched(stage.rule, self), when=stage.when or _always) for stage in stages]
        return NativeExecutable("watched stages", Cascade(tuple(watched)), watched=True)

    def note(self, oracle: Oracle) -> None:
        """Record the lowest margin that each slot has reached in this stage or earlier."""
        pairs = zip(oracle.slots.sample.tolist(), oracle.slots.nearness.tolist(), strict=True)
        for sample, value in pairs:
            path = self.nearest.setdefault(sample, [1.0])
            path.append(min(path[-1], value))


def _always(outcome: Outcome) -> bool:
    return True


class _Watched(WrappedRule):
    """A rule whose steps are noted in a margin history."""

    def __init__(self, rule: Rule[Any], course: MarginHistory) -> None:
        super().__init__(rule)
        self.course = course

    def step(self, state: Any, oracle: Oracle) -> Any:
        after = self.rule.step(state, oracle)
        self.course.note(oracle)
        return after


def _classes(subject: Subject, model: nn.Module) -> int:
    if subject.classes:
        return subject.classes
    with torch.no_grad():
        return int(model(subject.images[:1]).shape[1]) - subject.pipeline.rejects
