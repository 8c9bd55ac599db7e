"""A user's model as Gauntlet sees it: images in [0, 1] in, logits out; and the checks before anything is computed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gauntlet.bench.models.parts.black_box import ACCESS_FLAG, model_access
from gauntlet.bench.models.parts.errors import ModelError
from gauntlet.bench.models.parts.missing_normalisation import find_missing_normalisation, takes_channels_last
from gauntlet.leaderboard.results.record import Flag

__all__ = ["Classifier", "ModelError", "check_model", "extract_logits"]


class Classifier(nn.Module):
    """Logits (N, K) of images (N, C, H, W) in [0, 1].

    `mean` and `std`, per channel and in [0, 1] units, are the model's normalisation where it has none inside. Images
    are cast to the model's floating dtype where theirs differs; a model with half-precision parameters raises
    ModelError. The output may be a tensor, a tuple or list whose first element it is, a dict with `logits` or a single
    tensor, or an object with `.logits`. The wrapped model's mode (training or eval) is left as it is.

    `remarks`: what a reader must know of how it was loaded; `input_size`: channels, height and width that it was made for.
    """

    mean: Tensor | None
    std: Tensor | None
    remarks: tuple[Flag, ...]
    input_size: tuple[int, int, int] | None

    def __init__(
        self, model: nn.Module, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> None:
        """Wrap `model`. Raises ModelError for half precision, and for a mean or std that cannot be one."""
        super().__init__()
        self.model = model
        first = _first_floating(model)
        _refuse_low_precision(model)
        for name, values in (("mean", mean), ("std", std)):
            buffer = None if values is None else _channels(name, values).view(1, -1, 1, 1)
            if buffer is not None and first is not None:
                buffer = buffer.to(first)
            self.register_buffer(name, buffer, persistent=False)
        if mean is not None and std is not None and len(mean) != len(std):
            raise ModelError(
                f"mean={tuple(mean)!r} and std={tuple(std)!r} differ in length: give both for each channel"
            )
        self.training = model.training
        self.remarks = ()
        self.input_size = None

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K)."""
        x = self._cast(images)
        for name, value in (("mean", self.mean), ("std", self.std)):
            if value is not None and value.shape[1] not in (1, x.shape[1]):
                raise ModelError(f"{name} has {value.shape[1]} values, but the images have {x.shape[1]} channels")
        if self.mean is not None:
            x = x - self.mean
        if self.std is not None:
            x = x / self.std
        return extract_logits(self.model(x))

    def answer(self, fed: Tensor) -> Tensor:
        """Logits (N, K) of what the wrapped model itself is fed, without `mean` and `std`."""
        return extract_logits(self.model(self._cast(fed)))

    def _cast(self, images: Tensor) -> Tensor:
        # A copy: a model that works in place must not change the data, nor the attack's iterates.
        first = _first_floating(self.model)
        return images.clone() if first is None else images.to(first.dtype, copy=True)


def extract_logits(output: Any) -> Tensor:
    """The tensor of logits in what a model returns. Raises ModelError where there is none."""
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
    """Look at a model on a few images (N, C, H, W); return flags, raise ModelError for what makes evaluation senseless.

    Errors: a module in training mode, logits that are not floats (N, K), NaN or infinite, fewer than the labels need, and
    no more right than by chance where images fed in another way give far more (see `normalisation`).
    Any submodule in training mode counts, since layers other than torch's own (stochastic depth) depend on it too.
    Flag `probabilities` (block): every row is a distribution, by the rule of AutoAttack's checks (Croce and Hein 2020).
    Of a Classifier also its remarks, `black-box-access` (warn), `normalisation` (block): it does far better when fed in another
    way, and `class-order` (block): its answers fit other labels. The first labels belong to the images.
    """
    user = model.model if isinstance(model, Classifier) else model
    training = [name or "the model" for name, module in user.named_modules() if module.training]
    if training:
        raise ModelError(f"{training[0]} is in training mode: call model.eval() before it is evaluated")
    try:
        with torch.no_grad():
            logits = model(images)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"the model fails on images of shape {tuple(images.shape)}{_why_failing(model, images)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if logits.ndim != 2 or len(logits) != len(images):
        raise ModelError(
            f"the model returns shape {tuple(logits.shape)} for {len(images)} images: return logits (N, K), a row each"
        )
    if not logits.is_floating_point():
        raise ModelError(f"the model returns {logits.dtype}: return the logits, not the predicted classes")
    finite = logits.isfinite().all(1)
    if not finite.all():
        raise ModelError(
            f"the model answers image {int((~finite).nonzero()[0])} of {len(images)} with NaN or infinite logits: look "
            "for a division by zero, a log of zero or an overflow"
        )
    needed = max(classes or 0, int(labels.max()) + 1 if labels is not None and len(labels) else 0, 2)
    if logits.shape[1] < needed:
        raise ModelError(f"the model has {logits.shape[1]} outputs, but the data need {needed} classes: check both")
    access = model_access(model)
    flags = [_PROBABILITIES] if access == "white-box" and _are_probabilities(logits) else []
    if isinstance(model, Classifier):
        flags += model.remarks
        if access != "white-box":
            flags.append(_BLACK_BOX[access])
        if labels is not None and len(labels) >= len(images):
            flags += _feeding(model, images, labels[: len(images)], logits)
    return flags


def _why_failing(model: nn.Module, images: Tensor) -> str:
    if not isinstance(model, Classifier):
        return ""
    if takes_channels_last(model.answer, images):
        return ", but takes them channels last (N, H, W, C); put images.permute(0, 2, 3, 1) inside it"
    if model.input_size is not None and tuple(images.shape[1:]) != model.input_size:
        return f", and was made for {' × '.join(map(str, model.input_size))}"
    return ""


def _feeding(model: Classifier, images: Tensor, labels: Tensor, logits: Tensor) -> list[Flag]:
    """What the guard of the normalisation finds. Raises ModelError where the model does no better than chance for it."""
    stated = model.mean is not None or model.std is not None
    better = find_missing_normalisation(model.answer, images, labels, logits.argmax(1), stated=stated)
    if better is None:
        return []
    if better.hopeless:
        raise ModelError(better.sentence)
    figures = {"right": better.right, "right_otherwise": better.better, "n": better.n}
    return [Flag(better.flag, "block", better.sentence, evidence=tuple(figures.items()))]


_BLACK_BOX = {
    access: Flag(
        ACCESS_FLAG,
        "warn",
        f"only {seen} of the model can be seen, so that it was attacked without gradients alone (Square, HopSkipJump): an "
        "attack with gradients may well find more",
    )
    for access, seen in (("scores", "the outputs"), ("labels", "the predicted classes"))
}
_PROBABILITIES = Flag(
    "probabilities",
    "block",
    "the model returns probabilities, not logits: gradients of the loss vanish where it is confident, and attacks look "
    "weak. Return what goes into the softmax",
    needs=("bpda", "black-box"),
)


def _are_probabilities(logits: Tensor) -> bool:
    bounded = bool(logits.max() < 1 + 1e-5) and bool(logits.min() > -1e-5)
    return bounded and bool(((logits.sum(1) - 1).abs() < 1e-5).all())


def _first_floating(model: nn.Module) -> Tensor | None:
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((tensor for tensor in tensors if tensor.is_floating_point()), None)


def _refuse_low_precision(model: nn.Module) -> None:
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
            raise ModelError(
                f"the model holds {name} in {tensor.dtype}: call model.float(), since results are verified in float32"
            )


def _channels(name: str, values: Sequence[float]) -> Tensor:
    if not values or not all(math.isfinite(value) and (name == "mean" or value > 0) for value in values):
        kind = "finite" if name == "mean" else "positive, finite"
        raise ModelError(f"{name}={tuple(values)!r} must be {kind} numbers, one for each channel")
    return torch.tensor(tuple(values))
