"""The cost of a stage for a standing sample, from three of its steps, is what the whole attack costs such a sample."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.solver import Stage
from gauntlet.attacks.solving.stage_cost import stage_cost
from solving import built, outcomes


class Standing(nn.Module):
    """The first class whatever comes, with a gradient."""

    def forward(self, x):
        values = x.flatten(1)[:, :5] * 0.1
        return values + torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0], dtype=x.dtype)


@pytest.mark.parametrize(
    ("attack", "threat"),
    [
        ("fgsm", "Linf:0.1"),
        ("pgd(steps=10, restarts=3)", "Linf:0.1"),
        ("pgd(steps=4)", "L2:0.3:target=next"),
        ("apgd(steps=12)", "Linf:0.1"),
        ("apgd(steps=6, eot=4)", "Linf:0.1"),
        ("apgd(steps=8, loss='dlr_targeted', targets=2)", "Linf:0.1"),
        ("square(queries=40)", "Linf:0.1"),
        ("fmn(steps=9)", "L2:0.3"),
    ],
)
def test_passes_are_those_of_the_whole_attack(attack, threat):
    parsed, model = ThreatModel.parse(threat), Standing()
    images = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.zeros(2, dtype=torch.int64)
    targets = torch.ones_like(labels) if parsed.target else None
    rule = built(attack, parsed)
    (found, _) = outcomes(rule, model, images, labels, parsed, targets=targets, classes=5, clean_logits=model(images))
    cost = stage_cost(Stage("", rule), model, images, labels, parsed)
    # The last iterate of each restart may cost one more forward pass.
    assert cost.forwards == pytest.approx(found.forwards, abs=rule.total_restarts)
    assert cost.backwards == pytest.approx(found.backwards, abs=1)
    assert cost.seconds > 0


@pytest.mark.parametrize(("queries", "patience", "expected"), [(40, 0, 40), (40, 10, 20), (40, 30, 40)])
def test_a_stage_with_patience_is_expected_to_give_a_standing_sample_up_at_the_second_look(queries, patience, expected):
    threat, model = ThreatModel.parse("Linf:0.1"), Standing()
    images, labels = torch.full((2, 1, 4, 4), 0.5, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    stage = Stage("", built(f"square(queries={queries})", threat), patience=patience)
    assert stage_cost(stage, model, images, labels, threat).forwards == expected
