"""Candidates before the verifier: successes are counted, refused ones go back to the attack."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gauntlet.attacks.ops.norms import per_image
from gauntlet.attacks.solving.known import Rows, Truths, to_device, to_host
from gauntlet.attacks.solving.slots import Slots
from gauntlet.attacks.solving.task import Verify

OUTWARDS = (2.0**-12, 2.0**-10, 2.0**-8)
"""How much further a closest example goes that lies so near the boundary that it is refused."""


def judge(
    slots: Slots, rows: Rows, sure: Truths, verify: Verify, outwards: tuple[float, ...] = ()
) -> tuple[Slots, Tensor]:
    """Verify the candidates at `rows`; refused ones go back to the attack. Returns the slots, and which are broken, bool (N,).

    `sure` (of the length of `rows`): candidates that are taken as they are, and verified when their attack is over.
    `outwards`: by which shares of its distance a refused candidate is moved away from the clean image, one after another.
    """
    broken = torch.zeros_like(slots.found)
    if sure.any():
        broken = broken.index_fill(0, to_device(rows[sure], broken.device), True)
        rows = rows[~sure]
    if not len(rows):
        return slots, broken
    at = to_device(rows, slots.sample.device)
    verdict = verify(slots.point[at], slots.sample[at], slots.forwards[at])
    success = verdict.success
    for further in outwards:
        (held,) = to_host(success)
        left = np.flatnonzero(held == 0)
        if not len(left):
            break
        again = to_device(left, at.device)
        where = at[again]
        clean = slots.clean[where]
        point = (clean + (1 + further) * (slots.point[where] - clean)).clamp(0, 1)
        won = verify(point, slots.sample[where], slots.forwards[where]).success
        moved = torch.where(per_image(won, point), point, slots.point[where])
        slots = slots._replace(point=slots.point.index_copy(0, where, moved))
        success = success.index_copy(0, again, won)
    broken = broken.index_copy(0, at, success)
    refused = torch.zeros_like(broken).index_copy(0, at, ~success)
    slots = slots._replace(
        rejected=slots.rejected.index_add(0, at, verdict.rejected.to(torch.int64)),
        disagreements=slots.disagreements.index_add(0, at, verdict.disagreement.to(torch.int64)),
        found=slots.found & ~refused,
        distance=torch.where(refused, torch.inf, slots.distance),
    )
    return slots, broken
