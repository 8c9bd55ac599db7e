"""The `gauntlet` cascade: nearly what AutoAttack finds, for a small part of its passes (measured in docs/attacks.md).

Ideas and their sources: cheap attacks with diverse losses first, each facing only what is left (Croce and Hein 2020); margin
losses on the likeliest targets first, few steps a target (Gowal et al. 2019, "An alternative surrogate loss for PGD-based
adversarial testing", arXiv 1910.09338); a black-box probe, which does not mind masked gradients (Carlini et al. 2019,
"On evaluating adversarial robustness", arXiv 1902.06705).
"""

from __future__ import annotations

from gauntlet.attacks.apgd import APGD
from gauntlet.attacks.card import AttackCard, AttackEntry
from gauntlet.attacks.cascade import Cascade
from gauntlet.attacks.fab import FAB
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.solver import Stage
from gauntlet.attacks.square import Square
from gauntlet.attacks.threat import ThreatModel

BUDGETS: dict[str, tuple[Stage, ...]] = {
    "gauntlet:fast": (
        Stage("margin", PGD(steps=8, loss="cw")),
        Stage("targets", APGD(steps=12, loss="dlr_targeted", targets=4)),
        Stage("probe", Square(queries=30)),
    ),
    "gauntlet": (
        Stage("margin", PGD(steps=8, loss="cw")),
        Stage("ce", APGD(steps=10)),
        # All targets: on an undefended model the class that breaks a sample is often none of the likeliest.
        Stage("targets", APGD(steps=12, loss="dlr_targeted")),
        Stage("margins", APGD(steps=40, loss="cw_targeted", targets=4)),
        Stage("deep", APGD(steps=50, loss="dlr_targeted", targets=1)),
        Stage("probe", Square(queries=50)),
    ),
    "gauntlet:thorough": (
        Stage("margin", PGD(steps=8, loss="cw")),
        Stage("ce", APGD(steps=50)),
        Stage("targets", APGD(steps=25, loss="dlr_targeted")),
        Stage("margins", APGD(steps=100, loss="cw_targeted", targets=3, restarts=2)),
        Stage("deep", APGD(steps=100, loss="dlr_targeted", targets=3, restarts=2)),
        Stage("boundary", FAB(steps=30, classes=3, stop_inside=True)),
        Stage("probe", Square(queries=1000)),
    ),
}
"""Stages by name; the measured trade-off is in docs/attacks.md."""


def _entry(name: str, summary: str) -> AttackEntry:
    def build(threat: ThreatModel) -> Cascade:
        """The cascade has no settings: its budgets have names."""
        return Cascade(BUDGETS[name])

    card = AttackCard(name=name, summary=summary, source="this project; see attacks/gauntlet.py", norms=("Linf", "L2"))
    return AttackEntry(card, build)


FAST = _entry("gauntlet:fast", "cascade of a fifth to a third of gauntlet's passes")
DEFAULT = _entry("gauntlet", "cascade that finds nearly what AutoAttack finds, for about a tenth of its passes")
THOROUGH = _entry("gauntlet:thorough", "the same cascade with about five times its passes")
