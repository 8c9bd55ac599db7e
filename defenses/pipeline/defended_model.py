"""A model behind a defense, and what gradient attacks receive in its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from gauntlet.defenses.pipeline.bpda import straight_through
from gauntlet.defenses.pipeline.card import DefenseEntry


class DefendedModel(nn.Module):
    """Logits of `model` behind a defense: transformed images, transformed outputs, or both.

    `differentiable` and `randomised` say what the defense is: from its card, or measured by `is_differentiable` and
    `is_randomised`. `substitute`: what BPDA takes the gradient of, in place of an input defense that has none. `rejects`: the
    last output is the rejection, see `gauntlet.attacks.views.rejection_view`. `twin`: the undefended model, None without a
    defense.
    """

    def __init__(
        self,
        model: nn.Module,
        transform: nn.Module | None = None,
        *,
        differentiable: bool,
        randomised: bool,
        output: nn.Module | None = None,
        substitute: nn.Module | None = None,
        rejects: bool = False,
        twin: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.transform = transform or nn.Identity()
        self.output = output or nn.Identity()
        self.substitute = substitute
        self.differentiable = differentiable
        self.randomised = randomised
        self.rejects = rejects
        # Not registered: its parameters are the model's.
        self._twin = (twin,)
        # A module is born in training mode; this one follows what it wraps.
        self.training = model.training

    @property
    def twin(self) -> nn.Module | None:
        """The undefended model."""
        return self._twin[0]

    @property
    def beneath(self) -> nn.Module | None:
        """The pipeline without its output defense: what it gives out before that; None where there is none."""
        if isinstance(self.output, nn.Identity):
            return None
        return DefendedModel(self.model, self.transform, differentiable=True, randomised=self.randomised)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K), or (N, K + 1) where it rejects, of images (N, C, H, W) in [0, 1]."""
        logits: Tensor = self.output(self.model(self.transform(images)))
        return logits

    def attack_view(self) -> DefendedModel:
        """What gradient attacks receive: itself, or the same function with BPDA's gradient.

        The view shares model and defense, and its outputs are the same bit for bit, but for a defense around the model that
        brings a view of its own.
        """
        own = getattr(self.model, "attack_view", None)
        if self.differentiable and own is None:
            return self
        bridged = not self.differentiable
        return DefendedModel(
            own() if own is not None else self.model,
            straight_through(self.transform, self.substitute) if bridged and _acts(self.transform) else self.transform,
            output=straight_through(self.output) if bridged and _acts(self.output) else self.output,
            differentiable=True,
            randomised=self.randomised,
            rejects=self.rejects,
            twin=self.twin,
        )


def _acts(part: nn.Module) -> bool:
    return not isinstance(part, nn.Identity)


def defend(model: nn.Module, entry: DefenseEntry, settings: Mapping[str, Any] | None = None) -> DefendedModel:
    """`model` (images to logits) behind a registered defense, in the model's mode. Raises ValueError for its settings."""
    card, made = entry.card, entry.make(**(settings or {}))
    twin = None if card.name == "none" else model
    facts: dict[str, Any] = {
        "differentiable": card.differentiable,
        "randomised": card.randomised,
        "rejects": card.rejects,
        "twin": twin,
    }
    if card.kind == "input":
        return DefendedModel(model, made, substitute=entry.make_substitute(**(settings or {})), **facts)
    if card.kind == "output":
        return DefendedModel(model, output=made, **facts)
    return DefendedModel(made(model), **facts)
