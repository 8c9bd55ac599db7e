"""The authors' AutoAttack (Croce and Hein 2020, github.com/fra31/auto-attack) as RobustBench packages it: pyautoattack."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor

from gauntlet.attacks.adapters.run_library import LibraryAttack, builder, count_classes, library, refuse_square_tiles
from gauntlet.attacks.ops.validators import one_of
from gauntlet.attacks.registry.card import AttackCard, AttackEntry, AttackKind
from gauntlet.attacks.views.guard import LogitsModel

_MOST_TARGETS = 9


@dataclass(frozen=True, kw_only=True)
class Official(LibraryAttack):
    """Stages of the package, with the budgets of its `standard` version, each on the samples that are left."""

    def run(self, model: LogitsModel, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Candidates for broken samples; the clean image for others."""
        stages = self.stages()
        if "square" in stages:
            refuse_square_tiles(images, self.threat.norm, "pyautoattack", "square or autoattack")
        targeted = any(stage.endswith("-t") for stage in stages)
        classes = count_classes(model, images, least=4 if targeted else 3, attack=type(self).__name__)
        package = library("pyautoattack", "--no-deps pyautoattack")
        ball = {"norm": self.threat.norm, "eps": self.threat.eps, "seed": seed, "device": images.device}
        attack = package.AutoAttack(model, **ball, attacks=stages, version="custom")
        attack.verbose = False
        steps, queries = getattr(self, "steps", 100), getattr(self, "queries", 5000)
        targets = min(getattr(self, "targets", _MOST_TARGETS), classes - 1)
        for stage in (attack.apgd, attack.apgd_targeted, attack.fab):
            stage.n_iter, stage.n_restarts = steps, 1
        attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = targets
        attack.square.n_queries = queries
        if self.threat.norm == "L1":
            # Three radii, as in the package's `standard` version, which in L1 also has 5 starts and 5 targets.
            attack.apgd.n_iter_orig = attack.apgd_targeted.n_iter_orig = steps
            attack.apgd.use_largereps = attack.apgd_targeted.use_largereps = True
        with _traced():
            points, _ = attack.run_standard_evaluation(images, labels, batch_size=len(images))
        moved: Tensor = points
        return moved

    @abstractmethod
    def stages(self) -> list[str]:
        """The package's names of the stages."""


@contextmanager
def _traced() -> Iterator[None]:
    """Restores the trace function of a debugger or a coverage tool, which the package's check of the model removes."""
    trace = sys.gettrace()
    try:
        yield
    finally:
        sys.settrace(trace)


@dataclass(frozen=True, kw_only=True)
class OfficialAPGD(Official):
    """Auto-PGD from one start, `loss` ce or dlr."""

    steps: int = 100
    loss: str = "ce"

    def __post_init__(self) -> None:
        """Raises ValueError for a setting out of range."""
        super().__post_init__()
        one_of("loss", self.loss, ("ce", "dlr"))

    def stages(self) -> list[str]:
        """`apgd-ce` or `apgd-dlr`."""
        return [f"apgd-{self.loss}"]


@dataclass(frozen=True, kw_only=True)
class OfficialAPGDT(Official):
    """Targeted Auto-PGD on the DLR loss, `targets` classes at most."""

    steps: int = 100
    targets: int = _MOST_TARGETS

    def stages(self) -> list[str]:
        """A single stage."""
        return ["apgd-t"]


@dataclass(frozen=True, kw_only=True)
class OfficialFAB(Official):
    """Targeted FAB, `targets` classes at most."""

    steps: int = 100
    targets: int = _MOST_TARGETS

    def stages(self) -> list[str]:
        """A single stage."""
        return ["fab-t"]


@dataclass(frozen=True, kw_only=True)
class OfficialSquare(Official):
    """Square Attack, with the schedule for 10,000 queries for every `queries`."""

    queries: int = 5000

    def stages(self) -> list[str]:
        """A single stage."""
        return ["square"]


@dataclass(frozen=True, kw_only=True)
class OfficialAutoAttack(Official):
    """The standard ensemble: APGD-CE, APGD-T, FAB-T, Square. With other budgets than the defaults it is not AutoAttack."""

    steps: int = 100
    queries: int = 5000
    targets: int = _MOST_TARGETS

    def stages(self) -> list[str]:
        """All four stages."""
        return ["apgd-ce", "apgd-t", "fab-t", "square"]


def _entry(name: str, kind: type[Official], summary: str, access: AttackKind = "white-box") -> AttackEntry:
    source = "pyautoattack; Croce and Hein 2020, arXiv 2003.01690"
    card = AttackCard(
        f"pyautoattack.{name}", summary, source, ("Linf", "L2", "L1"), kind=access, library="pyautoattack"
    )
    return AttackEntry(card, builder(kind))


APGD = _entry("APGD", OfficialAPGD, "Auto-PGD")
APGDT = _entry("APGDT", OfficialAPGDT, "Auto-PGD on the targeted DLR loss")
FAB = _entry("FAB", OfficialFAB, "targeted FAB")
SQUARE = _entry("Square", OfficialSquare, "random search with squares", access="black-box")
AUTOATTACK = _entry("AutoAttack", OfficialAutoAttack, "the standard ensemble, by its authors' code")
