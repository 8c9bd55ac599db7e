"""Whether a model gets the images as it expects them, and the mean and std that it lacks."""

from __future__ import annotations

from dataclasses import replace

import torch

from gauntlet.attacks.views.guard import guarded
from gauntlet.bench.config.schema import ModelRef
from gauntlet.bench.first_look.line import Line
from gauntlet.bench.first_look.seen import Seen
from gauntlet.bench.models.parts.classifier import Classifier, check_model
from gauntlet.bench.models.parts.missing_normalisation import InputFormat, find_missing_normalisation

_ZERO, _ONE = (0.0,), (1.0,)


def input_lines(module: Classifier, seen: Seen) -> tuple[list[Line], InputFormat | None]:
    """Lines on input and normalisation, and the format in which the model is far better; None where it is fed rightly.

    Raises what the model raises for the images.
    """
    try:
        with guarded(module, 0), torch.no_grad():
            predictions = module(seen.images).argmax(1)
    except Exception:  # code of the user's, which may raise anything
        # It says what is wrong with the images, if anything is.
        check_model(module, seen.images)
        raise
    shape = " × ".join(map(str, seen.images.shape[1:]))
    lines = [Line("input", f"images {shape}, channels first, in [0, 1]")]
    normalised = module.mean is not None or module.std is not None
    applied = "mean and std are applied before the model" if normalised else "none is applied before the model"
    if seen.labels is None:
        return [*lines, Line("normalisation", f"{applied}; whether that is right shows with --data DATA", "note")], None
    right, n = int((predictions == seen.labels).sum()), len(seen.labels)
    with guarded(module, 0):
        better = find_missing_normalisation(
            module.without_normalisation, seen.images, seen.labels, predictions, has_mean_std=normalised
        )
    if better is None:
        good = 4 * right > 3 * n
        rest = "" if good else "; no other usual format of images is far better"
        return [*lines, Line("normalisation", f"{applied}; {right} of {n} right{rest}", "ok" if good else "note")], None
    found = better.input_format
    usable = found is not None and not found.channels_last
    lines.append(Line("normalisation", better.sentence, "note" if usable or not better.at_chance else "problem"))
    if usable:
        lines.append(Line("", "with that from here on, also in the command below", "note"))
    return lines, found if usable else None


def with_format(model: ModelRef, found: InputFormat) -> ModelRef:
    """The model with the mean and std of a format."""
    return replace(
        model, mean=None if found.mean == _ZERO else found.mean, std=None if found.std == _ONE else found.std
    )
