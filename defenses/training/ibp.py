"""IBP: Gowal et al., "On the effectiveness of interval bound propagation", 2018, arXiv 1810.12715."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, linear, relu

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.defenses.training.recipe import Recipe

WIDER = 4 / 3
"""Factor of the training eps over that of the threat model, as in the authors' defaults (0.33 for 0.3)."""
WARM_UP = 0.05
RAMP = 0.5
"""Shares of the training: WARM_UP on clean images only; during RAMP eps grows from 0 and kappa falls from 1 to 0.5."""


def loss(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator, done: float = 1.0
) -> Tensor:
    """kappa · CE(f(x), y) + (1 − kappa) · CE(worst logits in the ball, y), both scheduled.

    As in the authors' code (google-deepmind/interval-bound-propagation, examples/train.py) both schedules are linear.
    """
    layers, last = plain_layers(model)
    ramp = min(max((done - WARM_UP) / RAMP, 0.0), 1.0)
    kappa = 1 - ramp / 2
    natural = cross_entropy(model(x), y)
    # In float32, since small radii would vanish beside their centres in low precision.
    with torch.autocast(x.device.type, enabled=False):
        worst = cross_entropy(worst_logits(layers, last, x, y, ramp * WIDER * threat.eps), y)
    return kappa * natural + (1 - kappa) * worst


def worst_logits(layers: Sequence[nn.Module], last: nn.Linear, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Upper bounds (N, K) of the differences of the logits to the label's logit, in the Linf ball of `eps` and the box.

    The last layer is merged with the differences (elision in the paper), which is tighter than differences of bounds.
    """
    low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    for layer in layers:
        low, high = bounds_after(layer, low, high)
    centre, radius = (low + high) / 2, (high - low) / 2
    rows = last.weight - last.weight[y][:, None]  # (N, K, D)
    differences = (rows @ centre[:, :, None] + rows.abs() @ radius[:, :, None])[:, :, 0]
    return differences if last.bias is None else differences + last.bias - last.bias[y][:, None]


def bounds_after(layer: nn.Module, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of a layer's output from bounds of its input."""
    if isinstance(layer, nn.Linear | nn.Conv2d):
        centre, radius = (low + high) / 2, (high - low) / 2
        if isinstance(layer, nn.Linear):
            radius = linear(radius, layer.weight.abs())
        else:
            radius = conv2d(radius, layer.weight.abs(), None, layer.stride, layer.padding, layer.dilation, layer.groups)
        centre = layer(centre)
        return centre - radius, centre + radius
    if isinstance(layer, nn.ReLU):
        return relu(low), relu(high)
    return layer(low), layer(high)


def plain_layers(model: nn.Module) -> tuple[list[nn.Module], nn.Linear]:
    """The layers of nested sequences in order, and the last layer separately.

    Raises ValueError unless the model is a sequence of Linear, Conv2d, ReLU, Flatten and Identity that ends with Linear.
    """
    layers = list(_unrolled(model))
    for layer in layers:
        known = isinstance(layer, nn.Linear | nn.ReLU | nn.Flatten | nn.Identity)
        if not known and not (isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros"):
            raise ValueError(
                f"IBP has no bounds for {type(layer).__name__}: train an nn.Sequential of Linear, Conv2d (zero padding), "
                "ReLU and Flatten, or choose another recipe"
            )
    last = layers.pop() if layers else None
    if not isinstance(last, nn.Linear):
        raise ValueError(
            f"IBP needs a Linear layer at the end, not {type(last).__name__}: choose a model that ends with one"
        )
    return layers, last


def _unrolled(model: nn.Module) -> Iterator[nn.Module]:
    if isinstance(model, nn.Sequential):
        for part in model:
            yield from _unrolled(part)
    else:
        yield model


RECIPE = Recipe(
    name="ibp",
    summary="interval bound propagation, eps a third larger, kappa 0.5",
    source="Gowal et al. 2018, arXiv 1810.12715; one-cycle rate, ramp over half of the training",
    loss=loss,
    norm="Linf",
    layers=True,
    epochs=240,
)
