"""A model whose outputs alone can be observed: a function, a service, or a file that cannot be differentiated.

It is attacked without gradients only. Sent images are counted; equal images of a batch are sent once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from gauntlet.attacks.ops.validators import one_of, whole_number
from gauntlet.bench.models.parts.card import Access
from gauntlet.bench.models.parts.errors import ModelError


class QueryLimitError(ModelError):
    """The query limit of a black box is reached."""


@dataclass
class QueryCounter:
    """Number of images sent, and its limit; shared by all copies of a black box."""

    limit: int | None = None
    made: int = 0

    def take(self, count: int, name: str) -> None:
        """Count images before they are sent. Raises QueryLimitError, without counting, if the limit would be exceeded."""
        if self.limit is not None and self.made + count > self.limit:
            raise QueryLimitError(
                f"{name} has been sent {self.made} images, and {count} more would exceed max_queries={self.limit}: finished "
                "blocks are stored, and the same command with a larger max_queries goes on from there"
            )
        self.made += count


class BlackBox(nn.Module):
    """Scores (N, K) of a function for images (N, C, H, W), float32 in [0, 1], without gradients.

    The function receives a numpy array (`give="torch"`: a tensor on the CPU) and returns scores (N, K). With `classes`, the
    number of classes, it returns predicted classes (N,) instead, which become scores of 0 and 1. At most `batch_size` images
    are sent at once. The result must depend on the image alone, since equal images of a batch are sent once.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        name: str = "the black box",
        classes: int | None = None,
        max_queries: int | None = None,
        batch_size: int | None = None,
        give: Literal["numpy", "torch"] = "numpy",
    ) -> None:
        """Wrap `function`. Raises ModelError for an invalid setting."""
        super().__init__()
        try:
            for setting, value, least in (
                ("classes", classes, 2),
                ("max_queries", max_queries, 1),
                ("batch_size", batch_size, 1),
            ):
                if value is not None:
                    whole_number(setting, value, least)
            one_of("give", give, ("numpy", "torch"))
        except ValueError as error:
            raise ModelError(f"{name}: {error}") from error
        if not callable(function):
            raise ModelError(f"{name} is a {type(function).__name__}: name a function from images to scores or classes")
        self.function = function
        self.name = name
        self.classes = classes
        self.batch_size = batch_size
        self.give = give
        self.queries = QueryCounter(max_queries)
        self.eval()

    @property
    def access(self) -> Access:
        """The outputs that an attack may observe."""
        return "scores" if self.classes is None else "labels"

    def __deepcopy__(self, memo: dict[int, Any]) -> BlackBox:
        # The function cannot be copied, and all copies count their queries together.
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N, K), float32, on the images' device. Raises QueryLimitError, and ModelError for an invalid result."""
        sent = images.detach().to("cpu", torch.float32).contiguous()
        places: dict[bytes, int] = {}
        where = torch.tensor([places.setdefault(image.numpy().tobytes(), len(places)) for image in sent])
        first = torch.tensor([int((where == place).nonzero()[0]) for place in range(len(places))], dtype=torch.int64)
        distinct = sent[first]
        self.queries.take(len(distinct), self.name)
        parts = [self._ask(part) for part in distinct.split(self.batch_size or max(1, len(distinct)))]
        return torch.cat(parts)[where].to(images.device)

    def _ask(self, images: Tensor) -> Tensor:
        answer = self.function(images.numpy().copy() if self.give == "numpy" else images.clone())
        try:
            values = answer.detach().cpu() if isinstance(answer, Tensor) else torch.from_numpy(np.array(answer))
        except (TypeError, ValueError) as error:
            raise ModelError(f"{self.name} returns {type(answer).__name__}: return an array ({error})") from error
        if self.classes is None:
            return self._scores(values, len(images))
        return self._labels(values, len(images), self.classes)

    def _scores(self, values: Tensor, n: int) -> Tensor:
        if values.ndim == 1 and len(values) == n and not values.is_floating_point():
            raise ModelError(
                f"{self.name} returns classes: state their number, for instance blackbox:FILE.py:FUNCTION(classes=10)"
            )
        if values.ndim != 2 or len(values) != n:
            raise ModelError(
                f"{self.name} returns shape {tuple(values.shape)} for {n} images: return scores (N, K), a row per image"
            )
        return values.to(torch.float32)

    def _labels(self, values: Tensor, n: int, classes: int) -> Tensor:
        if values.shape != (n,) or values.is_floating_point() or values.dtype == torch.bool:
            raise ModelError(
                f"{self.name} returns shape {tuple(values.shape)} of {values.dtype} for {n} images: with classes={classes} "
                "return whole numbers (N,), or leave out classes to return scores"
            )
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < classes:
            raise ModelError(
                f"{self.name} returns class {int(values.max() if values.max() >= classes else values.min())}, but "
                f"classes={classes} allows 0 to {classes - 1}"
            )
        return one_hot(values.to(torch.int64), classes).to(torch.float32)


def model_access(model: nn.Module) -> Access:
    """What an attack may observe of a model: everything, unless it contains a black box."""
    return next((module.access for module in model.modules() if isinstance(module, BlackBox)), "white-box")
