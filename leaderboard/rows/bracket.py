"""The bracket of a row, certified ≤ truth ≤ attacked, and the alarm for samples that are both certified and broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gauntlet.leaderboard.results.sample_set import numbered
from gauntlet.leaderboard.results.summary import AnyResult, summaries
from gauntlet.leaderboard.rows.worst_case import WorstCase
from gauntlet.leaderboard.stats.proportions import Proportion

CERTIFICATE = "certificate"
"""The `attack_kind` of cells that compute a certificate."""
_ALPHA = 0.001
"""Chance that a certificate of randomized smoothing is wrong about a sample, and chance of a false alarm here."""


@dataclass(frozen=True)
class Bracket:
    """Lower bound of a row's robust accuracy, and how it fits the attacks."""

    certified: Proportion
    """Share of the samples proven robust: a lower bound of the truth."""
    open: int
    """Number of samples neither certified nor broken."""
    contradictions: tuple[str, ...]
    """Ids of samples that are certified and broken."""
    probabilistic: bool
    """Whether the certificate holds with high probability only, as that of randomized smoothing does."""

    @property
    def broken_proof(self) -> bool:
        """Whether the contradictions show a bug: any of them, or for a probabilistic certificate more than alpha explains."""
        count, n = len(self.contradictions), self.certified.successes
        if not self.probabilistic or not count:
            return count > 0
        from scipy.stats import binom  # takes longer to import than a stored run takes to read

        return float(binom.sf(count - 1, n, _ALPHA)) < _ALPHA

    @property
    def alarm(self) -> str:
        """The message of a broken proof; empty if there is none."""
        if not self.broken_proof:
            return ""
        return (
            f"CONTRADICTION: {len(self.contradictions)} samples are certified robust and broken by a verified example (first "
            f"{', '.join(self.contradictions[:3])}): the certificate or the verifier is wrong. Do not use either figure, and "
            "report it with the results folder"
        )


def bracket(results: Sequence[AnyResult], worst: WorstCase) -> Bracket | None:
    """The bracket of the cells of one row, on the samples of their worst case; None if no cell is a certificate."""
    proofs = [result for result in summaries(results) if result.certified is not None]
    if not any(len(proof) for proof in proofs):
        return None
    count, (own, *numbers) = numbered([worst.samples, *(proof.samples for proof in proofs)])
    proven = np.zeros(count, dtype=np.bool_)
    for proof, number in zip(proofs, numbers, strict=True):
        proven[number] = proof.certified
    certified = proven[own]
    broken = worst.correct & ~worst.robust
    return Bracket(
        certified=Proportion.of(certified),
        open=int(np.count_nonzero(worst.robust & ~certified)),
        contradictions=tuple(str(name) for name in worst.id[certified & broken]),
        probabilistic=any(proof.cell.randomised for proof in proofs),
    )
