"""Registry entries of replays, certificates and corruptions."""

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
    """The default of `ExecutableEntry.applies`: every defense and norm."""
    return True


@dataclass(frozen=True)
class ExecutableEntry:
    """A card, and `build(threat, **settings)`, which returns an Executable and raises ValueError for a bad setting."""

    card: AttackCard
    build: Callable[..., Executable]
    applies: Callable[[DefenseCard, Norm], bool] = always
    """Whether it is planned for a defense and a norm."""

    def make(self, threat: ThreatModel, **settings: Any) -> Executable:
        """The executable for a threat model. Raises ValueError that names an unsupported norm or setting."""
        made: Any = AttackEntry(self.card, self.build).make(threat, **settings)
        executable: Executable = made
        return executable
