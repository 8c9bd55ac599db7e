"""Settings of attacks: their text for cache keys, and doubled settings."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def without_addresses(attack: Any) -> str:
    """The `repr` of an attack without addresses in memory, which differ from process to process."""
    return _ADDRESS.sub("", repr(attack))


def gradient_steps(settings: Any) -> int | None:
    """Steps over all restarts, if the settings name them and nothing else that repeats them, such as targets or a search."""
    names = settings.__dataclass_fields__ if hasattr(settings, "__dataclass_fields__") else ()
    if "steps" not in names or {"queries", "search_steps", "max_eval", "targets", "gradients", "eot"} & set(names):
        return None
    return int(settings.steps) * int(getattr(settings, "restarts", 1))


def doubled(settings: Any) -> Any:
    """The settings with twice the steps, queries or draws and one more restart, if the dataclass has these fields."""
    names = settings.__dataclass_fields__
    changes = {name: 2 * getattr(settings, name) for name in ("steps", "queries", "draws") if name in names}
    # Restarts from a fixed start are all the same.
    if "restarts" in names and getattr(settings, "random_start", True):
        changes["restarts"] = settings.restarts + 1
    return replace(settings, **changes) if changes else settings
