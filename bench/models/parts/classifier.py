"""The wrapper of a user's model, from images in [0, 1] to logits, and the checks before it is evaluated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.rounding import decides
from gauntlet.attacks.views.guard import in_training
from gauntlet.attacks.views.scaled_gradient import with_scaled_gradient
from gauntlet.bench.models.parts.black_box import model_access
from gauntlet.bench.models.parts.errors import ModelError
from gauntlet.bench.models.parts.exported import exported_batch, settle_exported
from gauntlet.bench.models.parts.fixed_batch import in_parts
from gauntlet.bench.models.parts.missing_normalisation import find_missing_normalisation, takes_channels_last
from gauntlet.bench.models.parts.normalisation import channel_values, normalise
from gauntlet.bench.models.parts.outputs import Output, extract_logits, shape_error
from gauntlet.defenses.pipeline.profile import are_probabilities
from gauntlet.leaderboard.results.record import Flag
from gauntlet.leaderboard.rows.conditions import BLACK_BOX_FLAG, LABELS_ONLY

__all__ = ["Classifier", "ModelError", "check_model", "extract_logits"]


HALF = (torch.float16, torch.bfloat16)
"""Precisions of models that are judged as they are, in less than float32."""


class Classifier(nn.Module):
    """Logits (N, K) of images (N, C, H, W) in [0, 1].

    `mean` and `std`, per channel and in units of [0, 1], are for a model that does not normalise its input itself. Images
    are cast to the model's floating dtype. A model in float16 or bfloat16 works in its own precision: normalisation before it and
    logits after it are in float32. The model may return a tensor, a tuple or list that begins with it, a dict with `logits` or a
    single tensor, or an object with `.logits`; `output` says what else to read. Its mode (training or eval) is not changed;
    programs of torch.export have none, and are given that of their operations.

    `remarks`: flags about how the model was loaded. `input_size`: channels, height and width that the model expects.
    """

    mean: Tensor | None
    std: Tensor | None
    remarks: tuple[Flag, ...]
    input_size: tuple[int, int, int] | None

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        output: Output | None = None,
    ) -> None:
        """Wrap `model`. Raises ModelError for parameters in float8, and for an invalid mean or std."""
        super().__init__()
        settle_exported(model)
        self.model = model
        self.output = output or Output()
        self.batch = exported_batch(model)
        _refuse_storage_only(model)
        first = _first_floating(model)
        for name, values in (("mean", mean), ("std", std)):
            buffer = None if values is None else channel_values(name, values)
            if buffer is not None and first is not None:
                buffer = buffer.to(first.device, torch.float32 if first.dtype in HALF else first.dtype)
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
        return self._answers(images, self.mean, self.std)

    def without_normalisation(self, inputs: Tensor) -> Tensor:
        """Logits (N, K) of the wrapped model for `inputs`, without `mean` and `std`."""
        return self._answers(inputs, None, None)

    def _answers(self, images: Tensor, mean: Tensor | None, std: Tensor | None) -> Tensor:
        dtype = _half(self.model)
        if dtype is None:
            # A copy, since a model that works in place must not change the data or the attack's iterates.
            first = _first_floating(self.model)
            own = images.clone() if first is None else images.to(first.dtype, copy=True)
            return self._logits(normalise(own, mean, std))

        def run(given: Tensor) -> Tensor:
            return self._logits(normalise(given.float(), mean, std).to(dtype, copy=True))

        return with_scaled_gradient(run, images) if dtype == torch.float16 else run(images).float()

    def _logits(self, inputs: Tensor) -> Tensor:
        return in_parts(lambda part: self.output.logits(self.model(part)), inputs, self.batch)


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
        raise ModelError(shape_error(tuple(logits.shape), len(images)))
    if not logits.is_floating_point():
        raise ModelError(f"the model returns {logits.dtype}: return the logits, not the predicted classes")
    needed = max(classes or 0, int(labels.max()) + 1 if labels is not None and len(labels) else 0, 2)
    if logits.shape[1] == 1:
        raise ModelError(shape_error(tuple(logits.shape), len(images)))
    if logits.shape[1] < needed:
        from_one = " (labels count from 0: if yours count from 1, subtract 1)" if needed == logits.shape[1] + 1 else ""
        raise ModelError(
            f"the model has {logits.shape[1]} outputs, but the data need {needed} classes: check both{from_one}"
        )
    if labels is not None and isinstance(model, Classifier) and model.output.binary:
        _refuse_sigmoid(logits, labels[: len(images)])
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
        flags += [*model.remarks, *_coarse(logits, _half(model.model))]
        if access != "white-box":
            flags.append(_BLACK_BOX[access])
        if labels is not None and len(labels) >= len(images):
            flags += _normalisation_flags(model, images, labels[: len(images)], logits)
    return flags


def _refuse_sigmoid(logits: Tensor, labels: Tensor) -> None:
    """Refuse a binary model that predicts class 1 throughout, with logits that are never negative and never above 1."""
    single = logits[:, 1]
    if bool((labels == 0).any()) and bool((single >= 0).all()) and bool((single <= 1).all()):
        raise ModelError(
            "the model returns numbers from 0 to 1 only, as after a sigmoid, and never a negative one, as logits of class 0 are: "
            "return what goes into the sigmoid"
        )


def _coarse(logits: Tensor, own: torch.dtype | None) -> list[Flag]:
    """A warning if the logits have the precision of a half-precision format, whatever dtype they are returned in.

    `own`: that format, if the model's parameters have it.
    """
    for dtype in HALF:
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


def _half(model: nn.Module) -> torch.dtype | None:
    first = _first_floating(model)
    return first.dtype if first is not None and first.dtype in HALF else None


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


def _refuse_storage_only(model: nn.Module) -> None:
    """Refuse float8 and smaller formats, in which weights are stored and nothing is computed."""
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64, *HALF):
            raise ModelError(
                f"the model holds {name} in {tensor.dtype}, in which torch does not compute: call model.float()"
            )
