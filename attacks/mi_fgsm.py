"""Attacks for transfer between models: momentum, input diversity and smoothed gradients, alone or together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from gauntlet.attacks.ops.losses import named_loss
from gauntlet.attacks.ops.norms import project, steepest
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.ops.validators import number, positive, whole_number
from gauntlet.attacks.parts.input_diversity import diversify
from gauntlet.attacks.parts.levelled import levelled
from gauntlet.attacks.parts.smoothing_kernel import scaled_length, smooth
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule


class State(NamedTuple):
    """The iterate and the accumulated gradient, both (N, C, H, W)."""

    x: Tensor
    momentum: Tensor


@dataclass(frozen=True, kw_only=True)
class MIFGSM(Rule[State]):
    """g ← decay · g + ∇/‖∇‖₁, x ← project(x + step_size · eps · direction(g)), from the clean image.

    Momentum: Dong et al., "Boosting adversarial attacks with momentum", CVPR 2018, section 3.1 (Linf: direction is the
    sign) and 3.3 (L2: g/‖g‖₂). `steps`: gradient steps; `step_size`: as a share of eps, by default 1 / steps; `decay`: the
    paper's μ; `loss`: `ce` or `cw` (margin).

    Input diversity (`input_diversity`): at each step, with probability `diversity`, the model sees the iterate shrunk to a random
    size of at least `diversity_size` of its sides, on black. Translation invariance (`smoothing_kernel`): the gradient is
    smoothed by a Gaussian of `kernel` × `kernel` weights that reaches `kernel_sigmas` standard deviations from its middle; 1
    means no smoothing, None the paper's share of the image, 15 of 299 pixels, at least 3 pixels.

    Departures from the papers: it stops at a sample's first verified success. The gradient is divided by the mean instead of
    the sum of its absolute values, as in the authors' code, which changes no step. Other libraries keep a kernel of 15 pixels
    for images of any size, which reduces a small gradient to little more than its mean: on digits of 8 pixels the attack loses
    most of its strength. With input diversity, a success is noticed at steps that left the iterate unchanged, at no cost, and
    at the last iterate, which is evaluated without transformation. Evaluating every iterate would double the forward passes of
    an attack whose result is the last iterate.
    """

    steps: int = 10
    step_size: float | None = None
    decay: float = 1.0
    loss: str = "ce"
    diversity: float = 0.0
    diversity_size: float = 0.9
    kernel: int | None = 1
    kernel_sigmas: float = 3.0

    def __post_init__(self) -> None:
        whole_number("steps", self.steps, 1)
        if self.step_size is not None:
            positive("step_size", self.step_size)
        number("decay", self.decay, least=0)
        named_loss(self.loss)
        number("diversity", self.diversity, least=0, most=1)
        number("diversity_size", self.diversity_size, above=0, below=1)
        if self.kernel is not None:
            whole_number("kernel", self.kernel, 1)
            if self.kernel % 2 == 0:
                raise ValueError(f"kernel={self.kernel!r} must be odd, so that it has a middle; 1 means no smoothing")
        positive("kernel_sigmas", self.kernel_sigmas)

    def start(self, oracle: Oracle) -> State:
        """At the clean image, without momentum."""
        return State(x=oracle.clean, momentum=torch.zeros_like(oracle.clean))

    def step(self, state: State, oracle: Oracle) -> State:
        """One step along the accumulated gradient."""
        threat = oracle.threat
        size = threat.eps * (1 / self.steps if self.step_size is None else self.step_size)
        through = None
        if self.diversity:
            through = partial(diversify, draws=oracle.draws, probability=self.diversity, least=self.diversity_size)
        gradient = oracle.gradient(state.x, named_loss(self.loss), through=through).gradient
        kernel = scaled_length(min(gradient.shape[2:])) if self.kernel is None else self.kernel
        if kernel > 1:
            gradient = smooth(gradient, kernel, self.kernel_sigmas)
        momentum = self.decay * state.momentum + levelled(gradient)
        x = project(state.x + size * steepest(momentum, threat.norm), oracle.clean, threat)
        return State(x=x, momentum=momentum)


def build(threat: ThreatModel, **settings: int | float | str | None) -> MIFGSM:
    """Momentum only, unless the settings differ."""
    return MIFGSM(**settings)  # type: ignore[arg-type]


def build_diverse(threat: ThreatModel, **settings: int | float | str | None) -> MIFGSM:
    """Momentum and input diversity with probability 0.5, as in the paper, unless the settings differ."""
    return build(threat, **{"diversity": 0.5, **settings})


def build_smoothed(threat: ThreatModel, **settings: int | float | str | None) -> MIFGSM:
    """Momentum, input diversity and a kernel in proportion to the image, unless the settings differ."""
    return build_diverse(threat, **{"kernel": None, **settings})


ENTRY = AttackEntry(
    AttackCard(
        name="mi-fgsm",
        summary="iterated fast gradient sign with momentum, made to transfer",
        source="Dong et al. 2018, arXiv 1710.06081",
        norms=("Linf", "L2"),
    ),
    build,
)

DIVERSE = AttackEntry(
    AttackCard(
        name="di-fgsm",
        summary="mi-fgsm that shows the model a randomly resized and padded image",
        source="Xie et al. 2019, arXiv 1803.06978 (M-DI²-FGSM)",
        norms=("Linf", "L2"),
    ),
    build_diverse,
)

SMOOTHED = AttackEntry(
    AttackCard(
        name="ti-fgsm",
        summary="di-fgsm with gradients smoothed by a Gaussian kernel, against translation",
        source="Dong et al. 2019, arXiv 1904.02884 (TI-DIM)",
        norms=("Linf", "L2"),
    ),
    build_smoothed,
)
