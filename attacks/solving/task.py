"""What the solver is given and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from gauntlet.attacks.ops.threat import ThreatModel


@dataclass(frozen=True)
class Task:
    """The samples to attack: images (N, C, H, W) in [0, 1] and labels (N,) on the model's device, with unique ids.

    Raises ValueError where `targets` and the threat model's target do not go together, or a target is the sample's label.
    """

    images: Tensor
    labels: Tensor
    ids: Sequence[str]
    threat: ThreatModel
    seed: int
    purpose: str
    """Names the attack in the keys of its random numbers."""
    targets: Tensor | None = None
    """int64 (N,), the class that each sample is to be moved to, as `threat.targets` gives them; None: any other class."""
    clean_logits: Tensor | None = None
    """(N, K), the model's logits of the images where they are known already: no pass is spent on them again."""

    def __post_init__(self) -> None:
        if (self.targets is None) != (not self.threat.target):
            given = "no targets are" if self.targets is None else "targets are"
            raise ValueError(f"{given} given for threat model {self.threat}: give threat.targets(labels, classes, ids)")
        if self.targets is not None and bool((self.targets == self.labels).any()):
            first = self.ids[int((self.targets == self.labels).nonzero()[0])]
            raise ValueError(f"sample {first} has its target as label: nothing is to be attacked there, leave it out")


@dataclass(frozen=True)
class Verification:
    """What the verifier says of N candidates, all tensors of length N."""

    success: Tensor
    """bool: finite, in the box, within eps (unless the rule seeks the minimum norm), misclassified."""
    rejected: Tensor
    """bool: not finite, outside the box, or outside the ball."""
    disagreement: Tensor
    """bool: misclassified in one batch composition only."""


class Verify(Protocol):
    """Judges candidates on the original model. `attempt` (N,) tells repeated candidates of a sample apart."""

    def __call__(self, points: Tensor, samples: Tensor, attempt: Tensor) -> Verification:
        """`points` (N, C, H, W) are candidates for the samples (N,), indices into the task."""
        ...


@dataclass
class Outcome:
    """One sample's end, with what all stages together cost."""

    sample: int
    adversarial: Tensor | None = None
    """(C, H, W), the verified example; None where none was found."""
    forwards: float = 0
    backwards: float = 0
    taken: int = 0
    """Steps, over all stages and restarts."""
    rejected: int = 0
    disagreements: int = 0
    stage: str = ""
    """Label of the stage that broke it; empty without success."""
    masked_fallback: float = 0
    """Forward and backward passes of stages that were run because the gradients looked masked."""
    gradients: int = 0
    """The model's own gradients that were taken."""
    vanished: int = 0
    """Those of them that were zero everywhere, or not finite."""
    nearest: dict[str, float] = field(default_factory=dict)
    """How near to another class stages came that go by the model's own gradients (`gradient`), by others (`substitute`), or by
    none (`probe`), see `signs.nearness`."""

    @property
    def steps(self) -> int:
        """Steps until the success; -1 without one."""
        return self.taken if self.adversarial is not None else -1

    def near(self, *kinds: str) -> float:
        """The least nearness over stages of those kinds; infinite before any."""
        return min((self.nearest.get(kind, math.inf) for kind in kinds), default=math.inf)


@dataclass
class Meter:
    """How full the batches were: `steps` made, the `slots` that took part in them, and those that were there."""

    steps: int = 0
    slots: int = 0
    capacity: int = 0
    halved: int = 0
    """How often memory ran out, and the batch was halved."""

    @property
    def occupancy(self) -> float:
        """Share of the batch's slots that were filled, over all steps."""
        return self.slots / self.capacity if self.capacity else 0.0
