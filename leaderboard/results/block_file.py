"""A record as bytes: a Parquet file with the samples as columns and everything else as metadata, under three digests."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gauntlet.leaderboard.results.contradictions import contradiction
from gauntlet.leaderboard.results.record import SCHEMA_VERSION, CellInfo, Flag, Record, Samples, Stats
from gauntlet.leaderboard.results.sealed_json import parse_json

METADATA = b"gauntlet"
"""Key of the metadata in the schema of a block file."""
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


_OPTIONAL = ("stage", "severities", "faced", "certified")
_DIGESTS = ("verdict_digest", "examples_digest", "leaf")
_EXAMPLE_ENCODING = "raw"
"""How examples are stored: the bytes of the array. Others may come."""


class AlteredError(ValueError):
    """A block is not what was written; the message says what does not match."""


class SchemaError(Exception):
    """A block was written under another schema; the message says which, and the remedy."""


def to_bytes(record: Record) -> bytes:
    """The block file of a record."""
    sink = pa.BufferOutputStream()
    # Columns of numbers are small, and reading them is what a table of many cells waits for.
    images = {"adversarial": "zstd"}
    pq.write_table(_to_table(record), sink, compression=images, use_dictionary=False, write_statistics=False)
    return bytes(sink.getvalue())


def from_file(file: BinaryIO, *, adversarial: bool = False) -> Record:
    """The record of a block file; its examples only on demand.

    Raises SchemaError for another schema; AlteredError where the content does not match its digest, of the examples where they
    are read, or contradicts itself; ArrowException, OSError, KeyError, ValueError or TypeError for other damage.
    """
    # Without threads of its own: a process that ends right after pyarrow used some aborts at times.
    parquet = pq.ParquetFile(file, pre_buffer=False)
    metadata = _metadata(parquet.schema_arrow)
    table = parquet.read(read_columns(adversarial=adversarial), use_threads=False)
    return checked_record(arrays_of(table), metadata, adversarial=adversarial)


def read_columns(*, adversarial: bool) -> list[str]:
    """The columns that a record is made of."""
    return ["id", *_COLUMNS, *_OPTIONAL, "clean_logits", *(["adversarial"] if adversarial else [])]


def checked_record(arrays: Mapping[str, Any], metadata: Mapping[str, Any], *, adversarial: bool) -> Record:
    """The record of the columns of a block with that metadata. Raises as `from_file`."""
    _check_schema(metadata)
    record = record_of(arrays, metadata)
    if found := _altered(record, metadata, adversarial) or contradiction(record, adversarial=adversarial):
        raise AlteredError(found)
    return record


def metadata_of(file: BinaryIO) -> dict[str, Any]:
    """The metadata of a block file: key, cell, stats, flags, provenance, digests. Raises as `from_file`."""
    return _metadata(pq.ParquetFile(file, pre_buffer=False).schema_arrow)


def leaf_of(file: BinaryIO) -> str:
    """The hash of a block's content, as its file states it: whoever reads the block compares it. Raises as `from_file`."""
    return str(metadata_of(file)["leaf"])


def _altered(record: Record, metadata: Mapping[str, Any], adversarial: bool) -> str:
    """Which digest does not match what was read, in words; empty if all do."""
    verdict, examples, leaf = (metadata[name] for name in _DIGESTS)
    logits = _array_digest(record.clean_logits) == metadata["clean_logits"]
    if not logits or verdict_digest(metadata, record.samples) != verdict or leaf != _leaf(verdict, examples):
        return "its digest does not match its content"
    if adversarial and examples_digest(record.samples) != examples:
        return "its adversarial images do not match their digest"
    return ""


def _metadata(schema: pa.Schema) -> dict[str, Any]:
    metadata: dict[str, Any] = parse_json(schema.metadata[METADATA])
    _check_schema(metadata)
    return metadata


def verdict_digest(metadata: Mapping[str, Any], samples: Samples) -> str:
    """sha256 over every column but the examples, and over all metadata of a block: cell, stats, flags, key, provenance."""
    plain = {name: value for name, value in metadata.items() if name not in _DIGESTS}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    digest.update(json.dumps(samples.id.tolist()).encode())
    for name, dtype in _COLUMNS.items():
        digest.update(np.ascontiguousarray(getattr(samples, name), dtype=dtype).tobytes())
    digest.update(json.dumps([list(samples.stage), list(samples.severities)]).encode())
    if samples.faced:
        digest.update(json.dumps(list(samples.faced)).encode())
    if samples.certified is not None:
        digest.update(samples.certified.tobytes())
    return digest.hexdigest()


def examples_digest(samples: Samples) -> str:
    """sha256 over the adversarial examples: pixels, dtype and shape, by sample id."""
    digest = hashlib.sha256()
    for sample, image in zip(samples.id.tolist(), samples.adversarial, strict=True):
        header = None if image is None else [image.dtype.str, list(image.shape)]
        digest.update(json.dumps([sample, header]).encode())
        if image is not None:
            digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


def _digests(metadata: Mapping[str, Any], samples: Samples) -> dict[str, str]:
    """The two digests of a block, and the hash of its content as a leaf: the same in any file format or compression."""
    verdict, examples = verdict_digest(metadata, samples), examples_digest(samples)
    return dict(zip(_DIGESTS, (verdict, examples, _leaf(verdict, examples)), strict=True))


def _leaf(verdict: str, examples: str) -> str:
    return hashlib.sha256(f"block {verdict} {examples}".encode()).hexdigest()


def _check_schema(metadata: Mapping[str, Any]) -> None:
    schema = metadata.get("schema")
    if schema != SCHEMA_VERSION:
        raise SchemaError(
            f"it has schema {schema}, and this version of gauntlet reads schema {SCHEMA_VERSION}: run the same command again, "
            "or read old results with the version that wrote them"
        )


def _to_table(record: Record) -> pa.Table:
    samples = record.samples
    kept = [image for image in samples.adversarial if image is not None]
    metadata: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "key": record.key,
        "cell": dataclasses.asdict(record.cell),
        "stats": dataclasses.asdict(record.stats),
        "flags": [dataclasses.asdict(flag) for flag in record.flags],
        "provenance": dict(record.provenance),
        "behaviour": record.behaviour,
        "clean_logits": _array_digest(record.clean_logits),
        "shape": list(kept[0].shape) if kept else None,
        "dtype": str(kept[0].dtype) if kept else None,
        "encoding": _EXAMPLE_ENCODING,
    }
    # As JSON will give it back: tuples become lists before the digest is taken.
    metadata = json.loads(json.dumps(metadata))
    metadata |= _digests(metadata, samples)
    columns: dict[str, Any] = {"id": pa.array(samples.id.tolist(), pa.string())}
    for name, dtype in _COLUMNS.items():
        columns[name] = pa.array(np.asarray(getattr(samples, name)), pa.type_for_alias(dtype))
    images = [None if image is None else np.ascontiguousarray(image).tobytes() for image in samples.adversarial]
    proven = samples.certified
    columns["certified"] = pa.array([None] * len(samples) if proven is None else proven.tolist(), pa.bool_())
    for name in ("stage", "severities", "faced"):
        columns[name] = pa.array(getattr(samples, name) or itertools.repeat(None, len(samples)), pa.string())
    columns["adversarial"] = pa.array(images, pa.binary())
    logits = record.clean_logits
    columns["clean_logits"] = pa.array(
        [None] * len(samples) if logits is None else logits.tolist(), pa.list_(pa.float64())
    )
    return pa.table(columns).replace_schema_metadata({METADATA: json.dumps(metadata).encode()})


def _array_digest(array: npt.NDArray[Any] | None) -> str:
    return "" if array is None else hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def arrays_of(table: pa.Table) -> dict[str, Any]:
    """The columns of one block or several as arrays and lists, by name, for `record_of`."""
    arrays: dict[str, Any] = {name: table[name].to_numpy().astype(dtype) for name, dtype in _COLUMNS.items()}
    arrays["id"] = np.array(table["id"].to_pylist(), dtype=np.str_)
    optional = (name for name in (*_OPTIONAL, "clean_logits", "adversarial") if name in table.column_names)
    return arrays | {name: table[name].to_pylist() for name in optional}


def _texts(arrays: Mapping[str, Any], name: str) -> Sequence[str]:
    """An optional text column: empty where the block has none."""
    values = arrays.get(name, ())
    return () if not values or values[0] is None else tuple(values)


def record_of(arrays: Mapping[str, Any], fields: Mapping[str, Any]) -> Record:
    """The unchecked record of a block's columns and metadata; with its examples where the columns have them."""
    logits, proven = arrays["clean_logits"], arrays["certified"]
    certified = None if not proven or proven[0] is None else np.array(proven, dtype=np.bool_)
    images: list[Any] = [
        None if raw is None else np.frombuffer(raw, dtype=fields["dtype"]).reshape(fields["shape"])
        for raw in arrays.get("adversarial", [None] * len(arrays["id"]))
    ]
    return Record(
        key=fields["key"],
        cell=CellInfo.read(fields["cell"]),
        samples=Samples(
            id=arrays["id"],
            adversarial=images,
            stage=_texts(arrays, "stage"),
            severities=_texts(arrays, "severities"),
            faced=_texts(arrays, "faced"),
            certified=certified,
            **{name: arrays[name] for name in _COLUMNS},
        ),
        stats=Stats(**fields["stats"]),
        flags=tuple(Flag.read(flag) for flag in fields["flags"]),
        provenance=fields["provenance"],
        clean_logits=None if not len(logits) or logits[0] is None else np.array(logits, dtype=np.float64),
        behaviour=fields["behaviour"],
    )
