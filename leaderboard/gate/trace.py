"""What a gate compares of one cell: the same samples before and now, in the order of the test."""

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


def order_of(cell: BaselineCell) -> npt.NDArray[np.int64]:
    """The fixed random order in which a cell's samples are tested: positions, int64 (n,).

    It depends on the data alone, so that nobody chooses it, and a run that goes on later goes on in the same order.
    """
    salted = [hashlib.sha256(f"{cell.data_digest}:{position}".encode()).digest() for position in range(cell.n)]
    return np.array(sorted(range(cell.n), key=salted.__getitem__), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Trace:
    """A cell of a run that attacked only as many samples as the gate needed; none where it is another question."""

    key: Key
    """Of the cell in the run."""
    n: int
    """Samples of the full set."""
    order: npt.NDArray[np.int64]
    """(k,), positions of the samples that are decided, in the order of the test."""
    before: npt.NDArray[np.bool_]
    """(k,), robust in the baseline, and not broken by an example that was found now."""
    now: npt.NDArray[np.bool_]
    """(k,), robust now, and not broken by the baseline's example."""
    spec: str
    weights: str
    data_digest: str
    forwards: float
    """All that were spent, those of replays and of trying examples on the baseline's model included."""
    backwards: float
    peak_memory_mib: float
    seconds: float
    device: str
    randomised: bool
    replay: str
    """Why no examples were replayed; empty where they were."""
    lost: tuple[str, ...] = ()
    """Ids of the samples that were robust before and are no more, in the order of the test."""
    records: tuple[str, ...] = ()
    """Keys of the blocks that were attacked."""
    pardoned: int = 0
    """Samples that would count as lost, but that the examples which broke them now break the baseline's model, too."""
    computed: float = 0.0
    """Of the passes, those that were not answered from the store."""

    @property
    def cell(self) -> BaselineCell:
        """What the run's cell is, as far as it went: without bits, which stand here."""
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
        )


def dumps(trace: Trace) -> str:
    """As JSON."""
    fields = {name: getattr(trace, name) for name in _PLAIN}
    fields["peak_memory_mib"] = None if math.isnan(trace.peak_memory_mib) else trace.peak_memory_mib
    fields["order"] = trace.order.tolist()
    fields |= {name: base64.b64encode(np.packbits(getattr(trace, name)).tobytes()).decode() for name in _BITS}
    return json.dumps(fields)


def loads(text: str) -> Trace:
    """What `dumps` wrote. Raises ValueError, KeyError or TypeError where it is something else."""
    fields: Mapping[str, Any] = json.loads(text)
    order = np.array(fields["order"], dtype=np.int64)
    bits = {
        name: np.unpackbits(np.frombuffer(base64.b64decode(fields[name]), np.uint8))[: len(order)].astype(np.bool_)
        for name in _BITS
    }
    if any(len(one) != len(order) for one in bits.values()):
        raise ValueError("fewer bits than samples")
    plain: dict[str, Any] = {name: fields[name] for name in _PLAIN} | bits
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
    "pardoned",
    "computed",
)
