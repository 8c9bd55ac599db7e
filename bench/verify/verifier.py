"""The verifier: no attack's own word counts. It judges every candidate again, on the original model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.losses import margin
from gauntlet.attacks.ops.norms import distance, limit
from gauntlet.attacks.ops.random import Draws, model_randomness, sample_keys
from gauntlet.attacks.ops.rounding import decides
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.solver import Verification
from gauntlet.attacks.views.rejection_view import reduced
from gauntlet.bench.config.cell import Cell
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.environment.stopwatch import timed
from gauntlet.bench.verify.fixed_batches import fixed_batches
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.leaderboard.results.record import DRAWS

VERSION = 2
"""Rises when a judgement changes: it is part of the key of stored results."""
COMPOSITIONS = (1, 16)
"""Batch sizes at which a success must hold; a last batch is filled up by repeating its first row."""
CONFIRMATIONS = (1, 4, 10)
"""Numbers of sets of 20 draws after each of which a success on a randomised model must have won the majority of all draws so far.
Of an example that wins 45 % of all draws this accepts 5 % (one that wins 40 %: 0.2 %); an attack may propose a hundred."""
_VALUES = 2**23
"""Pixels whose distance is computed at once."""
_TOGETHER = 64
"""Images in one pass of a randomised model, at most: all of the data at once may not fit into memory."""


class NonFiniteLogitsError(RuntimeError):
    """The model answered a valid image with NaN or infinite logits."""


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


class Verifier:
    """Judges points of one task on `model`, the defended model itself, in eval mode and in its own precision.

    `images` (N, C, H, W) and `labels` (N,) are the clean samples. For a minimum-norm attack eps does not limit. Where the
    threat model has a target, a success is a prediction of that class, and of a randomised model a majority of them. Where the
    model `rejects` (`gauntlet.attacks.views.rejection_view`), a rejected image is no success and not correct when clean; its
    prediction is -1. `seconds` adds up the time spent here, so that it can be told from the attack's. `classes` is how many
    logits the model gave last, 0 before it was asked.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        ids: Sequence[str],
        threat: ThreatModel,
        *,
        seed: int,
        minimum_norm: bool = False,
        randomised: bool = False,
        rejects: bool = False,
    ) -> None:
        self.model = model
        self.images = images
        self.labels = labels
        self.ids = ids
        self.threat = threat
        self.seed = seed
        self.minimum_norm = minimum_norm
        self.randomised = randomised
        self.rejects = rejects
        self.seconds = 0.0
        self.classes = 0
        self._targets: tuple[int, Tensor] | None = None
        self._keys = {
            purpose: sample_keys(seed, purpose, ids, images.device)
            for purpose in (*(f"judge {number}" for number in range(CONFIRMATIONS[-1])), "measure", "score")
        }

    @classmethod
    def of(
        cls,
        question: Question,
        rows: Sequence[int],
        pipeline: DefendedModel | None = None,
        *,
        minimum_norm: bool | None = None,
    ) -> Verifier:
        """The verifier of a prepared cell for the samples at `rows` of its data.

        `pipeline`: another one than the cell's, such as a baseline's. `minimum_norm`: False lets eps limit minimum-norm attacks.
        """
        data, cell, judged = question.data, question.cell, pipeline or question.defended
        chosen = list(rows)
        return cls(
            judged,
            data.images[chosen].to(question.device),
            data.labels[chosen].to(question.device),
            [data.ids[row] for row in chosen],
            cell.threat,
            seed=cell.info.seed,
            minimum_norm=cell.info.minimum_norm if minimum_norm is None else minimum_norm,
            randomised=cell.info.randomised,
            rejects=judged.rejects,
        )

    def untargeted(self) -> Verifier:
        """The same samples and model without the threat model's target and without an attack's freedom from eps."""
        threat = replace(self.threat, target="")
        settings: dict[str, Any] = {"seed": self.seed, "randomised": self.randomised, "rejects": self.rejects}
        return Verifier(self.model, self.images, self.labels, self.ids, threat, **settings)

    @timed("verify")
    def __call__(self, points: Tensor, samples: Tensor, attempt: Tensor) -> Verification:
        """Judge candidates (N, C, H, W) for the samples (N,): see `gauntlet.attacks.solving.solver.Verify`."""
        began = time.perf_counter()
        valid = self.valid(points, samples)
        wrong = torch.zeros_like(valid)
        split = torch.zeros_like(valid)
        rows = valid.nonzero().squeeze(1)
        if len(rows):
            where, chosen = samples[rows], points[rows]
            if self.randomised:
                wrong[rows] = self._holds(chosen, where, attempt[rows])
            else:
                verdicts = torch.stack([self._won(self.logits(chosen, size), where)[0] for size in COMPOSITIONS])
                wrong[rows] = verdicts.all(0)
                split[rows] = verdicts.any(0) & ~verdicts.all(0)
        verdict = Verification(success=wrong, rejected=~valid, disagreement=split)
        self.seconds += time.perf_counter() - began
        return verdict

    def _holds(self, points: Tensor, samples: Tensor, attempt: Tensor) -> Tensor:
        """Whether a point wins the majority of draws at each look of `CONFIRMATIONS`, bool (N,).

        An attack proposes point after point: one that won a single set by luck would lose the draws that score it.
        """
        left = torch.arange(len(points), device=points.device)
        won = torch.zeros(len(points), dtype=torch.float64, device=points.device)
        for number in range(CONFIRMATIONS[-1]):
            share, _, _ = self._draw(points[left], samples[left], f"judge {number}", attempt[left])
            won[left] += (share * DRAWS).round()
            if number + 1 in CONFIRMATIONS:
                left = left[2 * won[left] >= DRAWS * (number + 1)]
            if not len(left):
                break
        return torch.zeros(len(points), dtype=torch.bool, device=points.device).index_fill(0, left, True)

    def valid(self, points: Tensor, samples: Tensor) -> Tensor:
        """Finite, in the box, and inside the ball unless the attack seeks the minimum norm; bool (N,)."""
        flat = points.flatten(1)
        valid = flat.isfinite().all(1) & (flat >= 0).all(1) & (flat <= 1).all(1)
        if not self.minimum_norm:
            valid &= self._distance(points, samples) <= limit(self.threat)
        return valid

    def measure(self, points: Tensor, samples: Tensor) -> Measurement:
        """Prediction, margin, distance and shares of wrong draws for points (N, C, H, W) of the samples (N,)."""
        if not len(points):
            empty = torch.zeros(0, dtype=torch.float64)
            return Measurement(empty.to(torch.int64), empty, empty, empty, empty)
        logits = None
        if self.randomised:
            zero = torch.zeros_like(samples)
            share, prediction, gap = self._draw(points, samples, "measure", zero)
            scored, _, _ = self._draw(points, samples, "score", zero)
        else:
            logits = self.logits(points)
            won, gap = self._won(logits, samples)
            prediction, share = self.predictions(logits), won.to(torch.float64)
            scored = share
        size = self._distance(points, samples)
        return Measurement(prediction.cpu(), gap.cpu(), size.cpu(), share.cpu(), scored.cpu(), logits)

    def _won(self, logits: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
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

    def targets(self) -> Tensor:
        """The class that each sample is to be moved to, int64 (N,); the label where the attack is untargeted.

        Known once the model was asked, because it depends on the number of classes. Raises ValueError where there is no such
        class.
        """
        if self._targets is None or self._targets[0] != self.classes:
            self._targets = self.classes, self.threat.targets(self.labels, self.classes, self.ids)
        return self._targets[1]

    def _distance(self, points: Tensor, samples: Tensor) -> Tensor:
        # In parts, since each is computed in float64, which would take many times the memory of the images.
        parts = torch.arange(len(points), device=points.device).split(max(1, _VALUES // points.shape[1:].numel()))
        return torch.cat([distance(points[rows], self.images[samples[rows]], self.threat.norm) for rows in parts])

    def logits(self, points: Tensor, size: int = COMPOSITIONS[-1]) -> Tensor:
        """Logits (N, K) of the original model in batches of `size`. Raises NonFiniteLogitsError."""
        logits = fixed_batches(self.model, points, size)
        self._check(logits)
        return logits

    def _draw(self, points: Tensor, samples: Tensor, purpose: str, attempt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        votes, gaps, wrong = [], [], torch.zeros(len(points), dtype=torch.float64, device=points.device)
        for draw in range(DRAWS):
            draws = Draws(self._keys[purpose][samples], attempt, torch.full_like(samples, draw))
            logits = self._drawn_logits(points, draws)
            self._check(logits)
            votes.append(self.predictions(logits))
            won, gap = self._won(logits, samples)
            gaps.append(gap)
            wrong += won
        return wrong / DRAWS, torch.stack(votes).mode(0).values, torch.stack(gaps).mean(0)

    def _drawn_logits(self, points: Tensor, draws: Draws) -> Tensor:
        parts = []
        for rows in torch.arange(len(points), device=points.device).split(_TOGETHER):
            some = Draws(draws.keys[rows], draws.restart[rows], draws.step[rows])
            with model_randomness(some), torch.no_grad(), torch.autocast(points.device.type, enabled=False):
                parts.append(self.model(points[rows]))
        return torch.cat(parts)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Classes, int64 (N,), of outputs (N, K); of (N, K + 1) where the model rejects, with -1 for a rejection."""
        found = outputs.argmax(1)
        if not self.rejects:
            return found
        # As large as the largest class: rejected.
        return torch.where(outputs[:, -1] >= outputs[:, :-1].amax(1), -1, found)

    def _check(self, logits: Tensor) -> None:
        self.classes = logits.shape[1] - self.rejects
        # −∞ takes a class out; what decides is looked at once the label is known.
        bad = (~decides(logits)).sum().item()
        if bad:
            raise NonFiniteLogitsError(
                f"the model answers {bad} of {len(logits)} valid images with NaN or infinite logits, so nothing can be "
                "said of its robustness: look for a division by zero, a log of zero or an overflow in its forward"
            )

    def _decided(self, margins: Tensor) -> None:
        bad = (~margins.isfinite()).sum().item()
        if bad:
            raise NonFiniteLogitsError(
                f"the logit of the label or of the target is −inf for {bad} of {len(margins)} valid images: such a class takes "
                "no part, so give labels and targets of classes that do"
            )
