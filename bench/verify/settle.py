"""What becomes of a block's examples before they are recorded: rounded where they can be, and verified, all together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from gauntlet.attacks.solving.task import Outcome
from gauntlet.bench.verify.rounded_examples import clean_levels, rounded
from gauntlet.bench.verify.verifier import Verifier

Again = Callable[[Sequence[int]], list[Outcome]]
"""Attacks samples once more, and has every candidate verified as it is found."""


def settled(verify: Verifier, outcomes: Sequence[Outcome], place: range, again: Again | None = None) -> list[Outcome]:
    """The outcomes of the samples at `place` with verified examples alone, those of 8-bit images rounded where this holds.

    Samples whose examples waited for the verifier (`Outcome.unverified`) and do not hold are attacked by `again`.
    """
    outcomes = _rounded(verify, outcomes, place)
    waiting = [outcome for outcome in outcomes if outcome.unverified]
    if not waiting or again is None:
        return outcomes
    points = torch.stack([outcome.adversarial for outcome in waiting if outcome.adversarial is not None])
    samples = torch.tensor([outcome.sample for outcome in waiting], device=verify.labels.device)
    holds = verify.together(points, samples).success.tolist()
    lost = {outcome.sample: outcome for outcome, held in zip(waiting, holds, strict=True) if not held}
    known = {one.sample: replace(one, unverified=False) if one.unverified else one for one in outcomes}
    if lost:
        for outcome in _rounded(verify, again(list(lost)), place):
            before = lost[outcome.sample]
            wasted = before.forwards + before.backwards + before.speculative
            known[outcome.sample] = replace(outcome, speculative=outcome.speculative + wasted)
    return list(known.values())


def _rounded(verify: Verifier, outcomes: Sequence[Outcome], place: range) -> list[Outcome]:
    clean = None if verify.minimum_norm else clean_levels(verify.images[place.start : place.stop])
    if clean is None or verify.alone or verify.randomised:
        return list(outcomes)
    return list(rounded(verify, outcomes, clean, place.start))
