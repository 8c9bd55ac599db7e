"""Whether BPDA gives a gradient where autograd gives none: the part of a pipeline's profile that costs one pass or two."""

from __future__ import annotations

from torch import Tensor

from gauntlet.attacks.ops.losses import cw
from gauntlet.attacks.views.backward_modes import Backward, backward_mode
from gauntlet.attacks.views.fast_model import full_float32
from gauntlet.attacks.views.guard import guarded
from gauntlet.attacks.views.interception.release import release
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.defenses.pipeline.profile import dead, gradient, judged_logits

_SAMPLES = 16


def bridged_alone(pipeline: DefendedModel, images: Tensor, labels: Tensor) -> bool:
    """Whether the margins of half of at most 16 images (N, C, H, W) with labels (N,) have a gradient by BPDA alone.

    Their own is then missing, zero or not finite. Margins, since the cross-entropy of a confident network rounds to zero.
    """
    few, own = images[:_SAMPLES], labels[:_SAMPLES]

    def fails(backward: Backward) -> bool:
        def logits(at: Tensor) -> Tensor:
            with backward_mode(backward, len(few)) as complete:
                return complete(judged_logits(pipeline, at, own, 0))

        gradients = gradient(logits, few, own, cw)
        return gradients is None or 2 * int(dead(gradients).sum()) >= len(few)

    with guarded(pipeline, 0), full_float32():
        alone = fails("true") and not fails("through")
    release(pipeline)
    return alone
