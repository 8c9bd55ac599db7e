"""Checks of the pipeline's outputs: whether they are logits, and the same in every pass."""

from __future__ import annotations

import torch

from gauntlet.attacks.ops.rounding import lead
from gauntlet.attacks.views.guard import guarded
from gauntlet.bench.checks.subject import (
    FEW,
    Finding,
    Subject,
    fired,
    not_applicable,
    passed,
    reported,
    without_gradients,
)
from gauntlet.bench.models.parts.classifier import ModelError, check_model
from gauntlet.defenses.pipeline import profile as profiles
from gauntlet.leaderboard.results.record import EVIDENCE

FLAT = 0.1
"""The lead of the largest logit below which classes have almost the same weight: e^0.1 is 1.1."""


def eval_mode(subject: Subject) -> Finding:
    """The model or a submodule is in training mode (RobustBench's warning), or the outputs are not logits."""
    name, few = "eval-mode", subject.glance(8)
    try:
        with torch.random.fork_rng():
            check_model(subject.pipeline, few.images, few.labels, subject.classes or None)
    except ModelError as error:
        return fired(name, "block", f"The model cannot be evaluated as it is: {error}.")
    return passed(name, "Every module is in eval mode, and the outputs are finite numbers, one per class.")


def randomised_model(subject: Subject) -> Finding:
    """Five passes over the same batch differ, for any evaluated batch (AutoAttack checks the first batch)."""
    name = "randomised-model"
    # Every sample, unless passes are costly.
    subject = subject.glance(len(subject.labels))
    worst, moved, differ = 0.0, 0, torch.zeros(len(subject.labels), dtype=torch.bool)
    with guarded(subject.pipeline, 0):
        for rows in torch.arange(len(subject.labels), device=subject.labels.device).split(FEW):
            gap, predictions = profiles.spread(subject.pipeline, subject.images[rows])
            right = (predictions == subject.labels[rows]).sum(1)
            worst, moved = max(worst, gap), max(moved, int(right.max() - right.min()))
            differ[rows.cpu()] = (predictions != predictions[0]).any(0).cpu()
    figures = {"largest_gap": worst, "correct_differs_by": moved, "predictions_differ": int(differ.sum())}
    sentence = (
        f"{profiles.PASSES} passes over each of {len(subject.labels)} images: logits differ by up to {worst:.2g} of the margins, "
        f"and {figures['predictions_differ']} predictions change"
    )
    if worst <= profiles.GAP and not moved:
        return passed(name, f"{sentence}.", **figures)
    hidden = "" if subject.card is not None and subject.card.randomised else " Declare it as randomised."
    return fired(
        name,
        "block",
        f"{sentence}: an attack with one draw per step follows noise. Attack the expectation over draws (EOT): "
        f"--attacks adaptive.{hidden}",
        needs=("eot",),
        evidence=figures,
        samples=subject.named(differ),
    )


def probabilities(subject: Subject) -> Finding:
    """Every row of outputs is a distribution (AutoAttack's checks): gradients vanish for confident predictions."""
    name, few = "probabilities", subject.glance()
    try:
        with torch.random.fork_rng():
            flags = check_model(subject.pipeline, few.images)
    except ModelError as error:
        return not_applicable(name, f"The model cannot be evaluated: {error}.")
    if not flags:
        return passed(name, "The outputs are logits.")
    needs = without_gradients(subject)
    by = ", ".join(one for one in needs if one != EVIDENCE)
    return fired(
        name,
        "block",
        "The outputs are probabilities, not logits: gradients vanish for confident predictions, and attacks look weak. "
        f"Return what goes into the softmax, or attack by {by}: --attacks adaptive.",
        needs=needs,
    )


def flat_logits(subject: Subject) -> Finding:
    """The logits of most samples nearly agree, so that cross-entropy weighs all other classes alike, near and far.

    Its gradient is the mean of the classes' gradients, weighted by their probabilities. Logits that are a thousand times as large
    have the same predictions, and a gradient towards the nearest class.
    """
    name, few = "flat-logits", subject.glance().right
    if not len(few.labels):
        return not_applicable(name, "No sample is classified correctly.")
    with guarded(few.pipeline, 0), torch.no_grad():
        flat = lead(profiles.pass_over(few.pipeline, few.images, 0)) < FLAT
    count, total = int(flat.sum()), len(flat)
    figures = {"flat": count, "samples": total}
    if 2 * count <= total:
        return passed(
            name, f"The largest logit leads by {FLAT} or more for {total - count} of {total} samples.", **figures
        )
    return fired(
        name,
        "warn",
        f"For {count} of {total} samples the largest logit leads by less than {FLAT}: cross-entropy weighs all other classes "
        "alike, and attacks by it (fgsm, pgd, apgd, ddn) are weaker than on the same model with larger logits. Use attacks on "
        "the margin, such as --attacks gauntlet.",
        evidence=figures,
        samples=few.named(flat),
    )


def few_classes(subject: Subject) -> Finding:
    """Ratio losses need three classes, targeted ones four (AutoAttack); the finding names the replacements.

    Classes whose logit is −∞ take no part, and are not counted.
    """
    name = "few-classes"
    with guarded(subject.pipeline, 0), torch.no_grad():
        outputs = subject.pipeline(subject.images[:1])
    classes = int((outputs[:, : outputs.shape[1] - subject.pipeline.rejects] > -torch.inf).sum())
    if classes >= 4:
        return passed(name, f"{classes} classes: every loss is defined.", classes=classes)
    what = "dlr is replaced by the margin, and " if classes < 3 else ""
    return reported(
        name,
        f"{classes} classes: {what}targeted ratio losses are replaced by differences of two logits; at most "
        f"{classes - 1} targets.",
        classes=classes,
    )
