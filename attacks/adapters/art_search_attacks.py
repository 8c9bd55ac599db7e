"""Attacks of the Adversarial Robustness Toolbox without gradients, and its AutoAttack, which uses one of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gauntlet.attacks.adapters.art_attack import ArtAttack, deepfool, evasion
from gauntlet.attacks.adapters.run_library import library


@dataclass(frozen=True, kw_only=True)
class ArtSquare(ArtAttack):
    """Square Attack; `queries` are proposals, for each of which ART makes about three forward passes."""

    returns_failures: ClassVar[bool] = True

    queries: int = 5000
    restarts: int = 1
    p_init: float = 0.8

    def generate(self, estimator: Any, x: Any, y: Any) -> Any:
        """The best point of the random search."""
        return _square(self, estimator, x, self.queries, self.restarts, self.p_init).generate(x, y)


@dataclass(frozen=True, kw_only=True)
class ArtAutoAttack(ArtAttack):
    """ART's AutoAttack: APGD-CE, APGD-DLR, DeepFool, Square. NOT the official one (DeepFool for FAB, no targets).

    Budgets are the official budgets (100 steps, one start, 5000 queries); ART's default has five starts. The first step of
    APGD is 2 eps, as published. In Linf, too, DeepFool seeks small L2 distances.
    """

    version: ClassVar[int] = 2

    steps: int = 100
    restarts: int = 1
    queries: int = 5000
    gradients: int = 10

    def generate(self, estimator: Any, x: Any, y: Any) -> Any:
        """Candidates for broken samples; the clean image for others."""
        if estimator.nb_classes < 3:
            raise ValueError(f"art.AutoAttack needs at least 3 classes for its DLR loss, not {estimator.nb_classes}")
        library("multiprocess", "multiprocess")
        ball = {"norm": self.order, "eps": self.threat.eps, "eps_step": 2 * self.threat.eps}
        apgd = {"max_iter": self.steps, "nb_random_init": self.restarts, "batch_size": len(x), "verbose": False}
        stages = [
            evasion().AutoProjectedGradientDescent(estimator, **ball, **apgd, loss_type=loss)
            for loss in ("cross_entropy", "difference_logits_ratio")
        ]
        stages.append(deepfool(estimator, self.steps, 1e-3, self.gradients, len(x)))
        stages.append(_square(self, estimator, x, self.queries, self.restarts, 0.8))
        # ART counts points up to 1e-4 outside the ball as successes and stops there. This eps requires the ball itself,
        # with a few units in the last place for points on its surface.
        accepted = self.threat.eps * (1 - 1e-4) * (1 + 2**-22)
        cascade = evasion().AutoAttack(
            estimator, norm=self.order, eps=accepted, eps_step=accepted, attacks=stages, batch_size=len(x)
        )
        return cascade.generate(x, y)


@dataclass(frozen=True, kw_only=True)
class ArtHopSkipJump(ArtAttack):
    """HopSkipJump (Chen et al. 2020): the smallest perturbation from predicted labels alone, sample by sample.

    ART draws its starting points from a generator without a seed, so they are drawn here: the first misclassified of at most
    `init_size` uniform images. `max_eval` bounds the queries of one gradient estimate.
    """

    steps: int = 50
    max_eval: int = 10_000
    init_eval: int = 100
    init_size: int = 100

    def generate(self, estimator: Any, x: Any, y: Any) -> Any:
        """The closest point found; the clean image where no start was found."""
        truth, starts, waiting = y.argmax(1), x.copy(), np.arange(len(x))
        for _ in range(self.init_size):
            trial = np.random.uniform(size=x[waiting].shape).astype(x.dtype)
            found = estimator.predict(trial, batch_size=len(x)).argmax(1) != truth[waiting]
            starts[waiting[found]] = trial[found]
            waiting = waiting[~found]
            if not len(waiting):
                break
        started = np.setdiff1d(np.arange(len(x)), waiting)
        attack = evasion().HopSkipJump(
            estimator,
            norm=self.order,
            max_iter=self.steps,
            max_eval=self.max_eval,
            init_eval=min(self.init_eval, self.max_eval),
            init_size=1,
            batch_size=max(64, len(x)),
            verbose=False,
        )
        points = x.copy()
        if len(started):
            points[started] = attack.generate(x[started], y[started], x_adv_init=starts[started])
        return points


def _square(attack: ArtAttack, estimator: Any, x: Any, queries: int, restarts: int, p_init: float) -> Any:
    height, width = x.shape[-2:]
    tile = max(round(math.sqrt(p_init * height * width)), 1 if attack.threat.norm == "Linf" else 3)
    if attack.threat.norm == "L2":
        tile += tile % 2 == 0
    # The first patch must be smaller than the image, and the first pattern in L2 needs tiles of two pixels.
    if tile >= min(height, width) or (attack.threat.norm == "L2" and min(height, width) < 10):
        raise ValueError(
            f"ART's Square Attack fails on {height}×{width} images in {attack.threat.norm} with p_init={p_init:g}: "
            "use torchattacks.Square"
        )
    return evasion().SquareAttack(
        estimator,
        norm=attack.order,
        eps=attack.threat.eps,
        max_iter=queries,
        nb_restarts=restarts,
        p_init=p_init,
        batch_size=len(x),
        verbose=False,
    )
