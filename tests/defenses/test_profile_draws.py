"""Labels that are drawn: they hardly ever differ on clear images, and differ between two of them."""

from __future__ import annotations

import torch
from torch.nn import functional

from builders import Function
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.defenses.pipeline.profile import pipeline_profile

LABELS = torch.arange(16) % 4
CORNERS = torch.eye(4)[LABELS].view(16, 1, 2, 2)


def profile(function):
    pipeline = DefendedModel(Function(function), differentiable=True, randomised=False).eval()
    return pipeline_profile(pipeline, CORNERS, LABELS)


def test_a_label_that_is_drawn_makes_a_pipeline_randomised():
    def drawn(x):
        return functional.gumbel_softmax(40 * x.flatten(1), hard=True)

    assert torch.equal(drawn(CORNERS).argmax(1), LABELS)
    assert profile(drawn).randomised


def test_labels_that_are_not_drawn_make_none():
    assert not profile(lambda x: functional.one_hot(x.flatten(1).argmax(1), 4).float()).randomised
