"""Settings of attacks: doubled ones, and their text without what differs from process to process."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def without_addresses(attack: Any) -> str:
    """The `repr` of an attack without addresses in memory, which differ from process to process."""
    return _ADDRESS.sub("", repr(attack))


def doubled(settings: Any) -> Any:
    """A dataclass of settings with twice the steps, queries or draws and one more restart, as far as it has them."""
    names = settings.__dataclass_fields__
    changes = {name: 2 * getattr(settings, name) for name in ("steps", "queries", "draws") if name in names}
    # From a fixed start every restart is the same.
    if "restarts" in names and getattr(settings, "random_start", True):
        changes["restarts"] = settings.restarts + 1
    return replace(settings, **changes) if changes else settings
