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

from gauntlet.leaderboard.examples.clean_images import COLUMN as CLEAN
from gauntlet.leaderboard.examples.clean_images import FindClean, no_clean
from gauntlet.leaderboard.examples.differences import Levels, clean_digest, decode, encode
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
_RAW, _DIFFERENCE = "raw", "difference"
"""How examples are stored: the bytes of the array; 8-bit examples as differences from the clean image, others as they are."""
COMPRESSION = {"adversarial": "zstd", "difference": "zstd", CLEAN: "zstd"}
"""Columns of numbers are small, and reading them is what a table of many cells waits for."""
Columns = tuple[Mapping[str, Any], Mapping[str, Any]]
"""The columns of a block by name, as `arrays_of` gives them, and its metadata."""


class AlteredError(ValueError):
    """A block is not what was written; the message says what does not match."""


class SchemaError(Exception):
    """A block was written under another schema; the message says which, and the remedy."""


def to_bytes(record: Record) -> bytes:
    """The block file of a record."""
    return table_bytes(_to_table(record))


def table_bytes(table: pa.Table) -> bytes:
    """A block's table as the bytes of a file."""
    sink = pa.BufferOutputStream()
    used = {name: kind for name, kind in COMPRESSION.items() if name in table.column_names}
    pq.write_table(table, sink, compression=used, use_dictionary=False, write_statistics=False)
    return bytes(sink.getvalue())


def from_file(file: BinaryIO, *, adversarial: bool = False, find_clean: FindClean = no_clean) -> Record:
    """The record of a block file; its examples only on demand. `find_clean`: for a file without its clean images.

    Raises SchemaError for another schema; AlteredError where the content does not match its digest, of the examples where they
    are read, or contradicts itself; ArrowException, OSError, KeyError, ValueError or TypeError for other damage.
    """
    # Without threads of its own: a process that ends right after pyarrow used some aborts at times.
    parquet = pq.ParquetFile(file, pre_buffer=False)
    metadata = _metadata(parquet.metadata)
    table = parquet.read(read_columns(adversarial=adversarial), use_threads=False)
    return checked_record(arrays_of(table), metadata, adversarial=adversarial, find_clean=find_clean)


def read_columns(*, adversarial: bool) -> list[str]:
    """The columns that a record is made of; a file may lack those of examples."""
    return ["id", *_COLUMNS, *_OPTIONAL, "clean_logits", *(COMPRESSION if adversarial else [])]


def checked_record(
    arrays: Mapping[str, Any], metadata: Mapping[str, Any], *, adversarial: bool, find_clean: FindClean = no_clean
) -> Record:
    """The record of the columns of a block with that metadata. Raises as `from_file`."""
    record = unaltered_record((arrays, metadata), find_clean if adversarial else None)
    if found := contradiction(record, adversarial=adversarial):
        raise AlteredError(found)
    return record


def unaltered_record(columns: Columns, find_clean: FindClean | None = None) -> Record:
    """The same, of which columns may contradict each other; with its examples where `find_clean` is given."""
    _check_schema(columns[1])
    record = record_of(*columns, find_clean)
    if found := _altered(record, columns[1], adversarial=find_clean is not None):
        raise AlteredError(found)
    return record


def metadata_of(file: BinaryIO) -> dict[str, Any]:
    """The metadata of a block file: key, cell, stats, flags, provenance, digests. Raises as `from_file`."""
    return _metadata(pq.ParquetFile(file, pre_buffer=False).metadata)


def leaf_of(file: BinaryIO) -> str:
    """The hash of a block's content, as its file states it: whoever reads the block compares it. Raises as `from_file`."""
    return str(metadata_of(file)["leaf"])


def _altered(record: Record, metadata: Mapping[str, Any], *, adversarial: bool) -> str:
    """Which digest does not match what was read, in words; empty if all do."""
    verdict, examples, leaf = (metadata[name] for name in _DIGESTS)
    logits = _array_digest(record.clean_logits) == metadata["clean_logits"]
    if not logits or verdict_digest(metadata, record.samples) != verdict or leaf != _leaf(verdict, examples):
        return "its digest does not match its content"
    if adversarial and examples_digest(record.samples) != examples:
        return "its adversarial images do not match their digest"
    return ""


def _metadata(described: pa.Schema | pq.FileMetaData) -> dict[str, Any]:
    metadata: dict[str, Any] = parse_json(described.metadata[METADATA])
    _check_schema(metadata)
    return metadata


def verdict_digest(metadata: Mapping[str, Any], samples: Samples) -> str:
    """sha256 over every column but the examples, and over all metadata of a block: cell, stats, flags, key, provenance."""
    plain = {name: value for name, value in metadata.items() if name not in _DIGESTS}
    digest = hashlib.sha256((json.dumps(plain, sort_keys=True) + json.dumps(samples.id.tolist())).encode())
    for name, dtype in _COLUMNS.items():
        digest.update(np.ascontiguousarray(getattr(samples, name), dtype=dtype).data)
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
            "lift schema 2 by `gauntlet migrate`, or read old results with the version that wrote them"
        )


def _to_table(record: Record) -> pa.Table:
    samples = record.samples
    kept = next((image for image in samples.adversarial if image is not None), None)
    differences = _differences(samples)
    near = any(one is not None for one in differences)
    metadata: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "key": record.key,
        "cell": dataclasses.asdict(record.cell),
        "stats": dataclasses.asdict(record.stats),
        "flags": [dataclasses.asdict(flag) for flag in record.flags],
        "provenance": dict(record.provenance),
        "behaviour": record.behaviour,
        "clean_logits": _array_digest(record.clean_logits),
        "shape": None if kept is None else list(kept.shape),
        "dtype": None if kept is None else str(kept.dtype),
        "encoding": _DIFFERENCE if near else _RAW,
        **({CLEAN: clean_digest(samples.clean)} if near else {}),
    }
    # As JSON will give it back: tuples become lists before the digest is taken.
    metadata = json.loads(json.dumps(metadata))
    metadata |= _digests(metadata, samples)
    columns: dict[str, Any] = {"id": pa.array(samples.id.tolist(), pa.string())}
    for name, dtype in _COLUMNS.items():
        columns[name] = pa.array(np.asarray(getattr(samples, name)), pa.type_for_alias(dtype))
    images = [
        None if image is None or difference is not None else np.ascontiguousarray(image).tobytes()
        for image, difference in zip(samples.adversarial, differences, strict=True)
    ]
    proven = samples.certified
    columns["certified"] = pa.array([None] * len(samples) if proven is None else proven.tolist(), pa.bool_())
    for name in ("stage", "severities", "faced"):
        columns[name] = pa.array(getattr(samples, name) or itertools.repeat(None, len(samples)), pa.string())
    columns["adversarial"] = pa.array(images, pa.binary())
    if near:
        columns["difference"] = pa.array(differences, pa.binary())
        columns[CLEAN] = pa.array([np.ascontiguousarray(image).tobytes() for image in samples.clean], pa.binary())
    logits = record.clean_logits
    columns["clean_logits"] = pa.array(
        [None] * len(samples) if logits is None else logits.tolist(), pa.list_(pa.float64())
    )
    return pa.table(columns).replace_schema_metadata({METADATA: json.dumps(metadata).encode()})


def _differences(samples: Samples) -> list[bytes | None]:
    """Each example as a difference from its clean image, where that is how it is stored."""
    if not samples.clean:
        return [None] * len(samples)
    pairs = zip(samples.adversarial, samples.clean, strict=True)
    return [None if image is None else encode(image, clean) for image, clean in pairs]


def _array_digest(array: npt.NDArray[Any] | None) -> str:
    return "" if array is None else hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def arrays_of(table: pa.Table) -> dict[str, Any]:
    """The columns of one block or several as arrays and lists, by name, for `record_of`."""
    arrays: dict[str, Any] = {name: table[name].to_numpy().astype(dtype) for name, dtype in _COLUMNS.items()}
    arrays["id"] = np.array(table["id"].to_pylist(), dtype=np.str_)
    optional = [name for name in (*_OPTIONAL, "clean_logits", *COMPRESSION) if name in table.column_names]
    # Without a value a column is empty, unless it is one of images.
    none = {name for name in optional if name not in COMPRESSION and table[name].null_count == len(table)}
    return arrays | {name: [] if name in none else table[name].to_pylist() for name in optional}


def _texts(arrays: Mapping[str, Any], name: str) -> Sequence[str]:
    """An optional text column: empty where the block has none."""
    values = arrays.get(name, ())
    return () if not values or values[0] is None else tuple(values)


def _clean(arrays: Mapping[str, Any], fields: Mapping[str, Any], find_clean: FindClean | None) -> Sequence[Levels]:
    """The clean images of a block that is read with its examples: those beside them, or those that are found."""
    if find_clean is None or fields.get("encoding") != _DIFFERENCE:
        return ()
    levels = arrays.get(CLEAN) or [None]
    if levels[0] is None:
        found = find_clean(fields[CLEAN])
    else:
        found = [np.frombuffer(raw, dtype=np.uint8).reshape(fields["shape"]) for raw in levels]
        if clean_digest(found) != fields[CLEAN]:
            raise AlteredError("its clean images are not those of its digest")
    if len(found) != len(arrays["id"]):
        raise AlteredError(f"it has {len(arrays['id'])} samples, and its clean images are {len(found)}")
    return found


def _examples(arrays: Mapping[str, Any], fields: Mapping[str, Any], clean: Sequence[Levels]) -> list[Any]:
    exact = arrays.get("adversarial", [None] * len(arrays["id"]))
    images: list[Any] = [
        None if raw is None else np.frombuffer(raw, dtype=fields["dtype"]).reshape(fields["shape"]) for raw in exact
    ]
    if not clean:
        return images
    near = zip(images, arrays["difference"], clean, strict=True)
    return [image if raw is None else decode(raw, beside) for image, raw, beside in near]


def record_of(arrays: Mapping[str, Any], fields: Mapping[str, Any], find_clean: FindClean | None = None) -> Record:
    """The unchecked record of a block's columns and metadata; with its examples where the columns have them."""
    logits, proven = arrays["clean_logits"], arrays["certified"]
    certified = None if not proven or proven[0] is None else np.array(proven, dtype=np.bool_)
    clean = _clean(arrays, fields, find_clean)
    return Record(
        key=fields["key"],
        cell=CellInfo.read(fields["cell"]),
        samples=Samples(
            id=arrays["id"],
            adversarial=_examples(arrays, fields, clean),
            clean=clean,
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
