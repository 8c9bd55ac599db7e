"""The card and registry entry of a defense at inference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # listing defenses must not import torch
    from torch import nn

DefenseKind = Literal["input", "output", "model"]
"""Where a defense acts: on the images, on the model's output, or around the whole model."""


@dataclass(frozen=True)
class DefenseCard:
    """The description of a defense, for listings and for the choice of adaptive attacks."""

    name: str
    summary: str
    """One line."""
    source: str
    """Paper, or library with class name."""
    differentiable: bool
    """Whether autograd gives the true, useful gradient."""
    randomised: bool
    """Whether two passes over the same input may differ."""
    kind: DefenseKind = "input"
    test_time_gradient: bool = False
    """Whether its forward pass computes gradients."""
    rejects: bool = False
    """Whether the last output is an additional one that rejects the image (`gauntlet.attacks.views.rejection_view`)."""
    certificates: tuple[str, ...] = ()
    """Norms for which certificates can be computed for a model behind the defense."""
    library: str = ""
    """The distribution whose code the defense runs; its version is part of cache keys. Empty if there is none."""
    samples: int | None = None
    """Default number of samples of a benchmark, for slow defenses; None for all."""


@dataclass(frozen=True)
class DefenseEntry:
    """A registry entry: the card, and the function that builds the defense.

    Depending on the card's kind, `build(**settings)` returns

    - `input`: a module from images to images, float tensors (N, C, H, W) in [0, 1], same dtype, on the input's device;
    - `output`: a module from logits (N, K) to the outputs of the defended model, (N, K), or (N, K + 1) if it rejects;
    - `model`: a function from the undefended model (a module from images to logits) to the defended model. If that has a
      method `attack_view()`, gradient attacks receive the module that it returns: same shapes, a useful gradient.

    A defense that is not differentiable need not support autograd. `substitute(**settings)`, for input defenses, returns a
    differentiable module close to the defense, whose gradient BPDA uses (default: the identity). `version` must be raised when
    the output changes.
    """

    card: DefenseCard
    build: Callable[..., Any]
    version: int = 1
    substitute: Callable[..., nn.Module] | None = None
    source_digest: str = ""
    """Digest of the code in cache keys, for defenses of plugins; set by the registry."""

    def make(self, **settings: Any) -> Any:
        """Build the defense. Raises ValueError for an unknown setting."""
        return _made(self.card.name, self.build, settings)

    def make_substitute(self, **settings: Any) -> nn.Module | None:
        """Build the differentiable substitute with the same settings; None if there is none."""
        substitute: nn.Module | None = _made(self.card.name, self.substitute, settings) if self.substitute else None
        return substitute


def _made(name: str, build: Callable[..., Any], settings: dict[str, Any]) -> Any:
    try:
        made = build(**settings)
    except TypeError as error:
        raise ValueError(f"settings {settings!r} do not fit defense {name!r}: {error}") from error
    return made.eval() if hasattr(made, "eval") else made
