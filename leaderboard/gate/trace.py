"""The samples of one cell that a gate which stops early compared, before and now, in the order of the test."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.gate.baseline import BaselineCell, Key
from gauntlet.leaderboard.results.sealed_json import parse_json


def sample_order(cell: BaselineCell) -> npt.NDArray[np.int64]:
    """The fixed random order in which a cell's samples are tested: positions, int64 (n,).

    It depends on the data alone, so that it cannot be chosen, and an interrupted run continues in the same order.
    """
    salted = [hashlib.sha256(f"{cell.data_digest}:{position}".encode()).digest() for position in range(cell.n)]
    return np.array(sorted(range(cell.n), key=salted.__getitem__), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Trace:
    """A cell of a run in which only as many samples were attacked as the gate needed; none if it cannot be compared."""

    key: Key
    """Key of the cell in the run."""
    n: int
    """Number of samples of the full set."""
    order: npt.NDArray[np.int64]
    """(k,), positions of the decided samples, in the order of the test."""
    before: npt.NDArray[np.bool_]
    """(k,), robust in the baseline, and not broken by a new example."""
    now: npt.NDArray[np.bool_]
    """(k,), robust now, and not broken by the baseline's example."""
    spec: str
    weights: str
    data_digest: str
    forwards: float
    """All passes, including those of replays on either model."""
    backwards: float
    peak_memory_mib: float
    seconds: float
    device: str
    randomised: bool
    replay: str
    """The reason why no examples were replayed; empty if they were."""
    lost: tuple[str, ...] = ()
    """Ids of the samples that were robust before and are not now, in the order of the test."""
    records: tuple[str, ...] = ()
    """Keys of the blocks that were attacked."""
    excused: int = 0
    """Number of samples that do not count as lost because their new examples break the baseline's model too."""
    masked: int | None = None
    """Number of samples that the attack left standing with masked gradients; None if it is not recorded."""
    computed: float = 0.0
    """The passes that were computed rather than read from the store."""

    @property
    def lost_ids(self) -> dict[int, str]:
        """The ids of the lost samples by their positions."""
        return dict(zip(self.order[self.before & ~self.now].tolist(), self.lost, strict=True))

    @property
    def cell(self) -> BaselineCell:
        """The run's cell, without the bits that this trace holds."""
        names = ("model", "defense", "attack", "threat", "suite", "data", "seed")
        empty = np.zeros(0, dtype=np.bool_)
        return BaselineCell(
            **dict(zip(names, self.key, strict=True)),  # type: ignore[arg-type]
            spec=self.spec,
            data_digest=self.data_digest,
            weights=self.weights,
            n=self.n,
            robust=empty,
            correct=empty,
            forwards=self.forwards,
            backwards=self.backwards,
            peak_memory_mib=self.peak_memory_mib,
            seconds=self.seconds,
            device=self.device,
            randomised=self.randomised,
            masked=self.masked,
        )


def dumps(trace: Trace) -> str:
    """The trace as JSON."""
    fields = {name: getattr(trace, name) for name in _PLAIN}
    fields["masked"] = trace.masked
    fields["peak_memory_mib"] = None if math.isnan(trace.peak_memory_mib) else trace.peak_memory_mib
    fields["order"] = trace.order.tolist()
    fields |= {name: base64.b64encode(np.packbits(getattr(trace, name)).tobytes()).decode() for name in _BITS}
    return json.dumps(fields)


def loads(text: str) -> Trace:
    """The trace that `dumps` wrote. Raises ValueError, KeyError or TypeError for other text."""
    fields: Mapping[str, Any] = parse_json(text)
    order = np.array(fields["order"], dtype=np.int64)
    bits = {
        name: np.unpackbits(np.frombuffer(base64.b64decode(fields[name]), np.uint8))[: len(order)].astype(np.bool_)
        for name in _BITS
    }
    if any(len(array) != len(order) for array in bits.values()):
        raise ValueError("fewer bits than samples")
    plain: dict[str, Any] = {name: fields[name] for name in _PLAIN} | bits | {"masked": fields.get("masked")}
    plain |= {name: tuple(fields[name]) for name in ("key", "lost", "records")}
    plain["peak_memory_mib"] = math.nan if fields["peak_memory_mib"] is None else fields["peak_memory_mib"]
    return Trace(order=order, **plain)


_BITS = ("before", "now")
_PLAIN = (
    "key",
    "n",
    "spec",
    "weights",
    "data_digest",
    "forwards",
    "backwards",
    "peak_memory_mib",
    "seconds",
    "device",
    "randomised",
    "replay",
    "lost",
    "records",
    "excused",
    "computed",
)
