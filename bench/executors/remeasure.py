"""Measuring the adversarial examples of a stored block again."""

from __future__ import annotations

import numpy as np
import torch

from gauntlet.attacks.ops.norms import limit
from gauntlet.bench.executors.executable import Prepared, Remeasured
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.leaderboard.results.record import Samples

_DISTANCE_TOLERANCE = 1e-6


def remeasure_examples(prepared: Prepared, verify: Verifier, samples: Samples, slack: float) -> Remeasured:
    """Compare every stored example of a block with what the verifier measures now, sample by sample.

    A prediction that flips within `slack` of the decision boundary is rounding, everything else a failure. The verdict of an
    example that was not kept cannot be measured: the stored one is taken.
    """
    cell, ids, failures = prepared.cell, list(verify.ids), []
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
                rounding = abs(float(again.margin[place])) <= slack
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
