"""The wrapper of a user's model, from images in [0, 1] to logits, and the checks before it is evaluated."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.rounding import decides
from gauntlet.attacks.views.guard import in_training
from gauntlet.attacks.views.scaled_gradient import with_scaled_gradient
from gauntlet.bench.models.parts.black_box import model_access
from gauntlet.bench.models.parts.class_list import ListedClass
from gauntlet.bench.models.parts.class_subset import ClassSubset, class_names, resolve
from gauntlet.bench.models.parts.errors import ModelError
from gauntlet.bench.models.parts.exported import exported_batch, settle_exported
from gauntlet.bench.models.parts.fixed_batch import in_parts
from gauntlet.bench.models.parts.half_precision import (
    HALF,
    coarse_logits,
    first_floating,
    half_precision,
    refuse_storage_only,
)
from gauntlet.bench.models.parts.missing_normalisation import find_missing_normalisation, takes_channels_last
from gauntlet.bench.models.parts.normalisation import channel_values, normalise
from gauntlet.bench.models.parts.outputs import Output, extract_logits, shape_error
from gauntlet.defenses.pipeline.profile import are_probabilities
from gauntlet.leaderboard.results.record import Flag
from gauntlet.leaderboard.rows.conditions import BLACK_BOX_FLAG, LABELS_ONLY

__all__ = ["Classifier", "ModelError", "check_model", "extract_logits"]


class Classifier(nn.Module):
    """Logits (N, K) of images (N, C, H, W) in [0, 1].

    `mean` and `std`, per channel and in units of [0, 1], are for a model that does not normalise its input itself. Images
    are cast to the model's floating dtype. A model in float16 or bfloat16 works in its own precision: normalisation before it and
    logits after it are in float32. The model may return a tensor, a tuple or list that begins with it, a dict with `logits` or a
    single tensor, or an object with `.logits`; `output` says what else to read. Its mode (training or eval) is not changed;
    programs of torch.export have none, and are given that of their operations.

    `listed`: the classes that it may predict, default all; the others have no logits, and labels count from 0 in the order of
    the list. `remarks`: flags about how the model was loaded. `input_size`: channels, height and width that the model expects.
    """

    mean: Tensor | None
    std: Tensor | None
    remarks: tuple[Flag, ...]
    input_size: tuple[int, int, int] | None
    classes: Tensor | None
    subset: ClassSubset | None

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        output: Output | None = None,
        listed: Sequence[ListedClass] = (),
    ) -> None:
        """Wrap `model`. Raises ModelError for parameters in float8, and for an invalid mean or std."""
        super().__init__()
        settle_exported(model)
        self.model = model
        self.output = output or Output()
        self.batch = exported_batch(model)
        self.signal_axis: int | None = None
        """The axis of size 1 that images have and the model's signals (N, C, L) have not; `check_model` finds it."""
        refuse_storage_only(model)
        first = first_floating(model)
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
        self.listed = tuple(listed)
        self.subset = None
        self.register_buffer("classes", None, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K)."""
        return self._answers(images, self.mean, self.std)

    def without_normalisation(self, inputs: Tensor) -> Tensor:
        """Logits (N, K) of the wrapped model for `inputs`, without `mean` and `std`."""
        return self._answers(inputs, None, None)

    def restrict(self, outputs: int, names: Sequence[str] = ()) -> None:
        """Give the logits of the `listed` classes alone, in their order, from now on; `outputs`: of the model, `names`: of its
        classes, where the model has none. Raises ModelError where the list does not fit."""
        if model_access(self.model) == "labels":
            raise ModelError(
                "only the predicted class of the model can be seen: no class can be taken out, leave --classes out"
            )
        self.subset = resolve(self.listed, outputs, class_names(self.model) or names)
        device = next((tensor.device for tensor in itertools.chain(self.parameters(), self.buffers())), None)
        self.classes = torch.tensor(self.subset.indices, device=device)

    def _answers(self, images: Tensor, mean: Tensor | None, std: Tensor | None) -> Tensor:
        dtype = half_precision(self.model)
        if dtype is None:
            # A copy, since a model that works in place must not change the data or the attack's iterates.
            first = first_floating(self.model)
            own = images.clone() if first is None else images.to(first.dtype, copy=True)
            return self._logits(self._normalised(own, mean, std))

        def run(given: Tensor) -> Tensor:
            return self._logits(self._normalised(given.float(), mean, std).to(dtype, copy=True))

        return with_scaled_gradient(run, images) if dtype == torch.float16 else run(images).float()

    def _normalised(self, images: Tensor, mean: Tensor | None, std: Tensor | None) -> Tensor:
        if self.signal_axis is None:
            return normalise(images, mean, std)
        # Values for channels belong to the axis after the samples.
        signals = images.squeeze(self.signal_axis).unsqueeze(3)
        return normalise(signals, mean, std).squeeze(3)

    def _logits(self, inputs: Tensor) -> Tensor:
        logits = in_parts(lambda part: self.output.logits(self.model(part)), inputs, self.batch)
        if self.listed and self.subset is None:
            self.restrict(logits.shape[1])
        return logits if self.classes is None else logits.index_select(1, self.classes)


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
            logits = _logits_of_signals(model, images) if isinstance(model, Classifier) else model(images)
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
        flags += [*model.remarks, *coarse_logits(logits, half_precision(model.model))]
        if access != "white-box":
            flags.append(_BLACK_BOX[access])
        if labels is not None and len(labels) >= len(images):
            flags += _normalisation_flags(model, images, labels[: len(images)], logits)
    return flags


def _logits_of_signals(model: Classifier, images: Tensor) -> Tensor:
    """Logits of images (N, C, H, W); where the model refuses these and takes signals (N, C, L), it is given them from now on.

    An array (N, C, L) came here as images of one channel (N, 1, C, L), or the user has made images (N, C, 1, L) of it.
    """
    logits: Tensor
    try:
        logits = model(images)
    except Exception:
        if model.signal_axis is not None or images.ndim != 4:
            raise
        for axis in (axis for axis in (1, 2) if images.shape[axis] == 1):
            model.signal_axis = axis
            with suppress(Exception):
                logits = model(images)
                if logits.ndim == 2 and len(logits) == len(images):
                    return logits
        model.signal_axis = None
        raise
    return logits


def _refuse_sigmoid(logits: Tensor, labels: Tensor) -> None:
    """Refuse a binary model that predicts class 1 throughout, with logits that are never negative and never above 1."""
    single = logits[:, 1]
    if bool((labels == 0).any()) and bool((single >= 0).all()) and bool((single <= 1).all()):
        raise ModelError(
            "the model returns numbers from 0 to 1 only, as after a sigmoid, and never a negative one, as logits of class 0 are: "
            "return what goes into the sigmoid"
        )


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
_PROBABILITIES = Flag(
    "probabilities",
    "block",
    "the model returns probabilities, not logits: gradients of the loss vanish where it is confident, and attacks look "
    "weak. Return what goes into the softmax",
    needs=("bpda", "black-box"),
)
