"""Running attacks for checks: with the solver and the verifier of cells, on correctly classified samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from gauntlet.attacks.adapters.run_whole import run_whole
from gauntlet.attacks.adaptive import BENEATH, TWIN
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.registry.card import AnyAttack, WholeAttack
from gauntlet.attacks.solving.cascade import Cascade
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.solver import Outcome, Stage, Task, solve
from gauntlet.attacks.solving.wrapped_rule import WrappedRule
from gauntlet.attacks.views.guard import guarded
from gauntlet.bench.checks.subject import Subject

BATCH = 256
Wrap = Callable[[nn.Module], nn.Module]
"""Wraps the pipeline, and every model that replaces it for an attack, with a deliberate change."""


def run_attack(
    subject: Subject, attack: AnyAttack, *, threat: ThreatModel | None = None, wrap: Wrap = lambda model: model
) -> list[Outcome]:
    """Attack the subject's samples, all of which must be classified correctly; returns an outcome each, in their order.

    Stages of a cascade that need a model which the subject does not have (a twin, without a defense) are skipped.
    `threat`: default that of the subject. `wrap`: see `Wrap`; successes are those of the wrapped pipeline.
    """
    threat = replace(threat or subject.threat, target="")
    model = wrap(subject.pipeline)
    verify = subject.verifier(threat, model)
    every = torch.arange(len(subject.labels), device=subject.labels.device)
    with guarded(model, subject.seed):
        if not isinstance(attack, Rule | Cascade):
            known = library_attack(attack, threat)
            victim = wrap(subject.view if subject.victim is None else subject.victim)
            points, forwards, backwards = run_whole(known, victim, subject.images, subject.labels, subject.seed)
            won = verify(points, every, torch.zeros_like(every)).success.tolist()
            return [
                Outcome(i, points[i].clone() if success else None, forwards, backwards) for i, success in enumerate(won)
            ]
        task = Task(subject.images, subject.labels, subject.ids, threat, subject.seed, "check")
        stand_ins = stage_models(subject)
        stages = [Stage("", attack)] if isinstance(attack, Rule) else attack.stages
        outcomes = solve(
            [stage for stage in stages if not stage.view or stage.view in stand_ins],
            wrap(subject.view),
            task,
            verify,
            batch_size=BATCH,
            verify_every=10 if subject.randomised else 1,
            classes=_classes(subject, model),
            views={name: wrap(view) for name, view in stand_ins.items()},
            rejects=subject.pipeline.rejects,
        )
        return sorted(outcomes, key=lambda outcome: outcome.sample)


def library_attack(attack: AnyAttack, threat: ThreatModel) -> WholeAttack:
    """A library's attack with its threat model replaced. Raises TypeError for an attack that is not chosen yet."""
    if not callable(attack):
        raise TypeError(f"{attack!r} stands for an attack that is chosen later: give the chosen attack")
    known: Any = attack
    attack_in_ball: WholeAttack = replace(known, threat=threat) if hasattr(known, "threat") else known
    return attack_in_ball


def unbroken(outcomes: list[Outcome], device: torch.device | str = "cpu") -> Tensor:
    """Samples that the attack did not break, bool (N,)."""
    return torch.tensor([outcome.adversarial is None for outcome in outcomes], dtype=torch.bool, device=device)


def stage_models(subject: Subject) -> dict[str, nn.Module]:
    """The models that stages may attack in place of the pipeline, by name."""
    stand_ins = {BENEATH: subject.pipeline.beneath, TWIN: subject.pipeline.twin}
    return {name: view for name, view in stand_ins.items() if view is not None}


def whole_box(threat: ThreatModel, images: Tensor) -> ThreatModel:
    """The threat model whose ball around any image contains the whole box [0, 1]."""
    pixels = images[0].numel()
    return ThreatModel(threat.norm, {"Linf": 1.0, "L2": pixels**0.5, "L1": float(pixels)}[threat.norm])


def harder(attack: AnyAttack) -> AnyAttack:
    """The attack with twice the steps or queries and another restart, as far as it has these settings."""
    if isinstance(attack, Cascade):
        return Cascade(tuple(replace(stage, rule=_harder(stage.rule)) for stage in attack.stages))
    changed: AnyAttack = _harder(attack)
    return changed


def _harder(rule: Any) -> Any:
    names = rule.__dataclass_fields__
    changes = {name: 2 * getattr(rule, name) for name in ("steps", "queries", "draws") if name in names}
    random_start = getattr(rule, "random_start", True)
    if "restarts" in names and random_start:
        changes["restarts"] = rule.restarts + 1
    return replace(rule, **changes) if changes else rule


@dataclass
class MarginHistory:
    """The lowest margin of each sample after each step of an attack, as a share of the clean margin."""

    nearest: dict[int, list[float]] = field(default_factory=dict)

    def watch(self, attack: Rule[Any] | Cascade) -> Cascade:
        """The attack with every step recorded. Margins are tracked if a stage has a condition."""
        stages = attack.stages if isinstance(attack, Cascade) else (Stage("", attack),)
        watched = [replace(stage, rule=_Watched(stage.rule, self), when=stage.when or _always) for stage in stages]
        return Cascade(tuple(watched))

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
