"""Files of a user's own entries, as texts, and runs that use them."""

from __future__ import annotations

from pathlib import Path

ATTACK = """
from dataclasses import dataclass
from typing import ClassVar

import torch

import gauntlet


@dataclass(frozen=True, kw_only=True)
class Attack:
    threat: gauntlet.ThreatModel
    steps: int = 1
    version: ClassVar[int] = 1

    def __call__(self, model, images, labels, seed):
        {body}


gauntlet.register_attack(
    "mine",
    gauntlet.AttackEntry(
        gauntlet.AttackCard(name="mine", summary="mine", source="here", norms=("Linf",)),
        lambda threat, **settings: Attack(threat=threat, **settings),
    ),
)
"""

SIGN = """points = images.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(points), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, points)
        return (images + self.threat.eps * gradient.sign()).clamp(0, 1)"""

RANDOM = "return (images + self.threat.eps * (2 * torch.rand_like(images) - 1)).clamp(0, 1)"

FAR = "return 1 - images"

ATTACK_TEXT = ATTACK.format(body=FAR)

DEFENSE = """
import torch

import gauntlet


class Gain(torch.nn.Module):
    def __init__(self, gain):
        super().__init__()
        self.gain = gain

    def forward(self, images):
        return images * self.gain


gauntlet.register_defense(
    "gain",
    gauntlet.DefenseEntry(
        gauntlet.DefenseCard(name="gain", summary="darker", source="here", differentiable=True, randomised=False),
        lambda gain={gain}: Gain(gain),
    ),
)
"""

OWN = ("--model", "model.py:build", "--data", "data.npz", "--threat", "Linf:0.1")


def write(name, text):
    """Write a file in the working folder."""
    Path(name).write_text(text, encoding="utf-8")


def stored(call, *arguments):
    """Whether the only cell of a run was answered from the store."""
    ran = call("run", "--plugin", "mine.py", *OWN, *arguments)
    assert ran.returncode == 0, ran.stderr
    return " 1 answered from the store" in ran.stdout
