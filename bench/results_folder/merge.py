"""Joining results folders: blocks, runs, published figures, errors and notes, without models, code or weights.

Every file is written whole or not at all, blocks before the runs that name them, so that a merge that was killed is taken up by
the same command. Blocks are read one at a time, in full, under their digests.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gauntlet.bench.results_folder.all_runs import runs_of
from gauntlet.bench.results_folder.merge_notes import merge_history, merge_published, merge_spent
from gauntlet.bench.run.run_folder import LATEST, RunError, load_run, read_keys
from gauntlet.leaderboard.report.formatting import counted
from gauntlet.leaderboard.results.atomic_files import replace_text, write_once
from gauntlet.leaderboard.results.errors import DamagedBlockError
from gauntlet.leaderboard.results.record import Record
from gauntlet.leaderboard.results.store import Store

_ONCE = ("measured", "timings")
"""Folders whose files are copied where there are none of their names."""
_TOP = ("removed.json", "models.toml")


@dataclass
class Merged:
    """What a folder added."""

    folder: Path
    blocks: int = 0
    """Blocks that were added."""
    same: int = 0
    """Blocks that were there, with the same verdicts."""
    runs: int = 0
    notes: list[str] = field(default_factory=list)
    """A sentence for each difference and each block that was left out."""

    @property
    def line(self) -> str:
        """A line on the folder."""
        there = f"{counted(self.same, 'block')} {'was' if self.same == 1 else 'were'} there"
        return f"{self.folder}: {counted(self.blocks, 'block')} and {counted(self.runs, 'run')} added, {there}"


def merge_folders(out: Path, folders: Sequence[Path]) -> Iterator[Merged]:
    """Join results folders into `out`, which is created if needed, in order, and yield what each added.

    Of two blocks with one key the first is kept, and differences of their verdicts are notes; so is a damaged block, which is
    left out. Raises RunError where a folder holds no results or is `out` itself, StoreError and WriteError.
    """
    for folder in folders:
        if not folder.is_dir():
            raise RunError(f"{folder} is no folder: give the --out folders of `gauntlet run`")
        if folder.resolve() == out.resolve():
            raise RunError(f"{folder} is the folder to merge into: give the others")
        if not (folder / "store").is_dir() and not (folder / "runs").is_dir():
            raise RunError(f"{folder} holds no results: give the --out folders of `gauntlet run`")
        if (folder / "runs").is_dir():
            runs_of(folder)
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RunError(f"a folder is given twice among {', '.join(map(str, folders))}: give each once")
    for folder in folders:
        yield _merge(out, folder)
    _name_latest(out)


def _merge(out: Path, folder: Path) -> Merged:
    merged = Merged(folder)
    added = _merge_blocks(Store(out), Store(folder), merged)
    for name in _ONCE:
        for path in sorted((folder / name).rglob("*.json")):
            _copy(path, out / path.relative_to(folder))
    for name in _TOP:
        if (folder / name).is_file():
            _copy(folder / name, out / name)
    for path in sorted((folder / "history").glob("*.jsonl")):
        merge_history(out / "history" / path.name, path)
    for run in sorted(path.parent for path in (folder / "runs").glob("*/run.json")):
        merged.notes += _merge_run(out, run, added)
        merged.runs += _copy(run / "run.json", out / "runs" / run.name / "run.json")
    _merge_errors(out, folder)
    return merged


def _merge_blocks(to: Store, source: Store, merged: Merged) -> set[str]:
    """Add the blocks that `to` has not, and compare the others. Returns the keys of those that were added."""
    added = set()
    for key in source.stored_keys():
        try:
            record = source.read(key, adversarial=True)
        except DamagedBlockError as error:
            merged.notes.append(f"{error.found}: left out")
            continue
        if to.has(key):
            try:
                found = _difference(to.read(key), record)
            except DamagedBlockError:
                place = to.set_aside(key)
                found = f"the block of {to.root} was damaged, and is now {place}: this one is taken in its place"
                to.write(record)
            merged.same += not found
            if found:
                merged.notes.append(f"{record.cell.title}, block {key[:12]}: {found}")
        elif to.write(record):
            merged.blocks += 1
            added.add(key)
    return added


def _difference(kept: Record, other: Record) -> str:
    """How the verdicts of two blocks of one key differ, in words; empty if they do not."""
    one, two = kept.samples, other.samples
    if one.id.tolist() != two.id.tolist():
        return "other samples under the same key: the first is kept"
    for name in ("label", "clean_prediction", "robust"):
        differ = int(np.count_nonzero(getattr(one, name) != getattr(two, name)))
        if differ:
            return f"{name} differs for {differ} of {len(one)} samples: the first is kept"
    return ""


def _merge_run(out: Path, run: Path, added: set[str]) -> list[str]:
    """Add what a run knows of its cells and models; a sentence for each cell whose keys differ."""
    notes = []
    target = out / "runs" / run.name
    for path in sorted((run / "cells").glob("*.json")):
        keys = read_keys(path) or []
        if not _copy(path, target / "cells" / path.name) and keys != read_keys(target / "cells" / path.name):
            notes.append(f"run {run.name}, cell {path.stem}: it asked for other blocks than before, which are kept")
            continue
        for spent in sorted((run / "spent").glob(f"{path.stem}*.json")):
            merge_spent(target / "spent" / spent.name, spent, more=any(key in added for key, _ in keys))
    for path in sorted((run / "published").glob("*.json")):
        merge_published(target / "published" / path.name, path)
    for folder in ("gate", "shards"):
        for path in sorted((run / folder).glob("*.json")):
            _copy(path, target / folder / path.name)
    return notes


def _merge_errors(out: Path, folder: Path) -> None:
    """Keep the failures of cells that no folder has finished."""
    errors = sorted((folder / "errors").glob("*.json"))
    store = Store(out)
    finished = set()
    for keys in (out / "runs").glob("*/cells/*.json"):
        if all(store.has(key) for key, _ in read_keys(keys) or []):
            finished.add(keys.name)
    for path in errors:
        if _cell_file(path) not in finished:
            _copy(path, out / "errors" / path.name)
    for path in (out / "errors").glob("*.json"):
        if _cell_file(path) in finished:
            path.unlink(missing_ok=True)


def _cell_file(error: Path) -> str:
    """The name of the file of a cell's keys, from that of its error or of a shard's."""
    return f"{error.stem.partition('.')[0]}.json"


def _name_latest(out: Path) -> None:
    """Make the run that was started last the latest, where a folder has runs."""
    folders = sorted(path.parent for path in (out / "runs").glob("*/run.json"))
    if folders:
        newest = max((load_run(folder) for folder in folders), key=lambda run: run.context.started)
        replace_text(out / LATEST, json.dumps({"run": newest.folder.name}))


def _copy(source: Path, target: Path) -> bool:
    """Copy a file unless there is one; whether it was copied."""
    if target.exists():
        return False

    def save(file: BinaryIO) -> None:
        with source.open("rb") as content:
            shutil.copyfileobj(content, file)

    return write_once(target, save)
