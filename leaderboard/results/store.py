"""The store: one immutable Parquet file for each block of a cell, named by its key. The first writer wins."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gauntlet.leaderboard.results.atomic_files import replace_text, write_once
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.record import SCHEMA_VERSION, CellError, CellInfo, Flag, Record, Samples, Stats

_METADATA = b"gauntlet"
_COLUMNS: dict[str, str] = {
    "label": "int64",
    "clean_prediction": "int64",
    "prediction": "int64",
    "robust": "bool",
    "distance": "float64",
    "margin": "float64",
    "forwards": "float64",
    "backwards": "float64",
    "steps": "int64",
    "wrong_share": "float64",
    "wrong_share_scored": "float64",
}


@dataclass(frozen=True)
class Store:
    """Results below `root`: `store/` has the blocks, `errors/` what failed."""

    root: Path

    def path(self, key: str) -> Path:
        """Where the block of that key lies, or would lie."""
        return self.root / "store" / key[:2] / f"{key}.parquet"

    def has(self, key: str) -> bool:
        """Whether the block is stored."""
        return self.path(key).exists()

    def write(self, record: Record) -> bool:
        """Store a block; False where another writer was first. Raises StoreError (disk full, no permission)."""
        table = _to_table(record)
        return write_once(self.path(record.key), lambda file: _save(table, file))

    def read(self, key: str, *, adversarial: bool = False) -> Record:
        """The block of that key; its examples only on demand. Raises StoreError where it is damaged or absent."""
        path = self.path(key)
        try:
            wanted = ["id", *_COLUMNS, "stage", "certified", "clean_logits", *(["adversarial"] if adversarial else [])]
            # The file is opened here: what is not there is then told apart from what is damaged.
            with path.open("rb") as file:
                # Without threads of its own: a process that ends right after pyarrow used some aborts at times.
                table = pq.ParquetFile(file, pre_buffer=False).read(columns=wanted, use_threads=False)
                return _from_table(table, key, adversarial)
        except FileNotFoundError:
            raise StoreError(f"{path} is missing: run the same command again to compute it") from None
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
            raise StoreError(
                f"{path} is damaged ({error}): delete it and run the same command again to compute it afresh"
            ) from error

    def stored_keys(self) -> list[str]:
        """The keys of all stored blocks, sorted."""
        return sorted(path.stem for path in (self.root / "store").glob("??/*.parquet"))

    def info(self, key: str) -> CellInfo:
        """What was asked of the cell that a block is of. Raises StoreError where it is damaged or absent."""
        return CellInfo(**self._fields(key)["cell"])

    def intact(self, key: str) -> bool:
        """Whether the content of the block is what was written, by its digest."""
        record, stored = self.read(key, adversarial=True), self._fields(key)
        return bool(stored["digest"] == samples_digest(record.samples) and stored["key"] == key)

    def _fields(self, key: str) -> dict[str, Any]:
        """What is stored of a block beside its columns. Raises StoreError."""
        try:
            found = json.loads(pq.read_schema(self.path(key)).metadata[_METADATA])
            return {name: found[name] for name in ("cell", "digest", "key")}
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
            raise StoreError(f"{self.path(key)} is damaged or missing ({error}): delete it and run again") from error

    def size(self, key: str) -> int:
        """Bytes on disk."""
        return self.path(key).stat().st_size

    def write_error(self, name: str, error: CellError) -> None:
        """Keep the latest failure of a cell, `name` being its identity within the store."""
        text = json.dumps(dataclasses.asdict(error), indent=1)
        replace_text(self.root / "errors" / f"{name}.json", text)

    def read_error(self, name: str) -> CellError | None:
        """The latest failure of a cell, if any. Raises StoreError where its file is damaged."""
        path = self.root / "errors" / f"{name}.json"
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            return CellError(**{**fields, "cell": CellInfo(**fields["cell"])})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StoreError(f"{path} is damaged ({error}): delete it and run the same command again") from error

    def clear_error(self, name: str) -> None:
        """Forget the failure of a cell that has succeeded since."""
        (self.root / "errors" / f"{name}.json").unlink(missing_ok=True)


def samples_digest(samples: Samples) -> str:
    """sha256 over all columns, examples included: an altered pixel, label or verdict changes it."""
    digest = hashlib.sha256("\0".join(samples.id.tolist()).encode())
    for name, dtype in _COLUMNS.items():
        digest.update(np.ascontiguousarray(getattr(samples, name), dtype=dtype).tobytes())
    digest.update("\0".join(samples.stage).encode())
    if samples.certified is not None:
        digest.update(samples.certified.tobytes())
    for image in samples.adversarial:
        digest.update(b"none" if image is None else np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


def _save(table: pa.Table, file: BinaryIO) -> None:
    try:
        pq.write_table(table, file, compression="zstd")
    except pa.ArrowException as error:
        raise OSError(str(error)) from error


def _to_table(record: Record) -> pa.Table:
    samples = record.samples
    kept = [image for image in samples.adversarial if image is not None]
    metadata = {
        "schema": SCHEMA_VERSION,
        "key": record.key,
        "cell": dataclasses.asdict(record.cell),
        "stats": dataclasses.asdict(record.stats),
        "flags": [dataclasses.asdict(flag) for flag in record.flags],
        "provenance": dict(record.provenance),
        "digest": samples_digest(samples),
        "shape": list(kept[0].shape) if kept else None,
        "dtype": str(kept[0].dtype) if kept else None,
    }
    columns: dict[str, Any] = {"id": pa.array(samples.id.tolist(), pa.string())}
    for name, dtype in _COLUMNS.items():
        columns[name] = pa.array(np.asarray(getattr(samples, name)), pa.type_for_alias(dtype))
    images = [None if image is None else np.ascontiguousarray(image).tobytes() for image in samples.adversarial]
    proven = samples.certified
    columns["certified"] = pa.array([None] * len(samples) if proven is None else proven.tolist(), pa.bool_())
    columns["stage"] = pa.array(samples.stage or itertools.repeat(None, len(samples)), pa.string())
    columns["adversarial"] = pa.array(images, pa.binary())
    logits = record.clean_logits
    columns["clean_logits"] = pa.array(
        [None] * len(samples) if logits is None else logits.tolist(), pa.list_(pa.float64())
    )
    return pa.table(columns).replace_schema_metadata({_METADATA: json.dumps(metadata).encode()})


def _from_table(table: pa.Table, key: str, adversarial: bool) -> Record:
    fields = json.loads(table.schema.metadata[_METADATA])
    if fields["schema"] != SCHEMA_VERSION:
        raise ValueError(f"schema version {fields['schema']} where {SCHEMA_VERSION} is expected")
    columns = {name: table[name].to_numpy().astype(dtype) for name, dtype in _COLUMNS.items()}
    logits, stages = table["clean_logits"].to_pylist(), table["stage"].to_pylist()
    stage = () if not stages or stages[0] is None else tuple(stages)
    proven = table["certified"].to_pylist()
    certified = None if not proven or proven[0] is None else np.array(proven, dtype=np.bool_)
    images: list[Any] = [None] * table.num_rows
    if adversarial:
        images = [
            None if raw is None else np.frombuffer(raw, dtype=fields["dtype"]).reshape(fields["shape"])
            for raw in table["adversarial"].to_pylist()
        ]
    return Record(
        key=key,
        cell=CellInfo(**fields["cell"]),
        samples=Samples(
            id=np.array(table["id"].to_pylist(), dtype=np.str_),
            adversarial=images,
            stage=stage,
            certified=certified,
            **columns,
        ),
        stats=Stats(**fields["stats"]),
        flags=tuple(Flag.read(flag) for flag in fields["flags"]),
        provenance=fields["provenance"],
        clean_logits=None if not len(logits) or logits[0] is None else np.array(logits, dtype=np.float64),
    )
