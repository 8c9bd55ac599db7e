"""Attacks of the Adversarial Robustness Toolbox (Nicolae et al. 2018, arXiv 1807.01069), set up by the threat model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from gauntlet.attacks.adapters.art_attack import ArtAttack, deepfool, evasion
from gauntlet.attacks.adapters.art_search_attacks import ArtAutoAttack, ArtHopSkipJump, ArtSquare
from gauntlet.attacks.adapters.run_library import LibraryAttack, library_entry, step_share
from gauntlet.attacks.registry.card import AttackEntry


@dataclass(frozen=True, kw_only=True)
class ArtFastGradientMethod(ArtAttack):
    """One step of eps along the sign of the gradient (Linf) or the normalised gradient (L2)."""

    returns_failures: ClassVar[bool] = True

    def generate(self, estimator: Any, x: Any, y: Any) -> Any:
        """One step."""
        ball = {"norm": self.order, "eps": self.threat.eps, "eps_step": self.threat.eps}
        return evasion().FastGradientMethod(estimator, **ball, batch_size=len(x)).generate(x, y)


@dataclass(frozen=True, kw_only=True)
class ArtPGD(ArtAttack):
    """Projected gradient descent; the step is set here, since ART's default of 0.1 can exceed eps."""

    returns_failures: ClassVar[bool] = True

    steps: int = 40
    restarts: int = 1
    step_size: float | None = None
    random_start: bool = True

    def __post_init__(self) -> None:
        """Raises ValueError for a setting out of range."""
        super().__post_init__()
        if self.restarts > 1 and not self.random_start:
            raise ValueError("restarts > 1 needs random_start=True: from the clean image every restart is the same")

    def generate(self, estimator: Any, x: Any, y: Any) -> Any:
        """The last iterate of the first successful start, else of the last start."""
        attack = evasion().ProjectedGradientDescent(
            estimator,
            norm=self.order,
            eps=self.threat.eps,
            eps_step=self.threat.eps * step_share(self.step_size, self.steps),
            max_iter=self.steps,
            num_random_init=self.restarts if self.random_start else 0,
            batch_size=len(x),
            verbose=False,
        )
        return attack.generate(x, y)


@dataclass(frozen=True, kw_only=True)
class ArtAutoPGD(ArtAttack):
    """Auto-PGD on cross-entropy from one start; the first step is 2 eps, as published."""

    returns_failures: ClassVar[bool] = True

    steps: int = 100

    def generate(self, estimator: Any, x: Any, y: Any) -> Any:
        """The best points."""
        attack = evasion().AutoProjectedGradientDescent(
            estimator,
            norm=self.order,
            eps=self.threat.eps,
            eps_step=2 * self.threat.eps,
            max_iter=self.steps,
            nb_random_init=1,
            batch_size=len(x),
            loss_type="cross_entropy",
            verbose=False,
        )
        return attack.generate(x, y)


@dataclass(frozen=True, kw_only=True)
class ArtCarliniL2(ArtAttack):
    """Carlini and Wagner's L2 attack with a line search: `search_steps` constants, `steps` iterations each.

    Budgets are set here because ART's defaults (10 × 10) are far below the paper's. It is about 20 times slower than others.
    """

    steps: int = 100
    search_steps: int = 9
    lr: float = 0.01
    initial_c: float = 0.01
    confidence: float = 0.0

    def generate(self, estimator: Any, x: Any, y: Any) -> Any:
        """The closest success; the clean image where there is none."""
        attack = evasion().CarliniL2Method(
            estimator,
            confidence=self.confidence,
            learning_rate=self.lr,
            binary_search_steps=self.search_steps,
            max_iter=self.steps,
            initial_const=self.initial_c,
            batch_size=len(x),
            verbose=False,
        )
        return attack.generate(x, y)


@dataclass(frozen=True, kw_only=True)
class ArtDeepFool(ArtAttack):
    """DeepFool over the `gradients` most likely classes, with the paper's overshoot (ART's default is 1e-6)."""

    returns_failures: ClassVar[bool] = True

    steps: int = 50
    overshoot: float = 0.02
    gradients: int = 10

    def generate(self, estimator: Any, x: Any, y: Any) -> Any:
        """The overshot end points."""
        return deepfool(estimator, self.steps, self.overshoot, self.gradients, len(x)).generate(x, y)


def _entry(name: str, kind: type[LibraryAttack], summary: str, paper: str, **facts: Any) -> AttackEntry:
    return library_entry("ART", (name, "adversarial-robustness-toolbox"), kind, summary, paper, **facts)


FAST_GRADIENT_METHOD = _entry(
    "FastGradientMethod", ArtFastGradientMethod, "one gradient step", "Goodfellow et al. 2015, arXiv 1412.6572"
)
PROJECTED_GRADIENT_DESCENT = _entry(
    "ProjectedGradientDescent",
    ArtPGD,
    "projected gradient descent from random starts",
    "Madry et al. 2018, arXiv 1706.06083",
)
AUTO_PGD = _entry(
    "AutoProjectedGradientDescent",
    ArtAutoPGD,
    "PGD that adapts its step, on cross-entropy",
    "Croce and Hein 2020, arXiv 2003.01690",
)
CARLINI_L2 = _entry(
    "CarliniL2Method",
    ArtCarliniL2,
    "smallest L2 perturbation with a search for the constant; slow",
    "Carlini and Wagner 2017, arXiv 1608.04644",
    norms=("L2",),
    minimum_norm=True,
)
DEEPFOOL = _entry(
    "DeepFool",
    ArtDeepFool,
    "steps to the nearest linearised boundary",
    "Moosavi-Dezfooli et al. 2016, arXiv 1511.04599",
    norms=("L2",),
    minimum_norm=True,
)
SQUARE = _entry(
    "SquareAttack",
    ArtSquare,
    "random search over square patches",
    "Andriushchenko et al. 2020, arXiv 1912.00049",
    access="black-box",
)
AUTOATTACK = _entry(
    "AutoAttack",
    ArtAutoAttack,
    "APGD-CE, APGD-DLR, DeepFool and Square; not the official AutoAttack",
    "after Croce and Hein 2020, arXiv 2003.01690",
)
HOP_SKIP_JUMP = _entry(
    "HopSkipJump",
    ArtHopSkipJump,
    "smallest perturbation from predicted labels alone; slow",
    "Chen et al. 2020, arXiv 1904.02144",
    access="decision-based",
    minimum_norm=True,
)
