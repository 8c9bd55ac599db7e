"""The profile of a pipeline as it is stored, and the modules of the views that it names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace

import torch
from torch import Tensor, nn

from gauntlet.attacks.adaptive import BENEATH, TWIN
from gauntlet.attacks.views.guard import guarded
from gauntlet.defenses.pipeline.card import DefenseCard
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.defenses.pipeline.find_inner_views import SAMPLES, find_inner_views
from gauntlet.defenses.pipeline.inner_view import InnerView, InnerViewModel
from gauntlet.defenses.pipeline.profile import PipelineProfile, measured_noise, pipeline_profile
from gauntlet.leaderboard.results.measurements import Measurement

_SLOW = 2
"""Number of images for defenses whose card limits the samples because they are slow."""
_DIGITS = 12


def measure_profile(
    pipeline: DefendedModel, card: DefenseCard, images: Tensor, labels: Tensor, content: str
) -> Measurement:
    """The profile, and whether gradients are of no use to attacks that know the card, as plain data.

    `images` (N, C, H, W) and `labels` (N,): the first ones of the first block, on the pipeline's device; `content`: its digest.
    """
    count = SAMPLES if card.samples is None else _SLOW
    few, own = images[:count], labels[:count]
    bridged = not pipeline.differentiable
    profile = pipeline_profile(pipeline, few, own, judge=not (bridged or pipeline.opaque))
    seen = pipeline_profile(pipeline.attack_view(), few, own, judge=False) if bridged else profile
    masked = pipeline.opaque or seen.gradients != "useful" or profile.takes_gradients or bool(profile.intercepted)
    # A confident softmax has no gradient left; beneath a declared one there are logits.
    masked = masked or (profile.outputs == "probabilities" and pipeline.beneath is None)
    if pipeline.randomised or profile.randomised:
        noise = measured_noise(pipeline.attack_view(), few, own, "through" if masked else "true")
        profile = replace(profile, gradient_noise=noise)
    # Honest gradients need no other view, and a slow defense cannot afford the passes.
    inner = find_inner_views(pipeline, few) if masked and card.samples is None else ()
    views = [replace(view, reference=content[:_DIGITS]) if view.join == "nearest" else view for view in inner]
    plain = {**asdict(profile), "intercepted": list(profile.intercepted), "inner": [view.fields() for view in views]}
    return {"profile": plain, "masked": masked, "device": str(images.device)}


def read_profile(measured: Measurement) -> tuple[PipelineProfile, bool]:
    """The profile and whether gradients are of no use, from `measure_profile`."""
    fields = dict(measured["profile"])
    fields["intercepted"] = tuple(fields["intercepted"])
    fields["inner"] = tuple(InnerView.read(one) for one in fields["inner"])
    return PipelineProfile(**fields), bool(measured["masked"])


def attack_views(
    pipeline: DefendedModel, profile: PipelineProfile | None, reference: Callable[[], tuple[Tensor, Tensor]]
) -> dict[str, nn.Module]:
    """Modules that stages of adaptive attacks may receive in place of the pipeline, by name.

    `reference`: gives the images and labels of the first block, for the class means of views that compare features.
    """
    views = {BENEATH: pipeline.beneath, TWIN: pipeline.twin}
    found: dict[str, nn.Module] = {name: view for name, view in views.items() if view is not None}
    for view in () if profile is None else profile.inner:
        model = InnerViewModel(pipeline.attack_view(), view)
        if view.reference:
            with guarded(model, 0), torch.no_grad():
                model.set_means(*reference())
        found[view.name] = model
    return found
