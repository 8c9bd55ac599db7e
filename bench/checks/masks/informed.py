"""The attacker that knows the mask: PGD on the margin of the smooth twin, each iterate judged on the pipeline itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.solving.solver import Stage, Task, solve
from gauntlet.attacks.views.guard import guarded
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.leaderboard.stats.proportions import Proportion

STEPS, STARTS = 100, 4
_TWIN = "twin"


@dataclass(frozen=True)
class InformedResult:
    """What the attacker leaves standing of N samples."""

    clean: Proportion
    robust: Proportion
    passes: float
    """Forward and backward passes of the attack, a mean over the samples."""


def informed(
    pipeline: nn.Module,
    twin: nn.Module,
    images: Tensor,
    labels: Tensor,
    ids: Sequence[str],
    threat: ThreatModel,
    *,
    randomised: bool = False,
    seed: int = 0,
    steps: int = STEPS,
    starts: int = STARTS,
) -> InformedResult:
    """Attack images (N, C, H, W) in [0, 1] with labels (N,) by `starts` times `steps` steps on the twin.

    An iterate breaks a sample where the pipeline misclassifies it; a randomised one in the majority of up to 200 draws. As in
    cells, its example is then scored on draws of its own.
    """
    verify = Verifier(pipeline, images, labels, ids, threat, seed=seed, randomised=randomised)
    every = torch.arange(len(labels))
    with guarded(pipeline, seed), guarded(twin, seed):
        clean = verify.measure(images, every).prediction == labels
        rows = clean.nonzero().squeeze(1)
        task = Task(images[rows], labels[rows], [ids[row] for row in rows.tolist()], threat, seed, "informed")
        stage = Stage("informed", PGD(steps=steps, restarts=starts, loss="cw"), view=_TWIN, technique="transfer")
        outcomes = list(
            solve(
                [stage],
                pipeline,
                task,
                lambda points, samples, attempt: verify(points, rows[samples], attempt),
                views={_TWIN: twin},
            )
        )
        standing = clean.clone()
        for outcome in outcomes:
            if outcome.adversarial is not None:
                row = rows[outcome.sample : outcome.sample + 1]
                share = verify.measure(outcome.adversarial[None], row).wrong_share_scored
                standing[row] = bool(share < 0.5)
    passes = sum(outcome.forwards + outcome.backwards for outcome in outcomes)
    return InformedResult(Proportion.of(clean.numpy()), Proportion.of(standing.numpy()), passes / max(1, len(labels)))
