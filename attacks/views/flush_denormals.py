"""A copy of a model without denormal weights, whose products a CPU computes many times as slowly as others."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def flush_denormals(model: nn.Module) -> nn.Module | None:
    """A copy of `model` with the denormal entries of its parameters and buffers set to 0; None if there are none.

    An entry changes by less than the smallest normal number of its dtype, 1.2e-38 in float32. Errors of the copy are raised.
    """
    if not any(_denormal(one).any() for one in _floating(model)):
        return None
    form = copy.deepcopy(model).requires_grad_(False)
    with torch.no_grad():
        for one in _floating(form):
            one[_denormal(one)] = 0
    return form


def _floating(model: nn.Module) -> list[Tensor]:
    tensors = [*model.parameters(), *model.buffers()]
    return [one for one in tensors if one.is_floating_point() and one.layout == torch.strided]


def _denormal(values: Tensor) -> Tensor:
    return (values != 0) & (values.abs() < torch.finfo(values.dtype).smallest_normal)
