"""Messages of a worker: plain data as JSON, and blocks as the bytes of the store's files. Nothing is pickled."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

from gauntlet.bench.config.cell import Cell
from gauntlet.bench.worker.field_types import typed
from gauntlet.bench.worker.request import cell_fields, read_cell
from gauntlet.leaderboard.results.measurements import Measurement
from gauntlet.leaderboard.results.published_figure import PublishedFigure
from gauntlet.leaderboard.results.record import CellInfo


@dataclass(frozen=True)
class BlockInfo:
    """A block of a prepared cell: its key and its samples."""

    key: str
    size: int
    indices: tuple[int, ...] = ()
    """The samples as indices into the cell's data."""
    ids: tuple[str, ...] = ()
    data: str = ""
    """sha256 of the images, labels and ids."""


@dataclass(frozen=True)
class PreparedCell:
    """A cell has been prepared: the keys of its blocks, and the measurements of the pipeline."""

    cell: CellInfo
    """With the technique of each stage, the chosen form and the measured randomness."""
    blocks: tuple[BlockInfo, ...]
    measured: Mapping[str, Measurement] = field(default_factory=dict)
    """The profile, the chosen form and the flags of checks, by key."""
    published: tuple[PublishedFigure, ...] = ()
    """Figures that the model's card states."""
    notes: tuple[str, ...] = ()
    """Sentences on loading the model's weights."""
    data: str = ""
    """The digest of images, labels and ids, as a baseline has it (`gauntlet.leaderboard.gate.baseline.data_digest`)."""
    code: str = ""
    """The digest of the code of an attack that is not Gauntlet's; empty for others."""
    weights: str = ""
    """sha256 of the model's parameters and buffers."""
    separable: bool = True
    """Whether the outcome of a sample does not depend on the samples that are attacked with it."""

    @property
    def samples(self) -> int:
        """Number of samples of the cell."""
        return sum(block.size for block in self.blocks)


class BlockRecord:
    """A block has been finished: the bytes of its file."""

    def __init__(self, key: str, content: bytes | Callable[[], bytes]) -> None:
        """`content`: the bytes, or what makes them when they are first asked for, such as by a thread that writes them."""
        self.key = key
        self._content = content

    @cached_property
    def content(self) -> bytes:
        """The bytes of the block's file."""
        return self._content() if callable(self._content) else self._content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BlockRecord) and (self.key, self.content) == (other.key, other.content)

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True)
class Progress:
    """Some samples have been finished."""

    samples: int


@dataclass(frozen=True)
class Failure:
    """The model, the data, the attack or the verifier failed; the worker sends nothing after it."""

    kind: str
    """The exception's class."""
    message: str
    traceback: str
    provenance: Mapping[str, Any]
    usage: bool = False
    """Whether the request's names, settings or files are wrong, rather than code that ran."""


@dataclass(frozen=True)
class Tried:
    """Examples have been tried."""

    broken: tuple[bool, ...] = ()
    """For each example, whether the verifier confirms that it breaks its sample."""
    forwards: float = 0.0
    """Number of forward passes."""
    reason: str = ""
    """Why nothing was tried; empty if all were."""
    needs_weights: bool = False
    """Whether nothing was tried because this worker has not had the baseline's weights."""


@dataclass(frozen=True)
class Drawn:
    """A picture has been drawn."""

    content: bytes = b""
    """A file in PNG; empty if it could not be drawn."""
    reason: str = ""
    """Why it could not be drawn."""
    extra: bool = False
    """Whether that is because a package for drawing is not installed."""


@dataclass(frozen=True)
class Planned:
    """A plan request has been resolved."""

    cells: tuple[Cell, ...]
    skipped: tuple[str, ...]
    """A sentence for each requested cell that is not planned."""


Message: TypeAlias = Planned | PreparedCell | BlockRecord | Progress | Tried | Drawn | Failure


def encode(message: Message) -> tuple[str, bytes]:
    """A message as JSON, and the bytes of its block; without a block, no bytes."""
    match message:
        case Planned():
            cells = [cell_fields(cell) for cell in message.cells]
            return json.dumps({"planned": {"cells": cells, "skipped": message.skipped}}), b""
        case PreparedCell():
            return json.dumps({"prepared": dataclasses.asdict(message)}), b""
        case BlockRecord():
            return json.dumps({"record": {"key": message.key}}), message.content
        case Progress():
            return json.dumps({"progress": dataclasses.asdict(message)}), b""
        case Tried():
            return json.dumps({"tried": dataclasses.asdict(message)}), b""
        case Drawn():
            return json.dumps({"drawn": {"reason": message.reason, "extra": message.extra}}), message.content
        case Failure():
            return json.dumps({"error": dataclasses.asdict(message)}), b""


def decode(text: str, content: bytes) -> Message:
    """The message that `encode` encoded. Raises ValueError for an unknown kind, KeyError or TypeError for wrong fields."""
    ((kind, fields),) = json.loads(text).items()
    message = _message(kind, fields, content)
    if isinstance(message, BlockRecord):
        if type(message.key) is not str:
            raise TypeError(f"record.key is {message.key!r}, which is no text")
        return message
    return typed(message, kind)


def _message(kind: str, fields: Mapping[str, Any], content: bytes) -> Message:
    match kind:
        case "planned":
            return Planned(tuple(map(read_cell, fields["cells"])), tuple(fields["skipped"]))
        case "prepared":
            return PreparedCell(
                CellInfo.read(fields["cell"]),
                tuple(map(_block, fields["blocks"])),
                fields["measured"],
                tuple(PublishedFigure(**figure) for figure in fields["published"]),
                tuple(fields["notes"]),
                fields["data"],
                fields["code"],
                fields["weights"],
                fields["separable"],
            )
        case "record":
            return BlockRecord(fields["key"], content)
        case "progress":
            return Progress(**fields)
        case "tried":
            return Tried(**{**fields, "broken": tuple(fields["broken"])})
        case "drawn":
            return Drawn(content, **fields)
        case "error":
            return Failure(**fields)
    raise ValueError(f"message of kind {kind!r} is not known: use the same version of gauntlet on both sides")


def _block(fields: Mapping[str, Any]) -> BlockInfo:
    return BlockInfo(**{**fields, "indices": tuple(fields["indices"]), "ids": tuple(fields["ids"])})
