"""Stored measurements of pipelines: what preparing a cell measured on a device. The first writer wins.

Every later worker, on whatever machine, takes the stored measurement instead of its own, so that all attack the same form of
the model by the same stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gauntlet.leaderboard.results.atomic_files import replace_text, write_once
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.held import Held
from gauntlet.leaderboard.results.sealed_json import read_sealed, sealed

Measurement = Mapping[str, Any]
"""Plain data, as JSON holds it."""

_KINDS = frozenset({"profile", "form", "flags", "batch", "randomised", "no_gradient", "slots"})


@dataclass(frozen=True)
class Measurements:
    """The measurements of a results folder, below `root`/measured."""

    root: Path
    held: Held | None = field(default=None, compare=False, repr=False)
    """If given, only these count, whatever else appears in the folder."""

    def of_cell(self, name: str) -> dict[str, Measurement]:
        """All stored measurements of the cell with that identity, by key. Raises StoreError for a damaged file."""
        if (known := self._known) is not None:
            # Cells that run side by side may settle meanwhile.
            return {key: _whole(found) for key, found in known.get(name, {}).copy().items()}
        return {path.stem: self._read(path) for path in sorted((self.root / "measured" / name).glob("*.json"))}

    def settle(self, name: str, key: str, measured: Measurement) -> Measurement:
        """Store a measurement unless there is one, and return the one that is stored. Raises StoreError."""
        path = self.root / "measured" / name / f"{key}.json"
        text = sealed(measured, f"{name}/{key}")
        if (known := self._known) is not None:
            # Cells that run side by side settle at once.
            first = known.setdefault(name, {}).setdefault(key, measured)
            if first is measured:
                # What has appeared since may be forged.
                replace_text(path, text)
            return _whole(first)
        if write_once(path, lambda file: file.write(text.encode())):
            return measured
        return self._read(path)

    @property
    def _known(self) -> dict[str, dict[str, Measurement | StoreError]] | None:
        return None if self.held is None else self.held.measured

    def found(self) -> dict[str, dict[str, Measurement | StoreError]]:
        """All stored measurements by pipeline and key; an error in place of one whose file is damaged."""
        measured: dict[str, dict[str, Measurement | StoreError]] = {}
        for path in sorted((self.root / "measured").glob("*/*.json")):
            try:
                one: Measurement | StoreError = self._read(path)
            except StoreError as error:
                one = error
            measured.setdefault(path.parent.name, {})[path.stem] = one
        return measured

    def _read(self, path: Path) -> Measurement:
        try:
            measured = read_sealed(path, f"{path.parent.name}/{path.stem}")
            if not measured.keys() & _KINDS:
                raise ValueError("it holds no measurement")
            return measured
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} is damaged ({error}): delete it and run the same command again") from error


def _whole(found: Measurement | StoreError) -> Measurement:
    if isinstance(found, StoreError):
        raise found
    return found
