"""Requests to a worker: plain data that name a cell, its blocks and how to run them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.registry.settings import Named
from gauntlet.bench.config.cell import Cell
from gauntlet.bench.config.model_ref import model_fields, read_model
from gauntlet.bench.config.schema import DataRef
from gauntlet.leaderboard.results.measurements import Measurement
from gauntlet.leaderboard.results.record import CellInfo
from gauntlet.leaderboard.rows.closest_examples import BrokenSample


@dataclass(frozen=True)
class StoredLogits:
    """The clean logits of a stored block, which the model must reproduce."""

    block: int
    """The block's number within the request."""
    logits: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Request:
    """A cell, given by names, and the work to do on it.

    Without `run` and `check` the cell is only prepared. A request holds no objects of the user's code: the worker resolves names.
    """

    cell: Cell
    blocks: tuple[tuple[int, ...], ...] | None = None
    """Indices of each block's samples in the cell's data; None: the fixed blocks."""
    run: tuple[str, ...] = ()
    """Keys of the blocks to run."""
    check: bool = False
    """Whether to run the checks and add their flags to the measurements."""
    expected: StoredLogits | None = None
    """Logits to compare with; a difference is a failure."""
    measured: Mapping[str, Measurement] = field(default_factory=dict)
    """Stored measurements of the pipeline, which are not measured again."""
    batch_size: int | None = None
    """None: measured on a GPU, else chosen by the size of an image."""
    keep_adversarials: bool = True

    @property
    def described(self) -> str:
        """What the worker does, as the end of a sentence."""
        return f"{'attacking' if self.run else 'checking' if self.check else 'preparing'} {self.cell.info.title}"

    def to_json(self) -> str:
        """The request as JSON."""
        return json.dumps({**dataclasses.asdict(self), "cell": cell_fields(self.cell)})

    @classmethod
    def from_json(cls, text: str) -> Request:
        """The request that `to_json` encoded. Raises ValueError, KeyError or TypeError for anything else."""
        fields = json.loads(text)
        blocks, expected = fields["blocks"], fields["expected"]
        return cls(
            **{
                **fields,
                "cell": read_cell(fields["cell"]),
                "blocks": None if blocks is None else tuple(tuple(block) for block in blocks),
                "run": tuple(fields["run"]),
                "expected": None
                if expected is None
                else StoredLogits(expected["block"], tuple(tuple(row) for row in expected["logits"])),
            }
        )


Images: TypeAlias = npt.NDArray[np.floating[Any]]
"""(N, C, H, W)."""


@dataclass(frozen=True, eq=False)
class BaselineModel:
    """The weights of a baseline's model, and its outputs on a few samples."""

    digest: str
    weights: bytes
    """A safetensors file; empty where an earlier request of this cell had it."""
    logits: tuple[tuple[float, ...], ...] | None
    """What the model must give for `samples`; None if that is not known."""
    samples: tuple[int, ...] = ()
    """Indices into the cell's data."""


@dataclass(frozen=True, eq=False)
class TryExamples:
    """Adversarial examples to try on a cell's pipeline, with its own weights or those of a baseline."""

    cell: Cell
    indices: tuple[int, ...]
    """The samples as indices into the cell's data."""
    images: Images
    """An example for each sample."""
    measured: Mapping[str, Measurement] = field(default_factory=dict)
    baseline: BaselineModel | None = None

    @property
    def described(self) -> str:
        """What the worker does, as the end of a sentence."""
        return f"replaying examples on {self.cell.info.title}"


@dataclass(frozen=True, eq=False)
class DrawExamples:
    """Adversarial examples to draw beside the clean images of a data set."""

    data: DataRef
    norm: str
    title: str
    samples: tuple[BrokenSample, ...]
    images: tuple[Images, ...]
    """(C, H, W) for each sample."""

    @property
    def described(self) -> str:
        """What the worker does, as the end of a sentence."""
        return "drawing lost samples"


def cell_fields(cell: Cell) -> dict[str, Any]:
    """A cell as plain data."""
    fields = {**dataclasses.asdict(cell), "model": model_fields(cell.model)}
    if not cell.threat.target:
        # Untargeted plans keep the form, and their folders the names, of versions without targets.
        del fields["threat"]["target"]
    return fields


def read_cell(fields: Mapping[str, Any]) -> Cell:
    """The cell of `cell_fields`, also after JSON. Raises KeyError or TypeError for anything else."""
    return Cell(
        info=CellInfo.read(fields["info"]),
        model=read_model(fields["model"]),
        defense=_named(fields["defense"]),
        attack=_named(fields["attack"]),
        threat=ThreatModel(**fields["threat"]),
        data=DataRef(**fields["data"]),
    )


def _named(fields: Mapping[str, Any]) -> Named:
    return Named(
        fields["name"],
        tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in fields["settings"]),
    )
