"""Accuracy under corruptions, sample by sample."""

from __future__ import annotations

import numpy as np

from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.rows.corruptions import ALEXNET, CorruptionAccuracy, _is_imagenet, corruption_of, mean_of
from gauntlet.leaderboard.stats.proportions import Proportion


def corruption_accuracy(results):
    """The accuracy under the corruptions among the cells of one model, defense, threat model and data; None without any."""
    labels = {}
    for result in results:
        if result.cell.corrupts:
            # Two suites may have the same corruption.
            labels.setdefault(result.cell.attack, {}).setdefault(result.cell.seed, result)
    if not labels:
        return None
    right = {label: _right_shares(list(seeds.values())) for label, seeds in labels.items()}
    shares = [samples for samples in right.values() if not isinstance(samples, str)]
    corrupted = [result for seeds in labels.values() for result in seeds.values()]
    common = set.intersection(*(set(samples) for samples in shares)) if len(shares) == len(right) else set[str]()
    names = [name for name in shares[0] if name in common] if shares else []
    table = np.array([[samples[name] for name in names] for samples in shares]).reshape(len(shares), len(names))
    by_label = {
        label: samples if isinstance(samples, str) else float(np.mean(list(samples.values())))
        for label, samples in right.items()
    }
    return CorruptionAccuracy(
        mean=mean_of(table.mean(0) if names else np.empty(0)),
        by_label=by_label,
        by_severity=_severities(corrupted),
        alexnet=_relative_to_alexnet(corrupted, by_label),
        seconds=sum(cells.costs(result).seconds for result in corrupted),
    )


def by_severity(result):
    """Accuracy at each severity of a corruption's cell; empty for other cells, and before the first block."""
    if not result.cell.corrupts or not result.blocks:
        return {}
    wrong = [set(map(int, text.split())) for block in result.blocks for text in block.samples.severities]
    return {
        severity: Proportion(sum(severity not in severities for severities in wrong), len(wrong))
        for severity in sorted(result.blocks[0].cell.severities)
    }


def accuracy(result):
    """Mean accuracy of a corruption's cell over its severities."""
    return mean_of(1 - cells.outcomes(result).wrong_share)


def _right_shares(seeds):
    """Share of the severities at which each sample is classified correctly, a mean over the seeds."""
    states = {cells.status(result) for result in seeds}
    if states != {"ok"}:
        return "error" if "error" in states else "–"
    outcomes = [cells.outcomes(result) for result in seeds]
    shares = [dict(zip(seed.id.tolist(), (1 - seed.wrong_share).tolist(), strict=True)) for seed in outcomes]
    common = set.intersection(*(set(seed) for seed in shares))
    return {name: float(np.mean([seed[name] for seed in shares])) for name in shares[0] if name in common}


def _severities(results):
    finished = [by_severity(result) for result in results if cells.status(result) == "ok"]
    common = set.intersection(*(set(severities) for severities in finished)) if finished else set[int]()
    return {
        severity: float(np.mean([severities[severity].estimate for severities in finished]))
        for severity in sorted(common)
    }


def _relative_to_alexnet(results, by_label):
    """The mean corruption error relative to AlexNet's; None unless all of AlexNet's corruptions were measured on ImageNet."""
    errors = {}
    for result in results:
        right = by_label[result.cell.attack]
        if isinstance(right, str) or len(by_severity(result)) < 5 or not _is_imagenet(result.cell):
            continue
        errors.setdefault(corruption_of(result.cell), 1 - right)
    if not set(ALEXNET) <= set(errors):
        return None
    return float(np.mean([errors[name] / published for name, published in ALEXNET.items()]))
