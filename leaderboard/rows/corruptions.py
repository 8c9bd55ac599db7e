"""Accuracy under common corruptions: a figure of its own, which no attack, rank, bracket or gate has a part in.

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

from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import CORRUPTION, CellInfo, CellResult
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
"""Errors of AlexNet on ImageNet-C, means over the five severities: the 15 corruptions of which the benchmark is made.

As in the authors' code of AugMix (github.com/google-research/augmix, imagenet.py), which has them from the benchmark's authors.
"""


@dataclass(frozen=True)
class Mean:
    """A mean over samples of shares in [0, 1], with its 95 % interval."""

    estimate: float
    interval: tuple[float, float]
    n: int


@dataclass(frozen=True)
class CorruptionAccuracy:
    """What corruptions leave of a row's accuracy, over the samples that all of them covered."""

    mean: Mean
    """Over corruptions and severities, each corruption counting the same; NaN where one failed or is not finished."""
    by_label: Mapping[str, float | Literal["error", "–"]]
    """Mean over the severities, of all seeds together; or what stands in its place: it failed, or it has not finished."""
    by_severity: Mapping[int, float]
    """Mean over the corruptions that have finished, at each severity that all of these have."""
    alexnet: float | None
    """Mean corruption error in proportion to AlexNet's; None but for ImageNet and all 15 corruptions at all severities."""
    seconds: float
    """Of making the corrupted images and judging them."""

    @property
    def error(self) -> float:
        """The mean corruption error (mCE), not normalised."""
        return 1 - self.mean.estimate


def corruption_accuracy(results: Sequence[CellResult]) -> CorruptionAccuracy | None:
    """What the cells of one model, defense, threat model and data say; None where there are no corruptions among them."""
    labels: dict[str, dict[int, CellResult]] = {}
    for result in results:
        if result.cell.attack_kind == CORRUPTION:
            # Two suites may have the same corruption.
            labels.setdefault(result.cell.attack, {}).setdefault(result.cell.seed, result)
    if not labels:
        return None
    right = {label: _right(list(seeds.values())) for label, seeds in labels.items()}
    shares = [one for one in right.values() if not isinstance(one, str)]
    every = [result for seeds in labels.values() for result in seeds.values()]
    common = set.intersection(*(set(one) for one in shares)) if len(shares) == len(right) else set[str]()
    names = [name for name in shares[0] if name in common] if shares else []
    table = np.array([[one[name] for name in names] for one in shares]).reshape(len(shares), len(names))
    by_label = {label: one if isinstance(one, str) else _average(one) for label, one in right.items()}
    return CorruptionAccuracy(
        mean_of(table.mean(0) if names else np.empty(0)),
        by_label,
        _severities(every),
        _relative(every, by_label),
        sum(cells.costs(result).seconds for result in every),
    )


def by_severity(result: CellResult) -> dict[int, Proportion]:
    """Accuracy at each severity of a corruption's cell; empty for other cells, and before its first block."""
    if result.cell.attack_kind != CORRUPTION or not result.blocks:
        return {}
    wrong = [set(map(int, text.split())) for block in result.blocks for text in block.samples.stage]
    return {
        severity: Proportion(sum(severity not in one for one in wrong), len(wrong))
        for severity in sorted(map(int, result.blocks[0].cell.ways))
    }


def accuracy(result: CellResult) -> Mean:
    """Mean accuracy of a corruption's cell over its severities."""
    return mean_of(1 - cells.outcomes(result).wrong_share)


def told(result: CellResult) -> str:
    """What a cell with results found, in a few words: of an attack the robust accuracy, of a corruption the accuracy."""
    if result.cell.attack_kind == CORRUPTION:
        return f"accuracy {100 * accuracy(result).estimate:.1f} %, mean over its severities"
    return f"robust {100 * cells.robust_accuracy(result).estimate:.1f} %"


def mean_of(values: npt.NDArray[np.float64]) -> Mean:
    """The mean of shares (N,), one a sample, with an interval from 2,000 bootstrap samples of the samples (percentiles, seeded).

    Samples are drawn, not images: all corruptions of one sample stand or fall together. Where all values are 0 or all are 1 there
    is nothing to draw from, and the interval is that of Clopper and Pearson. NaN where there are no samples.
    """
    n = len(values)
    if n == 0:
        return Mean(np.nan, (np.nan, np.nan), 0)
    mean = float(values.mean())
    levels, counts = np.unique(values, return_counts=True)
    if len(levels) == 1 and levels[0] in (0, 1):
        return Mean(mean, Proportion(round(n * mean), n).interval, n)
    # Drawing how often each value occurs is drawing the samples themselves, and costs less.
    drawn = np.random.default_rng(0).multinomial(n, counts / n, size=_RESAMPLES) @ levels / n
    tail = (1 - CONFIDENCE) / 2
    low, high = (float(end) for end in np.quantile(drawn, (tail, 1 - tail)))
    return Mean(mean, (low, high), n)


def _right(seeds: Sequence[CellResult]) -> dict[str, float] | Literal["error", "–"]:
    """Share of the severities at which each sample is right, a mean over the seeds."""
    states = {cells.status(result) for result in seeds}
    if states != {"ok"}:
        return "error" if "error" in states else "–"
    found = [cells.outcomes(result) for result in seeds]
    shares = [dict(zip(one.id.tolist(), (1 - one.wrong_share).tolist(), strict=True)) for one in found]
    common = set.intersection(*(set(one) for one in shares))
    return {name: float(np.mean([one[name] for one in shares])) for name in shares[0] if name in common}


def _severities(results: Sequence[CellResult]) -> dict[int, float]:
    found = [by_severity(result) for result in results if cells.status(result) == "ok"]
    common = set.intersection(*(set(one) for one in found)) if found else set[int]()
    return {severity: float(np.mean([one[severity].estimate for one in found])) for severity in sorted(common)}


def _average(right: Mapping[str, float]) -> float:
    return float(np.mean(list(right.values())))


def _relative(results: Sequence[CellResult], by_label: Mapping[str, float | str]) -> float | None:
    """The mean corruption error in proportion to AlexNet's, where the question is the one that AlexNet was asked."""
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
    """The corruption's name, whatever its label."""
    return cell.attack_spec.partition(":")[0].removeprefix(f"{CORRUPTION}.")


def _is_imagenet(cell: CellInfo) -> bool:
    return re.match(r"imagenet(?![\w-])", cell.data) is not None
