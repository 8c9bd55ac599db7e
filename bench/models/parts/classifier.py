"""The wrapper of a user's model, from images in [0, 1] to logits, and the checks before it is evaluated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.rounding import decides
from gauntlet.attacks.views.guard import in_training
from gauntlet.bench.models.parts.black_box import model_access
from gauntlet.bench.models.parts.errors import ModelError
from gauntlet.bench.models.parts.missing_normalisation import find_missing_normalisation, takes_channels_last
from gauntlet.bench.models.parts.normalisation import channel_values, normalise
from gauntlet.defenses.pipeline.profile import are_probabilities
from gauntlet.leaderboard.results.record import Flag
from gauntlet.leaderboard.rows.conditions import BLACK_BOX_FLAG, LABELS_ONLY

__all__ = ["Classifier", "ModelError", "check_model", "extract_logits"]


class Classifier(nn.Module):
    """Logits (N, K) of images (N, C, H, W) in [0, 1].

    `mean` and `std`, per channel and in units of [0, 1], are for a model that does not normalise its input itself. Images
    are cast to the model's floating dtype; a model with half-precision parameters raises ModelError. The model may return a
    tensor, a tuple or list that begins with it, a dict with `logits` or a single tensor, or an object with `.logits`. Its
    mode (training or eval) is not changed.

    `remarks`: flags about how the model was loaded. `input_size`: channels, height and width that the model expects.
    """

    mean: Tensor | None
    std: Tensor | None
    remarks: tuple[Flag, ...]
    input_size: tuple[int, int, int] | None

    def __init__(
        self, model: nn.Module, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> None:
        """Wrap `model`. Raises ModelError for half precision, and for an invalid mean or std."""
        super().__init__()
        self.model = model
        first = _first_floating(model)
        _refuse_low_precision(model)
        for name, values in (("mean", mean), ("std", std)):
            buffer = None if values is None else channel_values(name, values)
            if buffer is not None and first is not None:
                buffer = buffer.to(first)
            self.register_buffer(name, buffer, persistent=False)
        if mean is not None and std is not None and len(mean) != len(std):
            raise ModelError(
                f"mean={tuple(mean)!r} and std={tuple(std)!r} differ in length: give both for each channel"
            )
        self.training = in_training(model)
        self.remarks = ()
        self.input_size = None

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K)."""
        return extract_logits(self.model(normalise(self._cast(images), self.mean, self.std)))

    def without_normalisation(self, inputs: Tensor) -> Tensor:
        """Logits (N, K) of the wrapped model for `inputs`, without `mean` and `std`."""
        return extract_logits(self.model(self._cast(inputs)))

    def _cast(self, images: Tensor) -> Tensor:
        # A copy, since a model that works in place must not change the data or the attack's iterates.
        first = _first_floating(self.model)
        return images.clone() if first is None else images.to(first.dtype, copy=True)


def extract_logits(output: Any) -> Tensor:
    """Extract the tensor of logits from a model's output. Raises ModelError if there is none."""
    logits = output
    if isinstance(logits, Mapping):
        tensors = [value for value in logits.values() if isinstance(value, Tensor)]
        logits = logits.get("logits", tensors[0] if len(tensors) == 1 else None)
    elif not isinstance(logits, Tensor) and hasattr(logits, "logits"):
        logits = logits.logits
    elif isinstance(logits, tuple | list) and logits:
        logits = logits[0]
    if not isinstance(logits, Tensor):
        raise ModelError(
            f"the model returns {type(output).__name__}, in which no logits are found: return a tensor (N, K), a tuple "
            "that begins with it, a dict or an object with logits"
        )
    return logits


def check_model(
    model: nn.Module, images: Tensor, labels: Tensor | None = None, classes: int | None = None
) -> list[Flag]:
    """Check a model on a few images (N, C, H, W). Returns flags; raises ModelError if evaluation would make no sense.

    Errors: a module in training mode; logits that are not floats (N, K), are NaN or infinite, or are fewer than the classes of
    the labels; and accuracy at chance level while another input format gives far more (see `missing_normalisation`).
    Any submodule in training mode counts, since layers such as stochastic depth depend on it too.

    Flags: `probabilities` (block), every row is a distribution, by the rule of AutoAttack's checks (Croce and Hein 2020). For a
    Classifier also its remarks, `coarse-logits` (warn), rounded to bfloat16 or float16, `black-box-access` (warn),
    `normalisation` (block), another input format gives far more accuracy, and `class-order` (block), the predictions fit the
    labels in another order. The first labels belong to the images.
    """
    user = model.model if isinstance(model, Classifier) else model
    training = [name or "the model" for name, module in user.named_modules() if in_training(module)]
    if training:
        raise ModelError(f"{training[0]} is in training mode: call model.eval() before it is evaluated")
    try:
        with torch.no_grad():
            logits = model(images)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"the model fails on images of shape {tuple(images.shape)}{_failure_hint(model, images)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if logits.ndim != 2 or len(logits) != len(images):
        raise ModelError(
            f"the model returns shape {tuple(logits.shape)} for {len(images)} images: return logits (N, K), a row per image"
        )
    if not logits.is_floating_point():
        raise ModelError(f"the model returns {logits.dtype}: return the logits, not the predicted classes")
    needed = max(classes or 0, int(labels.max()) + 1 if labels is not None and len(labels) else 0, 2)
    if logits.shape[1] < needed:
        from_one = " (labels count from 0: if yours count from 1, subtract 1)" if needed == logits.shape[1] + 1 else ""
        raise ModelError(
            f"the model has {logits.shape[1]} outputs, but the data need {needed} classes: check both{from_one}"
        )
    decided = decides(logits)
    if not decided.all():
        raise ModelError(
            f"the model answers image {int((~decided).nonzero()[0])} of {len(images)} with NaN or infinite logits: look "
            "for a division by zero, a log of zero or an overflow (−inf is for classes that take no part, of which there must "
            "be at least two that do)"
        )
    access = model_access(model)
    flags = [_PROBABILITIES] if access == "white-box" and are_probabilities(logits) else []
    if isinstance(model, Classifier):
        flags += [*model.remarks, *_coarse(logits)]
        if access != "white-box":
            flags.append(_BLACK_BOX[access])
        if labels is not None and len(labels) >= len(images):
            flags += _normalisation_flags(model, images, labels[: len(images)], logits)
    return flags


def _coarse(logits: Tensor) -> list[Flag]:
    """A warning if the logits have the precision of a half-precision format, whatever dtype they are returned in."""
    for dtype in (torch.bfloat16, torch.float16):
        if logits.dtype != dtype and not _rounded_to(dtype, logits):
            continue
        bits = 1 - round(math.log2(torch.finfo(dtype).eps))
        message = (
            f"The logits have the precision of {str(dtype).removeprefix('torch.')}, {bits} binary digits: attacks and verdicts "
            "see steps and ties where the network in float32 has none. Evaluate the model in float32, without autocast or half "
            "precision in its forward."
        )
        return [Flag("coarse-logits", "warn", message)]
    return []


def _rounded_to(dtype: torch.dtype, logits: Tensor) -> bool:
    values = logits[logits.isfinite()].to(torch.float64).unique()
    if len(values) < _MANY_VALUES or bool((values.to(dtype).to(torch.float64) != values).any()):
        return False
    # Floating-point numbers are finer near 0. Counts and shares of votes are not: they are multiples of one step.
    step = torch.finfo(dtype).eps * 2.0 ** math.floor(math.log2(values.abs().max()))
    return bool((values / step != (values / step).round()).any())


def _failure_hint(model: nn.Module, images: Tensor) -> str:
    if not isinstance(model, Classifier):
        return ""
    if takes_channels_last(model.without_normalisation, images):
        return ", but accepts them channels last (N, H, W, C); put images.permute(0, 2, 3, 1) inside it"
    if model.input_size is not None and tuple(images.shape[1:]) != model.input_size:
        return f", and was made for {' × '.join(map(str, model.input_size))}"
    return ""


def _normalisation_flags(model: Classifier, images: Tensor, labels: Tensor, logits: Tensor) -> list[Flag]:
    """Flags for a missing normalisation. Raises ModelError if it reduces the accuracy to chance level."""
    has_mean_std = model.mean is not None or model.std is not None
    better = find_missing_normalisation(
        model.without_normalisation, images, labels, logits.argmax(1), has_mean_std=has_mean_std
    )
    if better is None:
        return []
    if better.at_chance:
        raise ModelError(better.sentence)
    figures = {"right": better.right, "right_otherwise": better.better, "n": better.n}
    return [Flag(better.flag, "block", better.sentence, evidence=tuple(figures.items()))]


_BLACK_BOX = {
    access: Flag(
        BLACK_BOX_FLAG,
        "warn",
        f"only {observed} of the model can be observed, so that it was attacked without gradients (Square, HopSkipJump): an "
        "attack with gradients may find more. Give the model itself in place of its answers",
        evidence=((LABELS_ONLY, float(access == "labels")),),
    )
    for access, observed in (("scores", "the outputs"), ("labels", "the predicted classes"))
}
_MANY_VALUES = 32
"""Different logits from which on it is no accident that half precision has them all."""
_PROBABILITIES = Flag(
    "probabilities",
    "block",
    "the model returns probabilities, not logits: gradients of the loss vanish where it is confident, and attacks look "
    "weak. Return what goes into the softmax",
    needs=("bpda", "black-box"),
)


def _first_floating(model: nn.Module) -> Tensor | None:
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((tensor for tensor in tensors if tensor.is_floating_point()), None)


def _refuse_low_precision(model: nn.Module) -> None:
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
            raise ModelError(
                f"the model holds {name} in {tensor.dtype}: call model.float(), since results are verified in float32"
            )
