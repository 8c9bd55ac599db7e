"""The summary of a cell: what tables, ranks and comparisons need of its blocks, a few bytes a sample.

`gauntlet.leaderboard.results.cell_summary` has the same figures as functions of a cell's blocks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.cell_summary import Costs, Status
from gauntlet.leaderboard.results.coded import Coded, coded_floats, floats
from gauntlet.leaderboard.results.record import CellError, CellInfo, CellResult, Flag, Record
from gauntlet.leaderboard.results.sample_set import SampleSet, sample_set
from gauntlet.leaderboard.results.spent import Spent
from gauntlet.leaderboard.stats.proportions import Proportion

Bits = npt.NDArray[np.bool_]

ANY_PASS: Final = float(np.nextafter(0, 1))
EFFORTS: Final = (ANY_PASS, 1.0, 300.0, 1000.0)
"""Numbers of passes that rules ask about: whether a sample took as many."""


@dataclass(frozen=True)
class BlockNote:
    """What is known of a block beside its samples."""

    key: str
    data: str
    """Digest of its images and labels; empty if none is recorded."""
    time: str
    """When it was computed, ISO 8601; empty if that is not recorded."""
    commit: str
    """With `-dirty` if files differed from it; empty if none is recorded."""
    cached: bool
    """Whether it was there before the run."""

    def marked(self, cached: bool) -> BlockNote:
        """The same with another mark."""
        return self if cached == self.cached else replace(self, cached=cached)


@dataclass(frozen=True, eq=False)
class CellSummary:
    """A cell without its examples. Arrays have length N, in the order of `samples`."""

    cell: CellInfo
    blocks: tuple[BlockNote, ...]
    samples: SampleSet
    correct: Bits
    """Classified correctly when clean."""
    robust: Bits
    """See `SampleOutcomes.robust`."""
    recorded: Bits
    """Robust as the blocks have it."""
    wrong_share: Coded[float]
    wrong_share_scored: Coded[float]
    effort: Coded[float]
    """Passes of each sample, rounded down to 0 or one of `EFFORTS`."""
    stage: Coded[str] | None
    """As in `Samples`; None for attacks without stages."""
    faced: Coded[str] | None
    certified: Bits | None
    """Proven robust; None for cells that are no certificates."""
    proven: int | None
    """How many are."""
    severities: Mapping[int, int]
    """Corruptions: the number of samples that are right at each severity; empty for other cells."""
    costs: Costs
    median_distance: float
    flags: tuple[Flag, ...]
    techniques: frozenset[str]
    stage_techniques: Mapping[str, str]
    masked: int | None
    precision: str
    device: str
    report_as: str
    weights: str
    """Digest of the model's weights; empty if none is recorded."""
    replayed_nothing: bool
    """Whether no sample cost a pass."""
    error: CellError | None = None
    expected: int = 0
    spent: Spent | None = None

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def status(self) -> Status:
        """`error` if anything failed, even if blocks exist; `unfinished` if the blocks cover fewer samples than planned."""
        if self.error is not None:
            return "error"
        return "ok" if 0 < len(self) >= self.expected else "unfinished"

    @property
    def clean_accuracy(self) -> Proportion:
        """Share of the samples that are classified correctly when clean."""
        return Proportion.of(self.correct)

    @property
    def robust_accuracy(self) -> Proportion:
        """Share of the samples that are classified correctly when clean and under the attack."""
        return Proportion.of(self.robust)

    @property
    def broken(self) -> Bits:
        """Correct when clean, and not robust."""
        return self.correct & ~self.robust

    @property
    def nothing_replayed(self) -> bool:
        """Whether the cell is a finished replay that had no stored example to try."""
        return self.cell.replays and self.status == "ok" and self.replayed_nothing

    @property
    def cached(self) -> bool:
        """Whether all blocks were there before the run, and there are any."""
        return bool(self.blocks) and all(block.cached for block in self.blocks)

    @property
    def wrong_shares(self) -> npt.NDArray[np.float64]:
        """See `Samples.wrong_share`."""
        return floats(self.wrong_share)

    @property
    def wrong_shares_scored(self) -> npt.NDArray[np.float64]:
        """See `Samples.wrong_share_scored`."""
        return floats(self.wrong_share_scored)

    def took(self, passes: float) -> Bits:
        """Whether each sample took as many passes; `passes` is one of `EFFORTS`."""
        if passes not in EFFORTS:
            raise ValueError(f"passes={passes!r} must be one of {EFFORTS}: summaries keep no others")
        return self.effort.where(lambda taken: taken >= passes)


AnyResult = CellResult | CellSummary


def summaries(results: Iterable[AnyResult]) -> list[CellSummary]:
    """The summaries of cells; those that are summaries already as they are."""
    return [result if isinstance(result, CellSummary) else summarise(result) for result in results]


def summarise(result: CellResult) -> CellSummary:
    """The summary of a cell."""
    outcomes, blocks = cells.outcomes(result), result.blocks
    corrupted = _right_at_severities(result)
    return CellSummary(
        cell=result.cell,
        blocks=tuple(
            BlockNote(
                block.key,
                str(block.provenance.get("data") or ""),
                str(block.provenance.get("time", "")),
                cells.commit_of(block),
                block.cached,
            )
            for block in blocks
        ),
        samples=sample_set(outcomes.id, outcomes.label),
        correct=outcomes.correct,
        robust=outcomes.robust,
        recorded=_joined([block.samples.robust for block in blocks]),
        wrong_share=coded_floats(outcomes.wrong_share),
        wrong_share_scored=coded_floats(outcomes.wrong_share_scored),
        effort=_effort(result),
        stage=_texts([block.samples.stage for block in blocks], len(outcomes)),
        faced=_texts([block.samples.faced for block in blocks], len(outcomes)),
        certified=_certified(result),
        proven=cells.certified(result),
        severities=corrupted,
        costs=cells.costs(result),
        median_distance=cells.median_distance(result),
        flags=cells.flags(result),
        techniques=cells.techniques(result),
        stage_techniques=cells.stage_techniques(result),
        masked=cells.masked(result),
        precision=cells.precision(result),
        device=cells.device(result),
        report_as=cells.report_as(result),
        weights=_weights(blocks),
        replayed_nothing=not any(float(block.samples.forwards.sum()) for block in blocks),
        error=result.error,
        expected=result.expected,
        spent=result.spent,
    )


def newest_commit(results: Iterable[CellSummary]) -> str:
    """The commit of the newest block, with `-dirty` if files differed from it; empty if none is recorded."""
    blocks = (block for result in results for block in result.blocks)
    newest = max(blocks, key=lambda block: block.time, default=None)
    return newest.commit if newest is not None else ""


def _weights(blocks: Sequence[Record]) -> str:
    return " ".join(dict.fromkeys(str(block.provenance.get("weights") or "") for block in blocks))


def _joined(parts: Sequence[Bits]) -> Bits:
    return np.concatenate(parts) if parts else np.empty(0, np.bool_)


def _effort(result: CellResult) -> Coded[float]:
    spent = [block.samples.forwards + block.samples.backwards for block in result.blocks]
    reached = np.searchsorted(EFFORTS, np.concatenate(spent) if spent else np.empty(0), side="right")
    return Coded((0.0, *EFFORTS), reached.astype(np.uint8))


def _texts(columns: Sequence[Sequence[str]], n: int) -> Coded[str] | None:
    """A text column of all blocks; None where no block has it."""
    if not any(len(column) for column in columns):
        return None
    coded = Coded.of(list(itertools.chain.from_iterable(columns)))
    return coded if len(coded.codes) == n else None


def _certified(result: CellResult) -> Bits | None:
    if all(block.samples.certified is None for block in result.blocks):
        return None
    bits = (block.samples.certified for block in result.blocks)
    return _joined(
        [
            np.zeros(len(block.samples), np.bool_) if proven is None else proven
            for block, proven in zip(result.blocks, bits, strict=True)
        ]
    )


def _right_at_severities(result: CellResult) -> dict[int, int]:
    if not result.cell.corrupts or not result.blocks:
        return {}
    wrong = [set(map(int, text.split())) for block in result.blocks for text in block.samples.severities]
    return {
        severity: sum(severity not in severities for severities in wrong)
        for severity in sorted(result.blocks[0].cell.severities)
    }
