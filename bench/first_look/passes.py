"""The form that native attacks would run on, and what a pass costs."""

from __future__ import annotations

import torch
from torch import nn

from gauntlet.attacks.views.fast_model import FastModel, full_float32
from gauntlet.attacks.views.guard import guarded
from gauntlet.attacks.views.tf32 import kept_setting
from gauntlet.bench.environment.clock import synchronised_time
from gauntlet.bench.first_look.line import Line
from gauntlet.bench.first_look.seen import Seen
from gauntlet.bench.prepare.fast_form import FORM_IMAGES, chosen_form
from gauntlet.defenses.pipeline.defended_model import DefendedModel

_BATCH = 32
_REPEATS = 3


def pass_lines(pipeline: DefendedModel, seen: Seen) -> tuple[list[Line], float]:
    """Lines on the fast form and on costs, and the seconds of a pass forward and back for an image in a batch."""
    view, images = pipeline.attack_view(), seen.images[:_BATCH]
    form = FastModel(view, "") if pipeline.randomised else chosen_form(view, images[:FORM_IMAGES], "auto")
    forward, both = (_seconds(form.module, images, gradient=gradient) for gradient in (False, True))
    lines = [
        Line("fast form", f"native attacks run on {form.form or 'the model as it is'}"),
        Line(
            "pass",
            f"{1000 * forward:.2g} ms an image forward, {1000 * both:.2g} ms forward and back, {len(images)} at once on "
            f"{images.device}",
        ),
    ]
    return lines, both


def _seconds(model: nn.Module, images: torch.Tensor, *, gradient: bool) -> float:
    """Seconds of a pass for an image: the shortest of a few."""
    taken = []
    with full_float32(), guarded(model, 0), kept_setting(), torch.set_grad_enabled(gradient):
        for _ in range(_REPEATS):
            began = synchronised_time()
            points = images.clone().requires_grad_(gradient)
            outputs = model(points)
            if gradient and outputs.requires_grad:
                torch.autograd.grad(outputs.sum(), points, allow_unused=True)
            taken.append(synchronised_time() - began)
    return min(taken) / len(images)
