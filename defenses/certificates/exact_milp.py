"""Exact verification of small ReLU networks under Linf: each sample is robust, or broken with a witness, or open.

A mixed-integer program as in Tjeng, Xiao, Tedrake, "Evaluating robustness of neural networks with mixed integer
programming" (ICLR 2019, arXiv 1711.07356), solved by HiGHS through scipy: one binary for each ReLU whose sign the bounds
of `gauntlet.defenses.certificates.ibp_crown_bounds` leave open. It is a reference for attacks: an attack that does not break a
`broken` sample misses it, and an attack that breaks a `robust` sample is wrong. It works for networks with a few dozen open
ReLUs per sample; with more, most samples reach the time limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.losses import margin
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.ops.validators import positive
from gauntlet.defenses.certificates.ibp_crown_bounds import (
    Interval,
    check_inputs,
    check_labels,
    hidden_bounds,
    margins_below,
)
from gauntlet.defenses.certificates.relu_network import Network, double
from gauntlet.defenses.certificates.relu_program import Array, Program, dense, minimise, program
from gauntlet.defenses.certificates.relu_reader import network
from gauntlet.defenses.certificates.relu_region import Region, region

TOLERANCE = 1e-6
"""A margin counts as positive only above this, times the largest effect of a variable on the margin if that is above 1.

HiGHS satisfies constraints to 1e-6 of a variable's range; on digits its proven bounds were too high by up to 1e-6.
"""
_STEPS = 20
_BATCH = 256
_PAIRS = 2048
_INFEASIBLE = 2


@dataclass(frozen=True, eq=False)
class ExactResults:
    """The results for N samples; each is exactly one of robust, broken and open."""

    robust: Tensor
    """bool (N,): no point of the region is misclassified."""
    broken: Tensor
    """bool (N,): `witness` is misclassified, computed by the model in float64."""
    witness: Tensor
    """float64, the images' shape: a misclassified point of the region, or the clean image."""
    lower: Tensor
    """float64 (N,): a proven lower bound of the margin (label's logit minus the largest other one) in the region."""
    upper: Tensor
    """float64 (N,): the smallest margin of an evaluated point in the region."""
    searched: Tensor
    """bool (N,): whether a search was needed after bounds and a short attack."""

    @property
    def open(self) -> Tensor:
        """bool (N,): neither proven nor broken within the time limit, or too close to zero to decide."""
        return ~(self.robust | self.broken)


@dataclass(frozen=True, eq=False)
class Margins:
    """Bounds of the smallest margin (label's logit minus the largest other logit) of N regions."""

    lower: Tensor
    """float64 (N,): proven lower bounds, up to `TOLERANCE`."""
    upper: Tensor
    """float64 (N,): the margin at `point`, computed by the model in float64."""
    point: Tensor
    """float64, the images' shape: a point of the region."""

    @property
    def gap(self) -> Tensor:
        """float64 (N,): upper - lower, at least 0; within rounding of 0 where the search ended in time."""
        return (self.upper - self.lower).clamp_min(0)


@dataclass(frozen=True, eq=False)
class SearchState:
    """The state of the search for N samples; `lower`, `point` and `upper` are updated in place."""

    model: Callable[[Tensor], Tensor]
    """Logits (N, K) in float64 of images of `shape`."""
    net: Network
    shape: torch.Size
    labels: Tensor
    ball: Region
    hidden: list[Interval]
    matrices: list[tuple[Array, Array]]
    need: Tensor
    """(N, K): values that a bound of logit[label] - logit[j] must exceed, besides the tolerance."""
    tolerance: float
    """Tolerance of the search, times the largest effect of a variable on the margin if that is above 1."""
    lower: Tensor
    """(N, K): lower bounds of logit[label] - logit[j]."""
    point: Tensor
    """(N, D): the evaluated point with the smallest margin."""
    upper: Tensor
    """(N,): that margin."""


def exact_linf(
    model: nn.Module, images: Tensor, labels: Tensor, eps: float, *, time_limit: float = 10.0
) -> ExactResults:
    """Decide each sample: is the whole Linf ball of radius `eps`, cut with the box [0, 1], classified as its label?

    `model`, `images` (N, …) in [0, 1] and `labels` (N,): as for
    `gauntlet.defenses.certificates.ibp_crown_bounds.margin_bounds`. `time_limit`: seconds for one sample's integer
    programs. A sample that is misclassified clean is broken, with its image as the witness. The results hold for real
    numbers: a model in float32 may differ at points whose margin is within its rounding error (see `worst_margin`).

    Raises ValueError for layers that are not supported, for networks too large to write out, and for bad arguments.
    """
    search = _start(model, images, labels, eps, time_limit)
    proven, broken, searched = decide(search, search.lower > TOLERANCE, time_limit)
    witness = images.detach().to("cpu", torch.float64).clone()
    witness[broken] = search.point.view(search.shape)[broken]
    return ExactResults(proven.all(1) & ~broken, broken, witness, _least(search), search.upper, searched)


def decide(search: SearchState, proven: Tensor, time_limit: float) -> tuple[Tensor, Tensor, Tensor]:
    """Proven pairs of sample and class, bool (N, K), broken samples and searched samples, bool (N,).

    `proven`: pairs that bounds have proven. A short attack runs first.
    """
    proven, broken = proven.clone(), _misclassified(search)
    _attack(search, (~proven & ~broken[:, None]).nonzero())
    broken = _misclassified(search)
    searched = ~broken & ~proven.all(1)
    for i in searched.nonzero().squeeze(1).tolist():
        deadline, written = time.monotonic() + time_limit, _write(search, i)
        for j in search.lower[i].argsort().tolist():
            if not proven[i, j] and not broken[i]:
                proven[i, j] = _minimise(search, written, i, j, deadline)
                broken[i] = _misclassified(search, slice(i, i + 1))[0]
    return proven, broken, searched


def worst_margin(model: nn.Module, images: Tensor, labels: Tensor, eps: float, *, time_limit: float = 60.0) -> Margins:
    """The smallest margin over each sample's region, with its point; arguments and errors as for `exact_linf`.

    `time_limit` is per sample; if it ends the search, `gap` is the remaining uncertainty.
    """
    search = _start(model, images, labels, eps, time_limit)
    _attack(search, (search.lower < search.upper[:, None]).nonzero())
    for i in range(len(search.labels)):
        deadline, written = time.monotonic() + time_limit, _write(search, i)
        for j in search.lower[i].argsort().tolist():
            if search.lower[i, j] < search.upper[i]:
                _minimise(search, written, i, j, deadline, cutoff=float(search.upper[i]))
    return Margins(_least(search), search.upper, search.point.view(search.shape))


def _start(model: nn.Module, images: Tensor, labels: Tensor, eps: float, time_limit: float) -> SearchState:
    """Initialise the search with bounds and the clean images."""
    positive("time_limit", time_limit)
    images, labels = check_inputs(images, labels)
    wide = double(model)
    net = network(wide, images)
    check_labels(labels, net.widths[-1])
    ball = region(images, "Linf", ThreatModel("Linf", eps).eps)
    parts, lower = [], []
    for rows in torch.arange(len(labels)).split(_BATCH):
        here = ball[rows]
        parts.append(hidden_bounds(net, here))
        lower.append(margins_below(net, here, parts[-1], labels[rows]))
    hidden = [
        (torch.cat([low for low, _ in layer]), torch.cat([high for _, high in layer]))
        for layer in zip(*parts, strict=True)
    ]
    bounds = torch.cat(lower) if lower else torch.zeros(0, net.widths[-1], dtype=torch.float64)
    return start_search(wide, net, images, labels, ball, hidden, bounds, need=torch.zeros_like(bounds))


def start_search(
    model: Callable[[Tensor], Tensor],
    net: Network,
    images: Tensor,
    labels: Tensor,
    ball: Region,
    hidden: list[Interval],
    lower: Tensor,
    *,
    need: Tensor,
    tolerance: float = TOLERANCE,
) -> SearchState:
    """Initialise a search with clean images (N, …), in float64, and bounds. Raises ValueError for too large networks."""
    matrices = [dense(net, k) for k in range(len(net.stages))]
    point, upper = images.flatten(1).clone(), torch.full((len(labels),), torch.inf, dtype=torch.float64)
    search = SearchState(
        model, net, images.shape, labels, ball, hidden, matrices, need, tolerance, lower.clone(), point, upper
    )
    _meet(search, torch.arange(len(labels)), point.clone())
    return search


def _attack(search: SearchState, pairs: Tensor) -> None:
    """For each pair (sample, class), gradient descent on its margin by decreasing sign steps, which avoids most searches."""
    for some in pairs.split(_PAIRS):
        sample, other = some.unbind(1)
        low, high, label = search.ball.low[sample], search.ball.high[sample], search.labels[sample]
        x = search.point[sample]
        for step in range(_STEPS):
            x.requires_grad_()
            with torch.enable_grad():
                logits = search.net(x)
                gap = (logits.gather(1, label[:, None]) - logits.gather(1, other[:, None])).sum()
            (gradient,) = torch.autograd.grad(gap, x)
            # The first step reaches the bound of every pixel, which is the optimum for a linear model.
            x = (x.detach() - (high - low) * (1 - step / _STEPS) * gradient.sign()).clamp(low, high)
            _meet(search, sample, x)


def _meet(search: SearchState, rows: Tensor, x: Tensor) -> None:
    """Keep each sample's point with the smallest margin, computed by the model, among `x` and earlier points."""
    with torch.no_grad():
        margins = margin(search.model(x.view(-1, *search.shape[1:])), search.labels[rows])
    best = search.upper.scatter_reduce(0, rows, margins, "amin")
    better = (margins == best[rows]) & (margins < search.upper[rows])
    search.upper.copy_(best)
    search.point[rows[better]] = x[better]


def _misclassified(search: SearchState, rows: slice = slice(None)) -> Tensor:
    with torch.no_grad():
        logits = search.model(search.point[rows].view(-1, *search.shape[1:]))
    return logits.argmax(1) != search.labels[rows]


def _least(search: SearchState) -> Tensor:
    """The lower bound over all classes; evaluated points are below it only by rounding."""
    return torch.minimum(search.lower.amin(1), search.upper)


def _write(search: SearchState, i: int) -> Program:
    hidden = [(low[i].numpy(), high[i].numpy()) for low, high in search.hidden]
    return program(search.matrices, (search.ball.low[i].numpy(), search.ball.high[i].numpy()), hidden)


def _minimise(
    search: SearchState, written: Program, i: int, j: int, deadline: float, cutoff: float | None = None
) -> bool:
    """Minimise logit[label] - logit[j] in the region of sample `i`; return whether it is proven to be positive.

    Points above `cutoff` are ignored; default: the threshold of a positive margin.
    """
    label, left = int(search.labels[i]), deadline - time.monotonic()
    if left <= 0:
        return False
    objective, offset = written.map[label] - written.map[j], float(written.offset[label] - written.offset[j])
    scale = max(float(np.abs(objective).max()), np.finfo(float).tiny)
    threshold = float(search.need[i, j]) + search.tolerance * max(1.0, scale)
    limit = threshold if cutoff is None else cutoff
    row, side = objective / scale, (limit - offset) / scale
    result = minimise(row, side, written, left)
    bound = -np.inf
    if result.status == _INFEASIBLE:
        bound = limit
    elif result.mip_dual_bound is not None:
        bound = float(result.mip_dual_bound) * scale + offset
    search.lower[i, j] = max(float(search.lower[i, j]), bound)
    if result.x is not None:
        low, high = search.ball.low[i], search.ball.high[i]
        share = torch.from_numpy(np.asarray(result.x[: len(low)])).clamp(0, 1)
        _meet(search, torch.tensor([i]), (low + (high - low) * share).clamp(low, high)[None])
    return bool(bound >= threshold)
