"""Checkpoints of a training: written atomically, and read without running code from the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch


@dataclass(frozen=True)
class Checkpoint:
    """The file of a checkpoint, and the function that writes it."""

    path: Path
    replace: Callable[[Path, Callable[[BinaryIO], None]], None]
    """Replaces a file atomically; the given function writes the content to a binary file object."""


def write_checkpoint(checkpoint: Checkpoint, state: Mapping[str, Any], identity: Mapping[str, str]) -> None:
    """Replace the checkpoint by `state` (tensors, numbers, strings) and the identity of its training."""
    content = {"identity": dict(identity), "state": dict(state)}
    checkpoint.replace(checkpoint.path, lambda file: torch.save(content, file))


def read_checkpoint(path: Path, identity: Mapping[str, str]) -> dict[str, Any]:
    """Read the state of a checkpoint, on the CPU.

    Raises ValueError for a file that cannot be read, and for a checkpoint of another training, with the difference.
    """
    repair = f"continue with the same settings, or delete {str(path)!r} to start again"
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        stored, state = dict(loaded["identity"]), dict(loaded["state"])
    except OSError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(f"checkpoint {str(path)!r} cannot be read ({error}): delete it to start again") from error
    for name in sorted({*stored, *identity}):
        if stored.get(name) != identity.get(name):
            raise ValueError(
                f"checkpoint {str(path)!r} is of a training with {name} {stored.get(name)}, not {identity.get(name)}: {repair}"
            )
    return state
