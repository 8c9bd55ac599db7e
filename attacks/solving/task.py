"""The input and output of the solver: the task, the verifier's answers, and an outcome for each sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from gauntlet.attacks.ops.threat import ThreatModel


@dataclass(frozen=True)
class Task:
    """The samples to attack: images (N, C, H, W) in [0, 1] and labels (N,) on the model's device, with unique ids.

    Raises ValueError if `targets` is given without a target in the threat model or the reverse, or a target is the label.
    """

    images: Tensor
    labels: Tensor
    ids: Sequence[str]
    threat: ThreatModel
    seed: int
    purpose: str
    """Names the attack in the keys of its random numbers."""
    targets: Tensor | None = None
    """int64 (N,), the class to reach for each sample, from `threat.targets`; None: any other class."""
    clean_logits: Tensor | None = None
    """(N, K), the model's logits of the images, if they are known; otherwise they cost a pass where they are needed."""

    def of(self, samples: Sequence[int]) -> Task:
        """The task of some of its samples, in that order."""
        rows = torch.tensor(list(samples), dtype=torch.int64, device=self.images.device)
        return replace(
            self,
            images=self.images[rows],
            labels=self.labels[rows],
            ids=[self.ids[sample] for sample in samples],
            targets=None if self.targets is None else self.targets[rows],
            clean_logits=None if self.clean_logits is None else self.clean_logits[rows],
        )

    def __post_init__(self) -> None:
        if (self.targets is None) != (not self.threat.target):
            given = "no targets are" if self.targets is None else "targets are"
            raise ValueError(f"{given} given for threat model {self.threat}: give threat.targets(labels, classes, ids)")
        if self.targets is not None and bool((self.targets == self.labels).any()):
            first = self.ids[int((self.targets == self.labels).nonzero()[0])]
            raise ValueError(f"sample {first} has its target as label: it cannot be attacked, leave it out")


@dataclass(frozen=True)
class Verification:
    """The verifier's answers for N candidates, all tensors of length N."""

    success: Tensor
    """bool: finite, in the box, within eps (unless the rule seeks the minimum norm), misclassified."""
    rejected: Tensor
    """bool: not finite, outside the box, or outside the ball."""
    disagreement: Tensor
    """bool: misclassified in one batch composition only."""


class Verify(Protocol):
    """Verifies candidates on the original model. `attempt` (N,) distinguishes repeated candidates of a sample."""

    def __call__(self, points: Tensor, samples: Tensor, attempt: Tensor) -> Verification:
        """`points` (N, C, H, W) are candidates for the samples `samples` (N,), indices into the task."""
        ...


@dataclass
class Outcome:
    """The result for one sample, with the costs of all stages."""

    sample: int
    adversarial: Tensor | None = None
    """(C, H, W), the example, verified unless `unverified`; None without success."""
    forwards: float = 0
    backwards: float = 0
    taken: int = 0
    """Number of steps, over all stages and restarts."""
    rejected: int = 0
    disagreements: int = 0
    stage: str = ""
    """Label of the stage that broke it; empty without success."""
    masked_fallback: float = 0
    """Forward and backward passes of stages that ran because the gradients looked masked."""
    gradients: int = 0
    """Number of gradients of the model itself."""
    vanished: int = 0
    """Number of those gradients that were zero everywhere, or not finite."""
    speculative: float = 0
    """Passes of restarts that ran beside an earlier one and were not needed, in none of the other counts."""
    faced: tuple[str, ...] = ()
    """Labels of the stages that it faced, in order; those in low precision end in `:low`."""
    nearest: dict[str, float] = field(default_factory=dict)
    """The least nearness (`stage_conditions.nearness`) of stages that use the model's own gradients (`gradient`), those of a
    smoothed loss (`smoothed`), gradients of a substitute (`substitute`), or none (`probe`), and of what low precision left,
    measured again (`review`)."""
    rival: int = -1
    """The class that they came nearest to; -1 before the first."""
    unverified: bool = False
    """Whether the example was taken because of its margin (`solve(certainty=…)`), and waits for the verifier."""

    @property
    def steps(self) -> int:
        """Steps until the success; -1 without one."""
        return self.taken if self.adversarial is not None else -1

    @property
    def dead(self) -> bool:
        """Whether at least half of the gradients of the model itself vanished; False before the first."""
        return self.gradients > 0 and 2 * self.vanished >= self.gradients

    @property
    def masked(self) -> bool:
        """Whether at least half of the gradients vanished, or stages ran because the gradients looked masked."""
        return self.dead or self.masked_fallback > 0

    def near(self, *kinds: str) -> float:
        """The least nearness over stages of those kinds; infinite before the first."""
        return min((self.nearest.get(kind, math.inf) for kind in kinds), default=math.inf)
