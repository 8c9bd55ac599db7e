"""Replay: stored adversarial examples against other models and defenses, tried on this pipeline.

Carlini et al. 2019 (arXiv 1902.06705), section 4.5, recommend transfer attacks. A replay is a cell of its own, and its key
covers the replayed examples. Successes of replays are not replayed, so that a second run replays the same examples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

import numpy as np
import torch

from gauntlet.attacks.ops.threat import Norm, ThreatModel
from gauntlet.attacks.ops.validators import whole_number
from gauntlet.attacks.registry.card import AttackCard
from gauntlet.attacks.solving.solver import Outcome
from gauntlet.bench.environment.clock import synchronised_time
from gauntlet.bench.environment.device import peak_memory
from gauntlet.bench.executors.entry import ExecutableEntry
from gauntlet.bench.executors.example_index import Examples
from gauntlet.bench.executors.executable import (
    BlockBatch,
    BlockResult,
    Executable,
    Facts,
)
from gauntlet.bench.executors.native import technique
from gauntlet.bench.verify.fixed_batches import fixed_batches
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.leaderboard.results.record import Stats

_BATCH = 256
_KIND: Final = "transfer"


@dataclass(frozen=True, kw_only=True)
class Replay(Executable):
    """At most `most` examples for each sample; those against the same model with other defenses come first."""

    threat: ThreatModel
    most: int = 8
    examples: Examples = field(default_factory=dict, repr=False, compare=False)

    version: ClassVar[int] = 1
    needs_profile: ClassVar[bool] = True
    repeatable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        whole_number("most", self.most, 1)

    @property
    def spec(self) -> str:
        """The replay with its settings."""
        return f"replay: {self!r}"

    def resolve(self, facts: Facts) -> Replay:
        """The replay with the stored examples that fit the cell."""
        if facts.examples is None:
            return self
        return replace(self, examples=facts.examples(self.threat, self.most, facts.cell, facts.ids))

    def run(self, batch: BlockBatch) -> Iterator[BlockResult]:
        """Try each sample's examples on the pipeline until one is verified."""
        verify = batch.verify
        for number, place in enumerate(batch.places):
            with peak_memory(batch.settings.device) as peak:
                began, judged = synchronised_time(), verify.seconds
                outcomes = [Outcome(sample) for sample in batch.to_attack(place).tolist()]
                for turn in range(self.most):
                    self._try(turn, [outcome for outcome in outcomes if outcome.adversarial is None], verify)
                seconds = synchronised_time() - began - (verify.seconds - judged)
            yield BlockResult(number, outcomes, Stats(seconds, peak.mib))

    def _try(self, turn: int, standing: Sequence[Outcome], verify: Verifier) -> None:
        """Try example number `turn` of each sample that has so many."""
        pairs = [
            (outcome, images[turn])
            for outcome in standing
            if len(images := self.examples.get(verify.ids[outcome.sample], ())) > turn
        ]
        pairs = [(outcome, image) for outcome, image in pairs if image.shape == verify.images.shape[1:]]
        if not pairs:
            return
        points = torch.stack([torch.tensor(image) for _, image in pairs]).to(verify.images)
        rows = torch.tensor([outcome.sample for outcome, _ in pairs], device=points.device)
        outputs = fixed_batches(verify.model, points, min(_BATCH, len(points)))
        wrong = verify.predictions(outputs) != verify.labels[rows]
        for outcome, _ in pairs:
            outcome.forwards += 1
            outcome.taken += 1
        chosen = wrong.nonzero().squeeze(1)
        if not len(chosen):
            return
        verdict = verify(points[chosen], rows[chosen], torch.full_like(chosen, turn))
        verdicts = zip(chosen.tolist(), verdict.success.tolist(), verdict.disagreement.tolist(), strict=True)
        for place, won, split in verdicts:
            outcome = pairs[place][0]
            outcome.disagreements += int(split)
            if won:
                outcome.adversarial = points[place].clone()

    def key_parts(self, ids: Sequence[str]) -> dict[str, Any]:
        """The settings, the version, and the digest of the examples of these samples."""
        digest = hashlib.sha256()
        for sample in ids:
            for image in self.examples.get(sample, ()):
                digest.update(f"{sample}\0{image.dtype.str}{image.shape}".encode())
                digest.update(np.ascontiguousarray(image).tobytes())
        return {"kind": "replay", "attack": repr(self), "versions": self.versions, "examples": digest.hexdigest()}

    def techniques(self, pipeline: DefendedModel) -> dict[str, str]:
        """The technique `transfer`."""
        return {"": technique(_KIND, pipeline)}


def build(threat: ThreatModel, *, most: int = 8) -> Replay:
    """A replay for that threat model. Raises ValueError for bad settings."""
    return Replay(threat=threat, most=most)


_NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")

ENTRY = ExecutableEntry(
    AttackCard(
        name="replay",
        summary="stored adversarial examples against other models and defenses",
        source="Carlini et al. 2019, arXiv 1902.06705, section 4.5",
        norms=_NORMS,
        kind=_KIND,
        role="replay",
    ),
    build,
)
