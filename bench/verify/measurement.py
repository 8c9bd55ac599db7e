"""What the verifier is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gauntlet.bench.config.cell import Cell
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.defenses.pipeline.defended_model import DefendedModel


class VerificationError(RuntimeError):
    """A counted success fails when it is measured again; the result is not stored."""


def unrepeated(bad: Tensor, samples: Tensor, ids: Sequence[str]) -> VerificationError:
    """The error for successes that failed a second time: `bad`, bool (N,), of the samples (N,) among `ids`."""
    first = ids[int(samples[int(bad.nonzero()[0])])]
    return VerificationError(
        f"{int(bad.sum())} of {len(samples)} counted successes fail when verified again, first at {first}: the model gives "
        "different outputs for the same image (hidden randomness or state). Attack the expectation over its draws: "
        "--attacks adaptive"
    )


@dataclass(frozen=True)
class Measurement:
    """What the original model makes of N images, tensors of length N on the CPU."""

    prediction: Tensor
    """int64; of randomised models the most frequent one."""
    margin: Tensor
    """float64, negative where the attack has what it wants: the label's logit minus the largest other one; towards another
    class, the largest other logit minus the target's. Of randomised models the mean over the draws."""
    distance: Tensor
    """float64, from the clean image in the threat model's norm."""
    wrong_share: Tensor
    """float64, of the draws that misclassify, as the target where it is another class than the label; 0 or 1 for a
    deterministic model."""
    wrong_share_scored: Tensor
    """The same on an independent second set of draws."""
    logits: Tensor | None = None
    """(N, K), on the model's device; None for randomised models."""


class Question(Protocol):
    """A prepared cell, as far as judging its samples needs it."""

    @property
    def cell(self) -> Cell:
        """The cell, with its threat model and seed."""
        ...

    @property
    def data(self) -> Data:
        """The cell's samples."""
        ...

    @property
    def defended(self) -> DefendedModel:
        """The model behind its defense."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        ...
