"""Finding the commit that lost each sample, from everything that the stores of some runs hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from gauntlet.bench.compare.git_history import read_history
from gauntlet.bench.config.cell import Cell
from gauntlet.bench.run.commit_journal import CommitRequest, requests_by_block
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
    """There is nothing to bisect; the message says why."""


@dataclass(frozen=True, eq=False)
class _StoredCell:
    """A cell of the latest run that has it, and its stored blocks."""

    run: Run
    cell: Cell
    records: dict[str, Record] = field(default_factory=dict)
    """By key."""
    requests: dict[str, list[CommitRequest]] = field(default_factory=dict)
    """By key of the block."""


def bisect_runs(paths: Sequence[Path], patterns: Patterns, repo: Path) -> Bisection:
    """Compare the stored versions of every cell that the patterns choose.

    A store keeps the blocks of all runs of its folder, including runs at earlier commits. A block belongs to the commit at which
    it was computed, and to the commits that requested it later. Versions are ordered by the git history of `repo`, or by time if
    `repo` does not have all commits. Replays and certificates are left out: the examples of a replay depend on the time of the
    run, and a certificate attacks nothing. Blocks that cannot be read are skipped and listed in the result.

    Raises RunError, StoreError if a run's own files are damaged, and BisectError if no cell is chosen or nothing is stored.
    """
    named = ", ".join(map(str, paths))
    runs = sorted((load_run(path) for path in paths), key=lambda run: run.context.started)
    chosen: dict[Identity, _StoredCell] = {}
    for run in runs:
        for cell in run.plan.cells:
            if patterns.match(cell) and cell.attack.name != "replay" and cell.info.adversarial:
                chosen[_identity(cell.info)] = _StoredCell(run, cell)
    if not chosen:
        wanted = f"model {patterns.model!r}, defense {patterns.defense!r} and attack {patterns.attack!r}"
        raise BisectError(f"no cell of an attack in {named} matches {wanted}: see `gauntlet show {paths[0]}`")
    skipped = _collect(runs, chosen)
    stored = [cell for cell in chosen.values() if cell.records]
    if not stored:
        raise BisectError(f"the cells of {named} have no stored results: run them first")
    versions_of = [list(_with_commits(cell)) for cell in stored]
    history, problem = read_history(repo, _commits(record for records in versions_of for record in records))
    cells = [_history(cell, records, history, problem) for cell, records in zip(stored, versions_of, strict=True)]
    return Bisection(tuple(adjusted(cells)), history, tuple(skipped))


def _identity(info: CellInfo) -> Identity:
    """The fields that all versions of a cell share. Label, suite and selection may differ between runs of the same block."""
    return info.model, info.defense, info.attack_spec, info.threat, _SELECTION.sub("", info.data), info.seed


def _commits(records: Iterable[Record]) -> set[str]:
    return {str(record.provenance.get("commit") or "") for record in records}


def _collect(runs: Sequence[Run], chosen: dict[Identity, _StoredCell]) -> list[str]:
    """Read every block of these cells from all stores. Returns a sentence for each block that cannot be read."""
    skipped: dict[str, None] = {}
    for root in {run.root.resolve(): None for run in runs}:
        here = [run for run in runs if run.root.resolve() == root]
        # A run may use other names for a block than the run that stored it.
        own: dict[str, set[Identity]] = {}
        for run in here:
            for cell in run.plan.cells:
                for key, _ in run.keys(cell) or ():
                    own.setdefault(key, set()).add(_identity(cell.info))
        store = here[0].store
        requests, unread = requests_by_block(root)
        skipped |= dict.fromkeys(f"Skipped: {sentence}" for sentence in unread)
        for key in store.stored_keys():
            try:
                wanted = {_identity(store.info(key)), *own.get(key, ())} & chosen.keys()
                records = {identity: store.read(key) for identity in wanted}
            except StoreError as error:
                skipped[f"Skipped: {error}"] = None
                continue
            for identity, record in records.items():
                chosen[identity].records[key] = record
                chosen[identity].requests.setdefault(key, []).extend(requests.get(key, ()))
    return list(skipped)


def _with_commits(cell: _StoredCell) -> Iterator[Record]:
    """Each record once for every commit that it belongs to; a changed tree counts only if no clean commit has the record."""
    for key, record in cell.records.items():
        later = [replace(record, provenance={**record.provenance, **asdict(request)}) for request in cell.requests[key]]
        clean = [version for version in (record, *later) if not version.provenance.get("dirty")]
        yield from clean or (record, *later)


def _history(cell: _StoredCell, records: Sequence[Record], history: CommitHistory, problem: str) -> CellHistory:
    current = {key for key, _ in cell.run.keys(cell.cell) or ()}
    kept = same_data(records, current)
    unknown = sorted(_commits(kept) - history.parents.keys())
    order = None if unknown else history
    ordered = group_versions(kept, order)
    left_out = len(cell.records) - len({record.key for record in kept})
    notes = [*_block_notes(cell, current, left_out), *_version_notes(ordered, order, problem, unknown)]
    info = cell.cell.info
    title = f"{info.title} {info.threat} on {_SELECTION.sub('', info.data)}, seed {info.seed}"
    return replace(cell_history(title, ordered, order, current), notes=tuple(notes))


def _block_notes(cell: _StoredCell, current: set[str], left_out: int) -> Iterator[str]:
    if error := cell.run.store.read_error(cell.cell.name):
        yield f"The latest run of this cell failed ({error.kind}: {error.message}): * marks the last results before it."
    elif not current & cell.records.keys():
        yield "The latest run has no result of this cell: the last version takes its place."
    if left_out:
        yield f"Left out: {left_out} blocks with other images or labels under the same ids."


def _version_notes(
    ordered: Sequence[Version], history: CommitHistory | None, problem: str, unknown: Sequence[str]
) -> Iterator[str]:
    if len(ordered) > 1 and history is None:
        names = ", ".join(commit[:10] or "results without a commit" for commit in unknown[:3])
        why = problem or f"git does not have {names}{' and others' if len(unknown) > 3 else ''}"
        yield f"Ordered by time: {why}; name a full clone of the repository with --repo."
    pairs = list(pairwise(ordered))
    if any(old.commit == new.commit and not new.dirty for old, new in pairs):
        yield "A commit has several versions: weights or libraries outside git changed, or two models have the same name."
    if history is not None and any(old.commit not in history.ancestors(new.commit) for old, new in pairs):
        yield "The versions are on several branches: each is compared with its ancestors only."
