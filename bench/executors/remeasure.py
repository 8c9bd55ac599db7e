"""Measuring the adversarial examples of a stored block again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from gauntlet.attacks.ops.norms import limit
from gauntlet.bench.config.cell import Cell
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.leaderboard.results.record import Samples

_DISTANCE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Remeasured:
    """The outcome of measuring a stored block again."""

    failures: list[str]
    examples: int
    """Number of adversarial examples that were measured."""
    boundary: int
    """Number of predictions that flipped within the rounding margin: reported, but not failures."""
    not_kept: int
    """Number of examples that the store does not hold."""
    robust: int
    """Number of samples that are robust by the new measurement."""
    mismatch: str = ""
    """A sentence if the stored verdicts do not follow from the measurement. It is a failure unless `failures` explains it."""


def remeasure_examples(cell: Cell, verify: Verifier, samples: Samples, slack: npt.NDArray[np.float64]) -> Remeasured:
    """Measure the stored examples of a block again, and compare them with the record.

    A prediction that flips within the sample's `slack` (N,) of the decision boundary is attributed to rounding; any other
    difference is a failure.
    For an example that was not kept, the stored verdict is used.
    """
    ids: list[str] = list(verify.ids)
    failures: list[str] = []
    device = verify.labels.device
    clean = verify.measure(verify.images, torch.arange(len(ids), device=device))
    held = [row for row, image in enumerate(samples.adversarial) if image is not None]
    claimed = np.flatnonzero(~np.isnan(samples.distance))
    not_kept = len(set(claimed.tolist()) - set(held))
    lost = clean.wrong_share_scored.numpy() >= 0.5
    lost[claimed] = ~samples.robust[claimed]
    boundary = 0
    harmless = f"not classified as its target ({cell.threat})" if cell.threat.target else "classified correctly"
    if held:
        points = torch.stack([torch.tensor(samples.adversarial[row]) for row in held]).to(verify.images)
        where = torch.tensor(held, device=device)
        valid, again = verify.valid(points, where).cpu(), verify.measure(points, where)
        for place, row in enumerate(held):
            sample, wrong, rounding = ids[row], bool(again.wrong_share_scored[place] >= 0.5), False
            distance = float(again.distance[place])
            if not valid[place]:
                failures.append(f"{sample}: the stored example is outside the ball or the box, or not finite")
            elif abs(distance - samples.distance[row]) > _DISTANCE_TOLERANCE:
                failures.append(f"{sample}: distance {distance:.6g}, stored {samples.distance[row]:.6g}")
            elif not wrong and not cell.info.randomised:
                rounding = abs(float(again.margin[place])) <= slack[row]
                boundary += rounding
                if not rounding:
                    failures.append(f"{sample}: the stored example is {harmless}")
            if distance <= limit(cell.threat):
                lost[row] = wrong or rounding
            else:
                lost[row] = bool(clean.wrong_share_scored[row] >= 0.5)
    robust = samples.correct & ~lost
    differ = np.flatnonzero(robust != samples.robust)
    mismatch = (
        f"{ids[int(differ[0])]}: the stored verdict does not follow from what was measured" if len(differ) else ""
    )
    return Remeasured(failures, len(held), boundary, not_kept, int(robust.sum()), mismatch)
