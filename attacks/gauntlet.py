"""The `gauntlet` cascade: about as strong as AutoAttack, for a small part of its passes (measured in docs/strength.md).

Ideas and their sources:
- cheap attacks with diverse losses first, each on the samples that are left (Croce and Hein 2020), and few steps for each target
  with margin losses (Gowal et al. 2019, "An alternative surrogate loss for PGD-based adversarial testing", arXiv 1910.09338);
- the class that short attacks came nearest to has most of the steps, where those papers give each target as many;
- most of the budget for the samples nearest to breaking (Liu et al. 2022, "Practical evaluation of adversarial robustness
  via adaptive auto attack", arXiv 2203.05154, give up early on the others);
- a black-box probe, which masked gradients do not affect (Carlini et al. 2019, "On evaluating adversarial robustness",
  arXiv 1902.06705), and, if gradients look masked, BPDA and a longer search (Athalye et al. 2018, arXiv 1802.00420);
- with many classes, the targets whose boundaries are nearest in the linearised model (Melamed et al. 2024, "MALT powers up
  adversarial attacks", arXiv 2407.02240);
- a leaky backward pass through ReLU units that are off (after Guo, Li and Chen 2020, arXiv 2012.03528), and gradients of a
  smoothed loss (Wu et al. 2018, arXiv 1802.09707), most of them where they come nearer than those of the loss itself.
In L1 the stages are the same, with the ascents for that norm; in L2 there is one more stage, along the boundary (Croce and Hein
2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack", arXiv 1907.02044), for samples that are
near, or that ascents got nowhere with.
"""

from __future__ import annotations

from dataclasses import replace

from gauntlet.attacks.apgd import APGD
from gauntlet.attacks.apgd_l1 import APGDL1
from gauntlet.attacks.fab import FAB
from gauntlet.attacks.malt import TargetOrder
from gauntlet.attacks.ops.threat import Norm, ThreatModel
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.slide import SLIDE
from gauntlet.attacks.smoothed_pgd import SmoothedPGD
from gauntlet.attacks.solving.cascade import Cascade
from gauntlet.attacks.solving.solver import Stage
from gauntlet.attacks.solving.stage_conditions import InDoubt, Masked, Near, Smoothed
from gauntlet.attacks.square import Square

# For samples with masked gradients, beside a longer black-box search: a straight-through gradient where there is none.
_THROUGH = Stage("through", APGD(steps=20, loss="cw_targeted"), Masked(), "through", technique="bpda")
_LEAKY = Stage("leaky", PGD(steps=20, loss="cw"), Near(0.3), "leaky")

_LONG = APGD(steps=100, restarts=2)
_ALONG = Stage("along", FAB(steps=60, classes=3, stop_inside=True), InDoubt(0.5), patience=10)

BUDGETS: dict[str, tuple[Stage, ...]] = {
    "gauntlet:fast": (
        Stage("margin", PGD(steps=8, loss="cw")),
        Stage("order", TargetOrder(candidates=20)),
        Stage("targets", APGD(steps=12, loss="dlr_targeted", targets=4), rival_first=True),
        Stage("probe", Square(queries=30), technique="probe"),
        _THROUGH,
        Stage("wide", Square(queries=300), Masked(), technique="black-box"),
        Stage("smoothed", SmoothedPGD(steps=12), Near(0.2)),
        Stage("smoothed-long", SmoothedPGD(steps=40), Smoothed()),
        Stage("rival", APGD(steps=20, loss="cw_targeted", targets=1), Near(0.1), rival_first=True),
        _LEAKY,
        Stage("close", APGD(steps=50, loss="cw_targeted", targets=1), Near(0.03), rival_first=True),
    ),
    "gauntlet": (
        Stage("margin", PGD(steps=8, loss="cw")),
        Stage("ce", APGD(steps=10)),
        # All targets: on an undefended model the class that breaks a sample is often not among the most likely classes. Of more
        # than ten classes, those whose boundaries are nearest.
        Stage("order", TargetOrder(candidates=30)),
        Stage("targets", APGD(steps=10, loss="dlr_targeted"), rival_first=True),
        Stage("probe", Square(queries=50), technique="probe"),
        _THROUGH,
        Stage("wide", Square(queries=1000), Masked(), technique="black-box"),
        # A short trial of smoothed gradients, and a long run where they come nearer than those of the loss itself.
        Stage("smoothed", SmoothedPGD(steps=12)),
        Stage("smoothed-long", SmoothedPGD(steps=80, restarts=2), Smoothed()),
        # From here on the budget goes to samples that are nearly broken; the nearer, the more. The class that breaks one in the
        # end is nearly always the one that short attacks came nearest to: it has the steps that other targets would have.
        Stage("rival", APGD(steps=20, loss="cw_targeted", targets=1), Near(0.3), rival_first=True),
        _LEAKY,
        # Restarts that would not arrive at their pace so far are given up.
        Stage("margins", APGD(steps=30, loss="cw_targeted", targets=3), Near(0.1), patience=12, rival_first=True),
        Stage("rivals", replace(_LONG, loss="cw_targeted", targets=1), Near(0.1), patience=25, rival_first=True),
        Stage("close", replace(_LONG, loss="dlr_targeted", targets=2), Near(0.05), patience=25, rival_first=True),
        Stage("edge", Square(queries=1500), Near(0.02), technique="black-box", patience=200),
    ),
    "gauntlet:thorough": (
        Stage("margin", PGD(steps=8, loss="cw")),
        Stage("ce", APGD(steps=30)),
        Stage("order", TargetOrder(candidates=100)),
        Stage("targets", APGD(steps=20, loss="dlr_targeted"), rival_first=True),
        Stage("probe", Square(queries=200), technique="probe"),
        _THROUGH,
        Stage("wide", Square(queries=5000), Masked(), technique="black-box"),
        Stage("smoothed", SmoothedPGD(steps=20)),
        Stage("smoothed-long", SmoothedPGD(steps=160, restarts=4), Smoothed()),
        _LEAKY,
        Stage("rivals", APGD(steps=100, loss="cw_targeted", targets=1, restarts=5), Near(0.3), rival_first=True),
        Stage("margins", APGD(steps=50, loss="cw_targeted"), Near(0.3), rival_first=True),
        Stage("close", APGD(steps=100, restarts=5), Near(0.15)),
        Stage("closer", APGD(steps=100, loss="dlr_targeted", restarts=2), Near(0.15), rival_first=True),
        Stage("boundary", FAB(steps=30, classes=3, stop_inside=True), Near(0.15)),
        Stage("edge", Square(queries=5000), Near(0.06), technique="black-box"),
    ),
}
"""Stages of each budget; the measured trade-off is in docs/attacks.md."""

EDITION = 5
"""The edition of all stages, a part of the name under which results are reported. It rises with each release that changes a stage
in any norm, so that results of the same name are of the same attack."""


def _entry(name: str, summary: str, budget_name: str) -> AttackEntry:
    def build(threat: ThreatModel) -> Cascade:
        """It has no settings: each budget has a name."""
        return Cascade(budget(name, threat.norm))

    norms: tuple[Norm, ...] = ("Linf", "L2", "L1")
    card = AttackCard(
        name=name,
        summary=summary,
        source="this project; see attacks/gauntlet.py",
        norms=norms,
        report_as=f"gauntlet {EDITION}, {budget_name} budget",
    )
    return AttackEntry(card, build)


def budget(name: str, norm: Norm) -> tuple[Stage, ...]:
    """The stages of a budget in a norm. In L2 the samples that are in doubt after the first ascents face FAB, which follows
    the boundary.

    On the interval-trained network at L2 0.8 it breaks samples that ascents cannot break, since gradients there are almost 0.
    """
    stages = [in_norm(stage, norm) for stage in BUDGETS[name]]
    if norm == "L2":
        after = next(place for place, stage in enumerate(stages) if stage.label == "targets")
        stages.insert(after + 1, _ALONG)
    return tuple(stages)


def in_norm(stage: Stage, norm: Norm) -> Stage:
    """The stage, in L1 with the ascent for that norm.

    In L1 ascents end farther from the boundary, so that samples count as near at twice the share of the margin. They pass through
    larger balls first, so that their pace says nothing early, and have no patience.
    """
    if norm != "L1":
        return stage
    rule, when = stage.rule, stage.when
    patience = 0 if isinstance(rule, APGD) else stage.patience
    if isinstance(when, Near):
        when = Near(2 * when.below)
    if isinstance(rule, PGD):
        rule = SLIDE(steps=rule.steps, restarts=rule.restarts, step_size=rule.step_size, loss=rule.loss)
    elif isinstance(rule, APGD):
        rule = APGDL1(steps=rule.steps, restarts=rule.restarts, loss=rule.loss, targets=rule.targets)
    return replace(stage, rule=rule, when=when, patience=patience)


FAST = _entry("gauntlet:fast", "cascade with about half of gauntlet's passes", "fast")
DEFAULT = _entry("gauntlet", "cascade that finds what AutoAttack finds, for a small part of its passes", "standard")
THOROUGH = _entry("gauntlet:thorough", "the same cascade with four to eight times its passes", "thorough")
