"""A form of a model that `torch.compile` compiled, for batches of a few sizes, used only where it was measured to be faster.

Each size is compiled once forward and once forward and back. So a batch is cut into parts of these sizes, and the last part is
filled up with copies of its last image. Models whose answers depend on the other images of a batch are not compiled.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.rounding import difference
from gauntlet.attacks.views.fast_model import SAME, SIMILAR, ChannelsLast, FastModel, LowPrecision, full_float32
from gauntlet.attacks.views.guard import guarded
from gauntlet.attacks.views.tf32 import TF32

NAME = "compiled"
"""The part of a form's name."""
SIZES = (256, 64, 16)
"""Sizes of batches that are compiled, the largest first."""
GAIN = 1.05
"""How many times as fast as before a form must be to be used."""
_REPEATS = 3
_CALLS = 64


class CompileError(RuntimeError):
    """A form cannot be compiled, or the compiled one answers otherwise; the message says why in one line."""


class Compiled(nn.Module):
    """`model`, compiled. Within modes that watch or replace its operations it is the model as it is."""

    def __init__(self, model: nn.Module) -> None:
        """Compiles when it is called. Errors of the compiler are raised then."""
        super().__init__()
        import torch._dynamo  # takes seconds, and only compiling needs it

        # By default eight compiled calls of a function are kept, of all models together; then it runs as it is, without a word.
        torch._dynamo.config.cache_size_limit = max(_CALLS, torch._dynamo.config.cache_size_limit)
        self.model = model
        self.training = model.training
        # In a tuple, since the compiled module would be registered as a second one.
        self._compiled: tuple[Callable[[Tensor], Tensor]] = (torch.compile(model, dynamic=False),)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K)."""
        if not len(images) or _watched():
            eager: Tensor = self.model(images)
            return eager
        outputs, start = [], 0
        for size in parts_of(len(images)):
            part = images[start : start + size]
            missing = size - len(part)
            filled = torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part
            outputs.append(self._compiled[0](filled)[: len(part)])
            start += size
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def parts_of(count: int) -> list[int]:
    """The sizes into which so many images are cut; their sum is at least `count`, and at most half of a part is filled up,
    but for the smallest."""
    parts = []
    while count > 0:
        whole = next((size for size in reversed(SIZES) if size >= count), None)
        if whole is None or (2 * count < whole and whole != SIZES[-1]):
            whole = next((size for size in SIZES if size <= count), SIZES[-1])
        parts.append(whole)
        count -= whole
    return parts


def compiled_form(form: FastModel, example: Tensor, count: int) -> FastModel:
    """The form, compiled. `example` (N, C, H, W) are a few images, repeated to a batch of `count`.

    Raises CompileError where that fails, or where logits or gradients differ by more than rounding.
    """
    few = _repeated(example, count)
    bound = SAME if form.full is None else SIMILAR
    try:
        with full_float32(), guarded(nn.Module(), 0):
            module = _with_compiled(form)
            logits, gradient = _answers(form.module, few)
            new_logits, new_gradient = _answers(module, few)
    except Exception as error:  # the compiler may raise anything
        raise CompileError(_first_line(error)) from error
    if not (apart := difference(new_logits, logits)) <= bound:
        raise CompileError(f"its logits would differ by {apart:.2g} of what decides")
    if not _alike(new_gradient, gradient, bound):
        raise CompileError("its gradients would differ")
    return replace(form, module=module.requires_grad_(False), form=f"{NAME}+{form.form}".strip("+"))


def faster_compiled(form: FastModel, example: Tensor, count: int) -> FastModel:
    """`compiled_form` where it makes passes forward and back over a batch of `count` at least `GAIN` times as fast.

    Raises CompileError elsewhere too.
    """
    made, few = compiled_form(form, example, count), _repeated(example, count)
    with full_float32(), guarded(nn.Module(), 0):
        times = _seconds(form.module, few) / _seconds(made.module, few)
    if times < GAIN:
        raise CompileError(f"it would be {times:.2f} times as fast")
    return made


def _repeated(example: Tensor, count: int) -> Tensor:
    """The images again and again, up to the largest part of a batch of `count`."""
    size = max(parts_of(count))
    return example.detach().repeat(-(-size // len(example)), *[1] * (example.ndim - 1))[:size]


def _with_compiled(form: FastModel) -> nn.Module:
    """A copy of the form in which the model within precision and layout is compiled."""
    module: nn.Module = copy.deepcopy(form.module)
    outer: Any = None
    inner: Any = module
    while isinstance(inner, TF32 | LowPrecision | ChannelsLast):
        outer, inner = inner, inner.model
    if outer is None:
        return Compiled(module)
    outer.model = Compiled(inner)
    return module


def _answers(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits, and the gradient of their weighted sum; None where none reaches the images."""
    with torch.enable_grad():
        point = images.clone().requires_grad_()
        logits: Tensor = model(point)
        if not logits.requires_grad:
            return logits.detach(), None
        # All weights alike would give 0 where logits are normalised.
        weights = torch.linspace(1, 2, logits.shape[1], device=logits.device)
        (gradient,) = torch.autograd.grad((logits * weights).sum(), point, allow_unused=True)
    with torch.no_grad():
        alone: Tensor = model(images)
    return alone, gradient


def _alike(one: Tensor | None, other: Tensor | None, bound: float) -> bool:
    """Whether gradients differ by rounding only, image by image: by a hundred times what logits may."""
    if one is None or other is None:
        return one is other
    apart = (one - other).abs().flatten(1).amax(1)
    return bool((apart <= 100 * bound * other.abs().flatten(1).amax(1)).all())


def _seconds(model: nn.Module, batch: Tensor) -> float:
    """Of a pass forward and back, the shortest of a few after the first, in which it may be compiled."""
    taken = []
    for _ in range(_REPEATS + 1):
        began = time.perf_counter()
        _answers(model, batch)
        if batch.is_cuda:
            torch.cuda.synchronize(batch.device)
        taken.append(time.perf_counter() - began)
    return min(taken[1:])


def _watched() -> bool:
    """Whether a mode sees each operation, such as automatic BPDA: it would not see those of compiled code."""
    return bool(torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack())


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
