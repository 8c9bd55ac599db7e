"""Cross replay for a gate: the examples of each side are tried on the model of the other side.

A baseline's example that breaks the model now leaves its sample broken without an attack. A new example that also breaks the
baseline's model shows that the baseline's attack had missed it, so its sample is not lost. Replay in one direction only would
count an attack's luck as robustness lost or gained; so both directions are replayed, or neither.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from gauntlet.attacks.ops.norms import limit
from gauntlet.bench.executors.executable import Prepared, RunSettings
from gauntlet.bench.gate.artifact import Artifact, ArtifactError, restore
from gauntlet.bench.models.parts.classifier import Classifier
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.bench.worker.attack_blocks import frozen
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.leaderboard.gate.baseline import BaselineCell
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.record import DRAWS, Record

_SAME = 1e-3
"""Allowed difference from the baseline's logits, relative to the largest: rounding on another device."""

Image = npt.NDArray[np.floating]


class CrossReplay:
    """Replays adversarial examples between a run and its baseline. Positions are those of the baseline's bits."""

    def __init__(
        self,
        prepared: Prepared,
        settings: RunSettings,
        indices: Sequence[int],
        old: BaselineCell | None,
        artifact: Artifact | None,
        no_artifact: str = "",
    ) -> None:
        """`indices`: of the samples in the data, by position; `no_artifact`: why there is no artifact."""
        self._prepared, self._settings, self._indices = prepared, settings, indices
        self._old, self._artifact, self._no_artifact = old, artifact, no_artifact
        self._replayed: set[int] = set()
        self._requested = False
        self.radius = limit(prepared.cell.threat)
        """The largest distance of a valid example."""
        self.forwards = 0.0
        """Number of forward passes of all replays."""

    @property
    def reason(self) -> str:
        """Why nothing is replayed; empty if examples are replayed, or if no replay was requested."""
        return self._baseline_pipeline[1] if self._requested or self._artifact is None else ""

    def broken_now(self, positions: Sequence[int]) -> list[int]:
        """The positions whose baseline example breaks the model now; each example is replayed once."""
        fresh = [at for at in positions if at not in self._replayed]
        if not fresh or not self._is_possible():
            return []
        self._replayed.update(fresh)
        examples = self._examples
        return self._broken(self._prepared.defended, {at: examples[at] for at in fresh if at in examples})

    def broken_before(self, examples: Mapping[int, Image]) -> list[int]:
        """The positions whose new example breaks the baseline's model."""
        if not examples or not self._is_possible():
            return []
        pipeline = self._baseline_pipeline[0]
        assert pipeline is not None
        return self._broken(pipeline, examples)

    def _is_possible(self) -> bool:
        self._requested = True
        return self._baseline_pipeline[0] is not None

    @cached_property
    def _baseline_pipeline(self) -> tuple[DefendedModel | None, str]:
        """The pipeline with the baseline's weights, or None and the reason."""
        if self._artifact is None or self._old is None:
            return None, self._no_artifact
        if not self._settings.keep_adversarials:
            return None, "no replay: examples are not kept (--no-adversarials)"
        file = self._artifact.weights(self._old.weights)
        if file is None:
            return None, "no replay: the artifact has no weights of the baseline's model"
        try:
            pipeline = copy.deepcopy(self._prepared.defended)
            model = next(part for part in pipeline.modules() if isinstance(part, Classifier))
            restore(model, file, self._old.weights)
        except ArtifactError as error:
            return None, f"no replay: {error}"
        except Exception as error:  # copying a user's model may raise anything
            return None, f"no replay: the current model cannot be copied ({type(error).__name__}: {error})"
        if not self._matches_stored_logits(pipeline):
            return None, "no replay: the current code with the baseline's weights does not give the baseline's logits"
        return pipeline, ""

    def _matches_stored_logits(self, pipeline: DefendedModel) -> bool:
        logits = self._records[0].clean_logits
        if logits is None:
            return True
        with frozen(pipeline, self._prepared.cell.info.seed):
            now = self._verifier(pipeline, range(len(logits))).logits(self._images(range(len(logits))))
        self.forwards += len(logits)
        computed = now.to(torch.float64).cpu().numpy()
        return computed.shape == logits.shape and bool(
            np.allclose(computed, logits, rtol=0, atol=_SAME * float(np.abs(logits).max()))
        )

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

    def _broken(self, pipeline: DefendedModel, examples: Mapping[int, Image]) -> list[int]:
        """The positions whose example breaks the pipeline, by the verifier."""
        if not examples:
            return []
        positions = list(examples)
        points = torch.stack([torch.tensor(examples[at]) for at in positions]).to(self._images(positions[:1]))
        with frozen(pipeline, self._prepared.cell.info.seed):
            rows = torch.arange(len(positions), device=points.device)
            verdict = self._verifier(pipeline, positions)(points, rows, torch.zeros_like(rows))
        self.forwards += len(positions) * (DRAWS if self._prepared.cell.info.randomised else 1)
        return [at for at, won in zip(positions, verdict.success.tolist(), strict=True) if won]

    def _images(self, positions: Sequence[int]) -> torch.Tensor:
        chosen = [self._indices[at] for at in positions]
        return self._prepared.data.images[chosen].to(self._settings.device)

    def _verifier(self, pipeline: DefendedModel, positions: Sequence[int]) -> Verifier:
        chosen = [self._indices[at] for at in positions]
        return Verifier.of(self._prepared, chosen, pipeline, minimum_norm=False)
