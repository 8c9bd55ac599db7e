"""What is checked of a worker's messages before they count: a worker runs code that nobody has read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO

from gauntlet.bench.worker.messages import BlockInfo, BlockRecord, PreparedCell
from gauntlet.bench.worker.request import Request
from gauntlet.leaderboard.gate.baseline import data_digest
from gauntlet.leaderboard.results.block_file import from_file
from gauntlet.leaderboard.results.record import CellInfo, Record

_DIGEST = re.compile(r"[0-9a-f]{64}")


class MessageError(ValueError):
    """A message is not an answer to its request; the text says why."""


def check_prepared(request: Request, message: object) -> PreparedCell:
    """The prepared cell, if it is that of the request. Raises MessageError."""
    if not isinstance(message, PreparedCell):
        raise MessageError(f"the worker answered with {type(message).__name__} instead of a prepared cell")
    if _as_asked(message.cell) != _as_asked(request.cell.info):
        raise MessageError(f"the worker prepared {message.cell.title} instead of {request.cell.info.title}")
    keys, ids = [block.key for block in message.blocks], [name for block in message.blocks for name in block.ids]
    if len(set(keys)) != len(keys) or len(set(ids)) != len(ids):
        raise MessageError("the worker prepared a block or a sample twice")
    if request.blocks is not None and [block.indices for block in message.blocks] != list(request.blocks):
        raise MessageError("the worker prepared other samples than those of the request")
    # Keys become names of files.
    for name in [*keys, *message.measured]:
        if not _is_digest(name):
            raise MessageError(f"the worker sent {name!r} as a key")
    for block in message.blocks:
        if not block.size == len(block.indices) == len(block.ids) > 0:
            raise MessageError(f"the worker sent a block of {block.size} samples with {len(block.ids)} ids")
    if request.blocks is None and data_digest([block.data for block in message.blocks], ids) != message.data:
        raise MessageError("the digest of the worker's data is not that of its blocks")
    return message


def checked_record(prepared: PreparedCell, block: BlockRecord, *, examples: bool) -> Record:
    """The record of a block, without its examples. `examples`: check these, too.

    Raises MessageError if it is not one of the prepared blocks, and as `from_file`.
    """
    known = {info.key: info for info in prepared.blocks}
    if block.key not in known:
        raise MessageError(f"the worker sent the block {block.key!r}, which was not requested")
    if examples:
        from_file(BytesIO(block.content), adversarial=True)
    # Without its examples: those of a large data set would not fit into memory.
    record = from_file(BytesIO(block.content))
    _check_record(prepared.cell, known[block.key], record)
    return record


def _check_record(cell: CellInfo, block: BlockInfo, record: Record) -> None:
    if record.key != block.key:
        raise MessageError(f"the worker sent a record of the block {record.key!r} for {block.key!r}")
    if record.cell != cell:
        raise MessageError(f"the worker sent a record of {record.cell.title} for {cell.title}, or with other settings")
    if record.samples.id.tolist() != list(block.ids):
        raise MessageError(f"the worker sent a record of {len(record.samples)} other samples for {block.size}")


def _as_asked(info: CellInfo) -> CellInfo:
    """The cell without what is known only once it is prepared."""
    unknown: Mapping[str, object] = {
        "precision": "",
        "randomised": False,
        "techniques": {},
        "rejects": False,
        "classes": (),
    }
    return replace(info, **unknown)  # type: ignore[arg-type]


def _is_digest(name: object) -> bool:
    return isinstance(name, str) and _DIGEST.fullmatch(name) is not None
