"""The form of the pipeline that native attacks run on: chosen once, or rebuilt by its stored name."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gauntlet.attacks.solving.stage import Stage
from gauntlet.attacks.views.compiled import NAME as _COMPILED
from gauntlet.attacks.views.compiled import CompileError, compiled_form, faster_compiled
from gauntlet.attacks.views.fast_model import FastModel, choose_form, fast_precisions, full_float32
from gauntlet.attacks.views.guard import guarded
from gauntlet.attacks.views.tf32 import kept_setting
from gauntlet.bench.environment.clock import synchronised_time

_PRECISIONS = {"bf16": "bfloat16", "fp16": "float16", "tf32": "tf32"}
FORM_IMAGES = 8
"""Images that forms are compared on."""
CLEARLY = 1.25
"""How much faster a pass in low precision must be, forward and back, for `auto` to take it: the last stages are in float32."""
_TIMED_IMAGES = 32
_ENOUGH = 1.0
"""Seconds after which passes are not timed again."""
_ROUNDS = 2
_FEW_STEPS = 2
"""Steps of an attack for which no form is chosen."""
_LAYOUT, _FOLDED, _FLUSHED = "channels_last", "folded", "flushed"


class NotCompiledWarning(UserWarning):
    """A model that was to be compiled is not; the message says why."""


class FormError(RuntimeError):
    """A form that another machine chose cannot be made on this one."""


def rebuilt_form(view: nn.Module, name: str, example: Tensor, slots: int) -> FastModel:
    """The form called `name`, such as `bf16+channels_last+folded`, of `view`; `example` (N, C, H, W) are a few images.

    `slots`: the usual size of a batch.

    Raises FormError where this device cannot make it.
    """
    if not name:
        return FastModel(view, "")
    parts = set(name.split("+"))
    precision = next((_PRECISIONS[part] for part in parts if part in _PRECISIONS), "float32")
    try:
        changes = {"layout": _LAYOUT in parts, "fold": _FOLDED in parts, "flush": _FLUSHED in parts}
        form = choose_form(view, example, **changes, precision=precision)
        if _COMPILED in parts:
            form = compiled_form(form, example, slots)
    except (ValueError, CompileError) as error:
        raise FormError(f"the form {name!r} that was chosen for this model cannot be made here: {error}") from error
    if form.form != name:
        raise FormError(
            f"the form {name!r} that was chosen for this model cannot be made on {example.device}, only {form.form!r}: run it "
            "on a device like the first one, or in a new folder with --precision float32"
        )
    return form


def pays(stages: Sequence[Stage]) -> bool:
    """Whether a form may save more than choosing it takes, some twenty passes over few images: not in a step or two."""
    return sum(stage.steps_expected for stage in stages) > _FEW_STEPS


def chosen_form(view: nn.Module, example: Tensor, precision: str, compiled: int | None = None) -> FastModel:
    """The form for a setting of `--precision`; `auto` chooses layout and folding, and low precision where it pays.

    `compiled`: the usual size of a batch, if the form is to be compiled where that is faster; elsewhere a warning says why not.
    """
    if precision == "float32":
        form = FastModel(view, "")
    else:
        form = _fastest(view, example) if precision == "auto" else choose_form(view, example, precision=precision)
    if compiled is None:
        return form
    try:
        return faster_compiled(form, example, compiled)
    except CompileError as error:
        warnings.warn(f"not compiled: {error}; the model is attacked as it is", NotCompiledWarning, stacklevel=2)
        return form


def _fastest(view: nn.Module, example: Tensor) -> FastModel:
    """The form in float32, or one in low precision: where the device computes in it, the form agrees with the model, and its
    passes are `CLEARLY` faster than those of the best form so far, which is timed."""
    # In the first of the precisions, if there is any.
    form = choose_form(view, example)
    best = form.full or form
    for place, name in enumerate(fast_precisions(example.device, form.work)):
        form = choose_form(view, example, precision=name) if place else form
        if form.full is not None and speed_up(best.module, form.module, example) >= CLEARLY:
            best = form
    return best


def without_low_precision(form: FastModel) -> FastModel:
    """The form in float32: low precision moves the boundary, and with it the distances of minimum-norm attacks."""
    return form.full or form


def speed_up(usual: nn.Module, other: nn.Module, example: Tensor) -> float:
    """Seconds of a pass of `usual`, forward and back, divided by those of `other`: the shortest of some, taken in turn.

    0 where either fails on such a batch.
    """
    images = example.repeat(-(-_TIMED_IMAGES // len(example)), *[1] * (example.ndim - 1))
    seconds: list[tuple[float, float]] = []
    try:
        while len(seconds) <= _ROUNDS and sum(map(sum, seconds)) < _ENOUGH:
            seconds.append((_pass_seconds(usual, images), _pass_seconds(other, images)))
    except Exception:  # Foreign code, which may refuse the batch, and memory, which may run out.
        return 0.0
    # The first passes make what later ones find ready, unless they are so long that it does not matter.
    before, after = (min(column) for column in zip(*(seconds[1:] or seconds), strict=True))
    ratio: float = before / after
    return ratio


def _pass_seconds(model: nn.Module, images: Tensor) -> float:
    with full_float32(), guarded(model, 0), kept_setting(), torch.enable_grad():
        began = synchronised_time()
        points = images.clone().requires_grad_()
        torch.autograd.grad(model(points).sum(), points, allow_unused=True)
        return synchronised_time() - began
