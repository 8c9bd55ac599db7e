"""A model behind a defense, and the view of it that gradient attacks receive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from gauntlet.defenses.pipeline.bpda import straight_through
from gauntlet.defenses.pipeline.card import DefenseEntry


class DefendedModel(nn.Module):
    """Logits of `model` behind a defense: transformed images, transformed outputs, or both.

    `differentiable` and `randomised` describe the defense: from its card, or measured by `profile`
    (`is_differentiable`, `is_randomised`). `opaque`: whether it is declared that autograd gives no useful gradient through the
    model itself. `substitute`: the module whose gradient BPDA uses for an input defense. `rejects`:
    whether the last output is the rejection, see `gauntlet.attacks.views.rejection_view`. `twin`: the undefended model, None
    without a defense.
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
        opaque: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.transform = transform or nn.Identity()
        self.output = output or nn.Identity()
        self.substitute = substitute
        self.differentiable = differentiable
        self.randomised = randomised
        self.rejects = rejects
        self.opaque = opaque
        # In a tuple, since a submodule would register the model's parameters twice.
        self._twin = (twin,)
        # New modules are in training mode; this module takes the mode of the wrapped model.
        self.training = model.training

    @property
    def twin(self) -> nn.Module | None:
        """The undefended model."""
        return self._twin[0]

    @property
    def beneath(self) -> nn.Module | None:
        """The pipeline without its output defense; None if there is none."""
        if isinstance(self.output, nn.Identity):
            return None
        return DefendedModel(self.model, self.transform, differentiable=True, randomised=self.randomised)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K), or (N, K + 1) if it rejects, of images (N, C, H, W) in [0, 1]."""
        logits: Tensor = self.output(self.model(self.transform(images)))
        return logits

    def attack_view(self) -> DefendedModel:
        """The model for gradient attacks: itself, or the same function with BPDA's gradient.

        The view shares model and defense, and its outputs are bitwise equal, except for a defense around the model with its
        own view.
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
            opaque=self.opaque,
        )


def _acts(part: nn.Module) -> bool:
    return not isinstance(part, nn.Identity)


def defend(model: nn.Module, entry: DefenseEntry, settings: Mapping[str, Any] | None = None) -> DefendedModel:
    """Put `model` (images to logits) behind a registered defense, in the model's mode. Raises ValueError for bad settings."""
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
