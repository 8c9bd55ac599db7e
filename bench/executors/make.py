"""Making the executable of a registered attack. Only this module looks at the type of an attack."""

from __future__ import annotations

from typing import Any

from gauntlet.attacks.adaptive import Adaptive
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.registry.card import AttackEntry, WholeAttack
from gauntlet.attacks.registry.settings import Named
from gauntlet.attacks.solving.cascade import Cascade
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.solver import Stage
from gauntlet.bench.executors.executable import Executable
from gauntlet.bench.executors.library import LibraryExecutable, NaiveExecutable
from gauntlet.bench.executors.native import AdaptiveExecutable, NativeExecutable
from gauntlet.bench.executors.settings import without_addresses


def executable(entry: AttackEntry, threat: ThreatModel, **settings: Any) -> Executable:
    """The executable of a registered attack for a threat model. A rule becomes a cascade of one stage.

    Raises ValueError for a norm or a setting that does not fit.
    """
    made: Any = entry.make(threat, **settings)
    named, card = Named(entry.card.name, tuple(settings.items())), entry.card
    # The repr of a user's attack may lack settings, so the given settings are added.
    spec = f"{named if entry.source_digest else named.name}: {without_addresses(made)}"
    averages = getattr(made, "eot", 1) > 1
    if isinstance(made, Rule):
        cascade = Cascade((Stage("", made, technique=card.kind),))
        return NativeExecutable(spec, cascade, averages, entry.source_digest)
    if isinstance(made, Cascade):
        return NativeExecutable(spec, made, code=entry.source_digest, reported=card.report_as)
    if isinstance(made, Adaptive):
        return AdaptiveExecutable(spec, made)
    kind = NaiveExecutable if card.kind == "naive" else LibraryExecutable

    def remake(other: ThreatModel) -> WholeAttack:
        attack: Any = entry.make(other, **settings)
        whole: WholeAttack = attack
        return whole

    failures = bool(getattr(made, "returns_failures", False))
    return kind(spec, made, remake, card.kind, card.library, averages, entry.source_digest, failures)
