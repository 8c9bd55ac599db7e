"""What logits say of samples: predictions, what an attack wants of them, and whether they decide anything."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gauntlet.attacks.ops.losses import margin
from gauntlet.attacks.ops.rounding import FAR, decides, resolution
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.views.rejection_view import reduced


class NonFiniteLogitsError(RuntimeError):
    """The model answered a valid image with NaN or infinite logits."""


class Verdicts:
    """What the logits of a model say of samples with labels (N,) under a threat model; `classes` is how many it gave last."""

    def __init__(self, labels: Tensor, ids: Sequence[str], threat: ThreatModel, *, rejects: bool) -> None:
        self.labels = labels
        self.ids = ids
        self.threat = threat
        self.rejects = rejects
        self.classes = 0
        self._targets: tuple[int, Tensor] | None = None

    def check(self, logits: Tensor) -> None:
        """Note the number of classes. Raises NonFiniteLogitsError for logits (N, K) that decide nothing."""
        self.classes = logits.shape[1] - self.rejects
        # −∞ takes a class out; what decides is looked at once the label is known.
        bad = (~decides(logits)).sum().item()
        if bad:
            raise NonFiniteLogitsError(
                f"the model answers {bad} of {len(logits)} valid images with NaN or infinite logits, so nothing can be "
                "said of its robustness: look for a division by zero, a log of zero or an overflow in its forward"
            )

    def won(self, logits: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Where the prediction is what the attack wants, bool (N,), and the margin by which it is not, float64 (N,)."""
        labels, targets = self.labels[samples], self.targets()[samples]
        away = targets == labels
        if self.rejects and not self.threat.target:
            logits = reduced(logits, labels)
        gap = margin(logits.to(torch.float64), targets)
        self._decided(gap)
        # Towards a class a tie with the rejection is a rejection, too.
        prediction = self.predictions(logits) if self.threat.target else logits.argmax(1)
        return torch.where(away, prediction != labels, prediction == targets), torch.where(away, gap, -gap)

    def near(self, logits: Tensor, gap: Tensor, samples: Tensor, apart: float) -> Tensor:
        """Where a margin (N,), of logits (N, K), is not far beyond rounding and beyond `apart`, bool (N,)."""
        return ~(gap.abs() > FAR * self.rounding(logits, samples).clamp_min(apart))

    def rounding(self, logits: Tensor, samples: Tensor) -> Tensor:
        """The rounding of the logits (N, K) that decide, float64 (N,)."""
        labels = self.labels[samples]
        shown = reduced(logits, labels) if self.rejects else logits
        size = resolution(shown, labels)
        if self.threat.target:
            size = torch.maximum(size, resolution(shown, self.targets()[samples]))
        return size.to(torch.float64)

    def targets(self) -> Tensor:
        """The class that each sample is to be moved to, int64 (N,); the label where the attack is untargeted.

        Known once the model was asked, because it depends on the number of classes. Raises ValueError where there is no such
        class.
        """
        if self._targets is None or self._targets[0] != self.classes:
            self._targets = self.classes, self.threat.targets(self.labels, self.classes, self.ids)
        return self._targets[1]

    def predictions(self, outputs: Tensor) -> Tensor:
        """Classes, int64 (N,), of outputs (N, K); of (N, K + 1) where the model rejects, with -1 for a rejection."""
        found = outputs.argmax(1)
        if not self.rejects:
            return found
        # As large as the largest class: rejected.
        return torch.where(outputs[:, -1] >= outputs[:, :-1].amax(1), -1, found)

    def _decided(self, margins: Tensor) -> None:
        bad = (~margins.isfinite()).sum().item()
        if bad:
            raise NonFiniteLogitsError(
                f"the logit of the label or of the target is −inf for {bad} of {len(margins)} valid images: such a class takes "
                "no part, so give labels and targets of classes that do"
            )
