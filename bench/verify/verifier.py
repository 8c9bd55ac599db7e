"""The verifier: no attack's own word counts. It judges every candidate again, on the original model.

A success on a deterministic model holds in a full batch. It has to hold alone as well where its margin is so small that the
batch could decide, and for a keyed sixteenth of the samples: what batch and single image differ by is measured on clean images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.certainty import Certainty
from gauntlet.attacks.ops.norms import distance, limit
from gauntlet.attacks.ops.random import sample_keys
from gauntlet.attacks.ops.rounding import FAR
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.solver import Verification
from gauntlet.bench.environment.stopwatch import timed
from gauntlet.bench.verify.drawn_verdicts import DrawnVerdicts
from gauntlet.bench.verify.fixed_batches import fixed_batches, full_batch, full_batches
from gauntlet.bench.verify.measurement import Measurement, Question, unrepeated
from gauntlet.bench.verify.verdicts import Verdicts
from gauntlet.defenses.pipeline.defended_model import DefendedModel

VERSION = 4
"""Rises when a judgement changes: it is part of the key of stored results."""
BATCH = 16
"""Images of a pass over candidates as an attack finds them; a last batch is filled up by repeating its first row."""
AUDITED = 16
"""One sample in so many, and at least `LEAST`, is judged alone too, whatever its margin: which ones, their keys say."""
LEAST = 4
_VALUES, _VALUES_ON_CPU = 2**23, 2**20
"""Pixels whose distance is computed at once; on a CPU few enough that the memory is taken again and stays in its caches."""


def in_box(points: Tensor) -> Tensor:
    """Whether points (N, C, H, W) are finite and in [0, 1], bool (N,)."""
    flat = points.flatten(1)
    return flat.isfinite().all(1) & (flat >= 0).all(1) & (flat <= 1).all(1)


class Verifier:
    """Judges points of one task on `model`, the defended model itself, in eval mode and in its own precision.

    `images` (N, C, H, W) and `labels` (N,) are the clean samples. For a minimum-norm attack eps does not limit. Where the
    threat model has a target, a success is a prediction of that class, and of a randomised model a majority of them. Where the
    model `rejects` (`gauntlet.attacks.views.rejection_view`), a rejected image is no success and not correct when clean; its
    prediction is -1. `seconds` adds up the time spent here, so that it can be told from the attack's. `classes` is how many
    logits the model gave last, 0 before it was asked. `alone`: every candidate is judged alone too, as where answers depend on
    the batch; so it is from the first audited sample on that shows it (`depends`).
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
        self.alone = False
        self.depends = False
        self.seconds = 0.0
        self.verdicts = Verdicts(labels, ids, threat, rejects=rejects)
        self._apart = 0.0
        self._fits = 0
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._drawn = DrawnVerdicts(model, self.verdicts, seed, images.device)
        keys = sample_keys(seed, "audit", ids, images.device)
        self._audited = keys <= keys.sort().values[: max(LEAST, len(keys) // AUDITED)][-1:]

    @classmethod
    def of(
        cls,
        question: Question,
        rows: Sequence[int],
        pipeline: DefendedModel | None = None,
        *,
        minimum_norm: bool | None = None,
        images: Tensor | None = None,
    ) -> Verifier:
        """The verifier of a prepared cell for the samples at `rows` of its data.

        `pipeline`: another one than the cell's, such as a baseline's. `minimum_norm`: False lets eps limit minimum-norm attacks.
        `images` (N, C, H, W): those samples' on the device, if they are loaded already.
        """
        data, cell, judged = question.data, question.cell, pipeline or question.defended
        chosen = list(rows)
        return cls(
            judged,
            data.images[chosen].to(question.device) if images is None else images,
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

    @property
    def certainty(self) -> Certainty | None:
        """Which candidates may be judged together when their attack is over; None where all are judged as they are found."""
        return None if self.randomised or self.alone else Certainty(self._apart)

    def __call__(self, points: Tensor, samples: Tensor, attempt: Tensor) -> Verification:
        """Judge candidates (N, C, H, W) for the samples (N,): see `gauntlet.attacks.solving.solver.Verify`."""
        return self._judge(points, samples, attempt, self.logits)

    def together(self, points: Tensor, samples: Tensor) -> Verification:
        """The same of all examples of a block, in full batches, unless answers depend on the batch."""
        return self._judge(points, samples, torch.zeros_like(samples), self.logits if self.alone else self.full_logits)

    @timed("verify")
    def _judge(self, points: Tensor, samples: Tensor, attempt: Tensor, ask: Callable[[Tensor], Tensor]) -> Verification:
        began = time.perf_counter()
        valid = self.valid(points, samples)
        wrong = torch.zeros_like(valid)
        split = torch.zeros_like(valid)
        rows = valid.nonzero().squeeze(1)
        if len(rows):
            where, chosen = samples[rows], points[rows]
            if self.randomised:
                wrong[rows] = self._drawn.hold(chosen, where, attempt[rows])
            else:
                wrong[rows], split[rows] = self._wins(chosen, where, ask)
        verdict = Verification(success=wrong, rejected=~valid, disagreement=split)
        self.seconds += time.perf_counter() - began
        return verdict

    def _wins(self, points: Tensor, samples: Tensor, ask: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Whether a deterministic model gives the attack what it wants, and whether batch and single image differ, bool (N,)."""
        logits = ask(points)
        won, gap = self.verdicts.won(logits, samples)
        near = self.verdicts.near(logits, gap, samples, self._apart)
        again = torch.ones_like(won) if self.alone else near | self._audit(won, samples)
        rows, split = again.nonzero().squeeze(1), torch.zeros_like(won)
        if len(rows):
            single, _ = self.verdicts.won(self.logits(points[rows], 1), samples[rows])
            split[rows] = single != won[rows]
            if bool((split & ~near).any()) and not self.depends:
                self._same_again(ask(points), samples, logits, near)
                self.depends = self.alone = True
        holds = won & ~split
        rows = holds.nonzero().squeeze(1)
        for row, sample in zip(rows.tolist(), samples[rows].tolist(), strict=True):
            self._kept[sample] = points[row].clone(), logits[row]
        return holds, split

    def _same_again(self, second: Tensor, samples: Tensor, logits: Tensor, near: Tensor) -> None:
        """Raise VerificationError unless the same batches have the same predictions a second time, where these are not near."""
        bad = (self.verdicts.won(logits, samples)[0] != self.verdicts.won(second, samples)[0]) & ~near
        if bool(bad.any()):
            raise unrepeated(bad, samples, self.ids)

    def _audit(self, won: Tensor, samples: Tensor) -> Tensor:
        """The successes that are judged alone whatever their margin, bool (N,): at least the first of those judged together."""
        audited = won & self.audited(samples)
        first = torch.arange(len(won), device=won.device) == won.to(torch.int8).argmax()
        return torch.where(audited.any() | (len(won) <= BATCH), audited, won & first)

    def audited(self, samples: Tensor) -> Tensor:
        """The samples that are judged alone whatever their margin, bool (N,)."""
        return self._audited[samples]

    def calibrate(self, logits: Tensor) -> None:
        """Measure what the margins of single images and of batches differ by, on a sixteenth of the clean images.

        `logits` (N, K): those of all clean images in batches.
        """
        if not len(self.labels):
            return
        rows = self.audited(torch.arange(len(self.labels), device=self.labels.device)).nonzero().squeeze(1)
        alone = self.logits(self.images[rows], 1)
        apart = (self.verdicts.won(alone, rows)[1] - self.verdicts.won(logits[rows], rows)[1]).abs()
        # Logits that are near 0 on the boundary were rounded when they were larger.
        every = torch.arange(len(self.labels), device=self.labels.device)
        rounding = self.verdicts.rounding(logits, every).nanmedian()
        size = float(rounding) if bool(rounding.isfinite()) else 0.0
        self._apart = max(float(apart.amax()), size)
        # More than rounding: low precision, the batch, or hidden randomness. Then nothing is taken from a single pass.
        self.alone = self.alone or self._apart > FAR * size

    def valid(self, points: Tensor, samples: Tensor) -> Tensor:
        """Finite, in the box, and inside the ball unless the attack seeks the minimum norm; bool (N,)."""
        valid = in_box(points)
        if not self.minimum_norm:
            valid &= self._distance(points, samples) <= limit(self.threat)
        return valid

    def recorded(self, points: Tensor, samples: Tensor) -> Measurement:
        """`measure` of points that won, without another pass where all of them were judged here; they are then forgotten."""
        kept = [self._kept.pop(sample, None) for sample in samples.tolist()]
        judged = [one for one in kept if one is not None]
        if self.randomised or self.alone or not judged or len(judged) < len(kept):
            return self.measure(points, samples)
        same = torch.equal(torch.stack([point for point, _ in judged]), points)
        return self.measure(points, samples, torch.stack([logits for _, logits in judged]) if same else None)

    def measure(self, points: Tensor, samples: Tensor, logits: Tensor | None = None) -> Measurement:
        """Prediction, margin, distance and shares of wrong draws for points (N, C, H, W) of the samples (N,).

        `logits` (N, K): those of the points, if they are known, of a deterministic model.
        """
        if not len(points):
            empty = torch.zeros(0, dtype=torch.float64)
            return Measurement(empty.to(torch.int64), empty, empty, empty, empty)
        if self.randomised:
            zero = torch.zeros_like(samples)
            share, prediction, gap = self._drawn.shares(points, samples, "measure", zero)
            scored, _, _ = self._drawn.shares(points, samples, "score", zero)
        else:
            logits = self.logits(points) if logits is None else logits
            won, gap = self.verdicts.won(logits, samples)
            prediction, share = self.predictions(logits), won.to(torch.float64)
            scored = share
        size = self._distance(points, samples)
        return Measurement(prediction.cpu(), gap.cpu(), size.cpu(), share.cpu(), scored.cpu(), logits)

    def _distance(self, points: Tensor, samples: Tensor) -> Tensor:
        # In parts, since each is computed in float64, which would take many times the memory of the images.
        values = _VALUES_ON_CPU if points.device.type == "cpu" else _VALUES
        parts = torch.arange(len(points), device=points.device).split(max(1, values // points.shape[1:].numel()))
        return torch.cat([distance(points[rows], self.images[samples[rows]], self.threat.norm) for rows in parts])

    def logits(self, points: Tensor, size: int = BATCH) -> Tensor:
        """Logits (N, K) of the original model in batches of `size`. Raises NonFiniteLogitsError."""
        logits = fixed_batches(self.model, points, size)
        self.verdicts.check(logits)
        return logits

    def full_logits(self, points: Tensor) -> Tensor:
        """Logits (N, K) of the original model in full batches. Raises NonFiniteLogitsError."""
        size = self._fits or full_batch(points[0])
        logits, self._fits = full_batches(self.model, points, size)
        self.verdicts.check(logits)
        return logits

    def targets(self) -> Tensor:
        """See `gauntlet.bench.verify.verdicts.Verdicts.targets`."""
        return self.verdicts.targets()

    def predictions(self, outputs: Tensor) -> Tensor:
        """See `gauntlet.bench.verify.verdicts.Verdicts.predictions`."""
        return self.verdicts.predictions(outputs)

    @property
    def classes(self) -> int:
        """Number of logits that the model gave last, 0 before it was asked."""
        return self.verdicts.classes
