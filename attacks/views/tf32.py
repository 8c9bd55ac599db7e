"""A form of a model that computes in TF32, as PyTorch does by default for convolutions, where the rest of the run does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn


class TF32(nn.Module):
    """`model` with TF32 for convolutions and matrix products, in passes forward and back; other code keeps its setting.

    TF32 rounds factors to 10 bits and has the range and the sums of float32, so that it needs no scaling. Only CUDA has it.
    """

    def __init__(self, model: nn.Module) -> None:
        """Wraps `model` itself."""
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K)."""
        before = _setting()
        inner = images.view_as(images)
        if inner.requires_grad:
            # The last gradient of a pass back, after which the setting is the former one again.
            inner.register_hook(lambda gradient: _set(before))
        _set((True, True))
        try:
            logits: Tensor = self.model(inner)
        finally:
            _set(before)
        logits = logits.view_as(logits)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: _set((True, True)))
        return logits


_assumed = ContextVar("whether TF32 is assumed", default=False)


def has_tf32(device: torch.device) -> bool:
    """Whether the device computes in TF32: GPUs from Ampere on (compute capability 8.0)."""
    if _assumed.get():
        return True
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


@contextmanager
def assumed_tf32() -> Iterator[None]:
    """Accept TF32 on every device. Others than `has_tf32` names compute in float32 under its name: for recordings of calls."""
    token = _assumed.set(True)
    try:
        yield
    finally:
        _assumed.reset(token)


def _setting() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def _set(setting: tuple[bool, bool]) -> None:
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = setting


@contextmanager
def kept_setting() -> Iterator[None]:
    """The setting is the former one again afterwards, also where a pass back fails halfway."""
    before = _setting()
    try:
        yield
    finally:
        _set(before)
