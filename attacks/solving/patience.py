"""A budget that follows what it gains: samples are given up that would not be broken at the pace of their search so far.

Searches without gradients gain about as much by each doubling of their queries. So a sample is looked at after `patience` steps
and after each doubling. It is given up where its budget would not suffice even if every further doubling closed as much of its
gap as the latest one. The rule says what the gap is (`Rule.gap`); 0 stands for success.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gauntlet.attacks.solving.slots import Slots


def look(slots: Slots, gap: Tensor | None, patience: int, budget: int) -> tuple[Slots, Tensor]:
    """The slots with their gaps after a step, and which of them are given up, bool (N,).

    `gap`: that of the rule's state, (N,), infinite as long as it is unknown, such as before a search by labels has found any
    misclassified image; None: the rule has none, and no slot is given up. A gap that the first doubling left unknown counts as
    hopeless. `budget`: the rule's.
    """
    if gap is None:
        return slots, torch.zeros_like(slots.found)
    least = torch.minimum(slots.gap, gap.to(slots.gap.dtype))
    times = slots.step // patience
    due = (slots.step % patience == 0) & (times > 0) & (times & (times - 1) == 0)
    left = math.log2(budget) - slots.step.to(torch.float64).log2()
    reached = least - (slots.gap_before - least) * left
    # Gaps that are still unknown give NaN, which is not at most 0 either.
    hopeless = due & (times > 1) & ~(reached <= 0)
    return slots._replace(gap=least, gap_before=torch.where(due, least, slots.gap_before)), hopeless


def unseen(slots: Slots) -> Slots:
    """The slots as before the first look."""
    unknown = torch.full_like(slots.gap, torch.inf)
    return slots._replace(gap=unknown, gap_before=unknown)
