"""Whether a pipeline's answers depend on chance or on the batch: measured once, and stored, where nothing is declared."""

from __future__ import annotations

from dataclasses import asdict

from torch import Tensor

from gauntlet.bench.models.parts.black_box import model_access
from gauntlet.bench.prepare.checked_flags import Known
from gauntlet.defenses.pipeline.batch_dependence import BatchDependence, batch_dependence
from gauntlet.defenses.pipeline.defended_model import DefendedModel
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


def answers_by_batch(pipeline: DefendedModel, images: Tensor, known: Known) -> BatchDependence:
    """Whether answers to the images (N, C, H, W) depend on the batch: for every attack, whatever checks are asked for, since no
    figure holds then. Of a randomised pipeline nothing is found."""
    if pipeline.randomised:
        return BatchDependence(0, 0, 0.0)

    def measure() -> Measurement:
        return {"batch": asdict(batch_dependence(pipeline, images)), "device": str(images.device)}

    return BatchDependence(**known("batch", measure)["batch"])
