"""Recording of the passes that an evaluation makes, and of the operations of the attack between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gauntlet.bench.environment.stopwatch import Stopwatch, current_part, measured_by
from gauntlet.bench.speed.device_costs import Call, Form

_WAITS = {"tolist", "item", "cpu", "numpy", "nonzero", "unique", "__bool__", "__int__", "__float__", "__index__"}
"""Functions of tensors for which the host waits for the device."""


@dataclass
class PartCalls:
    """What was recorded of a part of an evaluation."""

    calls: Counter[Call] = field(default_factory=Counter)
    operations: Counter[float] = field(default_factory=Counter)
    """By the bytes that one reads and writes for a pixel of one image of the batch; 0 for operations on no images."""
    waits: int = 0
    """How often the host waits for the device, at least."""

    def __add__(self, more: PartCalls) -> PartCalls:
        return PartCalls(self.calls + more.calls, self.operations + more.operations, self.waits + more.waits)


class CallLog:
    """The record. Copies of a recorded model share it, so that passes of converted forms are recorded, too."""

    def __init__(self, image: torch.Size) -> None:
        """`image`: the shape (C, H, W) of an image."""
        self.image = image
        self.parts: dict[str, PartCalls] = {}
        self.inside = False
        """Whether the model runs, whose operations are counted by its calls."""

    def __deepcopy__(self, memo: Any) -> CallLog:
        return self

    @property
    def part(self) -> PartCalls:
        """The part of the evaluation that runs."""
        return self.parts.setdefault(current_part() or "other", PartCalls())

    def total(self, *names: str) -> PartCalls:
        """The parts of those names together; all of them without names."""
        together = PartCalls()
        for name, part in self.parts.items():
            if not names or name in names:
                together = together + part
        return together


class Recorded(nn.Module):
    """A model whose passes are recorded."""

    def __init__(self, model: nn.Module, log: CallLog) -> None:
        """Wraps `model`, in its mode."""
        super().__init__()
        self.model = model
        self.log = log
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """The model's logits."""
        log, calls, form, count = self.log, self.log.part.calls, _form(images.device.type), len(images)
        inner = images.view_as(images)
        forward, both = Call(count, False, form), Call(count, True, form)
        returned = False

        def back(gradient: Tensor) -> None:
            nonlocal returned
            # Another pass back through the same graph costs as much as a forward pass.
            calls[forward] += 1 if returned else -1
            calls[both] += 0 if returned else 1
            returned, log.inside = True, inner.requires_grad

        def leave(gradient: Tensor) -> None:
            log.inside = False

        if inner.requires_grad:
            inner.register_hook(leave)
        log.inside = True
        try:
            logits: Tensor = self.model(inner)
        finally:
            log.inside = False
        calls[forward] += 1
        if logits.requires_grad:
            logits.register_hook(back)
        return logits


@contextmanager
def recorded_operations(log: CallLog) -> Iterator[None]:
    """Record operations outside the model within the context, by the part of the evaluation that runs."""
    with measured_by(Stopwatch()), _Waits(log), _Operations(log):
        yield


class _Operations(TorchDispatchMode):
    def __init__(self, log: CallLog) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.log = log

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not self.log.inside and not func.is_view and "empty" not in func.__name__:
            moved = sum(_moved(one, self.log.image) for one in _tensors((args, kwargs or {}, out)))
            self.log.part.operations[moved] += 1
        return out


class _Waits(TorchFunctionMode):
    def __init__(self, log: CallLog) -> None:
        super().__init__()
        self.log = log

    def __torch_function__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _WAITS or (name in ("__getitem__", "__setitem__") and _masked(args[1])):
            self.log.part.waits += 1
        return func(*args, **(kwargs or {}))


def _form(device: str) -> Form:
    if torch.is_autocast_enabled(device):
        return "bf16"
    if not torch.backends.cudnn.allow_tf32:
        return "float32"
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "default"


def _masked(index: Any) -> bool:
    """Whether an index is or holds a mask, whose size the host must know."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, Tensor) and part.dtype == torch.bool for part in parts)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(value.values())
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for one in value:
            yield from _tensors(one)


def _moved(tensor: Tensor, image: torch.Size) -> float:
    """Bytes for a pixel of one image, where the tensor holds images, in their shape or flattened; else 0."""
    pixels = image.numel()
    shaped = tensor.shape[-len(image) :] == image or (tensor.dim() >= 2 and tensor.shape[-1] == pixels)
    return tensor.numel() / pixels * tensor.element_size() if shaped else 0.0
