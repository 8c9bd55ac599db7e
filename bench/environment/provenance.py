"""Provenance of a result: commit, versions, device, determinism flags, command line and time."""

from __future__ import annotations

import platform
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gauntlet.bench.environment.clock import now
from gauntlet.bench.environment.git_commit import commit

if TYPE_CHECKING:  # the process that keeps results beside a worker does not import torch
    import torch

PACKAGES = (
    "robust-gauntlet",
    "torch",
    "torchattacks",
    "adversarial-robustness-toolbox",
    "numpy",
    "scipy",
    "pandas",
    "pytest-benchmark",
)


@cache
def package_version(name: str) -> str:
    """The installed version of a distribution, or `absent`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def library_version(distribution: str) -> str:
    """A distribution with its installed version, such as `torchattacks 3.3.0`; empty for an empty name."""
    return f"{distribution} {package_version(distribution)}" if distribution else ""


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version(), **{name: package_version(name) for name in PACKAGES}}


def device_name(device: torch.device) -> str:
    """The GPU's name, or `cpu` with the number of threads."""
    import torch

    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    return f"cpu ({threads} thread{'' if threads == 1 else 's'})"


def provenance(device: torch.device) -> dict[str, Any]:
    """The provenance of a result that is computed now, as plain JSON values."""
    import torch

    head, dirty = commit()
    return {
        "time": now(),
        "commit": head,
        "dirty": dirty,
        "versions": versions(),
        "device": device_name(device),
        "platform": platform.platform(),
        "determinism": {
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "tf32": torch.backends.cuda.matmul.allow_tf32,
        },
        # Without the path of the program: results are shared, and committed with baselines.
        "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
