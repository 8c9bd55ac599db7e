"""Building a record's samples from outcomes: every example is measured again before it counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gauntlet.attacks.ops.norms import limit
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.solver import Outcome
from gauntlet.bench.verify.measurement import Measurement, unrepeated
from gauntlet.bench.verify.rounded_examples import clean_levels
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.leaderboard.results.record import Flag, Samples

_MASKED = 0.05
"""Smallest share of a block's attacked samples that is reported as masked gradients."""


_BATCH_DEPENDENT = Flag(
    "batch-dependent",
    "block",
    "a success held in a batch and failed alone, by a margin far beyond rounding: the model's answers depend on the other images "
    "of the batch, so that no figure holds for an image as such. Make each answer depend on its image alone",
)


@dataclass(frozen=True)
class CleanEvaluation:
    """The verifier's measurement of the clean samples."""

    measured: Measurement
    attacked: Tensor
    """bool (N,), on the attack's device: the samples to attack, correct when clean and not of the target class."""
    classes: int
    """Number of logits of the model."""


def examine_clean(verify: Verifier, places: Sequence[range] = ()) -> CleanEvaluation:
    """Measure the clean images. Misclassified samples and samples of the target class are not attacked.

    `places`: where each block lies among the samples: then those of a block are in batches of their own, so that what is measured
    of it depends on no other; in full ones, unless answers depend on the batch. Raises ValueError if the model does not have the
    target class of the threat model.
    """
    every = torch.arange(len(verify.labels), device=verify.labels.device)
    logits = _clean_logits(verify, places)
    measured = verify.measure(verify.images, every, logits)
    if logits is None and measured.logits is not None:
        verify.calibrate(measured.logits)
    attacked = measured.prediction.to(verify.labels.device) == verify.labels
    if verify.threat.target:
        attacked = attacked & (verify.targets() != verify.labels)
    return CleanEvaluation(measured, attacked, verify.classes)


def _clean_logits(verify: Verifier, places: Sequence[range]) -> Tensor | None:
    """Logits (N, K) of the clean images, each block by itself, by which the verifier is then calibrated; None: not known."""
    if verify.randomised or not places:
        return None
    parts = [verify.images[place.start : place.stop] for place in places]
    if not verify.alone:
        logits = torch.cat([verify.full_logits(part) for part in parts])
        verify.calibrate(logits)
        if not verify.alone:
            return logits
    # More than rounding depends on the batch: then batches are of the one size that every later measurement has.
    logits = torch.cat([verify.logits(part) for part in parts])
    verify.calibrate(logits)
    return logits


def block_record(
    verify: Verifier,
    clean: CleanEvaluation,
    place: range,
    outcomes: Sequence[Outcome],
    threat: ThreatModel,
    *,
    by_batch: bool = False,
) -> tuple[Samples, tuple[Flag, ...]]:
    """The recorded samples at `place` of the verifier's samples, from the outcomes of the attacked samples, and their flags.

    `by_batch`: the model's answers depend on the batch, so that successes that fail alone, or when they are measured together, do
    not count; the same holds once an audited success shows it. Of other models they are an error: raises VerificationError.
    """
    rows = slice(place.start, place.stop)
    audited = verify.depends and not by_batch
    if by_batch or audited:
        outcomes = _held_together(verify, outcomes)
    broken = [outcome for outcome in outcomes if outcome.adversarial is not None]
    local = np.array([outcome.sample - place.start for outcome in broken], dtype=np.int64)
    labels = verify.labels[rows].cpu().numpy()
    measured = clean.measured
    prediction, margin = measured.prediction[rows].numpy().copy(), measured.margin[rows].numpy().copy()
    share, scored = measured.wrong_share[rows].numpy().copy(), measured.wrong_share_scored[rows].numpy().copy()
    distance = np.full(len(labels), np.nan)
    counts = {name: np.zeros(len(labels)) for name in ("forwards", "backwards")}
    steps = np.full(len(labels), -1, dtype=np.int64)
    images: list[np.ndarray | None] = [None] * len(labels)
    clean_prediction = prediction.copy()
    stages, faced = [""] * len(labels), [""] * len(labels)
    for outcome in outcomes:
        at = outcome.sample - place.start
        stages[at], faced[at] = outcome.stage, " ".join(outcome.faced)
        counts["forwards"][at], counts["backwards"][at] = outcome.forwards, outcome.backwards
        steps[at] = outcome.steps
    if broken:
        points = torch.stack([outcome.adversarial for outcome in broken if outcome.adversarial is not None])
        samples = torch.tensor([outcome.sample for outcome in broken], device=verify.labels.device)
        again = verify.recorded(points, samples)
        _confirm(verify, again, points, samples)
        prediction[local], margin[local], distance[local] = again.prediction, again.margin, again.distance
        within = (again.distance <= limit(threat)).numpy()
        share[local[within]], scored[local[within]] = again.wrong_share[within], again.wrong_share_scored[within]
        for at, point in zip(local, points.cpu().numpy(), strict=True):
            images[at] = point
    clean_images = clean_levels(verify.images[rows]) if broken and not verify.minimum_norm else None
    correct = clean_prediction == labels
    result = Samples(
        id=np.array(verify.ids[rows], dtype=np.str_),
        label=labels,
        clean_prediction=clean_prediction,
        prediction=prediction,
        robust=correct & (scored < 0.5),
        distance=distance,
        margin=margin,
        forwards=counts["forwards"],
        backwards=counts["backwards"],
        steps=steps,
        wrong_share=share,
        wrong_share_scored=scored,
        adversarial=images,
        clean=() if clean_images is None else tuple(clean_images.to(torch.uint8).cpu().numpy()),
        stage=tuple(stages) if any(stages) else (),
        faced=tuple(faced) if any(faced) else (),
    )
    return result, (*_flags(outcomes), *((_BATCH_DEPENDENT,) if audited else ()))


def _held_together(verify: Verifier, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
    """The outcomes without the successes that fail alone, or in a batch of all successes, as any later measurement has it."""
    while broken := [outcome for outcome in outcomes if outcome.adversarial is not None]:
        points = torch.stack([outcome.adversarial for outcome in broken if outcome.adversarial is not None])
        samples = torch.tensor([outcome.sample for outcome in broken], device=verify.labels.device)
        both = verify(points, samples, torch.zeros_like(samples)).success.tolist()
        lost = {outcome.sample for outcome, holds in zip(broken, both, strict=True) if not holds}
        if not lost:
            break
        outcomes = [
            replace(outcome, adversarial=None, stage="") if outcome.sample in lost else outcome for outcome in outcomes
        ]
    return outcomes


def _confirm(verify: Verifier, again: Measurement, points: Tensor, samples: Tensor) -> None:
    valid = verify.valid(points, samples).cpu()
    # For a randomised model fresh draws decide, and they may differ.
    bad = ~valid if verify.randomised else ~valid | (again.wrong_share == 0)
    if bad.any():
        raise unrepeated(bad, samples, verify.ids)


def _flags(outcomes: Sequence[Outcome]) -> tuple[Flag, ...]:
    return (*_invalid_candidates(outcomes), *_masked_gradients(outcomes))


def _masked_gradients(outcomes: Sequence[Outcome]) -> tuple[Flag, ...]:
    fallbacks = [outcome.masked_fallback for outcome in outcomes if outcome.masked_fallback]
    # On sound models, too, one or two of a hundred samples look masked: a random step came nearer than their gradients.
    if len(fallbacks) < max(3, _MASKED * len(outcomes)):
        return ()
    return (
        Flag(
            "masked-gradients",
            "warn",
            f"for {len(fallbacks)} of {len(outcomes)} attacked samples the gradients vanished, or a probe without gradients came "
            f"nearer to the boundary: these samples were also attacked with substitute gradients and by search, with "
            f"{sum(fallbacks):.0f} additional passes. Do not trust gradient attacks alone here",
        ),
    )


def _invalid_candidates(outcomes: Sequence[Outcome]) -> tuple[Flag, ...]:
    rejected = sum(outcome.rejected > 0 for outcome in outcomes)
    if not rejected:
        return ()
    return (
        Flag(
            "invalid-candidates",
            "warn",
            f"the attack proposed invalid points (outside the ball or the box, or not finite) for {rejected} of "
            f"{len(outcomes)} samples of a block: the points were rejected, and the figure may "
            "overstate robustness. Correct the attack",
        ),
    )
