"""Models in float16 and bfloat16, which are judged as they are, and logits that have no more digits."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn

from gauntlet.bench.models.parts.errors import ModelError
from gauntlet.leaderboard.results.record import Flag

HALF = (torch.bfloat16, torch.float16)
"""Precisions of models that are judged as they are, in less than float32."""
_MANY_VALUES = 32
"""Different logits from which on it is no accident that half precision has them all."""


def first_floating(model: nn.Module) -> Tensor | None:
    """The first floating parameter or buffer of a model, whose precision is that of its input; None without any."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((tensor for tensor in tensors if tensor.is_floating_point()), None)


def refuse_storage_only(model: nn.Module) -> None:
    """Refuse float8 and smaller formats, in which weights are stored and nothing is computed."""
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64, *HALF):
            raise ModelError(
                f"the model holds {name} in {tensor.dtype}, in which torch does not compute: call model.float()"
            )


def coarse_logits(logits: Tensor, own: torch.dtype | None) -> list[Flag]:
    """A warning if the logits have the precision of a half-precision format, whatever dtype they are returned in.

    `own`: that format, if the model's parameters have it.
    """
    for dtype in (own,) if own else HALF:
        if dtype != own and logits.dtype != dtype and not _rounded_to(dtype, logits):
            continue
        name, bits = str(dtype).removeprefix("torch."), 1 - round(math.log2(torch.finfo(dtype).eps))
        message = (
            f"The logits have the precision of {name}, {bits} binary digits: attacks and verdicts "
            "see steps and ties where the network in float32 has none. Evaluate the model in float32, without autocast or half "
            "precision in its forward."
        )
        if dtype == own:
            message = (
                f"The network is in {name}, {bits} binary digits, and is judged in its own precision: verdicts are those of the "
                "rounded network, with steps and ties where the same network in float32 has none. Evaluate model.float() if "
                "that is the network in use."
            )
        return [Flag("coarse-logits", "warn", message)]
    return []


def half_precision(model: nn.Module) -> torch.dtype | None:
    """The precision of a model in less than float32; None for others."""
    first = first_floating(model)
    return first.dtype if first is not None and first.dtype in HALF else None


def own_precision(model: nn.Module) -> str:
    """The name of the precision in which a model is judged: `float32` also for float64, and for what has no floating weights."""
    return str(half_precision(model) or torch.float32).removeprefix("torch.")


def _rounded_to(dtype: torch.dtype, logits: Tensor) -> bool:
    values = logits[logits.isfinite()].to(torch.float64).unique()
    if len(values) < _MANY_VALUES or bool((values.to(dtype).to(torch.float64) != values).any()):
        return False
    # Floating-point numbers are finer near 0. Counts and shares of votes are not: they are multiples of one step.
    step = torch.finfo(dtype).eps * 2.0 ** math.floor(math.log2(values.abs().max()))
    return bool((values / step != (values / step).round()).any())
