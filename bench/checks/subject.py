"""What a check looks at, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.random import Draws, sample_keys
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.registry.card import AnyAttack
from gauntlet.attacks.views.guard import guarded
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.defenses.pipeline.card import DefenseCard
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.leaderboard.results.record import CellResult, Flag, Severity

Result = Literal["passed", "fired", "reported", "not applicable"]
FEW = 64
"""Samples that a cheap check looks at, at most."""
FEW_SLOW = 8
"""The same behind a defense that takes long, as its card says."""
_IDS = 5
"""Samples that a finding names."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A pipeline (a model behind a defense), the samples it is evaluated on, and what is known of its evaluation.

    `images` (N, C, H, W) in [0, 1] and `labels` int64 (N,) lie on the pipeline's device; `ids` are unique. `card`: the
    defense's, None where nothing is declared. `attack`: what the checks of an attack's strength put to the test, and `victim`:
    what it is given where it is an attack of a library (None: the pipeline, with BPDA's gradient).
    `row`: the cells of the pair's row, with their adversarial examples where examples are looked at. `siblings`: the cells
    of rows that differ in eps alone.
    """

    pipeline: DefendedModel
    images: Tensor
    labels: Tensor
    ids: Sequence[str]
    threat: ThreatModel
    card: DefenseCard | None = None
    seed: int = 0
    classes: int = 0
    attack: AnyAttack | None = None
    victim: nn.Module | None = None
    row: tuple[CellResult, ...] = ()
    siblings: tuple[CellResult, ...] = ()

    def few(self, count: int = FEW) -> Subject:
        """The same with the first samples only; of a defense that takes long, with very few."""
        count = min(count, FEW_SLOW if self.slow else count, len(self.labels))
        return self.of(torch.arange(count, device=self.labels.device))

    def of(self, rows: Tensor) -> Subject:
        """The same with the samples at `rows`, int64, only."""
        ids = [self.ids[row] for row in rows.tolist()]
        return replace(self, images=self.images[rows], labels=self.labels[rows], ids=ids)

    @property
    def slow(self) -> bool:
        """Whether the card says that the defense takes long."""
        return self.card is not None and self.card.samples is not None

    @property
    def declared(self) -> bool:
        """Whether the card says that autograd gives no useful gradient, so that attacks go through it by BPDA."""
        return not self.pipeline.differentiable

    @property
    def randomised(self) -> bool:
        """Whether the card says so; whether it is true is a check of its own."""
        return self.pipeline.randomised

    @cached_property
    def view(self) -> nn.Module:
        """What gradient attacks are given."""
        return self.pipeline.attack_view()

    @cached_property
    def correct(self) -> Tensor:
        """Which samples are right when clean, bool (N,); of a randomised pipeline, by majority."""
        every = torch.arange(len(self.labels), device=self.labels.device)
        with guarded(self.pipeline, self.seed):
            predictions = self.verifier(self.threat).measure(self.images, every).prediction
        return predictions.to(self.labels.device) == self.labels

    @cached_property
    def right(self) -> Subject:
        """The same with those samples only."""
        return self.of(self.correct.nonzero().squeeze(1))

    def verifier(self, threat: ThreatModel, model: nn.Module | None = None) -> Verifier:
        """The judge of these samples, on the pipeline itself or on what stands in its place."""
        settings = {"randomised": self.randomised, "rejects": self.pipeline.rejects}
        judged = self.pipeline if model is None else model
        return Verifier(judged, self.images, self.labels, self.ids, threat, seed=self.seed, **settings)

    def draws(self, purpose: str) -> Draws:
        """Random numbers of a check, keyed by sample."""
        return Draws.start(sample_keys(self.seed, f"check {purpose}", self.ids, self.images.device))

    def named(self, which: Tensor) -> tuple[str, ...]:
        """Ids of the samples that a mask, bool (N,), marks: the first few."""
        return tuple(self.ids[row] for row in which.nonzero().squeeze(1).tolist()[:_IDS])


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    check: str
    result: Result
    sentence: str
    """With the figures, and, where it fired, what to do next."""
    evidence: tuple[tuple[str, float], ...] = ()
    flag: Flag | None = None
    """What the record is to say; where it fired only."""


def passed(check: str, sentence: str, **evidence: float) -> Finding:
    """Nothing was found."""
    return Finding(check, "passed", sentence, tuple(evidence.items()))


def reported(check: str, sentence: str, **evidence: float) -> Finding:
    """A figure for the reader, without a verdict."""
    return Finding(check, "reported", sentence, tuple(evidence.items()))


def not_applicable(check: str, why: str) -> Finding:
    """There is nothing to check."""
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
    """A fault, and the flag that says so in the record."""
    figures = tuple((evidence or {}).items())
    flag = Flag(check, severity, sentence, needs=needs, evidence=figures, samples=samples)
    return Finding(check, "fired", sentence, figures, flag)


def without_gradients(subject: Subject) -> tuple[str, ...]:
    """The ways of attack that do not depend on the pipeline's own gradients, as far as they exist for it."""
    around = "bpda" if subject.pipeline.beneath is None else "beneath"
    return (around, "black-box", *(("transfer",) if subject.pipeline.twin is not None else ()))
