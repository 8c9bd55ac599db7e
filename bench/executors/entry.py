"""Registry entries of what a cell can run beside attacks: replays, certificates, corruptions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gauntlet.attacks.ops.threat import Norm, ThreatModel
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.defenses.pipeline.card import DefenseCard

if TYPE_CHECKING:  # listing entries must not import torch
    from gauntlet.bench.executors.executable import Executable


def always(card: DefenseCard, norm: Norm) -> bool:
    """Whether an entry applies behind a defense: yes."""
    return True


@dataclass(frozen=True)
class ExecutableEntry:
    """A card, and `build(threat, **settings)`, which returns an Executable and raises ValueError for a bad setting."""

    card: AttackCard
    build: Callable[..., Executable]
    applies: Callable[[DefenseCard, Norm], bool] = always
    """Whether it is planned behind a defense in a norm."""

    def make(self, threat: ThreatModel, **settings: Any) -> Executable:
        """What a cell of that threat model runs. Raises ValueError for a norm or a setting that does not fit, by name."""
        made: Any = AttackEntry(self.card, self.build).make(threat, **settings)
        executable: Executable = made
        return executable
