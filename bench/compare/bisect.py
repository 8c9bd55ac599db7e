"""The commits that lost samples, from all versions of the cells in the stores of some runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from gauntlet.bench.compare.git_history import read_history
from gauntlet.bench.config.cell import Cell
from gauntlet.bench.run.commit_journal import CommitRequest, commit_requests
from gauntlet.bench.run.pictures import Patterns
from gauntlet.bench.run.run_folder import Run, load_run
from gauntlet.leaderboard.compare.bisection import (
    CellHistory,
    Version,
    adjusted,
    cell_history,
    group_versions,
    same_data,
)
from gauntlet.leaderboard.compare.bisection_report import Bisection
from gauntlet.leaderboard.compare.commit_history import CommitHistory
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.record import CellInfo, Record

Identity = tuple[str, str, str, str, str, int]

_SELECTION = re.compile(r"\[[^\[\]]*\]$")


class BisectError(ValueError):
    """There is nothing to trace; the message says why."""


@dataclass(frozen=True, eq=False)
class _StoredCell:
    """A cell of the latest run that has it, with all its stored versions."""

    run: Run
    cell: Cell
    records: dict[str, Record] = field(default_factory=dict)
    """By key."""
    requests: dict[str, list[CommitRequest]] = field(default_factory=dict)
    """The commits that requested them, by key."""


def bisect_runs(paths: Sequence[Path], patterns: Patterns, repo: Path) -> Bisection:
    """Trace every cell of the runs that matches the patterns through its stored versions.

    A store keeps the blocks of all runs of its folder, at earlier commits too. A block stands for the commit at which it was
    computed, and for those that requested it later. Versions are ordered by the git history of `repo`, or by time if it does not
    know a commit. Replays, whose examples differ between runs, certificates and corruptions are left out. Blocks that cannot be
    read are skipped and reported. Raises RunError, StoreError for damaged files of a run, and BisectError if no cell matches or
    nothing is stored.
    """
    named = ", ".join(map(str, paths))
    runs = sorted((load_run(path) for path in paths), key=lambda run: run.context.started)
    asked: dict[Identity, _StoredCell] = {}
    for run in runs:
        for cell in run.plan.cells:
            if patterns.match(cell) and cell.attack.name != "replay" and cell.info.adversarial:
                asked[_identity(cell.info)] = _StoredCell(run, cell)
    if not asked:
        wanted = f"model {patterns.model!r}, defense {patterns.defense!r} and attack {patterns.attack!r}"
        raise BisectError(f"no attack of {named} matches {wanted}: see `gauntlet show {paths[0]}`")
    skipped = _collect(runs, asked)
    stored = [one for one in asked.values() if one.records]
    if not stored:
        raise BisectError(f"nothing is stored of the cells of {named}: run them first")
    placed = [list(_placed(one)) for one in stored]
    history, silence = read_history(repo, _commits(record for records in placed for record in records))
    cells = [_trace(one, records, history, silence) for one, records in zip(stored, placed, strict=True)]
    return Bisection(tuple(adjusted(cells)), history, tuple(skipped))


def _identity(info: CellInfo) -> Identity:
    """The fields that all versions of a cell share, without label, suite and selection, which may differ between runs."""
    return info.model, info.defense, info.attack_spec, info.threat, _SELECTION.sub("", info.data), info.seed


def _commits(records: Iterable[Record]) -> set[str]:
    return {str(record.provenance.get("commit") or "") for record in records}


def _collect(runs: Sequence[Run], asked: dict[Identity, _StoredCell]) -> list[str]:
    """Read every block of these cells from all stores; returns sentences on those that cannot be read."""
    skipped: dict[str, None] = {}
    for root in {run.root.resolve(): None for run in runs}:
        here = [run for run in runs if run.root.resolve() == root]
        # A run may name the cell of a block differently than the run that stored it.
        own: dict[str, set[Identity]] = {}
        for run in here:
            for cell in run.plan.cells:
                for key, _ in run.keys(cell) or ():
                    own.setdefault(key, set()).add(_identity(cell.info))
        store = here[0].store
        known, unread = commit_requests(root)
        skipped |= dict.fromkeys(f"Skipped: {sentence}" for sentence in unread)
        for key in store.stored_keys():
            try:
                wanted = {_identity(store.info(key)), *own.get(key, ())} & asked.keys()
                found = {identity: store.read(key) for identity in wanted}
            except StoreError as error:
                skipped[f"Skipped: {error}"] = None
                continue
            for identity, record in found.items():
                asked[identity].records[key] = record
                asked[identity].requests.setdefault(key, []).extend(known.get(key, ()))
    return list(skipped)


def _placed(one: _StoredCell) -> Iterator[Record]:
    """The records, one for each commit that they stand for; those of a changed tree only if no commit requested the same."""
    for key, record in one.records.items():
        later = [replace(record, provenance={**record.provenance, **asdict(request)}) for request in one.requests[key]]
        clean = [version for version in (record, *later) if not version.provenance.get("dirty")]
        yield from clean or (record, *later)


def _trace(one: _StoredCell, records: Sequence[Record], history: CommitHistory, silence: str) -> CellHistory:
    current = {key for key, _ in one.run.keys(one.cell) or ()}
    kept = same_data(records, current)
    unknown = sorted(_commits(kept) - history.parents.keys())
    order = None if unknown else history
    found = group_versions(kept, order)
    left_out = len(one.records) - len({record.key for record in kept})
    notes = [*_of_blocks(one, current, left_out), *_of_versions(found, order, silence, unknown)]
    info = one.cell.info
    title = f"{info.title} {info.threat} on {_SELECTION.sub('', info.data)}, seed {info.seed}"
    return replace(cell_history(title, found, order, current), notes=tuple(notes))


def _of_blocks(one: _StoredCell, current: set[str], left_out: int) -> Iterator[str]:
    if error := one.run.store.read_error(one.cell.name):
        yield f"The latest run of this cell failed ({error.kind}: {error.message}): * marks the results before it."
    elif not current & one.records.keys():
        yield "The latest run has no result of this cell: the last stored version is shown."
    if left_out:
        yield f"Left out: {left_out} blocks of other images or labels under the same ids."


def _of_versions(
    found: Sequence[Version], history: CommitHistory | None, silence: str, unknown: Sequence[str]
) -> Iterator[str]:
    if len(found) > 1 and history is None:
        names = ", ".join(commit[:10] or "results without a commit" for commit in unknown[:3])
        why = silence or f"git does not know {names}{' and others' if len(unknown) > 3 else ''}"
        yield f"In order of time: {why}; name a full clone of the repository with --repo."
    pairs = list(pairwise(found))
    if any(old.commit == new.commit and not new.dirty for old, new in pairs):
        yield "One commit has several versions: weights or libraries that git does not hold, or two models of one name."
    if history is not None and any(old.commit not in history.ancestors(new.commit) for old, new in pairs):
        yield "Versions of several branches: each is compared with its ancestors only."
