"""What a pipeline hides where nothing is declared, measured once and stored: answers by chance or by the batch, no gradients."""

from __future__ import annotations

from dataclasses import asdict

from torch import Tensor

from gauntlet.bench.models.parts.black_box import model_access
from gauntlet.bench.prepare.checked_flags import Known
from gauntlet.defenses.pipeline.batch_dependence import BatchDependence, batch_dependence
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.defenses.pipeline.no_gradient import bridged_alone
from gauntlet.defenses.pipeline.profile import is_random
from gauntlet.leaderboard.results.measurements import Measurement


def answers_differ(pipeline: DefendedModel, images: Tensor, known: Known) -> bool:
    """Whether passes over the same images (N, C, H, W) differ.

    A black box, whose queries count, is taken by its word.
    """
    if pipeline.randomised or model_access(pipeline) != "white-box":
        return pipeline.randomised

    def measure() -> Measurement:
        return {"randomised": is_random(pipeline, images), "device": str(images.device)}

    return bool(known("randomness", measure)["randomised"])


def gradients_fail(pipeline: DefendedModel, images: Tensor, labels: Tensor, known: Known) -> bool:
    """Whether BPDA alone gives a gradient of the margin on half of the images (N, C, H, W) with labels (N,).

    Of a black box nothing is asked, and a defense that its card declares not to be differentiable has BPDA's gradient.
    """
    if not pipeline.differentiable or model_access(pipeline) != "white-box":
        return False

    def measure() -> Measurement:
        return {"no_gradient": bridged_alone(pipeline, images, labels), "device": str(images.device)}

    return bool(known("gradients", measure)["no_gradient"])


def answers_by_batch(pipeline: DefendedModel, images: Tensor, known: Known) -> BatchDependence:
    """Whether answers to the images (N, C, H, W) depend on the batch: for every attack, whatever checks are asked for, since no
    figure holds then. Of a randomised pipeline nothing is found."""
    if pipeline.randomised:
        return BatchDependence(0, 0, 0.0)

    def measure() -> Measurement:
        return {"batch": asdict(batch_dependence(pipeline, images)), "device": str(images.device)}

    return BatchDependence(**known("batch", measure)["batch"])
