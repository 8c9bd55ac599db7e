"""What each attack broke, sample by sample."""

from __future__ import annotations

import numpy as np

from gauntlet.leaderboard.compare.broken_by import BrokenBy
from gauntlet.leaderboard.results import cell_summary as cells


def broken_by(worst, results):
    """The numbers for each attack of a row, on the samples of its worst case. Certificates and corruptions are not attacks.

    For a randomised model each attack is judged on its own scoring draws, so that the numbers need not add up to the row's.
    """
    labels = {}
    for result in results:
        if result.cell.adversarial:
            labels.setdefault(result.cell.attack, []).append(result)
    ids = [str(name) for name in worst.id]
    broken = {label: _broken(members, ids) for label, members in labels.items()}
    times = np.sum([bits for bits, _ in broken.values()], axis=0) if broken else np.zeros(len(ids))
    return tuple(
        BrokenBy(label, int(bits.sum()), int((bits & (times == 1)).sum()), stages)
        for label, (bits, stages) in broken.items()
    )


def _broken(seeds, ids):
    """Whether an attack broke each of the samples, bool (N,), and the number of them that each of its stages broke."""
    stage_of = {}
    for result in seeds:
        samples = cells.outcomes(result)
        stages = [name for block in result.blocks for name in block.samples.stage or [""] * len(block.samples)]
        for name, broken, stage in zip(samples.id.tolist(), samples.correct & ~samples.robust, stages, strict=True):
            if broken:
                stage_of.setdefault(name, stage)
    bits = np.array([name in stage_of for name in ids], dtype=np.bool_)
    stages = [stage_of[name] for name in ids if stage_of.get(name)]
    counts = sorted(((stage, stages.count(stage)) for stage in dict.fromkeys(stages)), key=lambda entry: -entry[1])
    return bits, tuple(counts)
