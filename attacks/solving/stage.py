"""A stage of a cascade: a rule, and the circumstances under which it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.stage_conditions import StageCondition
from gauntlet.attacks.views.backward_modes import Backward

Precision = Literal["full", "low", "review"]


@dataclass(frozen=True, repr=False)
class Stage:
    """A rule in a cascade, with its label in records.

    `when`: the condition under which the stage faces a sample; None: every sample that is left. `backward`: how gradients pass
    back through the model (`gauntlet.attacks.views.backward_modes`). `view`: name of the module that the rule sees in place of
    the model, such as the undefended twin; empty: the model. `technique`: the kind of attack, see `gauntlet.attacks.adaptive`.
    `patience`: number of steps after which, and after each doubling, a sample may be given up
    (`gauntlet.attacks.solving.patience`); 0: every sample has the rule's whole budget. `precision`: `low`, the stage sees the
    form in low precision; `review`, it measures in full what such stages left (`gauntlet.attacks.solving.low_precision`). Neither
    counts as faced for what lifts a block. `rival_first`: rules that take classes as targets begin with the one that the stages
    before came nearest to, and those that one of them ranked, not with the most likely one of the clean image.
    """

    label: str
    rule: Rule[Any]
    when: StageCondition | None = None
    backward: Backward = "true"
    view: str = ""
    technique: str = "white-box"
    patience: int = 0
    precision: Precision = "full"
    rival_first: bool = False

    def __repr__(self) -> str:
        # Part of the keys of stored results, in which the technique has its former name, and settings of 0 are left out.
        patience = f", patience={self.patience}" if self.patience else ""
        rival_first = ", rival_first=True" if self.rival_first else ""
        return (
            f"Stage(label={self.label!r}, rule={self.rule!r}, when={self.when!r}, backward={self.backward!r}, "
            f"view={self.view!r}, way={self.technique!r}{patience}{rival_first})"
        )

    @property
    def steps_expected(self) -> int:
        """Steps that the stage is expected to spend on a sample that it does not break, over all restarts. With patience most
        samples are given up at the second look."""
        full = self.rule.budget
        return (min(full, 2 * self.patience) if self.patience else full) * self.rule.total_restarts


def stages_for(stages: Sequence[Stage], classes: int | None) -> list[Stage]:
    """The stages that have something to do on a model with so many classes; None: it is not known, and all of them."""
    return [stage for stage in stages if classes is None or classes >= stage.rule.least_classes]
