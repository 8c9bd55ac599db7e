"""A training's state in a file: whole or absent, and read without running anybody's code."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def write_checkpoint(path: Path, state: Mapping[str, Any], identity: Mapping[str, str]) -> None:
    """Write `state` (tensors, numbers, texts) and what it belongs to in place of an older checkpoint.

    The file is flushed to the disk before it takes the older one's name, so that a kill leaves one of the two.
    """
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        torch.save({"identity": dict(identity), "state": dict(state)}, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_checkpoint(path: Path, identity: Mapping[str, str]) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU.

    Raises ValueError for a file that is none or is damaged, and for one of another training, naming what differs.
    """
    repair = f"go on as it was begun, or delete {str(path)!r} to begin anew"
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        found, state = dict(loaded["identity"]), dict(loaded["state"])
    except OSError:
        raise
    except Exception as error:  # of any kind: a damaged pickle fails wherever reading it goes astray
        raise ValueError(f"checkpoint {str(path)!r} cannot be read ({error}): delete it to begin anew") from error
    for name in sorted({*found, *identity}):
        if found.get(name) != identity.get(name):
            raise ValueError(
                f"checkpoint {str(path)!r} is of a training with {name} {found.get(name)}, not {identity.get(name)}: {repair}"
            )
    return state
