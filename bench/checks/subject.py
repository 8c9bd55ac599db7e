"""The subject of a check, and its finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.random import Draws, sample_keys
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.views.guard import guarded, seed_torch
from gauntlet.attacks.views.rejection_view import reduced
from gauntlet.attacks.views.work import counted_work
from gauntlet.bench.executors.executable import Executable
from gauntlet.bench.models.parts.black_box import model_access
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.defenses.pipeline.card import DefenseCard
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.defenses.pipeline.profile import intercepted, kind_of_outputs, pass_over
from gauntlet.leaderboard.results.record import EVIDENCE, CellResult, Flag, Severity

Result = Literal["passed", "fired", "reported", "not applicable"]
FEW = 64
"""Largest number of samples of a cheap check."""
GLANCE = 16
"""The same of a costly pipeline: checks must cost little beside the attack."""
COSTLY = 4e6
"""Multiplications for an image from which a pipeline is costly; a network for CIFAR-10 has 40 million and more."""
FEW_SLOW = 8
"""The same for a defense whose card limits the samples because it is slow."""
_IDS = 5
"""Largest number of samples that a finding names."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A pipeline (a model behind a defense), the samples it is evaluated on, and the results so far.

    `images` (N, C, H, W) in [0, 1] and `labels` int64 (N,) are on the pipeline's device; `ids` are unique. `card`: the card of
    the defense, None without one. `attack`: the attack whose strength is checked; `victim`: the model that an attack of a
    library receives (None: the pipeline, with BPDA's gradient); `views`: the modules that its stages may see in place of the
    pipeline, by name. `row`: the results of the pair's row, with their adversarial
    examples if those are checked. `siblings`: the results of rows that differ in eps alone. `costly`: whether a
    pass is so much work (`COSTLY`) that cheap checks look at fewer samples, directions and draws.
    """

    pipeline: DefendedModel
    images: Tensor
    labels: Tensor
    ids: Sequence[str]
    threat: ThreatModel
    card: DefenseCard | None = None
    seed: int = 0
    classes: int = 0
    attack: Executable | None = None
    victim: nn.Module | None = None
    views: Mapping[str, nn.Module] = field(default_factory=dict)
    row: tuple[CellResult, ...] = ()
    siblings: tuple[CellResult, ...] = ()
    costly: bool = False

    def glance(self, count: int = FEW) -> Subject:
        """As `few`, for cheap checks: of a costly pipeline at most `GLANCE` samples. The same object each time."""
        count = min(count, GLANCE) if self.costly else count
        if count not in self._glances:
            self._glances[count] = self.few(count)
        return self._glances[count]

    @cached_property
    def _glances(self) -> dict[int, Subject]:
        return {}

    def few(self, count: int = FEW) -> Subject:
        """The same with the first samples only; for a slow defense, with very few."""
        count = min(count, FEW_SLOW if self.slow else count, len(self.labels))
        return self.of(torch.arange(count, device=self.labels.device))

    def of(self, rows: Tensor) -> Subject:
        """The same with the samples at `rows`, int64, only."""
        ids = [self.ids[row] for row in rows.tolist()]
        return replace(self, images=self.images[rows], labels=self.labels[rows], ids=ids)

    @property
    def slow(self) -> bool:
        """Whether the card limits the samples because the defense is slow."""
        return self.card is not None and self.card.samples is not None

    @property
    def declared(self) -> bool:
        """Whether the card says that autograd gives no useful gradient, so that attacks use BPDA."""
        return not self.pipeline.differentiable

    @property
    def randomised(self) -> bool:
        """Whether the card says that the pipeline is randomised; a check measures it."""
        return self.pipeline.randomised

    @cached_property
    def coarse(self) -> bool:
        """Whether the outputs are labels or votes, of a pipeline that is not randomised."""
        if self.randomised or not len(self.labels):
            return False
        with guarded(self.pipeline, self.seed), torch.no_grad():
            outputs = pass_over(self.pipeline, self.images[:16], 0)
        return kind_of_outputs(outputs) in ("labels", "votes")

    @cached_property
    def view(self) -> nn.Module:
        """The model that gradient attacks receive."""
        return self.pipeline.attack_view()

    @cached_property
    def correct(self) -> Tensor:
        """Samples that are classified correctly, bool (N,); for a randomised pipeline, by majority."""
        every = torch.arange(len(self.labels), device=self.labels.device)
        with guarded(self.pipeline, self.seed):
            predictions = self.verifier(self.threat).measure(self.images, every).prediction
        return predictions.to(self.labels.device) == self.labels

    @cached_property
    def right(self) -> Subject:
        """The same with the correctly classified samples only."""
        return self.of(self.correct.nonzero().squeeze(1))

    def verifier(self, threat: ThreatModel, model: nn.Module | None = None) -> Verifier:
        """The verifier of these samples, on the pipeline or on `model`."""
        settings = {"randomised": self.randomised, "rejects": self.pipeline.rejects}
        judged = self.pipeline if model is None else model
        return Verifier(judged, self.images, self.labels, self.ids, threat, seed=self.seed, **settings)

    def logits(self, model: nn.Module, points: Tensor, labels: Tensor, number: int) -> Tensor:
        """Logits of the K-class problem (N, K), with random numbers that depend on `number`, keyed or from torch."""
        cuda = [points.device.index or 0] if points.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            seed_torch(number)
            outputs = pass_over(model, points, number)
        return reduced(outputs, labels) if self.pipeline.rejects else outputs

    def draws(self, purpose: str) -> Draws:
        """Random numbers of a check, keyed by sample."""
        return Draws.start(sample_keys(self.seed, f"check {purpose}", self.ids, self.images.device))

    def named(self, which: Tensor) -> tuple[str, ...]:
        """Ids of the first few samples in a mask, bool (N,)."""
        return tuple(self.ids[row] for row in which.nonzero().squeeze(1).tolist()[:_IDS])


def is_costly(pipeline: DefendedModel, image: Tensor) -> bool:
    """Whether a pass over an image (1, C, H, W) is so much work that cheap checks look at few; False for a black box."""
    if model_access(pipeline) != "white-box":
        return False
    with guarded(pipeline, 0), torch.no_grad(), counted_work(pipeline, 1) as work:
        pass_over(pipeline, image, 0)
    return work.image >= COSTLY


@dataclass(frozen=True)
class Finding:
    """The result of a check."""

    check: str
    result: Result
    sentence: str
    """The figures and, if the check fired, what to do next."""
    evidence: tuple[tuple[str, float], ...] = ()
    flag: Flag | None = None
    """The flag for the record; None unless the check fired."""


def passed(check: str, sentence: str, **evidence: float) -> Finding:
    """A passed check."""
    return Finding(check, "passed", sentence, tuple(evidence.items()))


def reported(check: str, sentence: str, **evidence: float) -> Finding:
    """A figure without a verdict."""
    return Finding(check, "reported", sentence, tuple(evidence.items()))


def not_applicable(check: str, why: str) -> Finding:
    """A check that does not apply."""
    return Finding(check, "not applicable", why)


def fired(
    check: str,
    severity: Severity,
    sentence: str,
    *,
    needs: tuple[str, ...] = (),
    samples: tuple[str, ...] = (),
    evidence: Mapping[str, float] | None = None,
) -> Finding:
    """A check that fired, with its flag for the record."""
    figures = tuple((evidence or {}).items())
    flag = Flag(check, severity, sentence, needs=needs, evidence=figures, samples=samples)
    return Finding(check, "fired", sentence, figures, flag)


def culprits(subject: Subject) -> str:
    """The operations that hide the gradient, in brackets; empty where none is known, and of declared defenses."""
    if subject.declared:
        return ""
    with guarded(subject.pipeline, subject.seed):
        found = intercepted(subject.pipeline, subject.images[:16])
    shown = ", ".join(found[:_IDS])
    return f" (hidden by {shown}{', …' if len(found) > _IDS else ''})" if found else ""


def without_gradients(subject: Subject) -> tuple[str, ...]:
    """What lifts a block about gradients: the techniques that do not depend on them, as far as they apply, and evidence."""
    around = "bpda" if subject.pipeline.beneath is None else "beneath"
    twin = ("transfer",) if subject.pipeline.twin is not None else ()
    # A search by scores goes blind where there are none. Of what is declared, views show the scores.
    hidden = not subject.declared and subject.pipeline.beneath is None and subject.threat.norm != "L1"
    decisions = ("decision-based",) if hidden and subject.coarse else ()
    return (around, "black-box", *twin, *decisions, EVIDENCE)
