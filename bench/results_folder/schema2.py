"""Results of schema 2, which version 0.1.0 wrote, in the form of today."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow.parquet as pq

from gauntlet.leaderboard.results.block_file import METADATA, AlteredError, arrays_of, record_of
from gauntlet.leaderboard.results.record import Record, Samples
from gauntlet.leaderboard.results.sealed_json import parse_json

SCHEMA: Final = 2
_COLUMNS: Final = ("label", "clean_prediction", "prediction", "robust", "distance", "margin", "forwards", "backwards")
_MORE: Final = ("steps", "wrong_share", "wrong_share_scored")
_REPLAY: Final = "replay: "
_STATS: Final = {"widened": "masked_fallback", "widened_passes": "masked_fallback_passes"}
"""Fields of a block's costs that have other names today."""


def schema_of(file: BinaryIO) -> object:
    """The schema that a block file states. Raises ArrowException, OSError, KeyError or ValueError for other files."""
    return parse_json(pq.ParquetFile(file, pre_buffer=False).schema_arrow.metadata[METADATA]).get("schema")


def read_block(file: BinaryIO) -> Record:
    """The record of a block of schema 2, with its examples, which its digest covers.

    Raises AlteredError where the digest does not match; ArrowException, OSError, KeyError, ValueError or TypeError for damage.
    """
    parquet = pq.ParquetFile(file, pre_buffer=False)
    fields = parse_json(parquet.schema_arrow.metadata[METADATA])
    record = record_of(arrays_of(parquet.read(use_threads=False)), _lifted(fields))
    if _digest(record.samples) != fields["digest"]:
        raise AlteredError("its digest does not match its content")
    if record.cell.corrupts:
        # The column of stages had the severities at which a sample is misclassified.
        return replace(record, samples=replace(record.samples, stage=(), severities=record.samples.stage))
    return record


def _lifted(fields: Mapping[str, Any]) -> dict[str, Any]:
    stats = {_STATS.get(name, name): value for name, value in fields["stats"].items()}
    return {**fields, "cell": lifted_cell(fields["cell"]), "stats": stats, "behaviour": ""}


def lifted_cell(fields: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The fields of a cell; `settings`: those of its attack, where the cell is a planned one, whose severities they decide.

    The severities of a corruption were its techniques, of which there is one today.
    """
    lifted = {name: value for name, value in fields.items() if name != "ways"}
    if fields["attack_spec"].startswith(_REPLAY):
        lifted["role"] = "replay"
    techniques = dict(fields.get("ways", {}))
    if fields["attack_kind"] != "corruption":
        return {**lifted, "techniques": techniques}
    asked = (settings or {}).get("severity")
    found = [asked] if asked is not None else list(range(1, 6))
    severities = found if settings is not None else sorted(map(int, techniques))
    return {**lifted, "severities": severities, "techniques": {"": "corruption"} if techniques else {}}


def planned_cell(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a planned cell."""
    return {**fields, "info": lifted_cell(fields["info"], dict(fields["attack"]["settings"]))}


def _digest(samples: Samples) -> str:
    """The digest of a block of schema 2: sha256 over all columns, examples included."""
    digest = hashlib.sha256("\0".join(samples.id.tolist()).encode())
    for name in (*_COLUMNS, *_MORE):
        digest.update(np.ascontiguousarray(getattr(samples, name)).tobytes())
    digest.update("\0".join(samples.stage).encode())
    if samples.certified is not None:
        digest.update(samples.certified.tobytes())
    for image in samples.adversarial:
        digest.update(b"none" if image is None else np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()
