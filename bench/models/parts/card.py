"""What the registry knows of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gauntlet.leaderboard.results.published import Published

if TYPE_CHECKING:  # listing models must not import torch
    from torch import nn

Access = Literal["white-box", "scores", "labels"]
"""What an attack may see of a model: its gradients, its outputs only, or the predicted classes only."""


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of an accuracy over `n` trainings that differ in their seed; shares in [0, 1]."""

    mean: float
    deviation: float
    n: int


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Where a model came from, how to feed it, and what it claims. Accuracies are shares in [0, 1]."""

    name: str
    """`architecture.recipe_data`."""
    summary: str
    """One line."""
    architecture: str = ""
    recipe: str = ""
    """Training recipe that makes it again."""
    data: str = ""
    """Data that the claims were measured on."""
    threat: str | None = None
    """Threat model that it was trained for."""
    source: str = ""
    """Paper of the recipe."""
    licence: str = ""
    weights: str = ""
    """File in the package, or where the weights came from."""
    sha256: str = ""
    """Of that file, where it is one."""
    input_size: tuple[int, int, int] | None = None
    """Channels, height and width of the images that it was made for."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    """Its normalisation of images in [0, 1], which is put inside; None where it has its own, or none."""
    access: Access = "white-box"
    published: tuple[Published, ...] = ()
    """What others state of it."""
    clean: float | None = None
    n: int = 0
    """How many samples the claims were measured on."""
    robust: float | None = None
    """At `claim_threat`, under `claim_attack`."""
    claim_threat: str = ""
    claim_attack: str = ""
    certified: float | None = None
    """Proven robust at `claim_threat`, by interval bounds; None where these prove nothing worth telling."""
    clean_over_seeds: Spread | None = None
    robust_over_seeds: Spread | None = None
    clean_tolerance: float = 0.0
    """How far the clean accuracy of a model trained again, from any seed, may lie from `clean`."""
    tolerance: float = 0.0
    """The same for `robust`."""


@dataclass(frozen=True)
class ModelEntry:
    """A registry entry: the card, and `build()`, which returns the model with its weights, in eval mode."""

    card: ModelCard
    build: Callable[[], nn.Module]
    source: str = ""
    """`module:object` of the network, where `build` is defined elsewhere: its file is part of the key of results."""
