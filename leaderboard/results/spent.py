"""Where the seconds of a cell went, by part. Records have the attack's alone; the rest belongs to the run that computed them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

from gauntlet.leaderboard.results.atomic_files import replace_text
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.sealed_json import read_sealed, sealed

Part = Literal["load", "hash", "check", "clean", "attack", "verify", "store", "other"]
"""`load`: data, weights and code. `hash`: weights and images, for keys. `check`: the pipeline's profile, the choice of its form,
checks. `clean`: the clean pass. `attack`: without the verifier's time. `verify`: candidates, and examples measured again for the
record. `store`: block files, read and written. `other`: the rest."""
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True)
class Spent:
    """Wall-clock seconds of a cell, over all runs that computed blocks of it."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    """By part, of `PARTS`."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Those of `attack` by the labels of a cascade's stages."""

    def __add__(self, more: Spent) -> Spent:
        return Spent(_sum(self.seconds, more.seconds), _sum(self.stages, more.stages))


def _sum(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {name: one.get(name, 0.0) + other.get(name, 0.0) for name in {**one, **other}}


def read_spent(path: Path) -> Spent | None:
    """The seconds that `write_spent` wrote; None where nothing is known. Raises StoreError for a damaged file."""
    try:
        fields = read_sealed(path, path.stem)
        return Spent(
            *({str(key): float(value) for key, value in fields[name].items()} for name in ("seconds", "stages"))
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(f"{path} is damaged ({error}): delete it; its figures are lost, no result is") from error


def joint_spent(paths: Iterable[Path]) -> Spent | None:
    """The seconds of those of these files that there are; None where there are none. Raises StoreError."""
    known = [found for path in paths if (found := read_spent(path)) is not None]
    return sum(known[1:], known[0]) if known else None


def write_spent(path: Path, spent: Spent) -> None:
    """Write the seconds as JSON. Raises StoreError."""
    replace_text(path, sealed(asdict(spent), path.stem))
