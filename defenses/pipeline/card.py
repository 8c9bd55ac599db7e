"""What the registry knows of a defense at inference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # listing defenses must not import torch
    from torch import nn

DefenseKind = Literal["input", "output", "model"]
"""Where a defense acts: on the images, on the model's output, or around the model as a whole."""


@dataclass(frozen=True)
class DefenseCard:
    """What a defense is, for listings, and for choosing the attack that fits it."""

    name: str
    summary: str
    """One line."""
    source: str
    """Paper, or library with class name."""
    differentiable: bool
    """Whether autograd gives the true, useful gradient through it."""
    randomised: bool
    """Whether two passes over the same input may differ."""
    kind: DefenseKind = "input"
    test_time_gradient: bool = False
    """Whether it takes gradients itself, inside its forward."""
    rejects: bool = False
    """Whether the last output is an additional one that rejects the image (`gauntlet.attacks.views.rejection_view`)."""
    certificates: tuple[str, ...] = ()
    """Norms for which a certificate may be computed of a model behind it."""
    library: str = ""
    """The distribution whose code it runs, with its version part of keys; empty where it runs none."""
    samples: int | None = None
    """How many samples a benchmark takes where nobody says; None: all. For defenses that take long."""


@dataclass(frozen=True)
class DefenseEntry:
    """A registry entry: the card, and what builds the defense.

    By the card's kind `build(**settings)` returns

    - `input`: a module from images to images, float tensors (N, C, H, W) in [0, 1], same dtype, on the input's device;
    - `output`: a module from logits (N, K) to what is given out in their place, (N, K), or (N, K + 1) where it rejects;
    - `model`: a function from the undefended model (a module from images to logits) to the defended one. Where that has a
      method `attack_view()`, gradient attacks receive the module that it returns: same shapes, a useful gradient.

    They need not support autograd where the card says that they are not differentiable. `substitute(**settings)`, of input
    defenses, is a differentiable module close to the defense, whose gradient BPDA takes; the identity where there is none.
    `version` rises when the output changes.
    """

    card: DefenseCard
    build: Callable[..., Any]
    version: int = 1
    substitute: Callable[..., nn.Module] | None = None
    source_digest: str = ""
    """Stands for its code in keys, of a defense that is not Gauntlet's: set where it is registered."""

    def make(self, **settings: Any) -> Any:
        """The defense, with a setting that it does not have refused by name."""
        return _made(self.card.name, self.build, settings)

    def make_substitute(self, **settings: Any) -> nn.Module | None:
        """The differentiable stand-in, with the same settings; None where there is none."""
        substitute: nn.Module | None = _made(self.card.name, self.substitute, settings) if self.substitute else None
        return substitute


def _made(name: str, build: Callable[..., Any], settings: dict[str, Any]) -> Any:
    try:
        made = build(**settings)
    except TypeError as error:
        raise ValueError(f"settings {settings!r} do not fit defense {name!r}: {error}") from error
    return made.eval() if hasattr(made, "eval") else made
