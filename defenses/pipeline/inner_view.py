"""Inner views: classifiers within the forward pass of a pipeline, which attacks see in place of its output.

Behind most wrappers stands a network with logits. Points that are found on its outputs are put to the pipeline itself: transfer,
Papernot et al., "Practical black-box attacks against machine learning", 2017, arXiv 1602.02697. Away from the features of the own
class and towards those of another: Sabour et al., "Adversarial manipulation of deep representations", 2016, arXiv 1511.05122;
Sitawarin and Wagner, "On the robustness of deep k-nearest neighbors", 2019, arXiv 1903.08333.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gauntlet.attacks.views.backward_modes import Backward
from gauntlet.defenses.pipeline.module_outputs import EnoughError, recorded_outputs

VERSION = 1
"""Rises with every change of what a view answers."""
_BATCH = 64
Join = Literal["mean", "beside", "nearest"]
"""The mean of outputs, in units of their own deviation; binary outputs side by side; minus squared distances to class means."""


@dataclass(frozen=True)
class InnerOutput:
    """The output of a submodule in a forward pass over N images: M rows, several for an image where it sees copies."""

    path: str
    """Qualified name of the submodule."""
    copies: int = 1
    """The number of rows for each image, over all calls of the pass."""
    interleaved: bool = False
    """Whether the rows of an image are neighbours; else those of each copy are."""
    copy: int = -1
    """The copy that is meant; -1: their mean."""

    def __str__(self) -> str:
        if self.copies == 1:
            return self.path
        which = f"mean of {self.copies}{' interleaved' if self.interleaved else ''}" if self.copy < 0 else self.copy
        return f"{self.path}[{which}]"

    def of(self, outputs: list[Tensor], images: int) -> Tensor | None:
        """The output (images, D) from the outputs (rows, …) of the submodule's calls; None where rows are missing."""
        # A number for each image, such as a detector's score, has no second dimension.
        flat = [one.reshape(len(one), -1) for one in outputs]
        rows = torch.cat(flat) if len(flat) > 1 else flat[0]
        copies = len(rows) // images
        if copies <= self.copy or not copies:
            return None
        rows = rows[: copies * images]
        apart = rows.view(images, copies, -1).transpose(0, 1) if self.interleaved else rows.view(copies, images, -1)
        return apart.mean(0) if self.copy < 0 else apart[self.copy]

    def rows(self, images: int) -> int:
        """The number of rows that are needed."""
        return images * (self.copies if self.copy < 0 else self.copy + 1)


@dataclass(frozen=True)
class InnerView:
    """A view of inner outputs: (N, K), one column for each class."""

    join: Join
    outputs: tuple[InnerOutput, ...]
    classes: int
    backward: Backward = "true"
    """How its gradient passes back to the image."""
    links: tuple[str, ...] = ()
    """Submodules whose input has the image's shape and no gradient: it is taken for the image on the way back."""
    stops: bool = False
    """Whether a pass may end with the last of the outputs, since this leaves the pipeline as it was."""
    reference: str = ""
    """Digest of the images of the class means; empty without."""

    @property
    def name(self) -> str:
        """The name by which stages ask for it. It is part of keys."""
        kind = self.join if len(self.outputs) > 1 or self.join != "mean" else ""
        parts = ", ".join(str(one) for one in self.outputs)
        return " ".join(part for part in ("inner", kind, parts, self.reference) if part)

    def fields(self) -> dict[str, Any]:
        """As plain data, which JSON returns unchanged."""
        return {**asdict(self), "outputs": [asdict(one) for one in self.outputs], "links": list(self.links)}

    @classmethod
    def read(cls, fields: dict[str, Any]) -> InnerView:
        """From the plain data of `fields`."""
        outputs = tuple(InnerOutput(**one) for one in fields["outputs"])
        return cls(**{**fields, "outputs": outputs, "links": tuple(fields["links"])})


class InnerViewModel(nn.Module):
    """The view of a pipeline: images (N, C, H, W) to (N, K)."""

    def __init__(self, pipeline: nn.Module, view: InnerView) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.view = view
        self.register_buffer("means", None)
        # Not `eval()`: the pipeline's mode is its own.
        self.training = False

    means: Tensor | None

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K); 0 where the pass calls none of the submodules."""
        parts = self.parts(images)
        if not parts:
            return (0 * images.flatten(1)[:, :1]).expand(-1, self.view.classes)
        if self.view.join == "mean":
            return parts[0] if len(parts) == 1 else torch.stack([in_units(one) for one in parts]).mean(0)
        features = beside(parts)
        if self.view.join == "beside":
            return features
        assert self.means is not None, "set the class means first"
        return distances(features, self.means)

    def parts(self, images: Tensor) -> list[Tensor]:
        """The view's outputs, each (N, D), that the pass gives."""
        view, count = self.view, len(images)
        needed = {one.path: one.rows(count) for one in sorted(view.outputs, key=lambda one: one.rows(count))}
        stop = needed if view.stops else None
        with (
            recorded_outputs(self.pipeline, images, tuple(needed), view.links, needed=stop) as seen,
            suppress(EnoughError),
        ):
            self.pipeline(images)
        found = [one.of(seen[one.path], count) for one in view.outputs if seen.get(one.path)]
        return [one for one in found if one is not None]

    def set_means(self, images: Tensor, labels: Tensor) -> None:
        """Set the class means from images (M, C, H, W) with labels (M,)."""
        with torch.no_grad():
            found = [beside(self.parts(part)) for part in images.split(_BATCH)]
        self.means = class_means(torch.cat(found), labels, self.view.classes)


def in_units(logits: Tensor) -> Tensor:
    """Logits (N, K) divided by their deviation, so that all outputs have the same say."""
    size = logits.detach().std(1, keepdim=True, correction=0)
    return logits / size.clamp_min(torch.finfo(logits.dtype).tiny)


def beside(parts: list[Tensor]) -> Tensor:
    """Outputs side by side; of two columns, which are yes and no, their difference."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat([one[:, 1:] - one[:, :1] if one.shape[1] == 2 else one for one in parts], 1)


def class_means(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The mean (K, D) of the features (M, D) of each class; NaN of classes that are absent."""
    own = torch.nn.functional.one_hot(labels.clamp(0, classes - 1), classes).to(features)
    return own.T @ features / own.sum(0)[:, None]


def distances(features: Tensor, means: Tensor) -> Tensor:
    """Minus the squared distances of features (N, D) to class means (K, D), (N, K); absent classes are the farthest."""
    apart = (features[:, None] - means).square().sum(2)
    farthest = apart.nan_to_num(0).amax(1, keepdim=True)
    return -torch.where(apart.isnan(), 2 * farthest.detach(), apart)
