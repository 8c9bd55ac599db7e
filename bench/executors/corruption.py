"""Corruptions as cells: every sample at every severity, right when clean or not, judged on the model itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from gauntlet.bench.corruptions.corrupt import corrupt
from gauntlet.bench.corruptions.entries import Corruption
from gauntlet.bench.environment.device import peak_memory, synchronised_time
from gauntlet.bench.executors.native import Finished, Settings
from gauntlet.bench.prepare.prepare import Prepared
from gauntlet.bench.verify.sample_record import Clean
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.leaderboard.results.record import DRAWS, Samples, Stats


@dataclass(frozen=True)
class Judged:
    """What the model makes of corrupted images, arrays (S, N): a row for each severity."""

    wrong: npt.NDArray[np.bool_]
    """Where the prediction is not the label; of a randomised model the most frequent one counts. A rejection is no label."""
    margin: npt.NDArray[np.float64]
    """Logit of the label minus the largest other one."""
    prediction: npt.NDArray[np.int64]

    def severities(self, asked: Sequence[int]) -> list[str]:
        """For each sample, those of the severities `asked` at which it is misclassified, separated by blanks."""
        return [" ".join(str(one) for one, hit in zip(asked, hits, strict=True) if hit) for hits in self.wrong.T]


def run_corruption(
    prepared: Prepared, verify: Verifier, clean: Clean, places: Sequence[range], settings: Settings
) -> Iterator[Finished]:
    """Judge each block at each severity. Nobody is spared: who is wrong when clean may be right when corrupted."""
    for number, place in enumerate(places):
        with peak_memory(settings.device) as peak:
            began = synchronised_time()
            found = judged(prepared, verify, place)
            seconds = synchronised_time() - began
        samples = _samples(prepared, verify, clean.measured.prediction[place.start : place.stop].numpy(), found, place)
        yield Finished(number, [], Stats(seconds, peak.mib), samples=samples)


def judged(prepared: Prepared, verify: Verifier, place: range) -> Judged:
    """The verifier's samples at `place`, corrupted at each severity of the prepared cell's corruption."""
    attack, info = prepared.attack, prepared.cell.info
    assert isinstance(attack, Corruption)
    # A corruption has no goal: without the threat model's target.
    judge = Verifier(
        prepared.defended,
        verify.images,
        verify.labels,
        verify.ids,
        replace(prepared.cell.threat, target=""),
        seed=info.seed,
        randomised=info.randomised,
        rejects=prepared.defended.rejects,
    )
    rows = torch.arange(place.start, place.stop, device=verify.labels.device)
    images, ids = verify.images[rows], [verify.ids[row] for row in place]
    measured = [
        judge.measure(corrupt(images, ids, attack.name, severity, seed=info.seed, table=attack.table), rows)
        for severity in attack.severities
    ]
    prediction = torch.stack([one.prediction for one in measured])
    return Judged(
        (prediction != verify.labels[rows].cpu()).numpy(),
        torch.stack([one.margin for one in measured]).numpy(),
        prediction.numpy(),
    )


def _samples(
    prepared: Prepared, verify: Verifier, clean: npt.NDArray[np.int64], found: Judged, place: range
) -> Samples:
    attack = prepared.attack
    assert isinstance(attack, Corruption)
    labels = verify.labels[place.start : place.stop].cpu().numpy()
    count = len(labels)
    ever: npt.NDArray[np.bool_] = np.logical_or.reduce(found.wrong)
    passes = len(attack.severities) * (2 * DRAWS if prepared.cell.info.randomised else 1)
    first = found.prediction[found.wrong.argmax(0), np.arange(count)]
    return Samples(
        id=np.array([verify.ids[row] for row in place], dtype=np.str_),
        label=labels,
        clean_prediction=clean,
        prediction=np.where(ever, first, clean),
        robust=(clean == labels) & ~ever,
        distance=np.full(count, np.nan),
        margin=found.margin.min(0),
        forwards=np.full(count, float(passes)),
        backwards=np.zeros(count),
        steps=np.full(count, -1, dtype=np.int64),
        wrong_share=found.wrong.mean(0),
        wrong_share_scored=ever.astype(np.float64),
        adversarial=[None] * count,
        stage=tuple(found.severities(attack.severities)),
    )
