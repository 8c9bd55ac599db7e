"""A faster form of a model for attacks; examples are verified on the model itself.

Four independent changes: batch normalisation folded, denormal weights flushed to 0, tensors in channels_last layout, and low
precision. Speed relative to the unchanged model, forward / forward and backward, on a CPU with AVX512_BF16, one thread,
torch 2.13:

| network, multiplications an image, batch | folded | channels_last | bf16 | all that apply |
| --- | --- | --- | --- | --- |
| CNN for digits, 0.28e6, 64 | - | 0.87 / 0.92 | 1.05 / 1.14 | 0.98 / 1.05 |
| the same, 1024 | - | 0.80 / 1.06 | 1.58 / 2.07 | 1.25 / 1.72 |
| CNN for MNIST, 0.61e6, 16 | - | 0.94 / 1.00 | 0.96 / 1.08 | 0.90 / 1.07 |
| fully connected, 1.9e6, 16 | - | - | 1.40 / 1.63 | 1.40 / 1.63 |
| ResNet-18 an eighth as wide, 8.9e6, 64 | 1.07 / 1.51 | 1.16 / 1.62 | 1.46 / 2.07 | 1.98 / 3.16 |
| ResNet-20, 41e6, 64 | 0.98 / 1.36 | 1.16 / 1.16 | 1.82 / 2.10 | 2.30 / 2.49 |
| ResNet-18, 555e6, 64 | 1.06 / 1.35 | 1.03 / 1.26 | 1.83 / 2.29 | 2.00 / 2.80 |

A CPU takes many times as long for products of denormal numbers (below 1.2e-38 in float32). Training by interval bounds leaves 3 %
of the weights of the CNN for digits denormal: a pass then takes 3 to 4 times as long as without them.

Small networks lose by another layout, and by low precision in small batches. The choice here depends on the device, the layers
and the work for an image, never on a clock or the batch. Whether low precision pays is timed where an evaluation is prepared.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.random import Draws, model_randomness, sample_keys
from gauntlet.attacks.ops.rounding import difference
from gauntlet.attacks.views.flush_denormals import flush_denormals
from gauntlet.attacks.views.fold_batch_norm import fold_batch_norm
from gauntlet.attacks.views.guard import guarded
from gauntlet.attacks.views.scaled_gradient import hooked, with_scaled_gradient
from gauntlet.attacks.views.tf32 import TF32, has_tf32
from gauntlet.attacks.views.work import counted_work

PRECISIONS = {"float32": None, "tf32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SHORT = {torch.bfloat16: "bf16", torch.float16: "fp16"}
LAYOUT_WORK = 4e6
"""Multiplications for an image from which channels_last is chosen: it loses at 0.6e6 and wins at 9e6."""
PRECISION_WORK = 1e6
"""Multiplications for an image from which bfloat16 is tried: below, it loses in batches under 64."""
SAME = 1e-4
"""Largest `gauntlet.attacks.ops.rounding.difference` of a float32 form; logits differ by 1e-7 to 7e-7 of the largest."""
SIMILAR = 0.05
"""The same for a form in low precision; logits differ by 0.003 to 0.013 of the largest."""
_FEW = 8


@dataclass(frozen=True)
class FastModel:
    """A form of a model: the same function up to rounding, unless low precision was chosen."""

    module: nn.Module
    """Images to logits, with frozen parameters; the model itself if nothing was chosen, else a snapshot of its weights."""
    form: str
    """Such as `bf16+channels_last+folded`; empty if nothing was chosen. It decides rounding, so it is part of a key."""
    full: FastModel | None = None
    """The same form in float32, on which the last stages of an attack run; None if this form is in float32. TF32 is low precision
    too: it rounds factors as float16 does."""
    work: float = 0.0
    """Multiplications for an image in convolutions and linear layers; 0 if none was seen, as in a black box."""


def choose_form(
    model: nn.Module,
    example: Tensor,
    *,
    layout: bool | None = None,
    fold: bool | None = None,
    flush: bool | None = None,
    precision: str | None = None,
) -> FastModel:
    """The form of `model` for an attack; `example` (N, ...) are a few of its images, on its device.

    `layout` (channels_last), `fold` (batch normalisation), `flush` (denormal weights), `precision` (`float32`, `bfloat16`, on
    CUDA `tf32` and `float16`): True or a precision tries the change, False omits it, and None chooses: folding always, flushing
    on a CPU, the others by device and size (the first of `fast_precisions`). A form is not used if it cannot be made, raises,
    loses the gradient, or has logits on the first 8 images that differ by more than `SAME` or `SIMILAR`.

    A randomised model is compared under equal draws. Raises ValueError for an unknown precision, for one that the device does not
    have (`missing_precision`), and for an empty example; errors of the model on the example are raised too.
    """
    device = example.device
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} is not known: use one of {', '.join(PRECISIONS)}, or None to choose")
    if precision is not None and (problem := missing_precision(precision, device)):
        raise ValueError(f"{problem}: use bfloat16 or float32")
    if not len(example):
        raise ValueError("example is empty: pass a few images (N, C, H, W) to compare the forms on")
    few = example[:_FEW].detach()
    with counted_work(model, len(few)) as work:
        logits = _logits(model, few)
    gradient = functools.cache(lambda: _gradient(model, few))
    chosen = FastModel(model, "", work=work.image)

    def take(label: str, convert: Callable[[nn.Module], nn.Module | None], bound: float) -> None:
        nonlocal chosen
        form = _converted(chosen.module, convert, few, logits, gradient, bound)
        if form is not None:
            chosen = replace(chosen, module=form, form=f"{label}+{chosen.form}".strip("+"))

    if fold is not False and any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in model.modules()):
        take("folded", lambda form: fold_batch_norm(form, few), SAME)
    if flush or (flush is None and device.type == "cpu"):
        take("flushed", flush_denormals, SAME)
    convolves = few.ndim == 4 and any(isinstance(module, nn.Conv2d) for module in model.modules())
    if convolves and (layout or (layout is None and work.image >= LAYOUT_WORK)):
        take("channels_last", ChannelsLast, SAME)
    if precision is None:
        precision = next(iter(fast_precisions(device, work.image)), "float32")
    # Both leave float64 as it is, and would be wrongly named.
    if any(one.dtype != torch.float32 for one in model.parameters()):
        return chosen
    before, dtype = chosen, PRECISIONS[precision]
    if precision == "tf32":
        # A form that was made here is frozen already; the model itself is not to be.
        take("tf32", lambda form: TF32(form if before.form else copy.deepcopy(form)), SIMILAR)
        return replace(chosen, full=before) if chosen is not before else before
    if dtype is not None:
        take(_SHORT[dtype], lambda form: LowPrecision(form, dtype), SIMILAR)
        if isinstance(chosen.module, LowPrecision):
            # Without autocast its copy is the form in float32: weights are not kept twice.
            full = replace(before, module=chosen.module.model) if before.form else before
            chosen = replace(chosen, full=full)
    return chosen


def fast_precisions(device: torch.device, work: float) -> tuple[str, ...]:
    """The precisions that may make attacks faster on a model with so many multiplications for an image (`FastModel.work`)."""
    tf32 = ("tf32",) if work and has_tf32(device) else ()
    return (*tf32, "bfloat16") if work >= PRECISION_WORK and _computes_bfloat16(device) else tf32


def missing_precision(precision: str, device: torch.device) -> str:
    """Why the device does not have a precision; empty if it does. bfloat16 exists everywhere, if need be emulated."""
    if precision == "float16" and device.type != "cuda":
        return f"precision='float16' is for CUDA, but the device is {device}"
    if precision == "tf32" and not has_tf32(device):
        return f"precision='tf32' exists on CUDA only, from Ampere on, but the device is {device}"
    return ""


class ChannelsLast(nn.Module):
    """A copy of `model` in channels_last layout. Images (N, C, H, W) may have any layout; gradients have that layout."""

    def __init__(self, model: nn.Module) -> None:
        """Copies `model`. Errors of the copy are raised."""
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K)."""
        inner = hooked(images, lambda gradient: torch.empty_like(images).copy_(gradient))
        logits: Tensor = self.model(inner.contiguous(memory_format=torch.channels_last))
        return logits


class LowPrecision(nn.Module):
    """`model` under autocast to `dtype`, with float32 images, logits and gradients.

    Gradients of float16 are scaled (`with_scaled_gradient`).
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        """Wraps a copy of `model`. Errors of the copy are raised."""
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.dtype = dtype
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K), float32."""
        return with_scaled_gradient(self._run, images) if self.dtype == torch.float16 else self._run(images).float()

    def _run(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, dtype=self.dtype):
            logits: Tensor = self.model(images)
        return logits


@contextmanager
def full_float32() -> Iterator[None]:
    """Without TF32, which by default rounds float32 convolutions on CUDA to 10 bits."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _computes_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16; emulated, it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    # torch below 2.6 cannot tell.
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def _compared(model: nn.Module, few: Tensor) -> Iterator[Tensor]:
    """The images for a pass that leaves no trace and draws the same random numbers every time."""
    keys = sample_keys(0, "compare forms", [str(index) for index in range(len(few))], few.device)
    with full_float32(), guarded(model, 0), model_randomness(Draws.start(keys)):
        yield few.clone()


def _logits(model: nn.Module, few: Tensor) -> Tensor:
    with _compared(model, few) as images, torch.no_grad():
        logits: Tensor = model(images)
        return logits


def _gradient(model: nn.Module, few: Tensor) -> Tensor | None:
    """Of the sum of the logits; None where none reaches the images."""
    with _compared(model, few) as images:
        try:
            return torch.autograd.grad(model(images.requires_grad_()).sum(), images)[0]
        except (RuntimeError, TypeError):
            return None


def _converted(
    model: nn.Module,
    convert: Callable[[nn.Module], nn.Module | None],
    few: Tensor,
    logits: Tensor,
    gradient: Callable[[], Tensor | None],
    bound: float,
) -> nn.Module | None:
    """The converted model if it answers `few` as `logits` and `gradient` say, else None."""
    # Foreign code runs here, which may raise anything, warn or print; the attack then runs on the model as it is.
    with guarded(nn.Module(), 0):
        try:
            form = convert(model)
            if form is None:
                return None
            answers = _logits(form, few)
            wanted, received = gradient(), _gradient(form, few)
        except Exception:
            return None
    kept = wanted is None or (received is not None and bool((received.isfinite() | ~wanted.isfinite()).all()))
    return form.requires_grad_(False) if kept and difference(answers, logits) <= bound else None
