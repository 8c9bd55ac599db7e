"""What becomes of a block's examples before they are recorded: rounded where they can be, and verified, all together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gauntlet.attacks.solving.task import Outcome
from gauntlet.bench.verify.rounded_examples import clean_levels, rounded
from gauntlet.bench.verify.verifier import Verifier

Again = Callable[[Sequence[int]], list[Outcome]]
"""Attacks samples once more, and has every candidate verified as it is found."""


def settled(verify: Verifier, outcomes: Sequence[Outcome], place: range, again: Again | None = None) -> list[Outcome]:
    """The outcomes of the samples at `place`, in their order, with verified examples alone, those of 8-bit images rounded where
    this holds.

    Samples whose examples waited for the verifier (`Outcome.unverified`) and do not hold are attacked by `again`.
    """
    outcomes = sorted(outcomes, key=lambda outcome: outcome.sample)
    if again is None or not any(outcome.unverified for outcome in outcomes):
        return _rounded(verify, outcomes, place)
    # An example outside the ball is the attack's fault, even where rounding would bring it back.
    points, samples = _waiting(verify, outcomes)
    astray = set(samples[~verify.valid(points, samples)].tolist())
    alone, given = verify.alone, [outcome for outcome in outcomes if outcome.sample not in astray]
    known = _verified(verify, _rounded(verify, given, place))
    if verify.alone and not alone:
        # The same of examples that were not rounded.
        known = _verified(verify, given)
    lost = {outcome.sample: outcome for outcome in outcomes if outcome.sample not in known}
    if lost:
        for outcome in _rounded(verify, again(list(lost)), place):
            before = lost[outcome.sample]
            wasted = before.forwards + before.backwards + before.speculative
            known[outcome.sample] = replace(outcome, speculative=outcome.speculative + wasted)
    return [known[outcome.sample] for outcome in outcomes]


def _verified(verify: Verifier, outcomes: Sequence[Outcome]) -> dict[int, Outcome]:
    """The outcomes by sample, without those whose examples waited for the verifier and do not hold."""
    known = {outcome.sample: replace(outcome, unverified=False) for outcome in outcomes}
    points, samples = _waiting(verify, outcomes)
    if len(samples):
        holds = verify.together(points, samples).success
        for sample in samples[~holds].tolist():
            del known[sample]
    return known


def _waiting(verify: Verifier, outcomes: Sequence[Outcome]) -> tuple[Tensor, Tensor]:
    """The examples (N, C, H, W) that wait for the verifier, and the samples (N,) that they are of."""
    waiting = [outcome for outcome in outcomes if outcome.unverified]
    points = [outcome.adversarial for outcome in waiting if outcome.adversarial is not None]
    samples = torch.tensor([outcome.sample for outcome in waiting], dtype=torch.int64, device=verify.labels.device)
    return torch.stack(points) if points else verify.images[:0], samples


def _rounded(verify: Verifier, outcomes: Sequence[Outcome], place: range) -> list[Outcome]:
    clean = None if verify.minimum_norm else clean_levels(verify.images[place.start : place.stop])
    if clean is None or verify.alone or verify.randomised:
        return list(outcomes)
    found = rounded(verify, outcomes, clean, place.start)
    # One of them may have shown that answers depend on the batch: then the others were judged in a batch only.
    return list(outcomes if verify.alone else found)
