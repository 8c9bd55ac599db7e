"""The model as an attack sees it: forward and backward passes, counted a sample, with every success noticed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.losses import Loss
from gauntlet.attacks.ops.norms import distance, limit
from gauntlet.attacks.ops.random import Draws, model_randomness
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.slots import Slots
from gauntlet.attacks.solving.stage_conditions import nearness
from gauntlet.attacks.views.backward_modes import Backward, backward_mode
from gauntlet.attacks.views.rejection_view import reduced
from gauntlet.attacks.views.targeted_view import towards

_ROUNDING = 2.0**-20
"""Relative to the largest logit: far more than two batch compositions differ, far less than an attack can aim."""


class AttackError(RuntimeError):
    """The attack cannot be run on this model; the message says why and what to do."""


class Gradient(NamedTuple):
    """One forward and backward pass."""

    logits: Tensor
    """(N, K), detached; (N, 2) towards a class."""
    value: Tensor
    """(N,), the loss."""
    gradient: Tensor
    """(N, C, H, W), of the loss with respect to the point; where it was not finite, 0."""


class Oracle:
    """The passes that a rule may make on the slots of the batch.

    Where the threat model has a target, rules are shown the problem of two classes that `towards` makes of it, all labels 0:
    every rule attacks towards a class, and none knows of it. The same holds for models that may reject an image, of which
    they are shown the problem of K classes that `gauntlet.attacks.views.rejection_view` makes.

    The closest point of a minimum-norm rule must stay misclassified when it is verified, so it needs a margin above the
    rounding of the logits. Minimum-norm rules are therefore shown the label's logit raised by 2⁻²⁰ of the largest logit: the
    points that they see misclassified are exactly those that the oracle notices.

    `slots` is replaced, never changed in place, as passes are counted and candidates noticed; the solver reads it back.
    """

    def __init__(
        self,
        model: nn.Module,
        threat: ThreatModel,
        slots: Slots,
        *,
        minimum_norm: bool,
        leaves_ball: bool = False,
        watch: bool = False,
        backward: Backward = "true",
        judge: nn.Module | None = None,
        rejects: bool = False,
    ) -> None:
        """`watch`: keep the signs of `gauntlet.attacks.solving.stage_conditions`; `backward`: what passes gradients back.

        `judge`: the model that is attacked, where `model` is a view that stands in for it: rules are shown the view, and each
        point is put to the judge as well, by one more forward pass. `rejects`: the attacked model has an output more, the
        rejection; a view of it has none.
        """
        self.model = model
        self.threat = threat
        self.slots = slots
        self.minimum_norm = minimum_norm
        self.leaves_ball = leaves_ball
        self.watch = watch
        self.backward = backward
        self.judge = judge
        self.rejects = rejects

    @property
    def clean(self) -> Tensor:
        """Clean images (N, C, H, W)."""
        return self.slots.clean

    @property
    def labels(self) -> Tensor:
        """True labels, int64 (N,); 0 towards a class."""
        return torch.zeros_like(self.slots.labels) if self.threat.target else self.slots.labels

    @property
    def draws(self) -> Draws:
        """The attack's random numbers at the present restart and step of each slot."""
        return Draws(self.slots.keys, self.slots.restart, self.slots.step)

    def clean_logits(self) -> Tensor:
        """Logits (N, K) of the clean images, (N, 2) towards a class: one forward pass where they are not known yet."""
        known = self.slots.clean_logits
        return self._judged(known) if known.shape[1] else self.logits(self.clean)

    def logits(self, x: Tensor) -> Tensor:
        """Logits (N, K) at `x`, (N, 2) towards a class: one forward pass."""
        with torch.no_grad(), self._randomness():
            full = self._forward(x)
        logits = self._shown(full)
        self._put(x, full, logits, backwards=0)
        return logits

    def gradient(self, x: Tensor, loss: Loss, *, through: Callable[[Tensor], Tensor] | None = None) -> Gradient:
        """Logits, loss and the loss's gradient at `x`: one forward and one backward pass.

        `through`: a differentiable transformation (N, C, H, W) → (N, C, H, W) behind which the model is evaluated, all
        three results included. What the model says of a transformed point is no evidence about `x`: candidates are noticed
        only where the transformation left the point as it was.

        Raises AttackError where no gradient reaches the input; where signs are kept it is 0, and a sign.
        """
        x = x.detach().requires_grad_()
        with torch.enable_grad(), self._randomness():
            seen = x if through is None else through(x)
            with backward_mode(self.backward):
                full = self._forward(seen)
            logits = self._shown(full)
            value = loss(logits, self.labels)
            if not value.requires_grad and self.watch:
                value = value + 0 * x.flatten(1).sum(1)
            if not value.requires_grad:
                raise AttackError(
                    "no gradient reaches the input: the model (or a defense inside it) detaches it or is not "
                    "differentiable. Register that part as a defense that is not differentiable, so that it is attacked "
                    "by BPDA, or use a black-box attack such as square"
                )
            (gradient,) = torch.autograd.grad(value.sum(), x)
        x, logits = x.detach(), logits.detach()
        plain = True if through is None else (seen.detach() == x).flatten(1).all(1)
        self._put(x, full.detach(), logits, backwards=1, plain=plain)
        gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
        if self.watch:
            vanished = self.slots.vanished + (gradient.abs().flatten(1).amax(1) == 0)
            self.slots = self.slots._replace(vanished=vanished)
        return Gradient(logits, value.detach(), gradient)

    def _randomness(self) -> AbstractContextManager[None]:
        # The count of passes as step: a randomised model never sees the same draws twice.
        return model_randomness(Draws(self.slots.model_keys, self.slots.restart, self.slots.forwards))

    def _forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits

    def _shown(self, full: Tensor) -> Tensor:
        """What the rule is shown of the outputs of `model`."""
        return self._judged(full) if self.judge is None or self.threat.target else full

    def _judged(self, full: Tensor) -> Tensor:
        """The problem that outputs of the attacked model are."""
        if self.threat.target:
            logits = towards(full, self.slots.targets)
        else:
            logits = reduced(full, self.slots.labels) if self.rejects else full
        return self._with_room(logits, full) if self.minimum_norm else logits

    def _with_room(self, logits: Tensor, full: Tensor) -> Tensor:
        """`logits`, with the label's raised by what `full` may be off by rounding."""
        # Where two logits are near 0 on the boundary, rounding is still that of the clean image's.
        scale = torch.cat([full.detach(), self.slots.clean_logits], dim=1).abs().amax(1)
        room = torch.where(scale.isfinite(), _ROUNDING * scale, 0).to(logits.dtype)
        return logits + torch.zeros_like(logits).scatter(1, self.labels[:, None], room[:, None])

    def _put(self, x: Tensor, full: Tensor, logits: Tensor, backwards: int, plain: Tensor | bool = True) -> None:
        """Notice what the attacked model says of `x`: `full`, unless `model` is a view of it."""
        if self.judge is not None:
            with torch.no_grad(), self._randomness():
                full = self.judge(x)
            logits, plain = self._judged(full), True
            self.slots = self.slots._replace(forwards=self.slots.forwards + 1)
        self._notice(x, full, logits, backwards, plain)

    def _notice(self, x: Tensor, full: Tensor, logits: Tensor, backwards: int, plain: Tensor | bool = True) -> None:
        """`full` are the model's logits, `logits` those that the rule is shown; `plain`: where they are those of `x`."""
        slots, labels = self.slots, self.labels
        counted = slots._replace(forwards=slots.forwards + 1, backwards=slots.backwards + backwards)
        # Logits that are not finite are no defence: the verifier looks at the point and says what is wrong.
        # (A sum is finite where its terms are, and cheaper to look at.)
        wrong = (logits.argmax(1) != labels) | ~full.sum(1).isfinite()
        if self.minimum_norm:
            size = distance(x, slots.clean, self.threat.norm)
            success = wrong & (size < slots.distance) & plain
            counted = counted._replace(distance=torch.where(success, size, slots.distance))
        else:
            inside = torch.as_tensor(plain, device=x.device)
            if self.leaves_ball:
                inside = inside & (distance(x, slots.clean, self.threat.norm) <= limit(self.threat))
            success = wrong & inside
            if self.watch:
                near = torch.where(inside, nearness(logits, self._judged(slots.clean_logits), labels), torch.inf)
                counted = counted._replace(nearness=torch.minimum(slots.nearness, near.to(slots.nearness.dtype)))
        rows = success.nonzero().squeeze(1)
        if len(rows):
            counted = counted._replace(
                found=slots.found | success,
                point=slots.point.index_copy(0, rows, x.detach()[rows].to(slots.point.dtype)),
            )
        self.slots = counted
