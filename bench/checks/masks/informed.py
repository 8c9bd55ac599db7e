"""The attacker that knows the mask: PGD on the margin of the smooth twin, each iterate judged on the pipeline itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.solving.solver import Stage, Task, Verification, solve
from gauntlet.attacks.views.guard import guarded
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.leaderboard.stats.proportions import Proportion

STEPS, STARTS = 100, 4
_TWIN = "twin"
_AGREE = 3


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

    An iterate breaks a sample where the pipeline misclassifies it; a randomised one in the majority of 20 draws. As in cells, a
    randomised pipeline's example is scored on draws of its own, so that the attack goes on until three sets of draws agree.
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
                lambda points, samples, attempt: _judge(verify, points, rows[samples], attempt),
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


def _judge(verify: Verifier, points: Tensor, samples: Tensor, attempt: Tensor) -> Verification:
    """The verdict; of randomised pipelines a success in three sets of draws."""
    verdict = verify(points, samples, attempt)
    if not verify.randomised:
        return verdict
    success = verdict.success.clone()
    for again in range(1, _AGREE):
        rows = success.nonzero().squeeze(1)
        success[rows] = verify(points[rows], samples[rows], attempt[rows] + again * 2**20).success
    return replace(verdict, success=success)
