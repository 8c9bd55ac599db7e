"""Accuracy under common corruptions: independent of attacks, ranks, brackets and gates.

Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR 2019 (arXiv
1903.12261), section 4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.results.record import CellInfo
from gauntlet.leaderboard.results.sample_set import SampleSet, numbered, sample_set
from gauntlet.leaderboard.results.summary import AnyResult, CellSummary, summaries
from gauntlet.leaderboard.stats.proportions import CONFIDENCE, Proportion

_RESAMPLES = 2000
ALEXNET: Mapping[str, float] = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""Errors of AlexNet on the 15 corruptions of ImageNet-C, means over the five severities.

From the code of AugMix (github.com/google-research/augmix, imagenet.py), whose authors took them from the benchmark's authors.
"""


@dataclass(frozen=True)
class MeanAccuracy:
    """A mean of shares in [0, 1] over samples, with its 95 % interval."""

    estimate: float
    interval: tuple[float, float]
    n: int


@dataclass(frozen=True)
class CorruptionAccuracy:
    """Accuracy of a row under corruptions, over the samples that all of them covered."""

    mean: MeanAccuracy
    """Over corruptions and severities, each corruption weighted equally; NaN if one failed or is not finished."""
    by_label: Mapping[str, float | Literal["error", "–"]]
    """Mean over the severities and seeds of each corruption; `error` if it failed, `–` if it has not finished."""
    by_severity: Mapping[int, float]
    """Mean over the corruptions that have finished, at each severity that all of them have."""
    alexnet: float | None
    """Mean corruption error relative to AlexNet's; None except for ImageNet and all 15 corruptions at all severities."""
    seconds: float
    """Time for making the corrupted images and classifying them."""

    @property
    def error(self) -> float:
        """The mean corruption error (mCE), not normalised."""
        return 1 - self.mean.estimate


def corruption_accuracy(results: Sequence[AnyResult]) -> CorruptionAccuracy | None:
    """The accuracy under the corruptions among the cells of one model, defense, threat model and data; None without any."""
    labels: dict[str, dict[int, CellSummary]] = {}
    for result in summaries(results):
        if result.cell.corrupts:
            # Two suites may have the same corruption.
            labels.setdefault(result.cell.attack, {}).setdefault(result.cell.seed, result)
    if not labels:
        return None
    right = {label: _right_shares(list(seeds.values())) for label, seeds in labels.items()}
    shares = [samples for samples in right.values() if not isinstance(samples, str)]
    corrupted = [result for seeds in labels.values() for result in seeds.values()]
    table = _common_shares(shares)[1] if len(shares) == len(right) else np.empty((0, 0))
    by_label = {
        label: samples if isinstance(samples, str) else float(np.mean(samples[1])) for label, samples in right.items()
    }
    return CorruptionAccuracy(
        mean=mean_of(table.mean(0) if table.size else np.empty(0)),
        by_label=by_label,
        by_severity=_severities(corrupted),
        alexnet=_relative_to_alexnet(corrupted, by_label),
        seconds=sum(result.costs.seconds for result in corrupted),
    )


def by_severity(result: AnyResult) -> dict[int, Proportion]:
    """Accuracy at each severity of a corruption's cell; empty for other cells, and before the first block."""
    (own,) = summaries([result])
    return {severity: Proportion(right, len(own)) for severity, right in own.severities.items()}


def accuracy(result: AnyResult) -> MeanAccuracy:
    """Mean accuracy of a corruption's cell over its severities."""
    (own,) = summaries([result])
    return mean_of(1 - own.wrong_shares)


def mean_of(values: npt.NDArray[np.float64]) -> MeanAccuracy:
    """The mean of shares (N,), one per sample, with a percentile interval from 2,000 bootstrap resamples (fixed seed).

    Samples are resampled, not images: all corruptions of a sample are kept together. If all values are 0 or all are 1, the
    bootstrap has no spread, and the interval is that of Clopper and Pearson. NaN if there are no samples.
    """
    n = len(values)
    if n == 0:
        return MeanAccuracy(np.nan, (np.nan, np.nan), 0)
    mean = float(values.mean())
    levels, counts = np.unique(values, return_counts=True)
    if len(levels) == 1 and levels[0] in (0, 1):
        return MeanAccuracy(mean, Proportion(round(n * mean), n).interval, n)
    # Drawing the number of times that each value occurs is equivalent to drawing samples, and cheaper.
    drawn = np.random.default_rng(0).multinomial(n, counts / n, size=_RESAMPLES) @ levels / n
    tail = (1 - CONFIDENCE) / 2
    low, high = (float(end) for end in np.quantile(drawn, (tail, 1 - tail)))
    return MeanAccuracy(mean, (low, high), n)


Shares = tuple[SampleSet, npt.NDArray[np.float64]]
"""A share for each sample, (N,), or several, (K, N)."""


def _right_shares(seeds: Sequence[CellSummary]) -> Shares | Literal["error", "–"]:
    """Share of the severities at which each sample is classified correctly, a mean over the seeds."""
    states = {result.status for result in seeds}
    if states != {"ok"}:
        return "error" if "error" in states else "–"
    samples, shares = _common_shares([(seed.samples, 1 - seed.wrong_shares) for seed in seeds])
    return samples, np.ascontiguousarray(shares.T).mean(axis=1)


def _common_shares(parts: Sequence[Shares]) -> Shares:
    """The samples that all parts have, in the order of the first, with their shares in each part."""
    first = parts[0][0]
    if all(samples is first for samples, _ in parts):
        return first, np.stack([shares for _, shares in parts])
    count, numbers = numbered([samples for samples, _ in parts])
    table = np.full((len(parts), count), np.nan)
    covered = np.zeros((len(parts), count), np.bool_)
    for row, number in enumerate(numbers):
        table[row, number], covered[row, number] = parts[row][1], True
    common = covered[:, numbers[0]].all(axis=0)
    return sample_set(first.id[common], first.label[common]), table[:, numbers[0][common]]


def _severities(results: Sequence[CellSummary]) -> dict[int, float]:
    finished = [by_severity(result) for result in results if result.status == "ok"]
    common = set.intersection(*(set(severities) for severities in finished)) if finished else set[int]()
    return {
        severity: float(np.mean([severities[severity].estimate for severities in finished]))
        for severity in sorted(common)
    }


def _relative_to_alexnet(results: Sequence[CellSummary], by_label: Mapping[str, float | str]) -> float | None:
    """The mean corruption error relative to AlexNet's; None unless all of AlexNet's corruptions were measured on ImageNet."""
    errors: dict[str, float] = {}
    for result in results:
        right = by_label[result.cell.attack]
        if isinstance(right, str) or len(by_severity(result)) < 5 or not _is_imagenet(result.cell):
            continue
        errors.setdefault(corruption_of(result.cell), 1 - right)
    if not set(ALEXNET) <= set(errors):
        return None
    return float(np.mean([errors[name] / published for name, published in ALEXNET.items()]))


def corruption_of(cell: CellInfo) -> str:
    """The name of the cell's corruption, which may differ from its label."""
    return cell.attack_spec.partition(":")[0].removeprefix("corruption.")


def _is_imagenet(cell: CellInfo) -> bool:
    return re.match(r"imagenet(?![\w-])", cell.data) is not None
