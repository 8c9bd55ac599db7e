"""A cell of the baseline beside its partner in the run: the same samples before and now, and what their flags say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.gate.baseline import BaselineCell
from gauntlet.leaderboard.gate.trace import Trace, sample_order
from gauntlet.leaderboard.stats.binomial import share_rose_p_value


@dataclass(frozen=True, eq=False)
class ComparedCell:
    """A cell of the baseline and its partner in the run, with the same samples before and now, in the order of the test."""

    old: BaselineCell
    new: BaselineCell
    order: npt.NDArray[np.int64]
    before: npt.NDArray[np.bool_]
    now: npt.NDArray[np.bool_]
    trace: Trace | None = None

    @classmethod
    def of(cls, old: BaselineCell, new: BaselineCell, trace: Trace | None) -> ComparedCell:
        """The samples of the trace of a gate that stops early, or else all samples."""
        if trace is not None:
            return cls(old, new, trace.order, trace.before, trace.now, trace)
        order = sample_order(old)
        return cls(old, new, order, old.robust[order], new.robust[order])

    def first(self, count: int) -> ComparedCell:
        """The same cell with the first `count` samples alone."""
        return replace(self, order=self.order[:count], before=self.before[:count], now=self.now[:count])

    @property
    def title(self) -> str:
        """The title of the cell in the run, with its seed."""
        return title(self.old, self.new)

    @property
    def lost(self) -> int:
        """Number of samples that were robust before and are not now."""
        return int((self.before & ~self.now).sum())

    @property
    def gained(self) -> int:
        """Number of samples that are robust now and were not before."""
        return int((~self.before & self.now).sum())

    @property
    def open(self) -> tuple[int, int]:
        """Numbers of undecided samples that can still be lost, and that can still be gained."""
        undecided = np.ones(self.old.n, dtype=np.bool_)
        undecided[self.order] = False
        return int(self.old.robust[undecided].sum()), int((~self.old.robust[undecided]).sum())

    @property
    def excused(self) -> int:
        """Number of samples that the baseline counts as robust, and that a new example breaks on the baseline's model too."""
        return int((self.old.robust[self.order] & ~self.before).sum())

    @property
    def accepted(self) -> float:
        """The robust accuracy of the baseline on all samples, a share."""
        return float(self.old.robust.mean())

    @property
    def same_weights(self) -> bool:
        """Whether the weights are the baseline's, so that nothing in the model explains a rise of robustness."""
        return bool(self.old.weights) and self.old.weights == self.new.weights

    @property
    def masked(self) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """How many of the samples that stand have masked gradients, and how many stand, before and now; None if not known.

        Before on all samples of the baseline, now on all that were compared.
        """
        if self.old.masked is None or self.new.masked is None:
            return None
        standing = self.new.robust if self.trace is None else self.trace.now
        stood, stand = int(self.old.robust.sum()), int(standing.sum())
        # A sample that an attack left standing may be broken by a replay or by the draws that score it.
        return (min(self.old.masked, stood), stood), (min(self.new.masked, stand), stand)

    def more_masked(self, alpha: float) -> bool:
        """Whether the share of masked samples among those that stand rose significantly."""
        return self.masked is not None and share_rose_p_value(*self.masked) < alpha

    def doubts_rise(self, alpha: float) -> bool:
        """Whether a rise of robustness is suspicious: the weights are the baseline's, or more samples have masked gradients."""
        return self.same_weights or self.more_masked(alpha)

    @property
    def new_blocks(self) -> Mapping[str, str]:
        """The flags, with their sentences, that block the row now and did not in the baseline.

        A gate that stops early does not run cells that it does not judge, such as replays, which may have answered a flag of the
        baseline: it does not count such a flag as new.
        """
        known = {*(self.old.blocks or ()), *(self.old.lifted if self.trace is not None else ())}
        return {name: text for name, text in (self.new.blocks or {}).items() if name not in known}


def title(old: BaselineCell | None, new: BaselineCell | None) -> str:
    """The title of the cell in the run, or else in the baseline, with its seed."""
    cell = new or old
    return f"{cell.title}, seed {cell.seed}" if cell else ""
