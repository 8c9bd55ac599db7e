"""Cross replay for a gate: the examples of each side are tried on the model of the other side.

A baseline's example that breaks the model now leaves its sample broken without an attack. A new example that also breaks the
baseline's model shows that the baseline's attack had missed it, so its sample is not lost. Replay in one direction only would
count an attack's luck as robustness lost or gained; so both directions are replayed, or neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gauntlet.attacks.ops.threat import limit
from gauntlet.bench.gate.artifact import Artifact, ArtifactError
from gauntlet.bench.worker.messages import Failure, Message, Tried
from gauntlet.bench.worker.request import BaselineModel, Request, TryExamples
from gauntlet.bench.worker.seam import Work, answer
from gauntlet.leaderboard.gate.baseline import BaselineCell
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.record import Record

Image = npt.NDArray[np.floating]


class ReplayError(RuntimeError):
    """The worker failed while it tried examples."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class CrossReplay:
    """Replays adversarial examples between a run and its baseline. Positions are those of the baseline's bits."""

    def __init__(
        self,
        request: Request,
        work: Work,
        indices: Sequence[int],
        old: BaselineCell | None,
        artifact: Artifact | None,
        no_artifact: str = "",
    ) -> None:
        """`indices`: of the samples in the data, by position; `no_artifact`: why there is no artifact."""
        self._request, self._work, self._indices = request, work, indices
        self._old, self._artifact, self._no_artifact = old, artifact, no_artifact
        self._replayed: set[int] = set()
        self._requested = self._sent = False
        self.radius = limit(request.cell.threat)
        """The largest distance of a valid example."""
        self.forwards = 0.0
        """Number of forward passes of all replays."""

    @property
    def reason(self) -> str:
        """Why nothing is replayed; empty if examples are replayed, or if no replay was requested. Raises ReplayError."""
        return self._baseline[1] if self._requested or self._artifact is None else ""

    def broken_now(self, positions: Sequence[int]) -> list[int]:
        """The positions whose baseline example breaks the model now; each example is replayed once. Raises ReplayError."""
        fresh = [at for at in positions if at not in self._replayed]
        if not fresh or not self._is_possible():
            return []
        self._replayed.update(fresh)
        examples = self._examples
        return self._broken(None, {at: examples[at] for at in fresh if at in examples})

    def broken_before(self, examples: Mapping[int, Image]) -> list[int]:
        """The positions whose new example breaks the baseline's model. Raises ReplayError."""
        if not examples or not self._is_possible():
            return []
        return self._broken(self._baseline[0], examples)

    def _is_possible(self) -> bool:
        self._requested = True
        return self._baseline[0] is not None

    @cached_property
    def _baseline(self) -> tuple[BaselineModel | None, str]:
        """The baseline's model, or None and the reason."""
        if self._artifact is None or self._old is None:
            return None, self._no_artifact
        if not self._request.keep_adversarials:
            return None, "no replay: examples are not kept (--no-adversarials)"
        weights = self._artifact.weights(self._old.weights)
        if weights is None:
            return None, "no replay: the artifact has no weights of the baseline's model"
        stored = self._records[0].clean_logits
        logits = None if stored is None else tuple(map(tuple, stored.tolist()))
        samples = tuple(self._indices[: 0 if stored is None else len(stored)])
        baseline = BaselineModel(self._old.weights, weights, logits, samples)
        if reason := self._try(baseline, {}).reason:
            return None, reason
        return baseline, ""

    @cached_property
    def _records(self) -> list[Record]:
        assert self._artifact is not None
        assert self._old is not None
        try:
            keys = self._artifact.blocks[self._old.key]
            records = [self._artifact.store.read(key, adversarial=True) for key in keys]
        except (KeyError, StoreError) as error:
            raise ArtifactError(
                f"{self._artifact.folder} lacks blocks of the baseline ({error}): fetch it again, or accept the baseline "
                "again with --artifact"
            ) from error
        if sum(len(record.samples) for record in records) != self._old.n:
            raise ArtifactError(
                f"{self._artifact.folder} belongs to another baseline: fetch the right artifact, or accept the baseline again"
            )
        return records

    @cached_property
    def _examples(self) -> dict[int, Image]:
        """The baseline's valid adversarial examples, by position."""
        pairs = [
            (image, distance)
            for record in self._records
            for image, distance in zip(record.samples.adversarial, record.samples.distance, strict=True)
        ]
        return {
            at: image for at, (image, distance) in enumerate(pairs) if image is not None and distance <= self.radius
        }

    def _broken(self, baseline: BaselineModel | None, examples: Mapping[int, Image]) -> list[int]:
        """The positions whose example breaks the model, or the baseline's, by the verifier."""
        if not examples:
            return []
        return [at for at, broken in zip(examples, self._try(baseline, examples).broken, strict=True) if broken]

    def _try(self, baseline: BaselineModel | None, examples: Mapping[int, Image]) -> Tried:
        """Have the worker try the examples by position; without any, only the baseline's model is made."""
        images = np.stack(list(examples.values())) if examples else np.zeros((0, 1, 1, 1), np.float32)
        indices = tuple(self._indices[at] for at in examples)
        # Weights are large: a worker that has made the baseline's model keeps it.
        known = replace(baseline, weights=b"") if baseline is not None and self._sent else baseline
        message = self._tried(indices, images, known)
        if known is not baseline and isinstance(message, Tried) and message.needs_weights:
            message = self._tried(indices, images, baseline)
        self._sent = self._sent or baseline is not None
        if isinstance(message, Failure):
            raise ReplayError(message)
        if not isinstance(message, Tried) or len(message.broken) not in (0 if message.reason else len(examples),):
            raise ReplayError(Failure("WorkerMessageError", "the worker did not answer for each example", "", {}))
        self.forwards += message.forwards
        return message

    def _tried(self, indices: tuple[int, ...], images: Image, baseline: BaselineModel | None) -> Message:
        request = TryExamples(self._request.cell, indices, images, self._request.measured, baseline)
        return answer(self._work, request)
