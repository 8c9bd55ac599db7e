"""The kind of a pipeline's outputs, by their values."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from gauntlet.defenses.pipeline.profile import kind_of_outputs

SCORES = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
KINDS = {
    "scores": SCORES,
    "probabilities": SCORES.softmax(1),
    "labels": functional.one_hot(SCORES.argmax(1), 3).float(),
    "votes": torch.tensor([[3.0, 1, 0], [0, 3, 1], [1, 3, 0], [0, 1, 3]]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_classes_that_take_no_part_do_not_change_the_kind(kind):
    assert kind_of_outputs(KINDS[kind]) == kind
    assert kind_of_outputs(functional.pad(KINDS[kind], (2, 10), value=-torch.inf)) == kind


def test_outputs_that_are_no_numbers_are_scores_as_far_as_anybody_can_tell():
    assert kind_of_outputs(torch.full((4, 3), torch.nan)) == "scores"
    assert kind_of_outputs(torch.full((4, 3), -torch.inf)) == "scores"
