"""Replay of adversarial examples between a baseline and a run, in both directions or not at all.

A sample is broken without an attack if its example in the baseline breaks the current model. A sample is not lost if its new
example also breaks the model of the baseline: the earlier attack had missed it. Replay in one direction alone would count the
luck of an attack as robustness that was lost or gained.
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
"""Largest difference between the stored and the present logits of the baseline's model, relative to the largest logit."""

Image = npt.NDArray[np.floating]


class CrossReplay:
    """Replays the adversarial examples of one run against the other run's model. Positions are those of the baseline's bits."""

    def __init__(
        self,
        prepared: Prepared,
        settings: RunSettings,
        places: Sequence[int],
        old: BaselineCell | None,
        artifact: Artifact | None,
        absent: str = "",
    ) -> None:
        """`places` are indices into the data; `absent` says why there is no artifact."""
        self._prepared, self._settings, self._places = prepared, settings, places
        self._old, self._artifact, self._absent = old, artifact, absent
        self._tried: set[int] = set()
        self._asked = False
        self.most = limit(prepared.cell.threat)
        """The largest distance of an example that counts."""
        self.forwards = 0.0
        """Forward passes of the replays."""

    @property
    def reason(self) -> str:
        """Why nothing is replayed; empty if examples are replayed, or if no replay was needed."""
        return self._then[1] if self._asked or self._artifact is None else ""

    def breaks_now(self, positions: Sequence[int]) -> list[int]:
        """The positions whose example in the baseline breaks the current model; each is tried once."""
        fresh = [at for at in positions if at not in self._tried]
        if not fresh or not self._can():
            return []
        self._tried.update(fresh)
        known = self._examples
        return self._broken(self._prepared.defended, {at: known[at] for at in fresh if at in known})

    def broke_before(self, examples: Mapping[int, Image]) -> list[int]:
        """The positions whose example breaks the model of the baseline."""
        if not examples or not self._can():
            return []
        pipeline = self._then[0]
        assert pipeline is not None
        return self._broken(pipeline, examples)

    def _can(self) -> bool:
        self._asked = True
        return self._then[0] is not None

    @cached_property
    def _then(self) -> tuple[DefendedModel | None, str]:
        """The pipeline with the weights of the baseline, or None with the reason."""
        if self._artifact is None or self._old is None:
            return None, self._absent
        if not self._settings.keep_adversarials:
            return None, "no replay: examples are not stored (--no-adversarials)"
        file = self._artifact.weights(self._old.weights)
        if file is None:
            return None, "no replay: the artifact lacks the weights of the baseline's model"
        try:
            pipeline = copy.deepcopy(self._prepared.defended)
            model = next(part for part in pipeline.modules() if isinstance(part, Classifier))
            restore(model, file, self._old.weights)
        except ArtifactError as error:
            return None, f"no replay: {error}"
        except Exception as error:  # a user's model may refuse to be copied in its own way
            return None, f"no replay: the current model cannot be copied ({type(error).__name__}: {error})"
        if not self._answers_as_then(pipeline):
            return None, "no replay: with the weights of the baseline the current code gives other logits"
        return pipeline, ""

    def _answers_as_then(self, pipeline: DefendedModel) -> bool:
        logits = self._records[0].clean_logits
        if logits is None:
            return True
        with frozen(pipeline, self._prepared.cell.info.seed):
            now = self._verifier(pipeline, range(len(logits))).logits(self._images(range(len(logits))))
        self.forwards += len(logits)
        given = now.to(torch.float64).cpu().numpy()
        return given.shape == logits.shape and bool(
            np.allclose(given, logits, rtol=0, atol=_SAME * float(np.abs(logits).max()))
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
                f"{self._artifact.folder} lacks blocks of the baseline ({error}): fetch it again, or accept the "
                "run again with --artifact"
            ) from error
        if sum(len(record.samples) for record in records) != self._old.n:
            raise ArtifactError(
                f"{self._artifact.folder} belongs to another baseline: fetch the right one, or accept the run again"
            )
        return records

    @cached_property
    def _examples(self) -> dict[int, Image]:
        """By position."""
        pairs = [
            (image, distance)
            for record in self._records
            for image, distance in zip(record.samples.adversarial, record.samples.distance, strict=True)
        ]
        return {at: image for at, (image, distance) in enumerate(pairs) if image is not None and distance <= self.most}

    def _broken(self, pipeline: DefendedModel, examples: Mapping[int, Image]) -> list[int]:
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
        chosen = [self._places[at] for at in positions]
        return self._prepared.data.images[chosen].to(self._settings.device)

    def _verifier(self, pipeline: DefendedModel, positions: Sequence[int]) -> Verifier:
        chosen = [self._places[at] for at in positions]
        return Verifier.of(self._prepared, chosen, pipeline, minimum_norm=False)
