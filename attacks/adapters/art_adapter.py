"""Attacks of the Adversarial Robustness Toolbox (Nicolae et al. 2018, arXiv 1807.01069), set up by the threat model."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from gauntlet.attacks.adapters.run_library import LibraryAttack, builder, count_classes, library, step_share
from gauntlet.attacks.ops.threat import Norm
from gauntlet.attacks.registry.card import AttackCard, AttackEntry, Kind
from gauntlet.attacks.views.guard import LogitsModel

_BOTH: tuple[Norm, ...] = ("Linf", "L2")
_PACKAGE = "adversarial-robustness-toolbox"


@dataclass(frozen=True, kw_only=True)
class ArtAttack(LibraryAttack):
    """Wraps the model for ART and carries the batch to numpy and back; subclasses build the attack."""

    def run(self, model: LogitsModel, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """The library's attack on the whole batch at once: some of ART's own defaults are batches of 1."""
        if images.device.type not in ("cpu", "cuda"):
            raise ValueError(f"ART runs on cpu and cuda, not on {images.device}: move model and images there")
        classes = count_classes(model, images, least=2, attack=type(self).__name__)
        here = torch.cuda.device(images.device) if images.is_cuda else nullcontext()
        with here:
            estimator = library("art.estimators.classification", _PACKAGE).PyTorchClassifier(
                model=model,
                loss=nn.CrossEntropyLoss(),
                input_shape=tuple(images.shape[1:]),
                nb_classes=classes,
                clip_values=(0.0, 1.0),
                channels_first=True,
                device_type="gpu" if images.is_cuda else "cpu",
            )
            onehot = nn.functional.one_hot(labels, classes).to(torch.float32)
            points = self.generate(estimator, images.cpu().numpy(), onehot.cpu().numpy())
        return torch.from_numpy(np.ascontiguousarray(points, dtype=np.float32)).to(images.device)

    def generate(self, estimator: Any, x: Any, y: Any) -> Any:
        """Adversarial examples, float array of x's shape; `y` is one-hot (N, K)."""
        raise NotImplementedError

    @property
    def order(self) -> float:
        """The threat model's norm as ART writes it."""
        return np.inf if self.threat.norm == "Linf" else 2


@dataclass(frozen=True, kw_only=True)
class ArtFastGradientMethod(ArtAttack):
    """One step of eps along the sign of the gradient (Linf) or the normalised gradient (L2)."""

    def generate(self, estimator: Any, x: Any, y: Any) -> Any:
        """One step."""
        ball = {"norm": self.order, "eps": self.threat.eps, "eps_step": self.threat.eps}
        return _evasion().FastGradientMethod(estimator, **ball, batch_size=len(x)).generate(x, y)


@dataclass(frozen=True, kw_only=True)
class ArtPGD(ArtAttack):
    """Projected gradient descent; ART's own step of 0.1 can exceed eps, so it is set here."""

    steps: int = 40
    restarts: int = 1
    step_size: float | None = None
    random_start: bool = True

    def __post_init__(self) -> None:
        """Raises ValueError for a setting out of range."""
        super().__post_init__()
        if self.restarts > 1 and not self.random_start:
            raise ValueError("restarts > 1 needs random_start=True: from the clean image every restart is the same")

    def generate(self, estimator: Any, x: Any, y: Any) -> Any:
        """The last iterate of the first successful start, else of the last start."""
        attack = _evasion().ProjectedGradientDescent(
            estimator,
            norm=self.order,
            eps=self.threat.eps,
            eps_step=self.threat.eps * step_share(self.step_size, self.steps),
            max_iter=self.steps,
            num_random_init=self.restarts if self.random_start else 0,
            batch_size=len(x),
            verbose=False,
        )
        return attack.generate(x, y)


@dataclass(frozen=True, kw_only=True)
class ArtAutoPGD(ArtAttack):
    """Auto-PGD on cross-entropy from one start; the first step is 2 eps, as published."""

    steps: int = 100

    def generate(self, estimator: Any, x: Any, y: Any) -> Any:
        """The best points."""
        attack = _evasion().AutoProjectedGradientDescent(
            estimator,
            norm=self.order,
            eps=self.threat.eps,
            eps_step=2 * self.threat.eps,
            max_iter=self.steps,
            nb_random_init=1,
            batch_size=len(x),
            loss_type="cross_entropy",
            verbose=False,
        )
        return attack.generate(x, y)


@dataclass(frozen=True, kw_only=True)
class ArtCarliniL2(ArtAttack):
    """Carlini and Wagner's L2 attack with a line search: `search_steps` constants, `steps` iterations each.

    Budgets are stated because ART's own (10 × 10) are far below the paper's. About 20 times slower than the peers.
    """

    steps: int = 100
    search_steps: int = 9
    lr: float = 0.01
    initial_c: float = 0.01
    confidence: float = 0.0

    def generate(self, estimator: Any, x: Any, y: Any) -> Any:
        """The closest success; the clean image where there is none."""
        attack = _evasion().CarliniL2Method(
            estimator,
            confidence=self.confidence,
            learning_rate=self.lr,
            binary_search_steps=self.search_steps,
            max_iter=self.steps,
            initial_const=self.initial_c,
            batch_size=len(x),
            verbose=False,
        )
        return attack.generate(x, y)


@dataclass(frozen=True, kw_only=True)
class ArtDeepFool(ArtAttack):
    """DeepFool over the `gradients` likeliest classes, with the paper's overshoot (ART's own is 1e-6)."""

    steps: int = 50
    overshoot: float = 0.02
    gradients: int = 10

    def generate(self, estimator: Any, x: Any, y: Any) -> Any:
        """The overshot end points."""
        return _deepfool(estimator, self.steps, self.overshoot, self.gradients, len(x)).generate(x, y)


@dataclass(frozen=True, kw_only=True)
class ArtSquare(ArtAttack):
    """Square Attack; `queries` are proposals, for each of which ART makes about three forward passes."""

    queries: int = 5000
    restarts: int = 1
    p_init: float = 0.8

    def generate(self, estimator: Any, x: Any, y: Any) -> Any:
        """The best point of the random search."""
        return _square(self, estimator, x, self.queries, self.restarts, self.p_init).generate(x, y)


@dataclass(frozen=True, kw_only=True)
class ArtAutoAttack(ArtAttack):
    """ART's AutoAttack: APGD-CE, APGD-DLR, DeepFool, Square. NOT the official one (DeepFool for FAB, no targets).

    Budgets are the official ones (100 steps, one start, 5000 queries); ART's own has five starts. The first step of
    APGD is 2 eps, as published. Where `eps` bounds Linf, DeepFool still seeks small L2 distances.
    """

    version: ClassVar[int] = 2

    steps: int = 100
    restarts: int = 1
    queries: int = 5000
    gradients: int = 10

    def generate(self, estimator: Any, x: Any, y: Any) -> Any:
        """Broken samples' candidates; the clean image elsewhere."""
        if estimator.nb_classes < 3:
            raise ValueError(f"art.AutoAttack needs at least 3 classes for its DLR loss, not {estimator.nb_classes}")
        library("multiprocess", "multiprocess")
        ball = {"norm": self.order, "eps": self.threat.eps, "eps_step": 2 * self.threat.eps}
        apgd = {"max_iter": self.steps, "nb_random_init": self.restarts, "batch_size": len(x), "verbose": False}
        stages = [
            _evasion().AutoProjectedGradientDescent(estimator, **ball, **apgd, loss_type=loss)
            for loss in ("cross_entropy", "difference_logits_ratio")
        ]
        stages.append(_deepfool(estimator, self.steps, 1e-3, self.gradients, len(x)))
        stages.append(_square(self, estimator, x, self.queries, self.restarts, 0.8))
        # ART takes points up to 1e-4 outside the ball for successes and stops there; this asks for the ball itself,
        # with a few units in the last place for points on its surface.
        accepted = self.threat.eps * (1 - 1e-4) * (1 + 2**-22)
        cascade = _evasion().AutoAttack(
            estimator, norm=self.order, eps=accepted, eps_step=accepted, attacks=stages, batch_size=len(x)
        )
        return cascade.generate(x, y)


@dataclass(frozen=True, kw_only=True)
class ArtHopSkipJump(ArtAttack):
    """HopSkipJump (Chen et al. 2020): the smallest perturbation from predicted labels alone, sample by sample.

    ART draws its starting points from a generator without a seed, so they are drawn here: up to `init_size` uniform
    images, the first that is misclassified. `max_eval` bounds the queries of one gradient estimate.
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
        attack = _evasion().HopSkipJump(
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


def _evasion() -> Any:
    return library("art.attacks.evasion", _PACKAGE)


def _deepfool(estimator: Any, steps: int, overshoot: float, gradients: int, batch: int) -> Any:
    return _evasion().DeepFool(
        estimator, max_iter=steps, epsilon=overshoot, nb_grads=gradients, batch_size=batch, verbose=False
    )


def _square(attack: ArtAttack, estimator: Any, x: Any, queries: int, restarts: int, p_init: float) -> Any:
    height, width = x.shape[-2:]
    tile = max(round(math.sqrt(p_init * height * width)), 1 if attack.threat.norm == "Linf" else 3)
    if attack.threat.norm == "L2":
        tile += tile % 2 == 0
    # Its first patch must be smaller than the image, and its first pattern in L2 needs tiles of two pixels.
    if tile >= min(height, width) or (attack.threat.norm == "L2" and min(height, width) < 10):
        raise ValueError(
            f"ART's Square Attack fails on {height}×{width} images in {attack.threat.norm} with p_init={p_init:g}: "
            "use torchattacks.Square"
        )
    return _evasion().SquareAttack(
        estimator,
        norm=attack.order,
        eps=attack.threat.eps,
        max_iter=queries,
        nb_restarts=restarts,
        p_init=p_init,
        batch_size=len(x),
        verbose=False,
    )


def _entry(
    name: str,
    kind: type[ArtAttack],
    summary: str,
    paper: str,
    *,
    norms: tuple[Norm, ...] = _BOTH,
    access: Kind = "white-box",
    minimum_norm: bool = False,
) -> AttackEntry:
    source = f"ART; {paper}"
    return AttackEntry(
        AttackCard(f"art.{name}", summary, source, norms, kind=access, minimum_norm=minimum_norm), builder(kind)
    )


FAST_GRADIENT_METHOD = _entry(
    "FastGradientMethod", ArtFastGradientMethod, "one gradient step", "Goodfellow et al. 2015, arXiv 1412.6572"
)
PROJECTED_GRADIENT_DESCENT = _entry(
    "ProjectedGradientDescent",
    ArtPGD,
    "projected gradient descent from random starts",
    "Madry et al. 2018, arXiv 1706.06083",
)
AUTO_PGD = _entry(
    "AutoProjectedGradientDescent",
    ArtAutoPGD,
    "PGD that adapts its step, on cross-entropy",
    "Croce and Hein 2020, arXiv 2003.01690",
)
CARLINI_L2 = _entry(
    "CarliniL2Method",
    ArtCarliniL2,
    "smallest L2 perturbation with a search for the constant; slow",
    "Carlini and Wagner 2017, arXiv 1608.04644",
    norms=("L2",),
    minimum_norm=True,
)
DEEPFOOL = _entry(
    "DeepFool",
    ArtDeepFool,
    "steps to the nearest linearised boundary",
    "Moosavi-Dezfooli et al. 2016, arXiv 1511.04599",
    norms=("L2",),
    minimum_norm=True,
)
SQUARE = _entry(
    "SquareAttack",
    ArtSquare,
    "random search over square patches",
    "Andriushchenko et al. 2020, arXiv 1912.00049",
    access="black-box",
)
AUTOATTACK = _entry(
    "AutoAttack",
    ArtAutoAttack,
    "APGD-CE, APGD-DLR, DeepFool and Square; not the official AutoAttack",
    "after Croce and Hein 2020, arXiv 2003.01690",
)
HOP_SKIP_JUMP = _entry(
    "HopSkipJump",
    ArtHopSkipJump,
    "smallest perturbation from predicted labels alone; slow",
    "Chen et al. 2020, arXiv 1904.02144",
    access="decision-based",
    minimum_norm=True,
)
