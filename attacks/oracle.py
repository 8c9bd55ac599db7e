"""The model as an attack sees it: forward and backward passes, counted a sample, with every success noticed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gauntlet.attacks.losses import Loss, margin
from gauntlet.attacks.norms import distance, limit
from gauntlet.attacks.random import Draws, model_randomness
from gauntlet.attacks.slots import Slots
from gauntlet.attacks.threat import ThreatModel

_ROUNDING = 2.0**-20
"""Relative to the largest logit: far more than two batch compositions differ, far less than an attack can aim."""


class AttackError(RuntimeError):
    """The attack cannot be run on this model; the message says why and what to do."""


class Gradient(NamedTuple):
    """One forward and backward pass."""

    logits: Tensor
    """(N, K), detached."""
    value: Tensor
    """(N,), the loss."""
    gradient: Tensor
    """(N, C, H, W), of the loss with respect to the point; where it was not finite, 0."""


class Oracle:
    """The passes that a rule may make on the slots of the batch.

    `slots` is replaced, never changed in place, as passes are counted and candidates noticed; the solver reads it back.
    """

    def __init__(
        self, model: nn.Module, threat: ThreatModel, slots: Slots, *, minimum_norm: bool, roams: bool = False
    ) -> None:
        self.model = model
        self.threat = threat
        self.slots = slots
        self.minimum_norm = minimum_norm
        self.roams = roams

    @property
    def clean(self) -> Tensor:
        """Clean images (N, C, H, W)."""
        return self.slots.clean

    @property
    def labels(self) -> Tensor:
        """True labels, int64 (N,)."""
        return self.slots.labels

    @property
    def draws(self) -> Draws:
        """The attack's random numbers at the present restart and step of each slot."""
        return Draws(self.slots.keys, self.slots.restart, self.slots.step)

    def logits(self, x: Tensor) -> Tensor:
        """Logits (N, K) at `x`: one forward pass."""
        with torch.no_grad(), self._randomness():
            logits = self._forward(x)
        self._notice(x, logits, backwards=0)
        return logits

    def gradient(self, x: Tensor, loss: Loss) -> Gradient:
        """Logits, loss and the loss's gradient at `x`: one forward and one backward pass.

        Raises AttackError where no gradient reaches the input.
        """
        x = x.detach().requires_grad_()
        with torch.enable_grad(), self._randomness():
            logits = self._forward(x)
            value = loss(logits, self.labels)
            if not value.requires_grad:
                raise AttackError(
                    "no gradient reaches the input: the model (or a defense inside it) detaches it or is not "
                    "differentiable. Register that part as a defense that is not differentiable, so that it is attacked "
                    "by BPDA, or use a black-box attack such as square"
                )
            (gradient,) = torch.autograd.grad(value.sum(), x)
        x, logits = x.detach(), logits.detach()
        self._notice(x, logits, backwards=1)
        return Gradient(logits, value.detach(), torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0))

    def _randomness(self) -> AbstractContextManager[None]:
        # The count of passes as step: a randomised model never sees the same draws twice.
        return model_randomness(Draws(self.slots.model_keys, self.slots.restart, self.slots.forwards))

    def _forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits

    def _notice(self, x: Tensor, logits: Tensor, backwards: int) -> None:
        slots = self.slots
        counted = slots._replace(forwards=slots.forwards + 1, backwards=slots.backwards + backwards)
        # Logits that are not finite are no defence: the verifier looks at the point and says what is wrong.
        broken = ~logits.isfinite().all(1)
        if self.minimum_norm:
            # The one candidate that is verified at the end must not fall to rounding: it needs a little room.
            room = _ROUNDING * logits.abs().amax(1)
            size = distance(x, slots.clean, self.threat.norm)
            wrong = (margin(logits, slots.labels) < -room) | broken
            success = wrong & (size < slots.distance)
            counted = counted._replace(distance=torch.where(success, size, slots.distance))
        else:
            success = (logits.argmax(1) != slots.labels) | broken
            if self.roams:
                success &= distance(x, slots.clean, self.threat.norm) <= limit(self.threat)
        rows = success.nonzero().squeeze(1)
        if len(rows):
            counted = counted._replace(
                found=slots.found | success,
                point=slots.point.index_copy(0, rows, x.detach()[rows].to(slots.point.dtype)),
            )
        self.slots = counted
