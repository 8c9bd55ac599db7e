"""Stored measurements of pipelines: what preparing a cell measured on a device. The first writer wins.

Every later worker, on whatever machine, takes the stored measurement instead of its own, so that all attack the same form of
the model by the same stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gauntlet.leaderboard.results.atomic_files import write_once
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.sealed_json import read_sealed, sealed

Measurement = Mapping[str, Any]
"""Plain data, as JSON holds it."""

_KINDS = frozenset({"profile", "form", "flags", "batch", "randomised", "no_gradient", "slots"})


@dataclass(frozen=True)
class Measurements:
    """The measurements of a results folder, below `root`/measured."""

    root: Path

    def of_cell(self, name: str) -> dict[str, Measurement]:
        """All stored measurements of the cell with that identity, by key. Raises StoreError for a damaged file."""
        return {path.stem: self._read(path) for path in sorted((self.root / "measured" / name).glob("*.json"))}

    def settle(self, name: str, key: str, measured: Measurement) -> Measurement:
        """Store a measurement unless there is one, and return the one that is stored. Raises StoreError."""
        path = self.root / "measured" / name / f"{key}.json"
        text = sealed(measured, f"{name}/{key}")
        if write_once(path, lambda file: file.write(text.encode())):
            return measured
        return self._read(path)

    def _read(self, path: Path) -> Measurement:
        try:
            measured = read_sealed(path, f"{path.parent.name}/{path.stem}")
            if not measured.keys() & _KINDS:
                raise ValueError("it holds no measurement")
            return measured
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} is damaged ({error}): delete it and run the same command again") from error
