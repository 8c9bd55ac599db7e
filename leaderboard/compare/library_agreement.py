"""The same attack in several libraries, sample by sample: where they differ, what it costs, and what they claim wrongly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import CellInfo, CellResult
from gauntlet.leaderboard.stats.proportions import Proportion

Bits = npt.NDArray[np.bool_]
SampleKey = tuple[str, str, str, str]
"""Model, defense, data and id of a sample."""


@dataclass(frozen=True)
class Member:
    """A library's attack in a comparison, with the results of its cells: one for each model and defense."""

    library: str
    attack: str
    results: Sequence[CellResult]
    again: Sequence[CellResult] = ()
    """The results with another seed, for how far the attack agrees with itself."""


@dataclass(frozen=True)
class InvalidPoints:
    """Points that an attack should not have returned."""

    outside_ball: int
    """In the box, but farther from the image than eps."""
    outside_box: int
    """Outside the box, or not finite."""
    false_claims: int
    """Valid, returned as successes, and not confirmed by the verifier."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.outside_ball + self.outside_box + self.false_claims

    def __add__(self, other: InvalidPoints) -> InvalidPoints:
        return InvalidPoints(
            self.outside_ball + other.outside_ball,
            self.outside_box + other.outside_box,
            self.false_claims + other.false_claims,
        )


@dataclass(frozen=True)
class MemberLine:
    """A library's attack in figures, over all samples of its finished cells."""

    library: str
    attack: str
    failures: tuple[str, ...]
    """A sentence for each cell that did not finish."""
    robust: Proportion
    broken: int
    """Samples that are correct when clean and that it broke."""
    only_reference: int
    """Samples that the reference, the first member, broke and this one did not."""
    only_this: int
    """Samples that this one broke and the reference did not."""
    itself: int | None
    """Samples on which it differs from itself with another seed; None where there is one seed."""
    distance: float
    """Median distance of its examples; NaN if there are none."""
    distance_ratio: float
    """Median over the samples that both broke of its distance divided by the reference's; NaN if there are none."""
    forwards: float
    """Mean forward passes for each sample that it attacked; NaN if there are none."""
    backwards: float
    seconds: float
    invalid: InvalidPoints | None
    """None where stored results do not say."""


@dataclass(frozen=True)
class LibraryAgreement:
    """A comparison on some pipelines: the first member is the reference."""

    name: str
    threat: str
    pipelines: tuple[str, ...]
    """The models with their defenses and data, each once."""
    lines: tuple[MemberLine, ...]
    differ: tuple[tuple[int | None, ...], ...]
    """`differ[a][b]`: samples that member a broke and member b did not; None where they share none."""
    samples: tuple[tuple[SampleKey, tuple[str, ...], tuple[str, ...]], ...]
    """The samples on which members differ, with the attacks that broke them and those that did not."""

    @property
    def title(self) -> str:
        """The comparison with its threat model, whose norm the name need not repeat."""
        return f"{self.name.removesuffix(' ' + self.threat.partition(':')[0])}, {self.threat}"

    @property
    def apart(self) -> int:
        """Number of samples on which any two members differ."""
        return len(self.samples)


@dataclass(frozen=True)
class AgreementResults:
    """All comparisons of a run."""

    together: tuple[LibraryAgreement, ...]
    """Each over all pipelines."""
    single: tuple[LibraryAgreement, ...] = ()
    """Each for each pipeline alone; empty where there is one pipeline."""
    left_out: tuple[str, ...] = ()
    """A sentence for each library that is not installed, and for each comparison that cannot be made."""

    @property
    def failures(self) -> tuple[str, ...]:
        """A sentence for each cell that did not finish."""
        lines = [line for one in self.together for line in one.lines]
        return tuple(dict.fromkeys(f"{line.attack}: {failure}" for line in lines for failure in line.failures))

    def pipelines_of(self, one: LibraryAgreement) -> list[LibraryAgreement]:
        """The same comparison for each pipeline alone."""
        return [other for other in self.single if (other.name, other.threat) == (one.name, one.threat)]


def library_agreement(name: str, threat: str, members: Sequence[Member]) -> LibraryAgreement:
    """Pair the members by sample, on the samples that both of a pair cover with finished cells."""
    outcomes = [_Outcomes(member.results) for member in members]
    again = [_Outcomes(member.again) for member in members]
    keys = list(dict.fromkeys(key for one in [*outcomes, *again] for key in one.rows))
    count = {key: number for number, key in enumerate(keys)}
    covered = np.zeros((len(members), len(keys)), np.bool_)
    broken, distance = np.zeros_like(covered), np.full(covered.shape, math.nan)
    for own, one in enumerate(outcomes):
        _lay(one, count, covered[own], broken[own], distance[own])
    lines = []
    for own, member in enumerate(members):
        other = np.zeros_like(covered[own]), np.zeros_like(covered[own]), np.full(len(keys), math.nan)
        _lay(again[own], count, *other)
        itself = int((covered[own] & other[0] & (broken[own] != other[1])).sum()) if again[own].rows else None
        shared = covered[own] & covered[0]
        lines.append(_line(member, outcomes[own], itself, shared, broken[[own, 0]], distance[[own, 0]]))
    differ = tuple(
        tuple(
            int((both & broken[a] & ~broken[b]).sum()) if (both := covered[a] & covered[b]).any() else None
            for b in range(len(members))
        )
        for a in range(len(members))
    )
    return LibraryAgreement(
        name,
        threat,
        tuple(dict.fromkeys(_pipeline(result.cell) for member in members for result in member.results)),
        tuple(lines),
        differ,
        tuple(_apart(keys, members, covered, broken)),
    )


class _Outcomes:
    """The samples of a member's finished cells, by their keys."""

    def __init__(self, results: Sequence[CellResult]) -> None:
        self.finished = [result for result in results if cells.status(result) == "ok"]
        self.rows: list[SampleKey] = []
        broken, correct, distance = [], [], []
        for result in self.finished:
            info, found = result.cell, cells.outcomes(result)
            self.rows += [(info.model, info.defense, info.data, name) for name in found.id.tolist()]
            within = found.distance if info.minimum_norm else np.where(found.robust, math.nan, found.distance)
            correct.append(found.correct)
            broken.append(found.correct & ~found.robust)
            distance.append(np.where(found.correct, within, math.nan))
        self.broken = np.concatenate([*broken, np.zeros(0, np.bool_)])
        self.correct = np.concatenate([*correct, np.zeros(0, np.bool_)])
        self.distance = np.concatenate([*distance, np.zeros(0)])


def _lay(
    one: _Outcomes, numbers: dict[SampleKey, int], covered: Bits, broken: Bits, distance: npt.NDArray[np.float64]
) -> None:
    """Write a member's outcomes into arrays over all samples."""
    places = np.array([numbers[key] for key in one.rows], dtype=np.intp)
    covered[places] = True
    broken[places] = one.broken
    distance[places] = one.distance


def _line(
    member: Member,
    found: _Outcomes,
    itself: int | None,
    shared: Bits,
    broken: Bits,
    distance: npt.NDArray[np.float64],
) -> MemberLine:
    """`shared`: samples that this member and the reference cover; `broken`, `distance` (2, N): this member's, the reference's."""
    attacked = int(found.correct.sum())
    costs = [cells.costs(result) for result in found.finished]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = distance[0] / distance[1]
    return MemberLine(
        library=member.library,
        attack=member.attack,
        failures=tuple(_failure(result) for result in member.results if cells.status(result) != "ok"),
        robust=Proportion(attacked - int(found.broken.sum()), len(found.rows)),
        broken=int(found.broken.sum()),
        only_reference=int((shared & broken[1] & ~broken[0]).sum()),
        only_this=int((shared & broken[0] & ~broken[1]).sum()),
        itself=itself,
        distance=_median(found.distance),
        distance_ratio=_median(ratio),
        forwards=_passes(found, attacked, "forwards"),
        backwards=_passes(found, attacked, "backwards"),
        seconds=sum(cost.seconds for cost in costs),
        invalid=_invalid(found.finished),
    )


def _passes(found: _Outcomes, attacked: int, name: str) -> float:
    total = sum(float(getattr(block.samples, name).sum()) for result in found.finished for block in result.blocks)
    return total / attacked if attacked else math.nan


def _median(values: npt.NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else math.nan


def _invalid(results: Sequence[CellResult]) -> InvalidPoints | None:
    total = InvalidPoints(0, 0, 0)
    for result in results:
        for block in result.blocks:
            stats = block.stats
            if stats.outside_ball is None or stats.outside_box is None or stats.false_claims is None:
                return None
            total += InvalidPoints(stats.outside_ball, stats.outside_box, stats.false_claims)
    return total


def _failure(result: CellResult) -> str:
    if result.error is not None:
        return f"{_pipeline(result.cell)}: {result.error.kind}: {result.error.message}"
    return f"{_pipeline(result.cell)}: not finished, {cells.covered(result)} of {result.expected} samples"


def _pipeline(cell: CellInfo) -> str:
    defended = cell.model if cell.defense == "none" else f"{cell.model} × {cell.defense}"
    return f"{defended} on {cell.data}"


def _apart(
    keys: Sequence[SampleKey], members: Sequence[Member], covered: Bits, broken: Bits
) -> Iterator[tuple[SampleKey, tuple[str, ...], tuple[str, ...]]]:
    fell, stood = covered & broken, covered & ~broken
    for place in np.flatnonzero(fell.any(0) & stood.any(0)).tolist():
        yield (
            keys[place],
            tuple(member.attack for member, bit in zip(members, fell[:, place], strict=True) if bit),
            tuple(member.attack for member, bit in zip(members, stood[:, place], strict=True) if bit),
        )
