"""The bracket of a row, sample by sample."""

from __future__ import annotations

import numpy as np

from gauntlet.leaderboard.rows.bracket import Bracket
from gauntlet.leaderboard.stats.proportions import Proportion


def bracket(results, worst):
    """The bracket of the cells of one row, on the samples of their worst case; None if no cell is a certificate."""
    proofs = {}
    probabilistic = False
    for block in (block for result in results for block in result.blocks):
        if block.samples.certified is not None:
            probabilistic |= block.cell.randomised
            proofs |= dict(zip(block.samples.id.tolist(), block.samples.certified.tolist(), strict=True))
    if not proofs:
        return None
    certified = np.array([proofs.get(str(name), False) for name in worst.id], dtype=np.bool_)
    broken = worst.correct & ~worst.robust
    return Bracket(
        certified=Proportion.of(certified),
        open=int(np.count_nonzero(worst.robust & ~certified)),
        contradictions=tuple(str(name) for name in worst.id[certified & broken]),
        probabilistic=probabilistic,
    )
