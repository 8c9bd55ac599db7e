"""Where a run's workers are: on which cluster, and what each is given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gauntlet.attacks.ops.validators import share
from gauntlet.bench.config.shard import Shard

FOUND: Final = "found"
"""The value of --ray without an address."""
_ADDRESS: Final = re.compile(r"[^\s:/]+:\d+|\[[\da-fA-F:.]+\]:\d+")
_NUMBERED: Final = re.compile(r"cuda:\d+")


@dataclass(frozen=True)
class ClusterOptions:
    """A Ray cluster, and what a worker takes of it."""

    address: str | None
    """None: the cluster of RAY_ADDRESS or of this machine, else this machine alone; `auto`, `local` or HOST:PORT."""
    gpus_per_task: float = 1.0
    gpus_given: bool = False


def read_cluster(given: Mapping[str, Any], device: object, shard: Shard | None) -> ClusterOptions | None:
    """The cluster that options name, if any. Raises ValueError for what does not go together."""
    address, gpus = given.get("ray"), given.get("gpus_per_task")
    if address is None:
        if gpus is not None:
            raise ValueError(f"--gpus-per-task={gpus:g} is of use with --ray alone: add --ray, or leave it out")
        return None
    if gpus is not None:
        share("gpus_per_task", gpus)
    if "://" in address:
        raise ValueError(
            f"--ray={address}: Ray's client is not supported: run the command on a machine of the cluster with --ray=HOST:PORT, "
            "or hand it in with `ray job submit`"
        )
    if address not in ("auto", "local", FOUND) and not _ADDRESS.fullmatch(address):
        raise ValueError(f"--ray={address} is no address: write --ray=HOST:PORT, --ray=auto or --ray=local")
    if isinstance(device, str) and _NUMBERED.fullmatch(device):
        raise ValueError(
            f"--device={device} names a GPU of one machine, and Ray gives each worker its own: use auto, cuda or cpu"
        )
    if shard is not None:
        raise ValueError(f"--ray shares out a run by itself, and --shard={shard} is a part: leave one of them out")
    return ClusterOptions(None if address == FOUND else address, 1.0 if gpus is None else float(gpus), gpus is not None)
