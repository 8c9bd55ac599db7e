"""Attacks of torchattacks (Kim 2020, arXiv 2010.01950), from 3.3 on, set up by the threat model."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gauntlet.attacks.adapters.run_library import (
    LibraryAttack,
    count_classes,
    library,
    library_entry,
    refuse_square_tiles,
    step_share,
)
from gauntlet.attacks.ops.validators import one_of
from gauntlet.attacks.registry.card import AttackEntry
from gauntlet.attacks.views.guard import LogitsModel


def _torchattacks() -> ModuleType:
    return library("torchattacks", "'torchattacks>=3.3'")


@dataclass(frozen=True, kw_only=True)
class TorchattacksFGSM(LibraryAttack):
    """One signed step of eps (torchattacks.FGSM)."""

    returns_failures: ClassVar[bool] = True

    def run(self, model: LogitsModel, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """One step."""
        return _result(_torchattacks().FGSM(model, eps=self.threat.eps), images, labels)


@dataclass(frozen=True, kw_only=True)
class TorchattacksPGD(LibraryAttack):
    """torchattacks.PGD for Linf, torchattacks.PGDL2 for L2; the step is set here, since their default does not depend on eps."""

    returns_failures: ClassVar[bool] = True

    steps: int = 40
    step_size: float | None = None
    random_start: bool = True

    def run(self, model: LogitsModel, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """`steps` steps from one start; the last iterate."""
        kind = _torchattacks().PGD if self.threat.norm == "Linf" else _torchattacks().PGDL2
        alpha = self.threat.eps * step_share(self.step_size, self.steps)
        attack = kind(model, eps=self.threat.eps, alpha=alpha, steps=self.steps, random_start=self.random_start)
        return _result(attack, images, labels)


@dataclass(frozen=True, kw_only=True)
class TorchattacksAPGD(LibraryAttack):
    """Auto-PGD (Croce and Hein 2020), `loss` ce or dlr, with the official 100 steps in place of the library's 10."""

    steps: int = 100
    restarts: int = 1
    loss: str = "ce"
    eot: int = 1

    def __post_init__(self) -> None:
        """Raises ValueError for a setting out of range."""
        super().__post_init__()
        one_of("loss", self.loss, ("ce", "dlr"))

    def run(self, model: LogitsModel, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Candidates for broken samples; the clean image for others."""
        if self.loss == "dlr":
            count_classes(model, images, least=3, attack="torchattacks.APGD with loss=dlr")
        budget = {"steps": self.steps, "n_restarts": self.restarts, "eot_iter": self.eot}
        attack = _torchattacks().APGD(model, **_ball(self, seed), **budget, loss=self.loss)
        return _result(attack, images, labels)


@dataclass(frozen=True, kw_only=True)
class TorchattacksAPGDT(LibraryAttack):
    """Targeted Auto-PGD on the DLR loss, `targets` classes at most (official: 9), 100 steps each (library: 10).

    In L2 the library halves the step of all samples by the schedule of the first sample, which is not changed here.
    """

    steps: int = 100
    restarts: int = 1
    targets: int = 9

    def run(self, model: LogitsModel, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Candidates for broken samples; the clean image for others."""
        classes = count_classes(model, images, least=4, attack="torchattacks.APGDT")
        budget = {"steps": self.steps, "n_restarts": self.restarts, "n_classes": min(self.targets + 1, classes)}
        return _result(_torchattacks().APGDT(model, **_ball(self, seed), **budget), images, labels)


@dataclass(frozen=True, kw_only=True)
class TorchattacksFAB(LibraryAttack):
    """Targeted FAB (Croce and Hein 2020), `targets` classes at most (official: 9), 100 steps each (library: 10)."""

    steps: int = 100
    targets: int = 9

    def run(self, model: LogitsModel, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Candidates for broken samples; the clean image for others."""
        classes = count_classes(model, images, least=2, attack="torchattacks.FAB")
        budget = {"steps": self.steps, "n_classes": min(self.targets + 1, classes), "multi_targeted": True}
        return _result(_torchattacks().FAB(model, **_ball(self, seed), **budget), images, labels)


@dataclass(frozen=True, kw_only=True)
class TorchattacksSquare(LibraryAttack):
    """Square Attack (Andriushchenko et al. 2020); `rescale` stretches its schedule to `queries`."""

    queries: int = 5000
    restarts: int = 1
    p_init: float = 0.8
    rescale: bool = True

    def run(self, model: LogitsModel, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Candidates for broken samples; the clean image for others."""
        refuse_square_tiles(images, self.threat.norm, "torchattacks", "torchattacks.APGDT")
        settings = {"n_queries": self.queries, "n_restarts": self.restarts, "p_init": self.p_init}
        attack = _torchattacks().Square(model, **_ball(self, seed), **settings, resc_schedule=self.rescale)
        return _result(attack, images, labels)


@dataclass(frozen=True, kw_only=True)
class TorchattacksAutoAttack(LibraryAttack):
    """AutoAttack (Croce and Hein 2020) with the official budget, which the library does not set.

    Official (github.com/fra31/auto-attack, `set_version`): 100 steps for APGD and FAB, 9 target classes at most, 5000 queries of
    Square with its schedule for 10,000. The library has 10 steps, all classes, and a rescaled schedule.
    `variant`: standard, plus or rand (20 gradients a step).
    """

    steps: int = 100
    queries: int = 5000
    targets: int = 9
    variant: str = "standard"

    def __post_init__(self) -> None:
        """Raises ValueError for a setting out of range."""
        super().__post_init__()
        one_of("variant", self.variant, ("standard", "plus", "rand"))

    def run(self, model: LogitsModel, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Candidates for broken samples; the clean image for others."""
        least = 3 if self.variant == "rand" else 4
        classes = count_classes(model, images, least=least, attack=f"torchattacks.AutoAttack ({self.variant})")
        if self.variant != "rand":
            refuse_square_tiles(images, self.threat.norm, "torchattacks", "torchattacks.APGDT")
        attack = _torchattacks().AutoAttack(model, **_ball(self, seed), version=self.variant, n_classes=classes)
        for stage in attack._autoattack.attacks:
            if type(stage).__name__ == "Square":
                stage.n_queries, stage.rescale_schedule = self.queries, False
            else:
                stage.steps = self.steps
            if hasattr(stage, "n_target_classes"):
                stage.n_target_classes = min(self.targets, classes - 1)
        return _result(attack, images, labels)


@dataclass(frozen=True, kw_only=True)
class TorchattacksDeepFool(LibraryAttack):
    """DeepFool (Moosavi-Dezfooli et al. 2016), sample by sample.

    The library overshoots each step, which can end just inside the boundary if pixels are clipped. As in the paper (section 2.1)
    the whole perturbation is overshot at the end, for the samples that need it.
    """

    returns_failures: ClassVar[bool] = True

    steps: int = 50
    overshoot: float = 0.02

    def run(self, model: LogitsModel, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """The first misclassified iterate, or the last one overshot."""
        attack = _torchattacks().DeepFool(model, steps=self.steps, overshoot=self.overshoot)
        points = _result(attack, images, labels)
        with torch.no_grad():
            inside = model(points).argmax(1) == labels
        further = (images + (1 + self.overshoot) * (points - images)).clamp(0, 1)
        return torch.where(inside[:, None, None, None], further, points)


@dataclass(frozen=True, kw_only=True)
class TorchattacksCW(LibraryAttack):
    """Carlini and Wagner's L2 attack (2017), section VI, with the search for the constant c, which the library lacks.

    It calls the library `search_steps` times, with `steps` iterations of Adam each. For each sample c starts at `initial_c`, is
    multiplied by 10 until it succeeds, and is then bisected. Three errors of the library are corrected from outside: its margin
    is wrong if all other logits are negative, it has one c for the whole batch (both replaced in `f`), and pixels at exactly 0
    or 1 never move (the start is shrunk towards 0.5 by 0.1 %). Not corrected: it stops early when the summed cost of the batch
    rises between tenths of `steps`.
    """

    steps: int = 100
    search_steps: int = 9
    lr: float = 0.03
    initial_c: float = 0.01
    confidence: float = 0.0

    def run(self, model: LogitsModel, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """The closest misclassified point; the clean image without success."""
        best, closest = images.clone(), torch.full_like(labels, torch.inf, dtype=torch.float32)
        constant = torch.full_like(closest, self.initial_c)
        low, high = torch.zeros_like(closest), torch.full_like(closest, torch.inf)
        for _ in range(self.search_steps):
            points = self._search(model, images, labels, constant)
            with torch.no_grad():
                broken = model(points).argmax(1) != labels
            distance = (points - images).flatten(1).norm(dim=1)
            better = broken & (distance < closest)
            best[better], closest[better] = points[better], distance[better]
            low, high = torch.where(broken, low, constant), torch.where(broken, constant, high)
            constant = torch.where(high.isinf(), constant * 10, (low + high) / 2)
        return best

    def _search(self, model: nn.Module, images: Tensor, labels: Tensor, constant: Tensor) -> Tensor:
        attack = _torchattacks().CW(model, c=1, kappa=self.confidence, steps=self.steps, lr=self.lr)

        def weighted_margin(logits: Tensor, truth: Tensor) -> Tensor:
            own = logits.gather(1, truth[:, None])[:, 0]
            other = logits.scatter(1, truth[:, None], -torch.inf).amax(1)
            return constant * (own - other).clamp(min=-self.confidence)

        attack.f = weighted_margin
        attack.inverse_tanh_space = lambda x: torch.atanh((2 * x - 1) * 0.999)
        return _result(attack, images, labels)


def _ball(attack: LibraryAttack, seed: int) -> dict[str, Any]:
    return {"norm": attack.threat.norm, "eps": attack.threat.eps, "seed": seed, "verbose": False}


def _result(attack: Any, images: Tensor, labels: Tensor) -> Tensor:
    points: Tensor = attack(images, labels)
    return points


def _entry(name: str, kind: type[LibraryAttack], summary: str, paper: str, **facts: Any) -> AttackEntry:
    return library_entry("torchattacks", (name, "torchattacks"), kind, summary, paper, **facts)


_CROCE = "Croce and Hein 2020, arXiv 2003.01690"

FGSM = _entry(
    "FGSM", TorchattacksFGSM, "one signed gradient step", "Goodfellow et al. 2015, arXiv 1412.6572", norms=("Linf",)
)
PGD = _entry("PGD", TorchattacksPGD, "projected gradient descent, one start", "Madry et al. 2018, arXiv 1706.06083")
APGD = _entry("APGD", TorchattacksAPGD, "PGD that adapts its step, loss ce or dlr", _CROCE)
APGDT = _entry("APGDT", TorchattacksAPGDT, "targeted Auto-PGD on the DLR loss", _CROCE)
FAB = _entry(
    "FAB", TorchattacksFAB, "smallest step to the boundary of each target", "Croce and Hein 2020, arXiv 1907.02044"
)
AUTOATTACK = _entry("AutoAttack", TorchattacksAutoAttack, "APGD-CE, APGD-T, FAB-T and Square in a row", _CROCE)
SQUARE = _entry(
    "Square",
    TorchattacksSquare,
    "random search over square patches",
    "Andriushchenko et al. 2020, arXiv 1912.00049",
    access="black-box",
)
DEEPFOOL = _entry(
    "DeepFool",
    TorchattacksDeepFool,
    "steps to the nearest linearised boundary",
    "Moosavi-Dezfooli et al. 2016, arXiv 1511.04599",
    norms=("L2",),
    minimum_norm=True,
)
CW = _entry(
    "CW",
    TorchattacksCW,
    "smallest L2 perturbation by Adam, with a search for the constant",
    "Carlini and Wagner 2017, arXiv 1608.04644",
    norms=("L2",),
    minimum_norm=True,
)
