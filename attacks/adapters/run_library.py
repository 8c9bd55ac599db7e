"""The base class of all adapters: a call of a library's attack on a batch, behind the guard."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.threat import Norm, ThreatModel
from gauntlet.attacks.ops.validators import number, positive, share, whole_number
from gauntlet.attacks.registry.card import AttackCard, AttackEntry, AttackKind
from gauntlet.attacks.views.guard import LogitsModel, guarded


@dataclass(frozen=True, kw_only=True)
class LibraryAttack(ABC):
    """An attack of another library with its settings; `repr` shows all of them, as resolved.

    Conventions of all subclasses: `steps` are iterations (official budgets by default), `restarts` includes the first start,
    `step_size` is a share of eps. Candidates are returned as the library gives them, without projection, so that the verifier
    notices a library that leaves the ball.
    """

    threat: ThreatModel

    version: ClassVar[int] = 1
    """Increased whenever the output changes: it is part of the key of stored results."""
    returns_failures: ClassVar[bool] = False
    """Whether the library also returns points that are no successes, such as the last iterate."""

    def __post_init__(self) -> None:
        """Raises ValueError for a setting out of range."""
        for name in ("steps", "restarts", "search_steps", "queries", "targets", "gradients", "eot", "max_eval"):
            if hasattr(self, name):
                whole_number(name, getattr(self, name), 1)
        for name in ("lr", "initial_c"):
            if hasattr(self, name):
                positive(name, getattr(self, name))
        for name in ("overshoot", "confidence"):
            if hasattr(self, name):
                number(name, getattr(self, name), least=0)
        for name in ("step_size", "p_init"):
            value = getattr(self, name, None)
            if value is not None:
                share(name, value)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Candidates for images (N, C, H, W) in [0, 1] and labels (N,), in the images' shape, dtype and device.

        The library works in float32; `model` sees the images' dtype. The same seed and batch give the same candidates. Changes to
        the model and to global state are undone. Raises ImportError that names the package to install if the library is missing,
        and ValueError if the attack does not exist for these images or this number of classes.
        """
        if len(images) == 0:
            return images.clone()
        with guarded(model, seed):
            logits_model = LogitsModel(model, images.dtype, images.device)
            # Clones made here are ordinary tensors even if the caller is in inference mode.
            clean, truth = images.detach().to(torch.float32, copy=True), labels.detach().clone()
            points = self.run(logits_model, clean, truth, seed % 2**31)
        if points.shape != images.shape:
            raise ValueError(f"{type(self).__name__} returned {tuple(points.shape)} for {tuple(images.shape)}")
        return points.detach().to(images)

    @abstractmethod
    def run(self, model: LogitsModel, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """The library's attack: float32 images in, candidates of the same shape out; `seed` fits 31 bits."""


W = TypeVar("W", bound=LibraryAttack)


def builder(kind: type[W]) -> Callable[..., W]:
    """`build(threat, **settings)` for a card; TypeError for a setting that the attack does not have."""

    def build(threat: ThreatModel, **settings: Any) -> W:
        return kind(threat=threat, **settings)

    return build


def library_entry(
    library: str,
    names: tuple[str, str],
    kind: type[LibraryAttack],
    summary: str,
    paper: str,
    *,
    norms: tuple[Norm, ...] = ("Linf", "L2"),
    access: AttackKind = "white-box",
    minimum_norm: bool = False,
) -> AttackEntry:
    """The entry `<library>.<name>` of a library's attack; `names` are that name and the one of the distribution."""
    name, distribution = names
    card = AttackCard(
        name=f"{library.lower()}.{name}",
        summary=summary,
        source=f"{library}; {paper}",
        norms=norms,
        kind=access,
        minimum_norm=minimum_norm,
        library=distribution,
    )
    return AttackEntry(card, builder(kind))


def step_share(step_size: float | None, steps: int) -> float:
    """The step as a share of eps: as given, else 2.5 / steps (as in `gauntlet.attacks.pgd`), at most 1."""
    return min(1.0, 2.5 / steps) if step_size is None else step_size


def count_classes(model: nn.Module, images: Tensor, *, least: int, attack: str) -> int:
    """Number of classes, from a pass on one image. Raises ValueError if the attack needs more."""
    with torch.no_grad():
        classes = int(model(images[:1]).shape[-1])
    if classes < least:
        why = " (towards a class, any model has two: that one and the rest)" if classes == 2 else ""
        raise ValueError(
            f"{attack} needs at least {least} classes, and the model has {classes}{why}: use another attack"
        )
    return classes


def refuse_square_tiles(images: Tensor, norm: Norm, library: str, instead: str) -> None:
    """Raise ValueError for images that the authors' Square Attack cannot take, in whatever library it is.

    Its first pattern in L2 and L1 is a grid of tiles of a fifth of the height, which exceeds images of some sizes.
    """
    height, width = images.shape[-2:]
    if norm == "Linf":
        return
    tile = height // 5
    fits = tile and all((height - 5 * tile) // 2 + side // tile * tile <= side for side in (height, width))
    if min(height, width) < 5 or not (fits or tile == 1):
        raise ValueError(
            f"Square Attack of {library} fails on {height}×{width} images in {norm} (its tiles leave the image; "
            f"8×8, 28×28, 32×32, 224×224 work): use {instead}"
        )


def library(module: str, package: str) -> ModuleType:
    """Import a module of an attack library. Raises ImportError that names the package to install."""
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise ImportError(
            f"cannot import {module} ({type(error).__name__}: {error}): run `pip install {package}`"
        ) from error
