"""The images that a first look is taken with: a few of the data, or random ones of a shape that the model takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gauntlet.attacks.views.guard import guarded
from gauntlet.bench.config.schema import DataRef, ModelRef
from gauntlet.bench.models.load_model import LoadedModel
from gauntlet.bench.models.parts.classifier import Classifier
from gauntlet.bench.models.parts.errors import ModelError, short_error
from gauntlet.bench.prepare.loader import Loader

IMAGES = 64
"""Number of images that are looked at, spread evenly over the data."""
_RANDOM_IMAGES = 8
_SHAPES = ((3, 32, 32), (3, 224, 224), (1, 28, 28), (1, 8, 8), (3, 64, 64), (3, 96, 96), (1, 32, 32), (3, 299, 299))
"""Shapes (C, H, W) that are tried where neither data nor a card says which."""


@dataclass(frozen=True)
class Seen:
    """Images (N, C, H, W) in [0, 1] on the model's device; `labels` (N,) are None for random images."""

    images: Tensor
    labels: Tensor | None = None
    classes: int | None = None
    """The classes of the data; None for random images."""
    n: int = 0
    """The number of samples of the data."""


def data_images(loader: Loader, ref: DataRef, model: ModelRef) -> Seen:
    """A few of the data's images, with labels for the model. Raises what loading raises."""
    data = loader.data_for(ref, model)
    # Spread, since folders are sorted by class.
    count = min(IMAGES, len(data))
    rows = [place * len(data) // count for place in range(count)]
    images, labels = data.images[rows].to(loader.device), data.labels[rows].to(loader.device)
    return Seen(images, labels, data.classes, len(data))


def random_images(loaded: LoadedModel, device: torch.device) -> Seen:
    """Random images of the card's shape, or of the first usual shape that the model takes. Raises ModelError."""
    failure: Exception | None = None
    for shape in _shapes(loaded.module):
        images = torch.rand(_RANDOM_IMAGES, *shape, generator=torch.Generator().manual_seed(0)).to(device)
        try:
            with guarded(loaded.module, 0), torch.no_grad():
                loaded.module(images)
        except Exception as error:  # code of the user's, which may raise anything
            failure = failure or error
            continue
        return Seen(images)
    reason = "" if failure is None else f" ({short_error(failure)})"
    raise ModelError(f"the model takes no images of a usual shape{reason}: name its data, --data DATA")


def _shapes(module: Classifier) -> Iterator[tuple[int, int, int]]:
    if module.input_size is not None:
        yield module.input_size
        return
    channels = next((part.in_channels for part in module.modules() if isinstance(part, torch.nn.Conv2d)), None)
    yield from (shape for shape in _SHAPES if channels in (None, shape[0]))
