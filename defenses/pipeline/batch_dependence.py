"""Whether the answer of a pipeline to an image depends on the other images of its batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gauntlet.attacks.views.fast_model import full_float32
from gauntlet.attacks.views.guard import guarded
from gauntlet.defenses.pipeline.profile import pass_over

IMAGES = 8
"""Number of images that are compared, alone and in one batch."""
SHARE = 1e-3
"""Change of the deciding difference of logits, as a share of its mean over the images, that is more than rounding.

Sums of float32 in another order differ by about 1e-6 of it, those of a deep network by 1e-5; statistics of a batch change it by
more than 1e-2.
"""
ROUNDING = 64
"""Units in the last place of the deciding logits that are rounding in any case: large logits have small differences."""
LEAST = 2
"""Images that must change: rounding that falls the other way at a step of a staircase changes one."""


class SingleImageError(RuntimeError):
    """The model answers a batch and fails on one of its images alone."""


@dataclass(frozen=True)
class BatchDependence:
    """How much the answers to the same images differ between one batch and each image alone."""

    images: int
    changed: int
    """Number of images whose deciding logits change by more than rounding."""
    largest: float
    """The largest change of the difference of the two largest logits, as a share of the mean of that difference."""

    @property
    def found(self) -> bool:
        """Whether answers depend on the batch."""
        return self.changed >= LEAST


def batch_dependence(pipeline: nn.Module, images: Tensor) -> BatchDependence:
    """Compare the outputs (N, K) of at most `IMAGES` of the images (N, C, H, W) in one batch with those of each alone.

    Nothing is found where passes over the same batch differ: randomness is no dependence, and is measured elsewhere. Raises
    SingleImageError if the pipeline fails on an image alone.
    """
    few = images[:IMAGES]
    none = BatchDependence(len(few), 0, 0.0)
    if len(few) < LEAST:
        return none
    with guarded(pipeline, 0), full_float32(), torch.no_grad():
        together = pass_over(pipeline, few, 0)
        pair = together.topk(2, dim=1).indices
        if _changed(pair, together, pass_over(pipeline, few, 1)).changed:
            return none
        alone = _alone(pipeline, few, 2)
        found = _changed(pair, together, alone)
        if found.changed and _changed(pair, alone, _alone(pipeline, few, 3)).changed:
            return none
    return found


def batch_norms(model: nn.Module) -> list[str]:
    """Names of the batch norms that normalise by the statistics of the batch: without running statistics, or in training mode."""
    return [
        name or "the model"
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.running_mean is None or module.training)
    ]


def _alone(pipeline: nn.Module, images: Tensor, number: int) -> Tensor:
    try:
        return torch.cat([pass_over(pipeline, image, number) for image in images.split(1)])
    except Exception as error:
        raise SingleImageError(
            f"the model answers a batch of {len(images)} images and fails on a single image ({type(error).__name__}: {error}): "
            "its answers depend on the batch, so that they say nothing about an image. Normalise by running statistics"
        ) from error


def _changed(pair: Tensor, first: Tensor, second: Tensor) -> BatchDependence:
    """Compare outputs (N, K) by the difference of two of the logits; `pair` (N, 2) names the two."""
    one, two = first.gather(1, pair).double(), second.gather(1, pair).double()
    gaps = one[:, 0] - one[:, 1]
    mean = gaps[gaps.isfinite()].abs().mean().nan_to_num(0.0)
    change = (gaps - (two[:, 0] - two[:, 1])).abs()
    unit = torch.finfo(first.dtype).eps * one.abs().amax(1)
    changed = change > SHARE * mean + ROUNDING * unit
    largest = change[change.isfinite()].max() if bool(change.isfinite().any()) else change.new_zeros(())
    return BatchDependence(len(pair), int(changed.sum()), float((largest / mean).nan_to_num(0.0)) if mean > 0 else 0.0)
