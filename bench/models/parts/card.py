"""The card and registry entry of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gauntlet.leaderboard.results.published_figure import PublishedFigure

if TYPE_CHECKING:  # listing models must not import torch
    from torch import nn

Access = Literal["white-box", "scores", "labels"]
"""What an attack may observe of a model: its gradients, its outputs only, or the predicted classes only."""


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of an accuracy in [0, 1] over `n` trainings with different seeds."""

    mean: float
    deviation: float
    n: int


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Origin, input format and claims of a model. Accuracies are shares in [0, 1]."""

    name: str
    """`architecture.recipe_data`."""
    summary: str
    """One line."""
    architecture: str = ""
    recipe: str = ""
    """Training recipe that reproduces the model."""
    data: str = ""
    """Data that the claims were measured on."""
    threat: str | None = None
    """Threat model that the model was trained for."""
    source: str = ""
    """Paper of the recipe."""
    licence: str = ""
    weights: str = ""
    """File in the package, or origin of the weights."""
    sha256: str = ""
    """sha256 of that file; empty if there is none."""
    input_size: tuple[int, int, int] | None = None
    """Channels, height and width of the images that the model expects."""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    """Normalisation of images in [0, 1] that the wrapper applies; None if the model normalises itself or not at all."""
    access: Access = "white-box"
    published: tuple[PublishedFigure, ...] = ()
    """Figures that others published for the model."""
    clean: float | None = None
    n: int = 0
    """Number of samples that the claims were measured on."""
    robust: float | None = None
    """Robust accuracy at `claim_threat` under `claim_attack`."""
    claim_threat: str = ""
    claim_attack: str = ""
    certified: float | None = None
    """Certified accuracy at `claim_threat`, by interval bounds; None if it is not stated."""
    clean_over_seeds: Spread | None = None
    robust_over_seeds: Spread | None = None
    clean_tolerance: float = 0.0
    """Tolerance of `clean`: the largest difference for a model trained again, from any seed."""
    tolerance: float = 0.0
    """Tolerance of `robust`, likewise."""


@dataclass(frozen=True)
class ModelEntry:
    """A registry entry: the card, and `build()`, which returns the model with its weights, in eval mode."""

    card: ModelCard
    build: Callable[[], nn.Module]
    source: str = ""
    """`module:object` of the network, if `build` is defined elsewhere: its file is part of the cache key."""
