"""The guard against a missing normalisation: whether a model with low accuracy expects another input format.

Images are in [0, 1], and so is eps. A network that was trained on normalised images, on 0 to 255 or on channels-last tensors
accepts images in [0, 1] without an error, but its accuracy is low. Therefore a model with low accuracy on a few clean images is
tried with the usual other input formats, and the message names the format that helps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_GOOD_ACCURACY = 0.75
"""Accuracy above which nothing is tried: with a wrong input format it is hardly reached."""
_MIN_GAIN = 0.2
"""Least gain in accuracy of another input format for it to be reported."""
_MAX_P_VALUE = 1e-4
"""Largest p-value of that gain, by the sign test."""
_CLOSE_COUNT = 3
"""Difference in correct predictions within which two input formats are about as good."""
_ALIGNED_SHARE = 0.8
"""Least share of images that another order of the classes must explain."""
_IMAGES_PER_CLASS = 4
"""Least number of images per class, on average, to recognise an order."""


@dataclass(frozen=True)
class InputFormat:
    """An input format for images (N, C, H, W) in [0, 1]: (image − mean) / std, optionally as (N, H, W, C)."""

    description: str
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channels_last: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """The model's input."""
        mean, std = (torch.tensor(values).to(images).view(1, -1, 1, 1) for values in (self.mean, self.std))
        fed = (images - mean) / std
        return fed.permute(0, 2, 3, 1).contiguous() if self.channels_last else fed

    def option(self, *, has_mean_std: bool) -> str:
        """The options that select this format; `has_mean_std`: the current options include a mean or std."""
        plain = self.mean == (0.0,) and self.std == (1.0,)
        numbers = [
            f"--{name} {','.join(f'{value:.6g}' for value in values)}"
            for name, values, usual in (("mean", self.mean, (0.0,)), ("std", self.std, (1.0,)))
            if values != usual
        ]
        if plain and has_mean_std:
            numbers = ["no --mean and --std, since the model has its normalisation inside"]
        inside = ["images.permute(0, 2, 3, 1) inside the model"] if self.channels_last else []
        return " and ".join([*numbers, *inside])


IMAGENET = InputFormat("with ImageNet's mean and std", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR = InputFormat("with CIFAR-10's mean and std", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
MNIST = InputFormat("with MNIST's mean and std", (0.1307,), (0.3081,))
SIGNED = InputFormat("from −1 to 1", (0.5,), (0.5,))
BYTES = InputFormat("from 0 to 255", std=(1 / 255,))


@dataclass(frozen=True)
class MissingNormalisation:
    """A likely cause of low accuracy, with the correct predictions of n images now and after the correction."""

    flag: str
    sentence: str
    right: int
    better: int
    n: int
    at_chance: bool = False
    """Whether the accuracy is now at chance level, so that no measurement is meaningful."""
    input_format: InputFormat | None = None
    """The better format; None where the order of the classes is the cause."""


def find_missing_normalisation(
    model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, predictions: Tensor, *, has_mean_std: bool
) -> MissingNormalisation | None:
    """Find an input format with far higher accuracy, or else an order of the classes that fits the predictions.

    None if the accuracy is good or nothing helps. `model` maps its own input to logits (N, K). `predictions`, int64 (N,), are
    the current predictions for images (N, C, H, W) in [0, 1] with labels (N,). `has_mean_std`: whether the current options
    include a mean or std. Only these images are evaluated.
    """
    n, right = len(labels), predictions == labels
    correct = int(right.sum())
    if not n or correct > _GOOD_ACCURACY * n:
        return None
    at_chance = correct <= _chance_count(labels)
    candidates = _better_formats(model, images, labels, right, has_mean_std=has_mean_std, channels_last=at_chance)
    if candidates:
        input_format, better = candidates[0]
        others = ", ".join(
            f"{candidate.description}: {count}" for candidate, count in candidates[1:] if count >= better - _CLOSE_COUNT
        )
        which = f" (or what it was trained with; {others})" if others else ""
        sentence = (
            f"the model gets {correct} of {n} clean images right{', no more than chance' if at_chance else ''}, but {better} "
            f"where images are fed {input_format.description}: use {input_format.option(has_mean_std=has_mean_std)}{which}"
        )
        return MissingNormalisation("normalisation", sentence, correct, better, n, at_chance, input_format)
    return _other_class_order(labels, predictions, correct) if at_chance else None


def takes_channels_last(model: Callable[[Tensor], Tensor], images: Tensor) -> bool:
    """Whether a model that fails on images (N, C, H, W) accepts (N, H, W, C)."""
    logits = _logits_or_none(model, InputFormat("", channels_last=True), images)
    return logits is not None


def _formats(channels: int, *, has_mean_std: bool, channels_last: bool) -> Iterator[InputFormat]:
    plain = [*([IMAGENET, CIFAR] if channels == 3 else [MNIST]), SIGNED, BYTES]
    if has_mean_std:
        plain.insert(0, InputFormat("as they are"))
    yield from plain
    if channels_last:
        for plain_format in dict.fromkeys([InputFormat("as they are"), *plain]):
            yield InputFormat(
                f"{plain_format.description}, channels last (N, H, W, C)",
                plain_format.mean,
                plain_format.std,
                channels_last=True,
            )


def _better_formats(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    right: Tensor,
    *,
    has_mean_std: bool,
    channels_last: bool,
) -> list[tuple[InputFormat, int]]:
    """Input formats with clearly more correct predictions, with their number, the best first."""
    better = []
    for input_format in _formats(images.shape[1], has_mean_std=has_mean_std, channels_last=channels_last):
        logits = _logits_or_none(model, input_format, images)
        if logits is None:
            continue
        now = logits.argmax(1) == labels
        gained, lost = int((now & ~right).sum()), int((right & ~now).sum())
        if gained - lost >= _MIN_GAIN * len(labels) and _sign_test(gained, lost) <= _MAX_P_VALUE:
            better.append((input_format, int(now.sum())))
    return sorted(better, key=lambda pair: -pair[1])


def _logits_or_none(model: Callable[[Tensor], Tensor], input_format: InputFormat, images: Tensor) -> Tensor | None:
    try:
        with torch.no_grad():
            logits = model(input_format(images))
    except Exception:  # the model does not accept this format
        return None
    return logits if logits.ndim == 2 and len(logits) == len(images) else None


def _sign_test(gained: int, lost: int) -> float:
    """The p-value of the sign test: at least as many gains among the changed predictions by chance."""
    changed = gained + lost
    return float(sum(math.comb(changed, k) for k in range(gained, changed + 1)) / 2**changed)


def _chance_count(labels: Tensor) -> float:
    """Correct predictions of the most frequent class for all images, plus three standard deviations."""
    n = len(labels)
    share = int(labels.unique(return_counts=True)[1].max()) / n
    return n * share + 3 * math.sqrt(n * share * (1 - share))


def _other_class_order(labels: Tensor, predictions: Tensor, correct: int) -> MissingNormalisation | None:
    """Whether the predictions fit the labels with the classes in another order."""
    n, classes = len(labels), labels.unique()
    if len(classes) < 3 or n < _IMAGES_PER_CLASS * len(classes):
        return None
    taken = {int(label): predictions[labels == label].mode().values for label in classes}
    pairs = [(label, int(other)) for label, other in taken.items()]
    fitting = sum(int(((labels == label) & (predictions == other)).sum()) for label, other in pairs)
    if fitting < _ALIGNED_SHARE * n or len({other for _, other in pairs}) < len(pairs):
        return None
    count = 1 + max(int(labels.max()), int(predictions.max()))
    shifts = {(other - label) % count for label, other in pairs}
    if shifts == {count - 1}:
        what = "the labels seem to count from 1: subtract 1"
    elif len(shifts) == 1:
        what = f"its outputs seem to be shifted up by {shifts.pop()}: shift them, or the labels"
    else:
        what = (
            "its classes seem to be in another order than the data's: most images of class "
            + ", of class ".join(f"{label} are taken for {other}" for label, other in pairs[:3])
            + ": put the model's outputs into the order of the data's classes"
        )
    sentence = f"the model gets {correct} of {n} clean images right, no more than chance, but {fitting} fit: {what}"
    return MissingNormalisation("class-order", sentence, correct, fitting, n)
