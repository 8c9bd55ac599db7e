"""Measurements of strength as a file: per-sample bits, passes and CPU seconds, one line for each attack, condition and seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.leaderboard.results.atomic_files import replace_text

REFERENCE = Path(__file__).with_name("autoattack.csv")
"""What the authors' AutoAttack leaves; made again by `gauntlet strength --autoattack`."""


@dataclass(frozen=True)
class Measurement:
    """What an attack left of the samples of a network, and what it cost."""

    network: str
    threat: str
    samples: int
    attack: str
    """As it was named; see `version` for its settings."""
    seed: int
    correct: int
    """Number of samples that are classified correctly when clean."""
    standing: int
    """Number of samples for which the attack found no verified adversarial example, of those that are correct."""
    forwards: int
    """Forward passes of the attack, in images."""
    backwards: int
    cpu_seconds: float
    """Of the whole evaluation on one thread, with verification."""
    correct_bits: str
    """Hexadecimal, see `pack`."""
    standing_bits: str
    version: str
    """The name with a digest of the settings; of attacks of libraries the library with its version."""
    torch: str
    """The version of torch."""
    weights: str
    """Digest of the network, its normalisation included."""

    @property
    def passes(self) -> float:
        """Forward and backward passes for a sample."""
        return (self.forwards + self.backwards) / self.samples

    @property
    def bits(self) -> Tensor:
        """bool (N,), see `standing`."""
        return unpack(self.standing_bits, self.samples)


def pack(bits: Tensor) -> str:
    """Bits (N,) as hexadecimal digits, each for four samples, of which the first is the highest bit."""
    text = "".join("1" if bit else "0" for bit in bits.tolist())
    text += "0" * (-len(text) % 4)
    return "".join(f"{int(text[at : at + 4], 2):x}" for at in range(0, len(text), 4))


def unpack(text: str, count: int) -> Tensor:
    """The bits that `pack` wrote, bool (count,). Raises ValueError for other text."""
    digits = -(-count // 4)
    if len(text) != digits:
        raise ValueError(f"{text!r} are not the {digits} hexadecimal digits of {count} samples")
    return torch.tensor([bit == "1" for digit in text for bit in f"{int(digit, 16):04b}"])[:count]


def read_measurements(path: Path) -> list[Measurement]:
    """The measurements of a file; none where there is no file. Raises ValueError for a file of another kind."""
    if not path.is_file():
        return []
    kinds = {one.name: {"int": int, "float": float}.get(str(one.type), str) for one in fields(Measurement)}
    table = pd.read_csv(path, dtype=kinds, keep_default_na=False)
    if list(table.columns) != list(kinds):
        raise ValueError(f"{str(path)!r} holds no measurements of strength: its columns are {', '.join(table.columns)}")
    return [Measurement(**{str(name): value for name, value in row.items()}) for row in table.to_dict("records")]


def write_measurements(path: Path, measurements: Iterable[Measurement]) -> None:
    """Write them sorted, whatever order they were measured in. Raises WriteError."""
    rows = sorted(
        measurements, key=lambda one: (one.threat.partition(":")[0], one.network, one.threat, one.attack, one.seed)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([asdict(one) for one in rows], columns=[one.name for one in fields(Measurement)])
    replace_text(path, table.to_csv(index=False, lineterminator="\n"))


def find(
    measurements: Sequence[Measurement], network: str, threat: ThreatModel, attack: str, seed: int
) -> Measurement | None:
    """The measurement of these, if it is there."""
    wanted = network, str(threat), attack, seed
    return next((one for one in measurements if (one.network, one.threat, one.attack, one.seed) == wanted), None)
