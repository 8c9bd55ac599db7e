"""A run's own folder: its plan, and the keys of each cell's blocks in the store. Tables use these keys only."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gauntlet.bench.config.cell import Cell
from gauntlet.bench.config.shard import Shard
from gauntlet.bench.planning.plan import Plan
from gauntlet.bench.run.commit_journal import record_request
from gauntlet.bench.worker.request import cell_fields, read_cell
from gauntlet.leaderboard.reading.read_blocks import read_blocks
from gauntlet.leaderboard.report.markdown_writer import RunContext
from gauntlet.leaderboard.results.atomic_files import remove_file, replace_text, write_once
from gauntlet.leaderboard.results.errors import DamagedBlockError, StoreError
from gauntlet.leaderboard.results.held import Held
from gauntlet.leaderboard.results.leftovers import sweep
from gauntlet.leaderboard.results.published_figure import PublishedFigure
from gauntlet.leaderboard.results.record import SCHEMA_VERSION, CellInfo, CellResult, Record
from gauntlet.leaderboard.results.sealed_json import read_json, read_sealed, sealed, unsealed
from gauntlet.leaderboard.results.spent import Spent, joint_spent, read_spent, write_spent
from gauntlet.leaderboard.results.store import Store
from gauntlet.leaderboard.results.summary import BlockNote, CellSummary, summarise
from gauntlet.leaderboard.results.summary_file import (
    ONCE,
    changed_just_now,
    read_summary,
    state_of,
    summary_name,
    write_summary,
)

LATEST = "latest-run.json"
_PLAN = "run"
"""What the digest of a run's plan is about; a run's folder may be renamed."""
_KEY = re.compile("[0-9a-f]{64}")


class RunError(ValueError):
    """A folder does not hold a readable run; the message says what is missing."""


@dataclass(frozen=True)
class Run:
    """A plan in the results folder `root`; the run's own files are in `folder`."""

    root: Path
    folder: Path
    plan: Plan
    context: RunContext
    plugins: tuple[str, ...] = ()
    """Python files that register what the plan names."""
    held: Held | None = None
    """If given, this is read in place of the folder's files, which other code may change while the run goes on."""

    @property
    def store(self) -> Store:
        """The store of the results, shared by all runs of `root`."""
        return Store(self.root, self.held)

    def note_keys(self, cell: Cell, blocks: list[tuple[str, int]]) -> None:
        """Write the keys and sizes of a cell's blocks, and record the commit that requests them."""
        if self.held is not None:
            self.held.blocks[cell.name] = blocks
        replace_text(self._keys_file(cell), sealed({"blocks": blocks}, cell.name))
        record_request(self.root, cell.name, [key for key, _ in blocks])

    def keys(self, cell: Cell) -> list[tuple[str, int]] | None:
        """Keys and sizes of the cell's blocks; None if the cell was never prepared. Raises StoreError."""
        if self.held is not None:
            noted = self.held.blocks.get(cell.name)
            return None if noted is None else list(noted)
        return read_keys(self._keys_file(cell))

    def result(self, cell: Cell, *, adversarial: bool = False) -> CellResult:
        """The stored result of a cell: its finished blocks and its error. `adversarial`: with the examples."""
        keys = self.keys(cell) or []
        stored = [noted for noted in keys if self.store.has(noted[0])]
        records = read_blocks(self.store, [key for key, _ in stored], adversarial=adversarial)
        blocks = tuple(map(self._block, stored, records))
        return CellResult(
            _with_measured(cell.info, blocks[0].cell if blocks else cell.info),
            blocks,
            self.store.read_error(cell.name),
            expected=sum(count for _, count in keys),
            spent=self.spent(cell),
        )

    def note_spent(self, cell: Cell, spent: Spent, *, anew: bool, shard: Shard | None = None) -> None:
        """Add the seconds of a run, or of a shard, that computed blocks of the cell; `anew`: all of them. Raises StoreError."""
        file = self.folder / "spent" / f"{cell.name}{f'.{shard.name}' if shard else ''}.json"
        before = None if anew else read_spent(file)
        for earlier in file.parent.glob(f"{cell.name}.shard-*.json") if anew and shard is None else ():
            remove_file(earlier)
        write_spent(file, spent if before is None else before + spent)

    def spent(self, cell: Cell) -> Spent | None:
        """The seconds of a cell, with those of shards; None where nothing is known. Raises StoreError."""
        shards = (f".{path.stem}" for path in sorted(Path(f"{self.folder}/shards").glob("*.json")))
        return joint_spent(Path(f"{self.folder}/spent/{cell.name}{shard}.json") for shard in ("", *shards))

    def note_published(self, model: str, published: Sequence[PublishedFigure]) -> None:
        """Write the published figures of the model with this name in the tables."""
        if self.held is not None:
            self.held.published[model] = published
        record = {"model": model, "published": [dataclasses.asdict(figure) for figure in published]}
        name = hashlib.sha256(model.encode()).hexdigest()[:16]
        replace_text(self.folder / "published" / f"{name}.json", sealed(record, name))

    def published(self) -> list[tuple[str, PublishedFigure]]:
        """Names of models in the tables, each with a published figure. Raises StoreError."""
        if self.held is not None:
            return [(model, figure) for model, several in self.held.published.copy().items() for figure in several]
        figures = []
        for file in sorted((self.folder / "published").glob("*.json")):
            try:
                record = read_sealed(file, file.stem)
                figures += [(str(record["model"]), PublishedFigure(**fields)) for fields in record["published"]]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise StoreError(f"{file} is damaged ({error}): delete it and run the same command again") from error
        return figures

    def results(self) -> list[CellResult]:
        """The stored result of every cell, in the order of the plan."""
        return [self.result(cell) for cell in self.plan.cells]

    def summaries(self, *, anew: bool = False) -> list[CellSummary]:
        """The summary of every cell, in the order of the plan; `anew`: read all blocks, whatever is known of them."""
        return [self.summary(cell, anew=anew) for cell in self.plan.cells]

    def summary(self, cell: Cell, *, anew: bool = False) -> CellSummary:
        """The summary of a cell: made of its blocks, unless one was made of the same files here before. Raises StoreError."""
        if self.held is not None:
            return summarise(self.result(cell))
        keys, folder = self.keys(cell) or [], self.root / "summaries"
        state = state_of(self.store, keys)
        name = summary_name(state)
        known = read_summary(folder, name, state) if state and not anew else None
        if known is None:
            made = summarise(self.result(cell))
            if state and not changed_just_now(state):
                write_summary(folder, name, made, state)
            return made
        again = {one[0] for one in state if len(one) > ONCE}
        started = self.context.started
        times = (self._latest(block) if block.key in again else block.time for block in known.blocks)
        return replace(
            known,
            cell=_with_measured(cell.info, known.cell),
            blocks=tuple(block.marked(time < started) for block, time in zip(known.blocks, times, strict=True)),
            error=self.store.read_error(cell.name),
            expected=sum(count for _, count in keys),
            spent=self.spent(cell),
        )

    def has_summary(self, cell: Cell) -> bool:
        """Whether there is a summary of these blocks, made of the same files or not. Raises StoreError."""
        return (self.root / "summaries" / summary_name(state_of(self.store, self.keys(cell) or []))).exists()

    def _block(self, noted: tuple[str, int], record: Record) -> Record:
        key, count = noted
        if len(record.samples) != count:
            raise DamagedBlockError(f"{self.store.place(key)} has {len(record.samples)} samples instead of {count}")
        return self._marked(record)

    def _marked(self, record: Record) -> Record:
        """The block with what its latest run cost, and whether that was before this run."""
        computed, stats = str(record.provenance.get("time", "")), record.stats
        if (timing := self.store.timing(record.key)) is not None and timing.time > computed:
            computed = timing.time
            stats = replace(stats, seconds=timing.seconds, peak_memory_mib=timing.peak_memory_mib)
        return replace(record, stats=stats, cached=computed < self.context.started)

    def _latest(self, block: BlockNote) -> str:
        """When a block was run last."""
        timing = self.store.timing(block.key)
        return block.time if timing is None else max(block.time, timing.time)

    def _keys_file(self, cell: Cell) -> Path:
        return Path(f"{self.folder}/cells/{cell.name}.json")


def _with_measured(planned: CellInfo, measured: CellInfo) -> CellInfo:
    """The fields that are known once a cell is prepared, so that blocks have them and the plan does not."""
    return replace(
        planned,
        randomised=measured.randomised,
        classes=measured.classes,
        rejects=measured.rejects,
        techniques=measured.techniques,
        precision=measured.precision,
    )


def read_keys(path: Path) -> list[tuple[str, int]] | None:
    """Keys and sizes of a cell's blocks from the file of its name; None where there is none. Raises StoreError."""
    try:
        held = read_json(path)
        # Earlier versions wrote the list alone, without a digest.
        found = held if isinstance(held, list) else unsealed(held, path.stem)["blocks"]
        pairs = [(key, count) for key, count in found]
        if wrong := [one for one in pairs if not _KEY.fullmatch(one[0]) or type(one[1]) is not int or one[1] < 1]:
            raise ValueError(f"{wrong[0]!r} is not the key of a block and its number of samples")
        return pairs
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{path} is damaged ({error}): run the same command again") from error


def _file_names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"plugins={value!r} are no list of files")
    return tuple(value)


def _one_folder(name: object) -> str:
    if not isinstance(name, str) or Path(name).name != name:
        raise ValueError(f"{name!r} is not the name of a run's folder")
    return name


def start_run(root: Path, plan: Plan, context: RunContext, plugins: tuple[str, ...] = ()) -> Run:
    """The run of that plan, written into `root`. Raises StoreError."""
    run = planned_run(root, plan, context, plugins)
    write_run(run)
    return run


def write_run(run: Run, shard: Shard | None = None) -> None:
    """Write the run's plan and make it the latest run of its folder; sweep what killed writers left. Raises StoreError.

    A shard leaves the plan that another shard or a run has written, and says in a file of its own how it was called.
    """
    sweep(run.root)
    context = dataclasses.asdict(run.context)
    record = {"schema": SCHEMA_VERSION, "cells": _fields(run.plan), "skipped": run.plan.skipped, "context": context}
    # Plugins are paths, which whoever moves the folder may have to edit; they are not sealed.
    plan = sealed(record, _PLAN, plugins=run.plugins)
    replace_text(run.root / LATEST, json.dumps({"run": run.folder.name}))
    if shard is None:
        replace_text(run.folder / "run.json", plan)
        return
    replace_text(run.folder / "shards" / f"{shard.name}.json", sealed({"context": context}, shard.name))
    write_once(run.folder / "run.json", lambda file: file.write(plan.encode()))


def planned_run(
    root: Path, plan: Plan, context: RunContext, plugins: tuple[str, ...] = (), held: Held | None = None
) -> Run:
    """The run of that plan, of which nothing need be written yet: its folder follows from its cells."""
    digest = hashlib.sha256(json.dumps(_fields(plan), sort_keys=True).encode()).hexdigest()[:16]
    return Run(root, root / "runs" / digest, plan, context, plugins, held)


def _fields(plan: Plan) -> list[dict[str, Any]]:
    return [cell_fields(cell) for cell in plan.cells]


def load_run(path: Path, plugins: tuple[str, ...] = ()) -> Run:
    """The latest run of a results folder, or the run of a `runs/…` folder.

    `plugins` replace the recorded plugins of the run. Raises RunError.
    """
    if (path / "run.json").is_file():
        folder, root = path, path.parent.parent
    else:
        root = path
        try:
            folder = root / "runs" / _one_folder(read_json(path / LATEST)["run"])
        except (FileNotFoundError, NotADirectoryError):
            why = f"{LATEST} is missing" if path.exists() else "it does not exist"
            raise RunError(f"{path} holds no run ({why}): give the --out folder of `gauntlet run`") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path / LATEST} is damaged ({error}): run the same command again") from error
    try:
        record = read_sealed(folder / "run.json", _PLAN, without=("plugins",))
        if (schema := record.get("schema", 2)) != SCHEMA_VERSION:
            raise RunError(
                f"{folder / 'run.json'} has schema {schema}, and gauntlet reads schema {SCHEMA_VERSION} here: lift schema 2 by "
                "`gauntlet migrate`, run the same command again, or read old results with the version that wrote them"
            )
        cells = tuple(read_cell(fields) for fields in record["cells"])
        lists = {name: tuple(value) for name, value in record["context"].items() if isinstance(value, list)}
        context = RunContext(**{**record["context"], **lists})
        plugins = plugins or _file_names(record.get("plugins", []))
        plan = Plan(cells, tuple(record["skipped"]))
    except RunError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{folder / 'run.json'} is missing or damaged ({error}): run the same command again") from error
    return Run(root, folder, plan, context, plugins)
