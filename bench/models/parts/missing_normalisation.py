"""Is a model fed as it wants? Measured on a few clean images, where it does badly on them.

Images are in [0, 1], and so is eps. A network that was trained on normalised images, on 0 to 255 or on channels-last tensors,
and is given images as they are, runs without an error and looks as if it could do nothing. So where it does no better than
chance, or poorly, the usual other ways to feed it are tried, and the one that helps is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_POOR = 0.75
"""Share of right answers from which nothing is tried: what is fed wrongly hardly gets there."""
_GAIN = 0.2
"""What another way must gain in accuracy, and at most how likely it may be by luck, before it is named."""
_LUCK = 1e-4
_CLOSE = 3
"""Right answers within which another way does about as well."""
_ALIGNED = 0.8
"""Share of images that another order of the classes must explain."""
_PER_CLASS = 4
"""Images for each class, on average, that it takes to tell an order from luck."""


@dataclass(frozen=True)
class InputFormat:
    """A way to feed images (N, C, H, W) in [0, 1]: (image − mean) / std, then perhaps as (N, H, W, C)."""

    what: str
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channels_last: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """What the model is given."""
        mean, std = (torch.tensor(values).to(images).view(1, -1, 1, 1) for values in (self.mean, self.std))
        fed = (images - mean) / std
        return fed.permute(0, 2, 3, 1).contiguous() if self.channels_last else fed

    def option(self, *, stated: bool) -> str:
        """How a user asks for it; `stated`: a mean and std are asked for now."""
        plain = self.mean == (0.0,) and self.std == (1.0,)
        numbers = [
            f"--{name} {','.join(f'{value:.6g}' for value in values)}"
            for name, values, usual in (("mean", self.mean, (0.0,)), ("std", self.std, (1.0,)))
            if values != usual
        ]
        if plain and stated:
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
    """What would help, with the figures: right answers of n, now and with what the sentence says."""

    flag: str
    sentence: str
    right: int
    better: int
    n: int
    hopeless: bool = False
    """Fed as now it does no better than chance, and it need not be: nothing that is measured then says anything."""


def find_missing_normalisation(
    answer: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, predictions: Tensor, *, stated: bool
) -> MissingNormalisation | None:
    """The way of feeding in which the model does far better, or None where there is none or it does well already; else, where
    its answers fit other labels, their order.

    `answer`: logits (N, K) of what the model itself is given; `predictions`, int64 (N,): as images (N, C, H, W) in [0, 1]
    with labels (N,) are fed now; `stated`: with a mean and std that were asked for. Passes are made over these images alone.
    """
    n, right = len(labels), predictions == labels
    correct = int(right.sum())
    if not n or correct > _POOR * n:
        return None
    hopeless = correct <= _chance(labels)
    candidates = _better_feeds(answer, images, labels, right, stated=stated, every=hopeless)
    if candidates:
        feed, better = candidates[0]
        others = ", ".join(
            f"{candidate.what}: {count}" for candidate, count in candidates[1:] if count >= better - _CLOSE
        )
        which = f" (or what it was trained with; {others})" if others else ""
        sentence = (
            f"the model gets {correct} of {n} clean images right{', no more than chance' if hopeless else ''}, but {better} "
            f"where images are fed {feed.what}: use {feed.option(stated=stated)}{which}"
        )
        return MissingNormalisation("normalisation", sentence, correct, better, n, hopeless)
    return _reordered(labels, predictions, correct) if hopeless else None


def takes_channels_last(answer: Callable[[Tensor], Tensor], images: Tensor) -> bool:
    """Whether a model that fails on images (N, C, H, W) answers them as (N, H, W, C)."""
    logits = _tried(answer, InputFormat("", channels_last=True), images)
    return logits is not None


def _feeds(channels: int, *, stated: bool, every: bool) -> Iterator[InputFormat]:
    plain = [*([IMAGENET, CIFAR] if channels == 3 else [MNIST]), SIGNED, BYTES]
    if stated:
        plain.insert(0, InputFormat("as they are"))
    yield from plain
    if every:
        for feed in dict.fromkeys([InputFormat("as they are"), *plain]):
            yield InputFormat(f"{feed.what}, channels last (N, H, W, C)", feed.mean, feed.std, channels_last=True)


def _better_feeds(
    answer: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, right: Tensor, *, stated: bool, every: bool
) -> list[tuple[InputFormat, int]]:
    """Ways that give clearly more right answers, with how many, the best first."""
    better = []
    for feed in _feeds(images.shape[1], stated=stated, every=every):
        logits = _tried(answer, feed, images)
        if logits is None:
            continue
        now = logits.argmax(1) == labels
        gained, lost = int((now & ~right).sum()), int((right & ~now).sum())
        if gained - lost >= _GAIN * len(labels) and _luck(gained, lost) <= _LUCK:
            better.append((feed, int(now.sum())))
    return sorted(better, key=lambda pair: -pair[1])


def _tried(answer: Callable[[Tensor], Tensor], feed: InputFormat, images: Tensor) -> Tensor | None:
    try:
        with torch.no_grad():
            logits = answer(feed(images))
    except Exception:  # a way that the model does not take
        return None
    return logits if logits.ndim == 2 and len(logits) == len(images) else None


def _luck(gained: int, lost: int) -> float:
    """Probability of so many gains among the changed answers, were gains and losses equally likely (sign test)."""
    changed = gained + lost
    return float(sum(math.comb(changed, k) for k in range(gained, changed + 1)) / 2**changed)


def _chance(labels: Tensor) -> float:
    """Right answers of one who always names the most frequent class, plus three standard deviations."""
    n = len(labels)
    share = int(labels.unique(return_counts=True)[1].max()) / n
    return n * share + 3 * math.sqrt(n * share * (1 - share))


def _reordered(labels: Tensor, predictions: Tensor, correct: int) -> MissingNormalisation | None:
    """The classes in another order than the model's: predictions fit the labels, each class another one."""
    n, classes = len(labels), labels.unique()
    if len(classes) < 3 or n < _PER_CLASS * len(classes):
        return None
    taken = {int(label): predictions[labels == label].mode().values for label in classes}
    pairs = [(label, int(other)) for label, other in taken.items()]
    fitting = sum(int(((labels == label) & (predictions == other)).sum()) for label, other in pairs)
    if fitting < _ALIGNED * n or len({other for _, other in pairs}) < len(pairs):
        return None
    shifted = all(label == other + 1 for label, other in pairs)
    what = (
        "the labels seem to count from 1: subtract 1"
        if shifted
        else "its classes seem to be in another order than the data's: most images of class "
        + ", of class ".join(f"{label} are taken for {other}" for label, other in pairs[:3])
    )
    sentence = f"the model gets {correct} of {n} clean images right, no more than chance, but {fitting} fit: {what}"
    return MissingNormalisation("class-order", sentence, correct, fitting, n)
