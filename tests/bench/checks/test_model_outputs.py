"""Checks of the outputs: whether the logits of most samples nearly agree."""

from __future__ import annotations

import pytest
import torch

import gauntlet
from builders import Wrapped
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.checks.model_outputs import flat_logits
from gauntlet.bench.checks.subject import Subject
from gauntlet.defenses.pipeline.defended_model import DefendedModel


def finding(after, count=40):
    data = gauntlet.load_data("digits")
    module = Wrapped(gauntlet.load_model("cnn.standard_digits").module, after=after)
    pipeline = DefendedModel(module, differentiable=True, randomised=False).eval()
    few = data.images[:count], data.labels[:count], list(data.ids[:count])
    return flat_logits(Subject(pipeline, *few, ThreatModel.parse("Linf:0.1")))


@pytest.mark.parametrize(
    ("after", "result"),
    [
        (None, "passed"),
        (lambda z: z + 1e3, "passed"),
        (lambda z: torch.cat([z, z.new_full((len(z), 9), -torch.inf)], 1), "passed"),
        (lambda z: z * 1e-3, "fired"),
        (lambda z: z * 1e-3 + 7, "fired"),
        (lambda z: torch.cat([z * 1e-3, z.new_full((len(z), 9), -1e9)], 1), "fired"),
    ],
)
def test_small_differences_fire_whatever_else_the_logits_are(after, result):
    assert finding(after).result == result


def test_the_flag_warns_and_names_attacks_that_do_not_weaken():
    flag = finding(lambda z: z * 1e-3).flag
    assert flag.severity == "warn"
    assert "--attacks gauntlet" in flag.message
    assert len(flag.samples) == 5
