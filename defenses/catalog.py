"""All defenses at inference by name, as lazy `module:object` entries: listing them imports nothing."""

from __future__ import annotations

DEFENSES: dict[str, str] = {
    "none": "gauntlet.defenses.none:ENTRY",
    "bit_depth": "gauntlet.defenses.bit_depth:ENTRY",
    "input_noise": "gauntlet.defenses.input_noise:ENTRY",
    "jpeg": "gauntlet.defenses.jpeg:ENTRY",
    "median": "gauntlet.defenses.median:ENTRY",
}
