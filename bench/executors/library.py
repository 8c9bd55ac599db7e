"""Attacks that run whole on a batch: those of other libraries and of users."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gauntlet.attacks.adapters.run_whole import run_whole
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.registry.card import WholeAttack
from gauntlet.attacks.solving.solver import Outcome, Verification
from gauntlet.bench.environment.clock import synchronised_time
from gauntlet.bench.environment.device import peak_memory
from gauntlet.bench.environment.provenance import library_version
from gauntlet.bench.executors.executable import (
    BlockBatch,
    BlockResult,
    Executable,
    Trial,
)
from gauntlet.bench.executors.native import technique
from gauntlet.bench.executors.settings import doubled, gradient_steps, without_addresses
from gauntlet.bench.verify.verifier import in_box
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.defenses.pipeline.profile import PipelineProfile
from gauntlet.leaderboard.results.record import Stats


@dataclass(frozen=True)
class LibraryExecutable(Executable):
    """An attack that runs whole. Its outcome may depend on the batch, so the batch is always a block."""

    text: str
    """See `spec`."""
    attack: WholeAttack
    remake: Callable[[ThreatModel], WholeAttack]
    """The same attack for another threat model."""
    kind: str
    """The kind on its card."""
    library: str = ""
    """The distribution that it belongs to; empty if there is none."""
    averages: bool = False
    """Whether it averages gradients over draws of a randomised model."""
    code: str = ""
    """Digest of its code; empty for Gauntlet's own attacks."""
    returns_failures: bool = False
    """Whether it also returns points that are no successes, which then claim nothing."""

    @property
    def spec(self) -> str:
        """The attack with all its resolved settings."""
        return self.text

    @property
    def versions(self) -> tuple[int, ...]:
        """The attack's own version."""
        return (self.attack.version,)

    @property
    def gradient_steps(self) -> int | None:
        """By the attack's settings."""
        return gradient_steps(self.attack)

    def run(self, batch: BlockBatch) -> Iterator[BlockResult]:
        """Call the attack once for each block."""
        prepared, verify = batch.prepared, batch.verify
        for number, place in enumerate(batch.places):
            rows = batch.to_attack(place)
            if not len(rows):
                yield BlockResult(number, [], Stats(0.0, 0.0, outside_ball=0, outside_box=0, false_claims=0))
                continue
            seed, labels, images = prepared.cell.info.seed, verify.labels[rows], verify.images[rows]
            targets = verify.targets()[rows] if prepared.cell.threat.target else None
            with peak_memory(batch.settings.device) as peak:
                began = synchronised_time()
                points, forwards, backwards = run_whole(self.attack, prepared.victim, images, labels, seed, targets)
                seconds = synchronised_time() - began
            verdict = verify(points, rows, torch.zeros_like(rows))
            # An unchanged image means that the attack failed; it is not an invalid example.
            moved = (points != images).flatten(1).any(1)
            rejected = (verdict.rejected & moved).tolist()
            outcomes = [
                Outcome(
                    sample=sample,
                    adversarial=points[i].clone() if won else None,
                    forwards=forwards,
                    backwards=backwards,
                    rejected=int(rejected[i]),
                    disagreements=int(split),
                )
                for i, (sample, won, split) in enumerate(
                    zip(rows.tolist(), verdict.success.tolist(), verdict.disagreement.tolist(), strict=True)
                )
            ]
            yield BlockResult(number, outcomes, self._stats(Stats(seconds, peak.mib), points, moved, verdict))

    def _stats(self, costs: Stats, points: Tensor, moved: Tensor, verdict: Verification) -> Stats:
        """The costs, with the points (N, C, H, W) that the attack should not have returned, of those that it moved, bool (N,)."""
        refused, inside = moved & verdict.rejected, in_box(points)
        unconfirmed = verdict.disagreement if self.returns_failures else ~verdict.success
        return replace(
            costs,
            outside_ball=int((refused & inside).sum()),
            outside_box=int((refused & ~inside).sum()),
            false_claims=int((moved & ~verdict.rejected & unconfirmed).sum()),
        )

    def key_parts(self, ids: Sequence[str]) -> dict[str, Any]:
        """The attack's settings, version, library and code, and its batch, which is a block."""
        return {
            "kind": "library",
            "attack": without_addresses(self.attack),
            "versions": self.versions,
            "library": library_version(self.library),
            "batch": "a block",
            "code": self.code,
        }

    def techniques(self, pipeline: DefendedModel) -> dict[str, str]:
        """A single technique: `eot` if the attack averages over a randomised pipeline, else the attack's kind."""
        averaged = self.averages and pipeline.randomised
        return {"": technique("eot" if averaged else self.kind, pipeline)}

    def harder(self) -> LibraryExecutable:
        """Twice the steps or queries and one more restart."""
        return replace(self, attack=doubled(self.attack))

    def attempt(self, trial: Trial) -> list[Outcome]:
        """Call the attack once for all samples."""
        attack = self.remake(trial.threat)
        points, forwards, backwards = run_whole(attack, trial.victim, trial.images, trial.labels, trial.seed)
        every = torch.arange(len(trial.labels), device=trial.labels.device)
        won = trial.verify(points, every, torch.zeros_like(every)).success.tolist()
        return [Outcome(i, points[i].clone() if broken else None, forwards, backwards) for i, broken in enumerate(won)]


@dataclass(frozen=True)
class NaiveExecutable(LibraryExecutable):
    """An attack that ignores the defense: it receives the pipeline itself, without BPDA."""

    needs_profile: ClassVar[bool] = True

    def victim(self, pipeline: DefendedModel, profile: PipelineProfile | None) -> nn.Module:
        """The pipeline, or its undefended twin if autograd does not reach the input."""
        unreached = profile is not None and profile.gradients == "none"
        return pipeline.twin if unreached and pipeline.twin is not None else pipeline
