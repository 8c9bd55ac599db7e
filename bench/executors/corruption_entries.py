"""The registry of corruptions. Listing them imports neither torch nor the image code."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from gauntlet.attacks.ops.threat import NORMS, ThreatModel
from gauntlet.attacks.registry.card import AttackCard
from gauntlet.bench.corruptions.catalog import CORRUPTIONS as _CARDS
from gauntlet.bench.corruptions.catalog import PREFIX
from gauntlet.bench.executors.entry import ExecutableEntry
from gauntlet.bench.registry.registry import Registry

if TYPE_CHECKING:
    from gauntlet.bench.executors.executable import Executable

_SOURCE = "Hendrycks and Dietterich 2019, arXiv 1903.12261"


def _build(name: str, /, threat: ThreatModel, **settings: Any) -> Executable:
    from gauntlet.bench.executors.corruption import build

    return build(name, threat, **settings)


def _entry(name: str) -> ExecutableEntry:
    summary = f"{_CARDS[name].summary}, at severities 1 to 5"
    card = AttackCard(
        name=f"{PREFIX}{name}", summary=summary, source=_SOURCE, norms=NORMS, kind="corruption", role="corruption"
    )
    return ExecutableEntry(card, partial(_build, name))


CORRUPTIONS: Registry[ExecutableEntry] = Registry("corruption")
for _name in _CARDS:
    CORRUPTIONS.register(f"{PREFIX}{_name}", _entry(_name))
