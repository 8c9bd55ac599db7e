"""All attacks by name, as lazy `module:object` entries: listing them imports nothing."""

from __future__ import annotations

from gauntlet.attacks.adapters.catalog import ADAPTERS

ATTACKS: dict[str, str] = {
    "fgsm": "gauntlet.attacks.fgsm:ENTRY",
    "pgd": "gauntlet.attacks.pgd:ENTRY",
    "cw": "gauntlet.attacks.cw:ENTRY",
    **ADAPTERS,
}
