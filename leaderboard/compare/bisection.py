"""The versions of a cell that a store holds at several commits, in order, and the samples that each version lost."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from gauntlet.leaderboard.compare.commit_history import CommitHistory
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import CellResult, Record
from gauntlet.leaderboard.stats.proportions import holm, mcnemar


class SampleResult(NamedTuple):
    """The result of one sample in one version."""

    label: int
    correct: bool
    """Classified correctly when clean."""
    robust: bool
    prediction: int
    """On the adversarial example if the sample was broken, else on the clean image."""
    distance: float
    """Of that example; NaN if there is none."""


@dataclass(frozen=True, eq=False)
class Version:
    """The stored results of a cell at one commit with one set of weights."""

    commit: str
    """Empty if none is recorded."""
    dirty: bool
    """Whether tracked files differed from the commit."""
    time: str
    """Time of the first result, ISO 8601."""
    latest: str
    """Time of the last result."""
    weights: str
    """Digest of the model's parameters and buffers, empty if none is recorded."""
    samples: Mapping[str, SampleResult]
    """Results by sample id."""
    blocks: Mapping[str, tuple[str, ...]]
    """Ids of the samples of each block, by its key."""

    @property
    def name(self) -> str:
        """The shortened commit, with `-dirty` if tracked files differed."""
        return f"{self.commit[:10] or 'no commit'}{'-dirty' if self.dirty else ''}"

    @property
    def robust(self) -> int:
        """Number of robust samples."""
        return sum(sample.robust for sample in self.samples.values())


@dataclass(frozen=True)
class VersionChange:
    """The changes of a version, sample by sample, from the nearest version before it that holds the sample."""

    version: int
    before: tuple[int, ...]
    """Indices of the versions that it is compared with: one, unless versions hold only parts of the samples."""
    compared: int
    """Number of samples compared."""
    lost: tuple[str, ...]
    """Ids of samples that were robust before and are not in this version."""
    gained: tuple[str, ...]
    p_value: float
    """Exact McNemar test, two-sided."""
    p_holm: float
    """With Holm's correction, see `adjusted`."""


@dataclass(frozen=True)
class LostSamples:
    """Samples that are not robust now, were lost by this version, and have not been gained back since."""

    version: int
    before: int
    """Index of the last version in which they were robust."""
    samples: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class CellHistory:
    """The results of a cell's samples from version to version."""

    title: str
    versions: tuple[Version, ...]
    """In the order of the commit history, or of time."""
    changes: tuple[VersionChange, ...]
    """Of the versions with an earlier version to compare with."""
    current: Mapping[str, int]
    """Index of the version of each sample's current result, by id."""
    losses: tuple[LostSamples, ...]
    """Ordered by number of samples, largest first."""
    notes: tuple[str, ...] = ()
    """Sentences on results that were left out, and on anything unusual."""

    @property
    def largest_loss(self) -> VersionChange | None:
        """The change that lost most samples; None if none was lost."""
        return max((change for change in self.changes if change.lost), key=lambda one: len(one.lost), default=None)


def same_data(records: Sequence[Record], current: Collection[str]) -> list[Record]:
    """The records on the same data as the current ones (those with a key in `current`), or else as the newest ones.

    Blocks with the same ids are on different data if the digests of their images and labels differ.
    """
    digests: dict[tuple[str, ...], str] = {}
    for record in sorted(records, key=lambda one: (one.key in current, _time(one))):
        digests[_ids(record)] = _data_digest(record)
    return [record for record in records if _data_digest(record) == digests[_ids(record)]]


def group_versions(records: Iterable[Record], history: CommitHistory | None) -> list[Version]:
    """Group the blocks of one cell into versions, by commit (clean or changed) and weights.

    A block may be given several times, at several commits. If two blocks of a version disagree on a sample, something else
    had changed, and the later block begins a new version. Versions are in the order of the history, changed trees after their
    commit; without a history, in order of time.
    """
    layers: dict[tuple[str, bool, str], list[Version]] = {}
    for record in sorted(records, key=_time):
        source, samples, time = record.provenance, _samples(record), _time(record)
        commit, dirty, weights = (
            str(source.get("commit") or ""),
            bool(source.get("dirty")),
            str(source.get("weights") or ""),
        )
        layer = layers.setdefault((commit, dirty, weights), [])
        last = layer[-1] if layer else None
        if last and all(last.samples[name].robust == samples[name].robust for name in samples.keys() & last.samples):
            blocks = {**last.blocks, record.key: tuple(samples)}
            layer[-1] = replace(last, latest=time, samples={**last.samples, **samples}, blocks=blocks)
        else:
            layer.append(Version(commit, dirty, time, time, weights, samples, {record.key: tuple(samples)}))

    def order(version: Version) -> tuple[int, bool, str]:
        if history is None:
            return 0, False, version.time
        return history.position(version.commit), version.dirty, version.time

    return sorted((version for layer in layers.values() for version in layer), key=order)


def cell_history(
    title: str, versions: Sequence[Version], history: CommitHistory | None, current: Collection[str]
) -> CellHistory:
    """Compare each version with earlier ones: its ancestors in the history, or without a history all before it.

    `current`: keys of the blocks of the cell's latest run; if none of them is stored, the last version is the current one.
    """
    earlier = [
        [i for i in range(number) if _precedes(versions[i], version, history)]
        for number, version in enumerate(versions)
    ]
    now: dict[str, int] = {}
    for number in sorted(range(len(versions)), key=lambda number: versions[number].latest):
        ids = [name for key, names in versions[number].blocks.items() if key in current for name in names]
        now |= dict.fromkeys(ids, number)
    if not now and versions:
        now = dict.fromkeys(versions[-1].samples, len(versions) - 1)
    changes = [change for number in range(len(versions)) if (change := _change(versions, number, earlier[number]))]
    lost: dict[tuple[int, int], list[str]] = {}
    for name, number in now.items():
        if (loss := _loss(versions, name, number, earlier[number])) is not None:
            lost.setdefault(loss, []).append(name)
    losses = [LostSamples(version, before, tuple(names)) for (version, before), names in lost.items()]
    ordered = sorted(losses, key=lambda loss: (-len(loss.samples), loss.version))
    return CellHistory(title, tuple(versions), tuple(changes), now, tuple(ordered))


def adjusted(histories: Sequence[CellHistory]) -> list[CellHistory]:
    """The histories with Holm's correction over all changes that flipped a sample; other changes cannot be significant."""
    flipped = [change.p_value for cell in histories for change in cell.changes if change.lost or change.gained]
    values = iter(holm(flipped).tolist())

    def with_holm(change: VersionChange) -> VersionChange:
        return replace(change, p_holm=next(values)) if change.lost or change.gained else change

    return [replace(cell, changes=tuple(map(with_holm, cell.changes))) for cell in histories]


def _precedes(old: Version, new: Version, history: CommitHistory | None) -> bool:
    return history is None or old.commit in history.ancestors(new.commit)


def _change(versions: Sequence[Version], number: int, earlier: Sequence[int]) -> VersionChange | None:
    """The changes of a version; None if no earlier version holds any of its samples."""
    samples = versions[number].samples
    before = {name: place for name in samples if (place := _last(versions, name, number, earlier)) is not None}
    if not before:
        return None
    was = np.array([versions[place].samples[name].robust for name, place in before.items()], dtype=np.bool_)
    is_now = np.array([samples[name].robust for name in before], dtype=np.bool_)
    names = list(before)
    lost, gained = (tuple(names[i] for i in np.flatnonzero(bits)) for bits in (was & ~is_now, ~was & is_now))
    p_value = mcnemar(was, is_now).p_value
    return VersionChange(number, tuple(sorted(set(before.values()))), len(names), lost, gained, p_value, p_value)


def _last(versions: Sequence[Version], name: str, number: int, earlier: Sequence[int]) -> int | None:
    """The last of the earlier versions that holds the sample with the same label."""
    label = versions[number].samples[name].label
    for place in reversed(earlier):
        sample = versions[place].samples.get(name)
        if sample is not None and sample.label == label:
            return place
    return None


def _loss(versions: Sequence[Version], name: str, number: int, earlier: Sequence[int]) -> tuple[int, int] | None:
    """The version that lost a sample for good and the version before it; None if the sample is robust or never was."""
    since, rest = number, list(earlier)
    while not versions[since].samples[name].robust:
        before = _last(versions, name, since, rest)
        if before is None:
            return None
        if versions[before].samples[name].robust:
            return since, before
        since, rest = before, [place for place in rest if place < before]
    return None


def _samples(record: Record) -> dict[str, SampleResult]:
    outcomes = cells.outcomes(CellResult(record.cell, (record,)))
    columns = (outcomes.label, outcomes.correct, outcomes.robust, record.samples.prediction, outcomes.distance)
    samples = (SampleResult(*values) for values in zip(*(column.tolist() for column in columns), strict=True))
    return dict(zip(outcomes.id.tolist(), samples, strict=True))


def _ids(record: Record) -> tuple[str, ...]:
    return tuple(record.samples.id.tolist())


def _data_digest(record: Record) -> str:
    return str(record.provenance.get("data") or "")


def _time(record: Record) -> str:
    return str(record.provenance.get("time") or "")
