"""Attacks of foolbox (Rauber et al. 2020, "Foolbox Native"), for comparison, if it is installed."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from gauntlet.attacks.adapters.run_library import LibraryAttack, builder, library, step_share
from gauntlet.attacks.ops.threat import Norm
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.views.guard import LogitsModel


@dataclass(frozen=True, kw_only=True)
class FoolboxAttack(LibraryAttack):
    """Wraps the model; subclasses choose the attack."""

    returns_failures: ClassVar[bool] = True

    def run(self, model: LogitsModel, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Candidates, which the library clips to the ball if the attack has an eps."""
        foolbox = library("foolbox", "foolbox")
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
        attack = self.attack(foolbox.attacks)
        eps = None if isinstance(self, FoolboxCarliniWagner) else self.threat.eps
        _, points, _ = attack(wrapped, images, labels, epsilons=eps)
        moved: Tensor = points
        return moved

    @abstractmethod
    def attack(self, attacks: Any) -> Any:
        """An attack of the library's module `attacks`."""


@dataclass(frozen=True, kw_only=True)
class FoolboxFGSM(FoolboxAttack):
    """One step of eps along the sign (Linf) or the normalised gradient (L2)."""

    def attack(self, attacks: Any) -> Any:
        """By norm."""
        return attacks.LinfFastGradientAttack() if self.threat.norm == "Linf" else attacks.L2FastGradientAttack()


@dataclass(frozen=True, kw_only=True)
class FoolboxPGD(FoolboxAttack):
    """Projected gradient descent from one start; the library takes the step as a share of eps."""

    steps: int = 40
    step_size: float | None = None
    random_start: bool = True

    def attack(self, attacks: Any) -> Any:
        """By norm."""
        kind = attacks.LinfPGD if self.threat.norm == "Linf" else attacks.L2PGD
        share = step_share(self.step_size, self.steps)
        return kind(steps=self.steps, rel_stepsize=share, random_start=self.random_start)


@dataclass(frozen=True, kw_only=True)
class FoolboxCarliniWagner(FoolboxAttack):
    """Carlini and Wagner's L2 attack, `search_steps` constants, `steps` iterations each.

    For failures the library returns a black image, which is verified like any other candidate.
    """

    steps: int = 100
    search_steps: int = 9
    lr: float = 0.01
    initial_c: float = 0.01
    confidence: float = 0.0

    def attack(self, attacks: Any) -> Any:
        """With all settings."""
        return attacks.L2CarliniWagnerAttack(
            binary_search_steps=self.search_steps,
            steps=self.steps,
            stepsize=self.lr,
            confidence=self.confidence,
            initial_const=self.initial_c,
        )


def _entry(
    name: str, kind: type[FoolboxAttack], summary: str, norms: tuple[Norm, ...] = ("Linf", "L2"), least: bool = False
) -> AttackEntry:
    card = AttackCard(
        f"foolbox.{name}", summary, "foolbox; Rauber et al. 2020", norms, minimum_norm=least, library="foolbox"
    )
    return AttackEntry(card, builder(kind))


FGSM = _entry("FGSM", FoolboxFGSM, "one gradient step of eps")
PGD = _entry("PGD", FoolboxPGD, "projected gradient descent, one start")
CARLINI_WAGNER = _entry("CarliniWagner", FoolboxCarliniWagner, "smallest L2 perturbation by Adam", ("L2",), least=True)
