"""A readout in place of the layer that answers: a linear function of its inputs that has a planted example in each ball.

Zimmermann et al. 2022 (arXiv 2206.13991): for each sample the last layer is replaced by a linear readout of its features that
separates a planted point of the ball from points around the clean image. The layers before it are kept, and so are those
behind it (the paper drops them): whatever masks the gradient of the model masks that of the readout.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.threat import ThreatModel


class NoReadoutError(ValueError):
    """No layer can be replaced by a readout."""


@dataclass(frozen=True, eq=False)
class Place:
    """The layer that is replaced, and which of its rows belong to an image."""

    layer: nn.Module
    columns: int
    """Number of outputs of the layer for a row."""
    interleaved: bool = False
    """Whether the rows of an image, where it has several, stand side by side; else they follow those of all others."""
    images: bool = False
    """Whether the layer receives images: then each of its inputs shows its sample, also where a defense makes copies."""


@dataclass(frozen=True, eq=False)
class Readout:
    """The replacement of the layer: features f of sample i have the value v = weight_i · f + offset_i.

    The label's logit is middle_i − v / 2, that of the planted class middle_i + v / 2. At the clean image they are those of the
    layer itself.
    """

    place: Place
    clean: Tensor
    """(N, C, H, W): a point belongs to the sample whose clean image is the nearest, in the norm of the threat model."""
    weight: Tensor
    """(N, F)."""
    offset: Tensor
    """(N,)."""
    middle: Tensor
    """(N,)."""
    labels: Tensor
    hidden: Tensor
    """int64 (N,), the class of the planted point."""
    others: Tensor
    """(N,), the logit of all other classes."""
    threat: ThreatModel

    def which(self, points: Tensor) -> Tensor:
        """The samples, int64 (M,), that points (M, C, H, W) belong to."""
        order = {"Linf": torch.inf, "L2": 2.0, "L1": 1.0}[self.threat.norm]
        return self._nearest(points, order)

    def behind(self, copies: Tensor) -> Tensor:
        """The samples, int64 (M,), that images (M, C, H, W) behind the defense belong to: the nearest, whatever was added."""
        return self._nearest(copies, 2.0)

    def rows(self, points: Tensor, given: Tensor) -> Tensor:
        """The samples, int64, that the layer's inputs `given` (M · copies, …) belong to, in a pass over points (M, C, H, W)."""
        if self.place.images:
            return self.behind(given)
        samples, copies = self.which(points), len(given) // max(1, len(points))
        return samples.repeat_interleave(copies) if self.place.interleaved else samples.repeat(copies)

    def _nearest(self, points: Tensor, order: float) -> Tensor:
        with torch.no_grad():
            return torch.cdist(points.detach().flatten(1), self.clean.flatten(1), p=order).argmin(1)

    def logits(self, features: Tensor, rows: Tensor) -> Tensor:
        """(M, columns) for features (M, …) of points of the samples at `rows`."""
        half = ((features.flatten(1) * self.weight[rows]).sum(1) + self.offset[rows]) / 2
        blank = self.others[rows][:, None].expand(-1, self.place.columns)
        middle = self.middle[rows]
        return blank.scatter(1, self.labels[rows][:, None], (middle - half)[:, None]).scatter(
            1, self.hidden[rows][:, None], (middle + half)[:, None]
        )


class PlantedModel(nn.Module):
    """A model with the readout in place of its layer during the forward pass."""

    def __init__(self, model: nn.Module, readout: Readout) -> None:
        super().__init__()
        self.model = model
        self.readout = readout
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Outputs of the changed model."""

        def replace(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return self.readout.logits(given[0], self.readout.rows(images, given[0])).view_as(output)

        handle = self.readout.place.layer.register_forward_hook(replace)
        try:
            outputs: Tensor = self.model(images)
        finally:
            handle.remove()
        return outputs
