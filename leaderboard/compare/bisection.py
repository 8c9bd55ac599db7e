"""Which version of a model lost which samples: what a store holds of one cell at several commits, put in order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from gauntlet.leaderboard.compare.history import History
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import CellResult, Record
from gauntlet.leaderboard.stats.proportions import holm, mcnemar


class Fate(NamedTuple):
    """What became of a sample."""

    label: int
    correct: bool
    """When clean."""
    robust: bool
    prediction: int
    """On the example that broke it, else on the clean image."""
    distance: float
    """Of that example; NaN where there is none."""


@dataclass(frozen=True, eq=False)
class Version:
    """What a cell gave at one commit with one set of weights, as far as it is stored."""

    commit: str
    """Empty where none is known."""
    dirty: bool
    """Whether tracked files differed from the commit."""
    time: str
    """Of its first result, ISO 8601."""
    latest: str
    """Of its last one."""
    weights: str
    """Digest of the model's parameters and buffers, empty where none is known."""
    fates: Mapping[str, Fate]
    """By the sample's id."""
    blocks: Mapping[str, tuple[str, ...]]
    """Ids of the samples of each block, by its key."""

    @property
    def name(self) -> str:
        """The commit, shortened, and whether it was changed."""
        return f"{self.commit[:10] or 'no commit'}{'-dirty' if self.dirty else ''}"

    @property
    def robust(self) -> int:
        """How many samples are robust."""
        return sum(fate.robust for fate in self.fates.values())


@dataclass(frozen=True)
class Step:
    """What a version changed, sample by sample, against the nearest version before it that holds the sample."""

    version: int
    before: tuple[int, ...]
    """The versions that it is compared with: one, unless versions hold parts of the samples only."""
    compared: int
    lost: tuple[str, ...]
    """Ids of samples that were robust and are no more."""
    gained: tuple[str, ...]
    p_value: float
    """Exact McNemar test, two-sided."""
    p_holm: float
    """With Holm's correction, see `adjusted`."""


@dataclass(frozen=True)
class Loss:
    """Samples that are not robust now, that a version lost, and that none has gained back since."""

    version: int
    before: int
    """The last version in which they were robust."""
    samples: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class CellHistory:
    """What became of a cell's samples from version to version."""

    title: str
    versions: tuple[Version, ...]
    """In the order of the history, or of time."""
    steps: tuple[Step, ...]
    """Of the versions that have something to be compared with."""
    now: Mapping[str, int]
    """In which version each sample's current result is, by id."""
    losses: tuple[Loss, ...]
    """Most samples first."""
    notes: tuple[str, ...] = ()
    """Sentences: what was left out, what is unusual."""

    @property
    def largest(self) -> Step | None:
        """The step that lost most samples; None where none lost any."""
        return max((step for step in self.steps if step.lost), key=lambda step: len(step.lost), default=None)


def same_data(records: Sequence[Record], current: Collection[str]) -> list[Record]:
    """The records on the data of the current ones (those with a key in `current`), or else of the newest.

    Two blocks with the same ids whose images or labels differ, by their digests, are not of the same data.
    """
    stands: dict[tuple[str, ...], str] = {}
    for record in sorted(records, key=lambda one: (one.key in current, _time(one))):
        stands[_ids(record)] = _data(record)
    return [one for one in records if _data(one) == stands[_ids(one)]]


def versions(records: Iterable[Record], history: History | None) -> list[Version]:
    """The versions that blocks of one cell make: a commit (clean or changed) and the weights. A block may be given several
    times, at several commits.

    Where two blocks of a version disagree on a sample, something else had changed, and the later begins a version of its own.
    They stand in the order of the history, changed trees after their commit; without one, by time.
    """
    layers: dict[tuple[str, bool, str], list[Version]] = {}
    for record in sorted(records, key=_time):
        source, fates = record.provenance, _fates(record)
        place = str(source.get("commit") or ""), bool(source.get("dirty")), str(source.get("weights") or "")
        known = layers.setdefault(place, [])
        if known and all(known[-1].fates[name].robust == fates[name].robust for name in fates.keys() & known[-1].fates):
            last = known[-1]
            blocks = {**last.blocks, record.key: tuple(fates)}
            known[-1] = replace(last, latest=_time(record), fates={**last.fates, **fates}, blocks=blocks)
        else:
            commit, dirty, weights = place
            time = _time(record)
            known.append(Version(commit, dirty, time, time, weights, fates, {record.key: tuple(fates)}))

    def order(one: Version) -> tuple[int, bool, str]:
        return (0, False, one.time) if history is None else (history.position(one.commit), one.dirty, one.time)

    return sorted((one for found in layers.values() for one in found), key=order)


def trace(title: str, found: Sequence[Version], history: History | None, current: Collection[str]) -> CellHistory:
    """Compare each version with those before it: its ancestors in the history, or without one all earlier ones.

    `current`: the keys of the blocks that the cell's latest run has; without one, the last version is the current one.
    """
    earlier = [[i for i in range(number) if _precedes(found[i], one, history)] for number, one in enumerate(found)]
    now: dict[str, int] = {}
    for number in sorted(range(len(found)), key=lambda number: found[number].latest):
        ids = [name for key, names in found[number].blocks.items() if key in current for name in names]
        now |= dict.fromkeys(ids, number)
    if not now and found:
        now = dict.fromkeys(found[-1].fates, len(found) - 1)
    steps = [step for number in range(len(found)) if (step := _step(found, number, earlier[number]))]
    lost: dict[tuple[int, int], list[str]] = {}
    for name, number in now.items():
        if (pair := _lost(found, name, number, earlier[number])) is not None:
            lost.setdefault(pair, []).append(name)
    losses = [Loss(version, before, tuple(names)) for (version, before), names in lost.items()]
    ordered = sorted(losses, key=lambda loss: (-len(loss.samples), loss.version))
    return CellHistory(title, tuple(found), tuple(steps), now, tuple(ordered))


def adjusted(histories: Sequence[CellHistory]) -> list[CellHistory]:
    """The same with Holm's correction over all steps that flipped a sample: the others cannot be significant."""
    flipped = [step.p_value for one in histories for step in one.steps if step.lost or step.gained]
    values = iter(holm(flipped).tolist())

    def with_holm(step: Step) -> Step:
        return replace(step, p_holm=next(values)) if step.lost or step.gained else step

    return [replace(one, steps=tuple(map(with_holm, one.steps))) for one in histories]


def _precedes(old: Version, new: Version, history: History | None) -> bool:
    return history is None or old.commit in history.ancestors(new.commit)


def _step(found: Sequence[Version], number: int, earlier: Sequence[int]) -> Step | None:
    """What a version changed; None where nothing before it holds any of its samples."""
    before = {name: place for name in found[number].fates if (place := _last(found, name, number, earlier)) is not None}
    if not before:
        return None
    was = np.array([found[place].fates[name].robust for name, place in before.items()], dtype=np.bool_)
    is_now = np.array([found[number].fates[name].robust for name in before], dtype=np.bool_)
    names = list(before)
    lost, gained = (tuple(names[i] for i in np.flatnonzero(bits)) for bits in (was & ~is_now, ~was & is_now))
    p_value = mcnemar(was, is_now).p_value
    return Step(number, tuple(sorted(set(before.values()))), len(names), lost, gained, p_value, p_value)


def _last(found: Sequence[Version], name: str, number: int, earlier: Sequence[int]) -> int | None:
    """The last of the earlier versions that holds the sample with the label that it has now."""
    label = found[number].fates[name].label
    for place in reversed(earlier):
        fate = found[place].fates.get(name)
        if fate is not None and fate.label == label:
            return place
    return None


def _lost(found: Sequence[Version], name: str, number: int, earlier: Sequence[int]) -> tuple[int, int] | None:
    """The version that lost a sample for good and the one before it; None where it is robust, or never was."""
    since, rest = number, list(earlier)
    while not found[since].fates[name].robust:
        before = _last(found, name, since, rest)
        if before is None:
            return None
        if found[before].fates[name].robust:
            return since, before
        since, rest = before, [place for place in rest if place < before]
    return None


def _fates(record: Record) -> dict[str, Fate]:
    found, samples = cells.outcomes(CellResult(record.cell, (record,))), record.samples
    columns = (found.label, found.correct, found.robust, samples.prediction, found.distance)
    fates = (Fate(*values) for values in zip(*(column.tolist() for column in columns), strict=True))
    return dict(zip(found.id.tolist(), fates, strict=True))


def _ids(record: Record) -> tuple[str, ...]:
    return tuple(record.samples.id.tolist())


def _data(record: Record) -> str:
    return str(record.provenance.get("data") or "")


def _time(record: Record) -> str:
    return str(record.provenance.get("time") or "")
