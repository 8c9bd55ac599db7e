"""Low precision first, float32 last: the stages of an attack that sees two forms of a model.

A pass in low precision costs a part of one in float32, and rounds logits by about a hundredth of the margin of a clean image
(TF32: less). So the first stages, which every sample faces and which follow the model's own gradients, see the form in low
precision. What they leave standing faces float32:

1. `Review` evaluates the points where those stages ended: examples that low precision did not see are found, and the margins
   that decide what follows are measured on the full form.
2. Samples that came near another class, by either form, and those whose gradients vanished face the same stages again: within
   `DOUBT` the short ones, which cost little, within `LONG_DOUBT` all of them. The others were far from every boundary.
3. All other stages, among them every one with a condition: on near samples most of the budget is spent in float32.

Searches, BPDA, transfer and views are never in low precision, since they may lift the block of a rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from gauntlet.attacks.solving.ends import KEPT
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.stage import Stage
from gauntlet.attacks.solving.stage_conditions import NO_HEADWAY, InDoubt

VERSION = 2
"""Rises when other stages are chosen: it is part of the key of results in low precision."""
DOUBT, LONG_DOUBT = 0.3, 0.2
"""Shares of the clean image's margin within which short stages are repeated in float32, and stages of more than `SHORT` steps:
after bfloat16. Precisions that round less leave less in doubt."""
ROUNDING = {"bf16": 1.0, "fp16": 1 / 8, "tf32": 1 / 8}
"""How coarsely factors are rounded, relative to bfloat16, by the name in a form: to 7 bits after the leading one, or 10."""
COARSE = 0.1
"""Share of the clean image's margin beyond which no rounding of bfloat16 decides: twice what forms may differ by."""
SHORT = 10
_ANSWER_NOTHING = ("white-box", "probe")
"""Techniques that no flag names as what lifts a block."""


class ReviewState(NamedTuple):
    """Nothing but the number of slots."""

    slots: Tensor


@dataclass(frozen=True)
class Review(Rule[ReviewState]):
    """Evaluates the points where the latest stages of a sample ended, one a step."""

    steps: int

    uses_ends: ClassVar[bool] = True
    leaves_ball: ClassVar[bool] = True

    def start(self, oracle: Oracle) -> ReviewState:
        """No pass."""
        return ReviewState(torch.zeros_like(oracle.labels))

    def step(self, state: ReviewState, oracle: Oracle) -> ReviewState:
        """One forward pass; at the clean image where a sample has fewer ends."""
        ends = torch.cat([oracle.ends, oracle.clean[:, None]], 1)
        oracle.logits(ends[torch.arange(len(ends), device=ends.device), oracle.step.clamp_max(ends.shape[1] - 1)])
        return state


def takes_low_precision(stage: Stage) -> bool:
    """Whether a stage may see a form in low precision.

    It has no condition, sees the model itself with its own gradients, answers no flag, and measures no distance.
    """
    plain = stage.when is None and stage.backward == "true" and not stage.view and stage.technique in _ANSWER_NOTHING
    return plain and not stage.rule.minimum_norm and not stage.rule.uses_ends


def rounding(form: str) -> float:
    """`ROUNDING` of a form, such as `bf16+folded`; 0 in float32."""
    return max((ROUNDING.get(part, 0.0) for part in form.split("+")), default=0.0)


def low_precision_first(stages: Sequence[Stage], form: str = "bf16") -> tuple[Stage, ...]:
    """The stages of the attack with the first row of those that take low precision in it; the same stages if none does.

    `form`: the name of the form in low precision. TF32 rounds factors alone, and leaves outputs as they are.
    """
    ordered: list[Stage] = []
    rows = [(takes, tuple(row)) for takes, row in groupby(stages, takes_low_precision)]
    first = next((place for place, (takes, _) in enumerate(rows) if takes), None)
    for place, (_, row) in enumerate(rows):
        ordered += _in_both(row, form) if place == first else row
    return tuple(ordered)


def _in_both(row: Sequence[Stage], form: str) -> tuple[Stage, ...]:
    # A ranking of classes searches nothing: it ends nowhere, and low precision hardly changes what it guesses.
    repeated = [stage for stage in row if not stage.rule.ranks_targets]
    climbs = [stage.label for stage in repeated if stage.technique == "white-box"]
    # What it finds is the find of a stage with gradients.
    above = math.inf if "tf32" in form.split("+") else NO_HEADWAY
    near, nearer = (InDoubt(rounding(form) * share, above) for share in (DOUBT, LONG_DOUBT))
    review = Stage((climbs or [row[-1].label])[-1], Review(max(1, min(len(climbs), KEPT))), precision="review")
    return (
        *(replace(stage, precision="low") for stage in row),
        review,
        *(replace(stage, when=near if stage.steps_expected <= SHORT else nearer) for stage in repeated),
    )
