"""A training's state in a file: whole or absent, and read without running anybody's code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch


@dataclass(frozen=True)
class Checkpoint:
    """Where the state of a training is kept, and how the file is written."""

    path: Path
    replace: Callable[[Path, Callable[[BinaryIO], None]], None]
    """Replaces a file atomically by what a function writes into a binary file object."""


def write_checkpoint(checkpoint: Checkpoint, state: Mapping[str, Any], identity: Mapping[str, str]) -> None:
    """Write `state` (tensors, numbers, texts) and the identity of its training in place of an older checkpoint."""
    content = {"identity": dict(identity), "state": dict(state)}
    checkpoint.replace(checkpoint.path, lambda file: torch.save(content, file))


def read_checkpoint(path: Path, identity: Mapping[str, str]) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU.

    Raises ValueError for a file that is none or is damaged, and for one of another training, naming what differs.
    """
    repair = f"go on as it was begun, or delete {str(path)!r} to begin anew"
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        stored, state = dict(loaded["identity"]), dict(loaded["state"])
    except OSError:
        raise
    except Exception as error:  # of any kind: a damaged pickle fails wherever reading it goes astray
        raise ValueError(f"checkpoint {str(path)!r} cannot be read ({error}): delete it to begin anew") from error
    for name in sorted({*stored, *identity}):
        if stored.get(name) != identity.get(name):
            raise ValueError(
                f"checkpoint {str(path)!r} is of a training with {name} {stored.get(name)}, not {identity.get(name)}: {repair}"
            )
    return state
