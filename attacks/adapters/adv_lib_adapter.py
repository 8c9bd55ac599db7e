"""Attacks of adv-lib (Rony 2020, github.com/jeromerony/adversarial-library), for comparison, if it is installed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import Tensor

from gauntlet.attacks.adapters.run_library import LibraryAttack, builder, count_classes, library, step_share
from gauntlet.attacks.ops.threat import Norm
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.views.guard import LogitsModel


def _attacks() -> ModuleType:
    return library("adv_lib.attacks", "adv-lib")


def _ball(attack: LibraryAttack) -> dict[str, Any]:
    return {"eps": attack.threat.eps, "norm": math.inf if attack.threat.norm == "Linf" else 2}


@dataclass(frozen=True, kw_only=True)
class AdvLibPGD(LibraryAttack):
    """Projected gradient descent from one start. The library does not evaluate its last iterate."""

    steps: int = 40
    step_size: float | None = None

    def run(self, model: LogitsModel, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """`steps` steps."""
        share = step_share(self.step_size, self.steps)
        points: Tensor = _attacks().pgd_linf(
            model, images, labels, self.threat.eps, steps=self.steps, relative_step_size=share
        )
        return points


@dataclass(frozen=True, kw_only=True)
class AdvLibAPGD(LibraryAttack):
    """Auto-PGD on cross-entropy, one start."""

    steps: int = 100

    def run(self, model: LogitsModel, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """`steps` steps."""
        points: Tensor = _attacks().apgd(model, images, labels, **_ball(self), n_iter=self.steps, loss_function="ce")
        return points


@dataclass(frozen=True, kw_only=True)
class AdvLibAPGDT(LibraryAttack):
    """Targeted Auto-PGD on the DLR loss."""

    steps: int = 100
    targets: int = 9

    def run(self, model: LogitsModel, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """`steps` steps for each target."""
        targets = min(self.targets, count_classes(model, images, least=4, attack="adv_lib.APGDT") - 1)
        points: Tensor = _attacks().apgd_targeted(
            model, images, labels, **_ball(self), n_iter=self.steps, num_targets=targets
        )
        return points


@dataclass(frozen=True, kw_only=True)
class AdvLibFAB(LibraryAttack):
    """Targeted FAB. The library seeks the minimum norm, so that some of its points lie outside the ball."""

    steps: int = 100
    targets: int = 9

    def run(self, model: LogitsModel, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """`steps` steps for each target."""
        ball = _ball(self)
        targets = min(self.targets, count_classes(model, images, least=3, attack="adv_lib.FAB") - 1)
        points: Tensor = _attacks().fab(
            model,
            images,
            labels,
            ball["norm"],
            n_iter=self.steps,
            ε=ball["eps"],
            restarts=targets,
            targeted_restarts=True,
        )
        return points


@dataclass(frozen=True, kw_only=True)
class AdvLibCarliniWagner(LibraryAttack):
    """Carlini and Wagner's L2 attack, `search_steps` constants, `steps` iterations each."""

    steps: int = 100
    search_steps: int = 9
    lr: float = 0.01
    initial_c: float = 0.01
    confidence: float = 0.0

    def run(self, model: LogitsModel, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """The closest success; the clean image without success."""
        points: Tensor = _attacks().carlini_wagner_l2(
            model,
            images,
            labels,
            confidence=self.confidence,
            learning_rate=self.lr,
            initial_const=self.initial_c,
            binary_search_steps=self.search_steps,
            max_iterations=self.steps,
        )
        return points


def _entry(
    name: str, kind: type[LibraryAttack], summary: str, norms: tuple[Norm, ...] = ("Linf", "L2"), least: bool = False
) -> AttackEntry:
    return AttackEntry(
        AttackCard(f"adv_lib.{name}", summary, "adv-lib; Rony 2020", norms, minimum_norm=least, library="adv-lib"),
        builder(kind),
    )


PGD = _entry("PGD", AdvLibPGD, "projected gradient descent, one start", ("Linf",))
APGD = _entry("APGD", AdvLibAPGD, "Auto-PGD on cross-entropy")
APGDT = _entry("APGDT", AdvLibAPGDT, "Auto-PGD on the targeted DLR loss")
FAB = _entry("FAB", AdvLibFAB, "targeted FAB")
CARLINI_WAGNER = _entry("CarliniWagner", AdvLibCarliniWagner, "smallest L2 perturbation by Adam", ("L2",), least=True)
