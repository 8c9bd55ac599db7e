"""Corruptions: the model's predictions on every sample at every severity, without an attack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.ops.validators import one_of, whole_number
from gauntlet.bench.corruptions.catalog import CORRUPTIONS, PREFIX, SEVERITIES
from gauntlet.bench.corruptions.corrupt import corrupt
from gauntlet.bench.corruptions.severity_tables import TABLES
from gauntlet.bench.environment.clock import synchronised_time
from gauntlet.bench.environment.device import peak_memory
from gauntlet.bench.executors.executable import BlockBatch, BlockResult, Executable, Prepared
from gauntlet.bench.executors.remeasure import Remeasured
from gauntlet.bench.verify.sample_record import CleanEvaluation
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.leaderboard.results.record import DRAWS, Samples, Stats


@dataclass(frozen=True, kw_only=True)
class Corruption(Executable):
    """A corruption at one severity or, by default, at all five. The threat model is not used.

    `table`: the table of strengths, `cifar`, `tiny-imagenet` or `imagenet`; `auto` chooses by the size of the images.
    """

    name: str
    severity: int | None = None
    table: str = "auto"
    library: str = ""
    """The library that makes the images, with its version; empty if there is none."""

    version: ClassVar[int] = 1
    """Rises with every change of an image; part of the cache key."""

    def __post_init__(self) -> None:
        """Raises ValueError for a setting out of range."""
        if self.severity is not None:
            whole_number("severity", self.severity, SEVERITIES[0], SEVERITIES[-1])
        one_of("table", self.table, ("auto", *TABLES))

    @property
    def severities(self) -> tuple[int, ...]:
        """The severities at which each image is corrupted."""
        return SEVERITIES if self.severity is None else (self.severity,)

    @property
    def spec(self) -> str:
        """The corruption with its settings."""
        return f"{PREFIX}{self.name}: {self!r}"

    def run(self, batch: BlockBatch) -> Iterator[BlockResult]:
        """Measure each block at each severity.

        Samples that are misclassified when clean are evaluated too: they may be classified correctly when corrupted.
        """
        prepared, verify, clean = batch.prepared, batch.verify, batch.clean
        for number, place in enumerate(batch.places):
            with peak_memory(batch.settings.device) as peak:
                began = synchronised_time()
                judged = self._judge(prepared, place, verify)
                seconds = synchronised_time() - began
            samples = self._samples(prepared, verify, clean, judged, place)
            yield BlockResult(number, [], Stats(seconds, peak.mib), samples=samples)

    def key_parts(self, ids: Sequence[str]) -> dict[str, Any]:
        """The settings, the library, and the version."""
        return {"kind": "corruption", "corruption": repr(self), "versions": self.versions}

    def techniques(self, pipeline: DefendedModel) -> dict[str, str]:
        """A single technique with the name of the kind: a corruption is not an attack."""
        return {"": "corruption"}

    def remeasure(
        self, prepared: Prepared, verify: Verifier, samples: Samples, slack: npt.NDArray[np.float64]
    ) -> Remeasured:
        """Make the corrupted images again, and compare the severities at which each sample is misclassified."""
        judged = self._judge(prepared, range(len(samples)), verify)
        failures: list[str] = []
        boundary = 0
        stored = [{int(severity) for severity in text.split()} for text in samples.severities]
        for row, before in enumerate(stored):
            now = judged.severities(self.severities, row)
            differ = [at for at, severity in enumerate(self.severities) if (severity in before) != (severity in now)]
            if not differ or prepared.cell.info.randomised:
                continue
            if all(abs(judged.margin[at, row]) <= slack[row] for at in differ):
                boundary += 1
            else:
                now_text, before_text = (" ".join(map(str, sorted(one))) or "none" for one in (now, before))
                failures.append(f"{samples.id[row]}: misclassified at severities {now_text}, stored: {before_text}")
        shares = np.array([len(severities) for severities in stored]) / len(self.severities)
        unfit = (shares != samples.wrong_share) | (samples.robust != (samples.correct & (shares == 0)))
        if unfit.any() and not failures:
            failures.append(
                f"{samples.id[int(unfit.argmax())]}: the stored verdict does not follow from the severities"
            )
        return Remeasured(failures, 0, boundary, 0, int((samples.correct & ~judged.wrong.any(0)).sum()))

    def _judge(self, prepared: Prepared, place: range, verify: Verifier) -> _Measured:
        """Corrupt the verifier's samples at `place` at each severity, and measure them."""
        seed = prepared.cell.info.seed
        # A corruption has no target.
        judge = verify.untargeted()
        rows = torch.arange(place.start, place.stop, device=verify.labels.device)
        images, ids = verify.images[rows], [verify.ids[row] for row in place]
        measured = [
            judge.measure(corrupt(images, ids, self.name, severity, seed=seed, table=self.table), rows)
            for severity in self.severities
        ]
        prediction = torch.stack([one.prediction for one in measured])
        return _Measured(
            (prediction != verify.labels[rows].cpu()).numpy(),
            torch.stack([one.margin for one in measured]).numpy(),
            prediction.numpy(),
        )

    def _samples(
        self, prepared: Prepared, verify: Verifier, clean: CleanEvaluation, judged: _Measured, place: range
    ) -> Samples:
        labels = verify.labels[place.start : place.stop].cpu().numpy()
        when_clean = clean.measured.prediction[place.start : place.stop].numpy()
        count = len(labels)
        ever: npt.NDArray[np.bool_] = np.logical_or.reduce(judged.wrong)
        passes = len(self.severities) * (2 * DRAWS if prepared.cell.info.randomised else 1)
        first = judged.prediction[judged.wrong.argmax(0), np.arange(count)]
        rows = range(count)
        return Samples(
            id=np.array([verify.ids[row] for row in place], dtype=np.str_),
            label=labels,
            clean_prediction=when_clean,
            prediction=np.where(ever, first, when_clean),
            robust=(when_clean == labels) & ~ever,
            distance=np.full(count, np.nan),
            margin=judged.margin.min(0),
            forwards=np.full(count, float(passes)),
            backwards=np.zeros(count),
            steps=np.full(count, -1, dtype=np.int64),
            wrong_share=judged.wrong.mean(0),
            wrong_share_scored=ever.astype(np.float64),
            adversarial=[None] * count,
            severities=tuple(" ".join(map(str, sorted(judged.severities(self.severities, row)))) for row in rows),
        )


@dataclass(frozen=True)
class _Measured:
    """The model's outputs on corrupted images, arrays (S, N) with a row for each severity."""

    wrong: npt.NDArray[np.bool_]
    """Whether the prediction differs from the label. For a randomised model, the most frequent prediction counts."""
    margin: npt.NDArray[np.float64]
    """Logit of the label minus the largest other logit."""
    prediction: npt.NDArray[np.int64]

    def severities(self, tried: Sequence[int], row: int) -> set[int]:
        """The severities among `tried` at which sample number `row` is misclassified."""
        return {severity for severity, wrong in zip(tried, self.wrong[:, row], strict=True) if wrong}


def build(name: str, /, threat: ThreatModel, **settings: Any) -> Corruption:
    """The corruption of that name. Raises ValueError for invalid settings, or if a required library is missing."""
    unknown = [setting for setting in settings if setting not in ("severity", "table")]
    if unknown:
        raise ValueError(f"{PREFIX}{name} has no setting {unknown[0]!r}: it has severity, table")
    return Corruption(name=name, library=_library(name), **settings)


def _library(name: str) -> str:
    for library in CORRUPTIONS[name].uses:
        try:
            return f"{library} {version(library)}"
        except PackageNotFoundError:
            continue
    if CORRUPTIONS[name].uses:
        raise ValueError(
            f"{PREFIX}{name} needs the library {CORRUPTIONS[name].uses[0]}: pip install 'robust-gauntlet[corruptions]'"
        )
    return ""
