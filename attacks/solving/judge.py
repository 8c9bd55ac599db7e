"""Candidates before the verifier: successes are counted, refused ones go back to the attack."""

from __future__ import annotations

import torch
from torch import Tensor

from gauntlet.attacks.solving.slots import Slots
from gauntlet.attacks.solving.task import Verify

OUTWARDS = (2.0**-12, 2.0**-10, 2.0**-8)
"""How much further a closest example goes that lies so near the boundary that it is refused."""


def judge(slots: Slots, due: Tensor, verify: Verify, outwards: tuple[float, ...] = ()) -> tuple[Slots, Tensor]:
    """Verify the candidates that are due; refused ones go back to the attack. Returns the slots, and which are broken.

    `outwards`: by which shares of its distance a refused candidate is moved away from the clean image, one after another.
    """
    rows = due.nonzero().squeeze(1)
    broken = torch.zeros_like(due)
    if not len(rows):
        return slots, broken
    verdict = verify(slots.point[rows], slots.sample[rows], slots.forwards[rows])
    broken = broken.index_copy(0, rows, verdict.success)
    for further in outwards:
        left = (due & ~broken).nonzero().squeeze(1)
        if not len(left):
            break
        clean = slots.clean[left]
        point = (clean + (1 + further) * (slots.point[left] - clean)).clamp(0, 1)
        won = verify(point, slots.sample[left], slots.forwards[left]).success
        slots = slots._replace(point=slots.point.index_copy(0, left[won], point[won]))
        broken = broken.index_copy(0, left, won)
    refused = due & ~broken
    slots = slots._replace(
        rejected=slots.rejected.index_add(0, rows, verdict.rejected.to(torch.int64)),
        disagreements=slots.disagreements.index_add(0, rows, verdict.disagreement.to(torch.int64)),
        found=slots.found & ~refused,
        distance=torch.where(refused, torch.inf, slots.distance),
    )
    return slots, broken
