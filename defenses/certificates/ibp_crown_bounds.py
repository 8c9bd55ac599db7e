"""IBP and CROWN bounds of a ReLU network: lower bounds of its margins over a ball, without search.

Interval bounds as in Gowal et al., "On the effectiveness of interval bound propagation for training verifiably robust
models" (2018, arXiv 1810.12715), and backward linear bounds of Zhang et al., "Efficient neural network robustness
certification with general activation functions" (CROWN, NeurIPS 2018, arXiv 1811.00866), all in float64 on the CPU. The
ball is intersected with the box [0, 1], which gives a box for Linf. Balls of other norms are used where a linear function of
the pixels is bounded.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.threat import Norm, ThreatModel
from gauntlet.attacks.ops.validators import one_of, whole_number
from gauntlet.defenses.certificates.relu_network import Network, double
from gauntlet.defenses.certificates.relu_reader import network
from gauntlet.defenses.certificates.relu_region import Region, region

Method = Literal["crown", "ibp"]
Interval = tuple[Tensor, Tensor]
_ELEMENTS = 2**18
"""Float64 numbers per chunk of backward rows: 2 MiB fit into the cache, which is 3 times faster than 128 MiB."""


def margin_bounds(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    eps: float,
    *,
    norm: Norm = "Linf",
    method: Method = "crown",
    batch_size: int = 256,
) -> Tensor:
    """Lower bounds of logit[label] - logit[j] over the ball of radius `eps` in `norm` and the box, float64 (N, K).

    A row whose entries are all positive proves its sample robust; the label's own entry is infinite. `model`: a chain of
    the layers that `gauntlet.defenses.certificates.relu_reader` reads, taken as in eval mode, which is not changed.
    `images` (N, …) in [0, 1] and `labels` (N,). `method`: `ibp`, or the tighter `crown`, which uses the better of both
    bounds. Rounding in float64 is not accounted for (about 1e-13 of the logits' size).

    Raises ValueError for other operations and for bad arguments.
    """
    one_of("method", method, get_args(Method))
    whole_number("batch_size", batch_size, 1)
    images, labels = check_inputs(images, labels)
    net = network(double(model), images)
    check_labels(labels, net.widths[-1])
    threat = ThreatModel(norm, eps)
    parts = []
    for rows in torch.arange(len(labels)).split(batch_size):
        ball = region(images[rows], norm, threat.eps)
        parts.append(margins_below(net, ball, hidden_bounds(net, ball, method), labels[rows], method))
    return torch.cat(parts) if parts else torch.zeros(0, net.widths[-1], dtype=torch.float64)


def check_inputs(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Move both to the CPU, images in float64. Raises ValueError for pixels outside [0, 1] and for other shapes."""
    images, labels = images.detach().to("cpu", torch.float64), labels.detach().cpu()
    if images.ndim < 2 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"images have shape {tuple(images.shape)} and labels {tuple(labels.shape)}: give (N, …) and (N,)"
        )
    outside = ~((images >= 0) & (images <= 1)).flatten(1).all(1)
    if outside.any():
        raise ValueError(
            f"images[{int(outside.nonzero()[0])}] has pixels outside [0, 1]: the box is part of the region"
        )
    return images, labels


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise ValueError unless all labels are classes of the network."""
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels have dtype {labels.dtype}: give whole numbers, as int64")
    bad = (labels < 0) | (labels >= classes)
    if bad.any():
        index = int(bad.nonzero()[0])
        raise ValueError(f"labels[{index}] = {int(labels[index])} is outside 0..{classes - 1}, the model's classes")


def hidden_bounds(net: Network, ball: Region, method: Method = "crown") -> list[Interval]:
    """Bounds of the inputs of each ReLU over the region, (N, width) each."""
    bounds: list[Interval] = []
    low, high = ball.low, ball.high
    for k, stage in enumerate(net.stages[:-1]):
        if k:
            low, high = low.relu(), high.relu()
        for affine in stage:
            centre, radius = affine.push((low + high) / 2) + affine.bias, affine.spread((high - low) / 2)
            low, high = centre - radius, centre + radius
        if k == 0 and ball.norm != "Linf":
            low, high = _within_ball(net, ball, low, high)
        if method == "crown" and (k or ball.norm != "Linf"):
            low, high = _tightened(net, k, ball, bounds, low, high)
        bounds.append((low, high))
    return bounds


def _within_ball(net: Network, ball: Region, low: Tensor, high: Tensor) -> Interval:
    """Bounds of the first ReLUs by the dual norm of their weights, if tighter than those of the box."""
    sizes, order = [], 2 if ball.norm == "L2" else torch.inf
    for place in torch.arange(net.widths[1]).split(_rows_at_once(net)):
        row = torch.zeros(len(place), net.widths[1], dtype=torch.float64)
        row[torch.arange(len(place)), place] = 1
        for affine in reversed(net.stages[0]):
            row = affine.pull(row)
        sizes.append(torch.linalg.vector_norm(row, ord=order, dim=1))
    centre, radius = ball.centre, ball.radius * torch.cat(sizes)
    for affine in net.stages[0]:
        centre = affine.push(centre) + affine.bias
    return torch.maximum(low, centre - radius), torch.minimum(high, centre + radius)


def _tightened(net: Network, k: int, ball: Region, hidden: list[Interval], low: Tensor, high: Tensor) -> Interval:
    """Backward bounds of the ReLUs of stage `k` that interval bounds leave unstable."""
    low, high = low.clone(), high.clone()
    sample, unit = ((low < 0) & (high > 0)).nonzero().unbind(1)
    for place in torch.arange(len(sample)).split(_rows_at_once(net)):
        s, u = sample[place], unit[place]
        row = torch.zeros(len(s), net.widths[k + 1], dtype=torch.float64)
        row[torch.arange(len(s)), u] = 1
        low[s, u] = torch.maximum(low[s, u], _below(net, k, row, s, ball, hidden))
        high[s, u] = torch.minimum(high[s, u], -_below(net, k, -row, s, ball, hidden))
    return low, high


def margins_below(
    net: Network, ball: Region, hidden: list[Interval], labels: Tensor, method: Method = "crown"
) -> Tensor:
    """Lower bounds of logit[label] - logit[j], (N, K); the label's own entry is infinite."""
    n, classes = len(labels), net.widths[-1]
    sample = torch.arange(n).repeat_interleave(classes)
    other = torch.arange(classes).repeat(n)
    bounds = torch.empty(n * classes, dtype=torch.float64)
    for place in torch.arange(n * classes).split(_rows_at_once(net)):
        s, j = sample[place], other[place]
        row = torch.zeros(len(s), classes, dtype=torch.float64)
        row[torch.arange(len(s)), labels[s]] = 1
        row[torch.arange(len(s)), j] -= 1
        best = _below(net, len(net.stages) - 1, row, s, ball, hidden, intervals=True)
        if method == "crown":
            best = torch.maximum(best, _below(net, len(net.stages) - 1, row, s, ball, hidden))
        bounds[place] = best
    return bounds.view(n, classes).scatter(1, labels[:, None], torch.inf)


def _rows_at_once(net: Network) -> int:
    return max(1, _ELEMENTS // max(net.widths))


def _below(
    net: Network, k: int, row: Tensor, sample: Tensor, ball: Region, hidden: list[Interval], *, intervals: bool = False
) -> Tensor:
    """A lower bound of row · (outputs of stage k) over the sample's region, for P rows of the samples (P,).

    Backwards, each ReLU is replaced by a line below or above it, by the sign of the row (CROWN, section 3.2, with the
    adaptive lower line: slope 1 if the larger part of the interval is positive, else 0). `intervals`: stop at the first ReLU
    and use its interval.
    """
    constant = torch.zeros(len(row), dtype=torch.float64)
    for stage in range(k, -1, -1):
        for affine in reversed(net.stages[stage]):
            constant = constant + row @ affine.bias
            row = affine.pull(row)
        if stage == 0:
            break
        low, high = (bound[sample] for bound in hidden[stage - 1])
        if intervals:
            low, high = low.relu(), high.relu()
            return constant + (row * (low + high) / 2).sum(1) - (row.abs() * (high - low) / 2).sum(1)
        below, above = low.clamp_max(0), high.clamp_min(0)
        slope = above / (above - below).clamp_min(torch.finfo(torch.float64).tiny)
        positive, negative = row.clamp_min(0), row.clamp_max(0)
        constant = constant - (negative * slope * below).sum(1)
        row = positive * (high > -low) + negative * slope
    return constant + ball[sample].least(row)
