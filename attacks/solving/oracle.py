"""The model as an attack sees it: forward and backward passes, counted for each sample, and every success noticed."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.certainty import Certainty
from gauntlet.attacks.ops.input_gradient import input_gradient
from gauntlet.attacks.ops.losses import Loss, likeliest_other, margin, misclassified
from gauntlet.attacks.ops.norms import distance, limit, per_image
from gauntlet.attacks.ops.random import Draws, model_randomness
from gauntlet.attacks.ops.rounding import with_room
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.known import Rows
from gauntlet.attacks.solving.slots import Slots
from gauntlet.attacks.solving.stage_conditions import nearness
from gauntlet.attacks.views.backward_modes import INTERCEPTED, Backward, backward_mode
from gauntlet.attacks.views.guard import frozen_draw
from gauntlet.attacks.views.interception.release import release
from gauntlet.attacks.views.rejection_view import reduced, strict
from gauntlet.attacks.views.targeted_view import towards
from gauntlet.attacks.views.tf32 import kept_setting

_REFUSED = re.compile(
    r"requires? grad|autograd|automatic differentiation|saved for backward|inference tensor|graph leaves", re.I
)
"""How torch says that an operation takes no tensor that needs a gradient; any other error is the model's own."""
NO_GRADIENT = (
    "no gradient reaches the input: the model (or a defense inside it) detaches it or is not differentiable. Register that part "
    "as a defense that is not differentiable, so that it is attacked by BPDA, or declare the model so (--not-differentiable), or "
    "use adaptive, or a black-box attack such as square"
)
"""The message of `AttackError` where autograd has nothing to give."""


class AttackError(RuntimeError):
    """The attack cannot be run on this model; the message says why and what to do."""


class Gradient(NamedTuple):
    """The result of one forward and backward pass."""

    logits: Tensor
    """(N, K), detached; (N, 2) towards a class."""
    value: Tensor
    """(N,), the loss."""
    gradient: Tensor
    """(N, C, H, W), of the loss with respect to the point; 0 where it was not finite."""


class Oracle:
    """The passes that a rule may make on the slots of the batch, and what it may know of them.

    If the threat model has a target, the rule sees a problem with two classes in which all labels are 0
    (`gauntlet.attacks.views.targeted_view`), so that every rule can attack towards a class without code for it. If the model
    can reject an image, the rule sees a problem with K classes (`gauntlet.attacks.views.rejection_view`).

    The closest point of a minimum-norm rule must stay misclassified when it is verified, so it needs a margin above the
    rounding of the logits. Minimum-norm rules therefore see the label's logit raised by 8 units in the last place of the clean
    image's margin and 2 of the larger one of the two logits that decide: the points that they see misclassified are exactly those
    that the oracle notices. What absent classes answer plays no part.

    Each pass replaces `slots`, which the solver reads back; they are never changed in place.
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
        needs_gradient: bool = True,
    ) -> None:
        """`watch`: keep what stage conditions look at (`gauntlet.attacks.solving.stage_conditions`). `backward`: how
        gradients pass back through the model. `judge`: the attacked model, if `model` is a view that stands in for it; each
        point is then evaluated on the judge too, by one more forward pass. `rejects`: the last output of the attacked model
        is the rejection; a view of it has no such output. `needs_gradient`: whether a pass without a gradient is an error.
        """
        self.model, self.threat, self.slots = model, threat, slots
        self.minimum_norm = minimum_norm
        self.leaves_ball = leaves_ball
        self.watch = watch
        self.backward = backward
        self.judge = judge
        self.rejects = rejects
        self.needs_gradient = needs_gradient
        self.certainty: Certainty | None = None
        # Images in a pass of several draws; moves of a slot in a step, and steps that it may make in it (`look_ahead`).
        # While passes that count together are made: their successes, and the number of a frozen draw.
        self.room, self.ahead, self.horizon = 0, 1, slots.known.step
        self.extra: Tensor | None = None
        self.successes: list[Tensor] | None = None
        self.frozen: int | None = None

    @property
    def clean(self) -> Tensor:
        """Clean images (N, C, H, W)."""
        return self.slots.clean

    @property
    def labels(self) -> Tensor:
        """True labels, int64 (N,); all 0 towards a class."""
        return torch.zeros_like(self.slots.labels) if self.threat.target else self.slots.labels

    @property
    def step(self) -> Tensor:
        """Number of completed steps of each slot in this restart, int64 (N,)."""
        return self.slots.step

    @property
    def restart(self) -> Tensor:
        """Number of the present restart of each slot, from 0, int64 (N,)."""
        return self.slots.restart

    @property
    def made(self) -> Rows:
        """`step` as an array: the host knows it without asking the device, as `bool(oracle.step.any())` would."""
        return self.slots.known.step

    @property
    def mark(self) -> Rows:
        """A whole number that the rule keeps for each slot on the host, (N,), 0 at the start of a restart."""
        return self.slots.known.mark

    def set_mark(self, mark: Rows) -> None:
        """Keep these numbers, int64 (N,), in place of `mark`."""
        self.slots = self.slots._replace(known=self.slots.known._replace(mark=mark))

    @property
    def ends(self) -> Tensor:
        """Where earlier stages of each sample ended, the latest first, (N, k, C, H, W), for rules that use it; the clean image
        where there are fewer; k is 0 without a cascade."""
        ends = self.slots.ends
        return ends if ends.dim() > 2 else self.clean.new_empty(len(ends), 0, *self.clean.shape[1:])

    @property
    def draws(self) -> Draws:
        """Random numbers of the attack for the present restart and step of each slot."""
        return Draws(self.slots.keys, self.slots.restart, self.slots.step)

    def clean_logits(self) -> Tensor:
        """Logits (N, K) of the clean images, (N, 2) towards a class: one forward pass, unless they are known already."""
        known = self.slots.clean_logits
        return self._judged(known) if known.shape[1] else self.logits(self.clean)

    def logits(self, x: Tensor) -> Tensor:
        """Logits (N, K) at `x` (N, C, H, W), (N, 2) towards a class: one forward pass."""
        with torch.no_grad(), self._randomness():
            full = self._forward(x)
        logits = self._shown(full)
        self._put(x, full, logits, backwards=0)
        return logits

    def gradient(self, x: Tensor, loss: Loss, *, through: Callable[[Tensor], Tensor] | None = None) -> Gradient:
        """Logits, loss, and the gradient of the loss at `x` (N, C, H, W): one forward and one backward pass.

        `loss`: logits (N, K) and labels (N,) to values (N,), to be increased. `through`: a differentiable transformation of
        images, applied before the model; logits, loss and gradient then include it. The model's output at a transformed point
        says nothing about `x`, so candidates are noticed only where the transformation left the point unchanged.

        Raises AttackError if no gradient reaches the input; where none is needed, the gradient is 0 instead.
        """
        x = x.detach().requires_grad_()
        with torch.enable_grad(), self._randomness():
            seen = x if through is None else through(x)
            full = self._differentiable(seen)
            if self.backward in INTERCEPTED:
                release(self.model)
            logits = self._shown(full)
            value = loss(logits, self.labels)
            with kept_setting():
                gradient = input_gradient(value, x)
        if gradient is None:
            if self.needs_gradient:
                raise AttackError(NO_GRADIENT)
            gradient = torch.zeros_like(x)
        x, logits = x.detach(), logits.detach()
        plain = True if through is None else (seen.detach() == x).flatten(1).all(1)
        self._put(x, full.detach(), logits, backwards=1, plain=plain)
        gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
        vanished = self.slots.vanished + (gradient.abs().flatten(1).amax(1) == 0)
        self.slots = self.slots._replace(vanished=vanished)
        return Gradient(logits, value.detach(), gradient)

    def _randomness(self) -> AbstractContextManager[None]:
        slots = self.slots
        if self.frozen is not None:
            return frozen_draw(slots.model_keys, slots.restart, self.frozen)
        # The number of passes serves as the step: a randomised model never sees the same draws twice.
        return model_randomness(Draws(slots.model_keys, slots.restart, slots.forwards))

    def _differentiable(self, x: Tensor) -> Tensor:
        """The model's outputs; without a gradient where its code works on images that need none only, as with `.numpy()`."""
        try:
            with backward_mode(self.backward, len(x)) as completed:
                # A copy, since the model may change its input in place, which is not allowed for the point itself.
                return completed(self._forward(x if self.backward == "true" else x.clone()))
        except Exception as error:  # torch.Tensor.numpy raises RuntimeError, numpy.from_dlpack BufferError.
            if not _REFUSED.search(str(error)):
                raise
        with torch.no_grad():
            return self._forward(x.detach())

    def _forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits

    def _shown(self, full: Tensor) -> Tensor:
        """The logits that the rule sees, from the outputs of `model`."""
        return self._judged(full) if self.judge is None or self.threat.target else full

    def _judged(self, full: Tensor) -> Tensor:
        """The logits that decide what is noticed, from the outputs of the attacked model."""
        logits = self._problem(full)
        return self._with_room(logits) if self.minimum_norm else logits

    def _problem(self, full: Tensor) -> Tensor:
        """The problem with K classes, or two towards a class, from the outputs of the attacked model."""
        if self.threat.target:
            return towards(strict(full) if self.rejects else full, self.slots.targets)
        return reduced(full, self.slots.labels) if self.rejects else full

    def _with_room(self, logits: Tensor) -> Tensor:
        """`logits` with the label's logit raised by the rounding error that they may have."""
        fixed, labels = logits.detach(), self.labels
        # Where two logits are near 0 on the boundary, the rounding is still that of the clean image's logits.
        known = self._problem(self.slots.clean_logits) if self.slots.clean_logits.shape[1] else fixed
        return with_room(logits, known, labels)

    def _put(self, x: Tensor, full: Tensor, logits: Tensor, backwards: int, plain: Tensor | bool = True) -> None:
        """Record a pass at `x`. `full`: the outputs of `model`; if that is a view, the attacked model is evaluated too."""
        if self.slots.end.dim() > 2:
            self._keep_end(x, logits)
        if self.judge is not None:
            with torch.no_grad(), self._randomness():
                full = self.judge(x)
            logits, plain = self._judged(full), True
            self.slots = self.slots.passed(backwards=0)
        self._notice(x, full, logits, backwards, plain)

    def _keep_end(self, x: Tensor, logits: Tensor) -> None:
        reached = margin(logits, self.labels).to(torch.float64)
        nearer = reached <= self.slots.least
        end = torch.where(per_image(nearer, x), x.detach().to(self.slots.end.dtype), self.slots.end)
        self.slots = self.slots._replace(end=end, least=torch.where(nearer, reached, self.slots.least))

    def _notice(self, x: Tensor, full: Tensor, logits: Tensor, backwards: int, plain: Tensor | bool = True) -> None:
        """Count a pass and keep candidates. `full`: the model's outputs; `logits`: those that the rule sees; `plain`: where
        they belong to `x` itself."""
        slots, labels = self.slots, self.labels
        counted = slots.passed(backwards)
        # Logits that are not finite do not defend: the verifier evaluates the point and reports them.
        # −∞ of classes that take no part is in order, and the sum of finite logits may overflow: the largest one tells.
        wrong = misclassified(logits, labels) | ~full.amax(1).isfinite()
        if self.minimum_norm:
            size = distance(x, slots.clean, self.threat.norm)
            success = wrong & (size < slots.distance) & plain
            counted = counted._replace(distance=torch.where(success, size, slots.distance))
        else:
            inside = plain
            if self.leaves_ball:
                inside = inside & (distance(x, slots.clean, self.threat.norm) <= limit(self.threat))
            success = wrong & inside
            if self.watch:
                near = nearness(logits, self._judged(slots.clean_logits), labels)
                near = torch.where(inside, near, torch.inf) if isinstance(inside, Tensor) else near
                near = near.to(slots.nearness.dtype)
                rival = torch.where(near < slots.nearness, likeliest_other(logits, labels), slots.nearest_class)
                counted = counted._replace(nearness=torch.minimum(slots.nearness, near), nearest_class=rival)
        self.slots = counted
        if self.successes is None:
            self.keep(success, x, self._sure(logits))
        else:
            self.successes.append(success)

    def _sure(self, logits: Tensor) -> Tensor | None:
        if self.certainty is None:
            return None
        clean = self._problem(self.slots.clean_logits) if self.certainty.low else None
        return self.certainty.sure(logits, self.labels, clean)

    def keep(self, success: Tensor, x: Tensor, sure: Tensor | None = None) -> None:
        """Keep `x` as the candidate where `success`, bool (N,); which are `sure`, bool (N,); None: none is."""
        slots = self.slots
        # Everywhere: to ask whether there is a success would make the host wait.
        point = torch.where(per_image(success, x), x.detach().to(slots.point.dtype), slots.point)
        certain = slots.sure & ~success if sure is None else torch.where(success, sure, slots.sure)
        self.slots = slots._replace(found=slots.found | success, point=point, sure=certain)
