"""Models that reject: a tie with a class is a rejection, for attacks and for the verifier alike."""

from __future__ import annotations

import pytest
import torch

from builders import Function
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.slots import new_slots
from gauntlet.attacks.views.rejection_view import reduced, strict
from gauntlet.bench.verify.verifier import Verifier

# Three classes and the rejection; the label is 0. Whether class 1 is predicted.
CASES = [
    ([0.0, 5.0, 1.0, 5.0], False),
    ([0.0, 5.0, 1.0, 4.999], True),
    ([0.0, 5.0, 1.0, 5.001], False),
    ([0.0, 5.0, 5.0, -torch.inf], True),
    ([0.0, 1e-30, 0.0, 0.0], True),
    ([5.0, 5.0, 1.0, 1.0], False),
]


@pytest.mark.parametrize(("outputs", "predicted"), CASES)
@pytest.mark.parametrize("target", ["", ":target=1"])
def test_attack_and_verifier_agree_on_what_a_rejection_is(outputs, predicted, target):
    threat, label = ThreatModel.parse(f"Linf:0.1{target}"), torch.tensor([0])
    model = Function(lambda x: torch.tensor([outputs]).repeat(len(x), 1)).eval()
    image = torch.full((1, 1, 2, 2), 0.5)
    verify = Verifier(model, image, label, ["a"], threat, seed=0, rejects=True)
    assert verify(image + 0.05, label, label).success.tolist() == [predicted]

    aim = torch.tensor([1]) if target else label
    slots = new_slots(label, image, label, aim, torch.empty(1, 0), label, label)
    oracle = Oracle(model, threat, slots, minimum_norm=False, rejects=True)
    oracle.logits(image + 0.05)
    assert oracle.slots.found.tolist() == [predicted]


def test_the_rejection_is_raised_by_the_least_that_is_possible_and_keeps_its_gradient():
    outputs = torch.tensor([[1.0, 2.0, 2.0], [1.0, 2.0, -torch.inf]], requires_grad=True)
    raised = strict(outputs)
    assert raised[0, -1] == torch.nextafter(torch.tensor(2.0), torch.tensor(torch.inf))
    assert raised[1, -1] == -torch.inf
    reduced(outputs, torch.tensor([0, 0]))[0, 0].backward()
    assert outputs.grad.tolist() == [[0, 0, 1], [0, 0, 0]]
