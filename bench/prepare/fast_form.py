"""The form of the pipeline that native attacks run on: chosen once, or rebuilt by its stored name."""

from __future__ import annotations

import logging

from torch import Tensor, nn

from gauntlet.attacks.views.compiled import NAME as _COMPILED
from gauntlet.attacks.views.compiled import CompileError, compiled_form, faster_compiled
from gauntlet.attacks.views.fast_model import FastModel, choose_form

_PRECISIONS = {"bf16": "bfloat16", "fp16": "float16", "tf32": "tf32"}
FORM_IMAGES = 8
"""Images that forms are compared on."""
_LAYOUT, _FOLDED = "channels_last", "folded"


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
        form = choose_form(view, example, layout=_LAYOUT in parts, fold=_FOLDED in parts, precision=precision)
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


def chosen_form(view: nn.Module, example: Tensor, precision: str, compiled: int | None = None) -> FastModel:
    """The form for a setting of `--precision`: `auto` chooses layout and folding; TF32 and low precision only by name.

    `compiled`: the usual size of a batch, if the form is to be compiled where that is faster; else a logged line says why not.
    """
    # Low precision costs a second attack on the samples that it leaves standing, and TF32 has not been tried on a GPU yet: they
    # are for users who ask for them.
    if precision == "float32":
        form = FastModel(view, "")
    else:
        form = choose_form(view, example, precision="float32" if precision == "auto" else precision)
    if compiled is None:
        return form
    try:
        return faster_compiled(form, example, compiled)
    except CompileError as error:
        # Without a handler of the caller's this is a line on standard error; a warning might be turned into an error.
        logging.getLogger(__name__).warning("not compiled: %s; the model is attacked as it is", error)
        return form


def without_low_precision(form: FastModel) -> FastModel:
    """The form in float32: low precision moves the boundary, and with it the distances of minimum-norm attacks."""
    return form.full or form
