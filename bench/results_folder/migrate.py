"""Lifting the results folders of earlier versions: in place, a file at a time, so that a stopped migration is taken up again."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from gauntlet.bench.planning.plan import Plan
from gauntlet.bench.results_folder.schema2 import SCHEMA, lifted_cell, planned_cell, read_block, schema_of
from gauntlet.bench.run.run_folder import LATEST, Run, RunError, write_run
from gauntlet.bench.worker.request import read_cell
from gauntlet.leaderboard.report.markdown_writer import RunContext
from gauntlet.leaderboard.results.atomic_files import replace_bytes, replace_text
from gauntlet.leaderboard.results.block_file import from_file, to_bytes
from gauntlet.leaderboard.results.record import SCHEMA_VERSION, CellError, CellInfo
from gauntlet.leaderboard.results.sealed_json import read_json, sealed
from gauntlet.leaderboard.results.store import Store

_DAMAGE: Final = (pa.ArrowException, OSError, KeyError, ValueError, TypeError, IndexError)


@dataclass
class Migrated:
    """What was lifted of a folder, and what is left as it was."""

    runs: int = 0
    blocks: int = 0
    errors: int = 0
    notes: list[str] = field(default_factory=list)
    """A sentence for each file that could not be read."""


def migrate(root: Path) -> Migrated:
    """Lift the results of schema 2 below a folder: blocks first, plans last. What is of today's schema is left alone.

    A damaged file is named and left as it is. Raises RunError for a folder without runs or of another schema, and WriteError.
    """
    plans = _plans(root)
    migrated = Migrated()
    store = Store(root)
    for key in store.loose_keys():
        _lift_block(store.path(key), key, migrated)
    for path in sorted((root / "errors").glob("*.json")):
        _lift_error(path, migrated)
    for folder, record in plans:
        try:
            run = _run(root, folder, record)
        except _DAMAGE as error:
            migrated.notes.append(f"{folder / 'run.json'} cannot be read ({error}): left as it is")
            continue
        write_run(run)
        migrated.runs += 1
    return migrated


def _plans(root: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The folders and plans of the runs that are to be lifted, the latest run last."""
    try:
        latest = str(read_json(root / LATEST)["run"])
        files = {path.parent: read_json(path) for path in (root / "runs").glob("*/run.json")}
        schemas = {folder: record.get("schema", SCHEMA) for folder, record in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{root} holds no runs that can be read ({error}): give the --out folder of `gauntlet run`"
        ) from error
    if wrong := [folder for folder, schema in schemas.items() if schema not in (SCHEMA, SCHEMA_VERSION)]:
        raise RunError(
            f"{wrong[0] / 'run.json'} has schema {schemas[wrong[0]]}, and schema {SCHEMA} is lifted to {SCHEMA_VERSION}: use the "
            "version of gauntlet that wrote it"
        )
    old = [(folder, record) for folder, record in files.items() if schemas[folder] == SCHEMA]
    return sorted(old, key=lambda pair: (pair[0].name == latest, pair[0].name))


def _lift_block(path: Path, key: str, migrated: Migrated) -> None:
    try:
        content = path.read_bytes()
        if schema_of(BytesIO(content)) != SCHEMA:
            return
        record = read_block(BytesIO(content))
        lifted = to_bytes(dataclasses.replace(record, key=key))
        # Read as any block is, before the old one goes.
        from_file(BytesIO(lifted), adversarial=True)
    except _DAMAGE as error:
        migrated.notes.append(f"{path} is damaged ({error}): left as it is")
        return
    replace_bytes(path, lifted)
    migrated.blocks += 1


def _lift_error(path: Path, migrated: Migrated) -> None:
    try:
        fields = read_json(path)
        if "ways" not in fields["cell"]:
            return
        error = CellError(**{**fields, "cell": CellInfo.read(lifted_cell(fields["cell"]))})
    except _DAMAGE as problem:
        migrated.notes.append(f"{path} is damaged ({problem}): left as it is")
        return
    replace_text(path, sealed(dataclasses.asdict(error), path.stem))
    migrated.errors += 1


def _run(root: Path, folder: Path, record: dict[str, Any]) -> Run:
    cells = tuple(read_cell(planned_cell(fields)) for fields in record["cells"])
    lists = {name: tuple(value) for name, value in record["context"].items() if isinstance(value, list)}
    context = RunContext(**{**record["context"], **lists})
    return Run(root, folder, Plan(cells, tuple(record["skipped"])), context, tuple(record.get("plugins", ())))
