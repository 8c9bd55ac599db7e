"""PGD by autograd through the pipeline as it is: the figure that an evaluation without adaptive attacks would report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gauntlet.attacks.ops.input_gradient import input_gradient
from gauntlet.attacks.ops.norms import project, steepest
from gauntlet.attacks.ops.threat import Norm, ThreatModel
from gauntlet.attacks.ops.validators import whole_number
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.views.guard import guarded


@dataclass(frozen=True, kw_only=True)
class Naive:
    """PGD on the cross-entropy from a random start, which returns the last iterate: Madry et al. 2018, section 2.

    The leaderboard shows its figure beside that of adaptive attacks. It sees the pipeline as it is, without BPDA and with one
    draw of a randomised defense in each step. If autograd does not reach the input, it sees the undefended model, and its
    examples are evaluated on the defended model. Without any gradient it stays at its start. `steps` steps of 2.5 eps / steps.
    """

    threat: ThreatModel
    steps: int = 40

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        whole_number("steps", self.steps, 1)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Candidates, same shape as images (N, C, H, W) in [0, 1]; `model` gives logits (N, K)."""
        size = 2.5 * self.threat.eps / self.steps
        with guarded(model, seed):
            noise = 2 * torch.rand_like(images) - 1
            point = project(images + self.threat.eps * noise, images, self.threat)
            for _ in range(self.steps):
                point = point.detach().requires_grad_()
                loss = cross_entropy(model(point), labels, reduction="sum")
                gradient = input_gradient(loss, point)
                if gradient is None:
                    break
                ahead = point.detach() + size * steepest(torch.nan_to_num(gradient), self.threat.norm)
                point = project(ahead, images, self.threat)
        return point.detach()


def build(threat: ThreatModel, *, steps: int = 40) -> Naive:
    """The attack for that threat model. Raises ValueError for bad settings."""
    return Naive(threat=threat, steps=steps)


_NORMS: tuple[Norm, ...] = ("Linf", "L2")

ENTRY = AttackEntry(
    AttackCard(
        name="naive",
        summary="PGD by autograd through the pipeline as it is, for comparison",
        source="Madry et al. 2018, arXiv 1706.06083",
        norms=_NORMS,
        kind="naive",
    ),
    build,
)
