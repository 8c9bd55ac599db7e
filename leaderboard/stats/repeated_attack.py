"""Whether an attack's claim fits a repetition: some samples that it left standing, and some that it broke, attacked again.

The hypothesis is that of an honest folder: the recorded outcomes are one run of the attack, and the repetition is another, with
a seed of its own. Each sample has its own chance to be broken, which nobody knows; for every sample "stood, then fell" and "fell,
then stood" are equally likely, whatever that chance. So the repetition's luck is measured on the samples that the folder says it
broke: without them a fall could be the attack's instability or a lie.
"""

from __future__ import annotations

from dataclasses import dataclass

from gauntlet.leaderboard.stats.binomial import binomial_tail
from gauntlet.leaderboard.stats.proportions import Proportion


@dataclass(frozen=True)
class RepeatedAttack:
    """Counts of a repetition. Raises ValueError for counts that do not fit each other."""

    standing: int
    """Samples that the folder says are correct when clean and were left standing."""
    attacked: int
    """Those of them that were attacked again."""
    fell: int
    """Those of these that were broken now."""
    broken: int
    """Samples that the folder says were broken."""
    repeated: int
    """Those of them that were attacked again."""
    stood: int
    """Those of these that stand now."""

    def __post_init__(self) -> None:
        for least, middle, most in (
            (self.fell, self.attacked, self.standing),
            (self.stood, self.repeated, self.broken),
        ):
            if not 0 <= least <= middle <= most:
                raise ValueError(
                    f"{self!r}: samples that changed, that were attacked again, and all must be rising counts"
                )

    @property
    def share(self) -> Proportion:
        """The share that fell of the standing samples that were attacked again."""
        return Proportion(self.fell, self.attacked)

    @property
    def p_value(self) -> float:
        """The chance of as many falls or more in an honest folder, given how many samples changed at all.

        A sample that changes was standing or broken before with equal chance, and is seen at the rate at which samples of its
        kind are attacked again. So of all changes seen the falls are binomial: McNemar's exact test (Psychometrika 12, 1947),
        weighted with the two rates. It is exact where samples are drawn independently; drawing a fixed number of them makes the
        tail lighter (tests/leaderboard/stats/test_repeated_attack.py counts false alarms).
        """
        changed = self.fell + self.stood
        if not changed or not self.attacked:
            return 1.0
        seen = self.attacked / self.standing
        # Where no sample is said to be broken, none of them was missed.
        seen_before = self.repeated / self.broken if self.broken else 1.0
        return binomial_tail(self.fell, changed, seen / (seen + seen_before))
