"""A mask: a network whose defense hides the gradient and adds little robustness, and its smooth twin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Mask:
    """A mechanism, built on a digits network: images (N, 1, 8, 8) in [0, 1] to outputs (N, 10).

    `source`: where the mechanism, or its break, is described. `build`: a function of a module, so that `model` names it.
    `twin`: the same weights with a useful gradient: what hides it is left out, softened, or averaged over draws.
    """

    name: str
    summary: str
    source: str
    build: Callable[[], nn.Module]
    twin: Callable[[], nn.Module]
    randomised: bool = False

    @property
    def model(self) -> str:
        """The pipeline as `--model` takes it."""
        return f"{self.build.__module__}:{self.build.__qualname__}"
