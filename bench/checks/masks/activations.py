"""Masks inside the network: activations that jump, are rounded, saturate, or let only the largest through."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from gauntlet.bench.checks.masks.draws import activated
from gauntlet.bench.checks.masks.parts import Averaged, Jitter, levels
from gauntlet.bench.checks.masks.training import trained
from gauntlet.bench.models.cnn import cnn


class HardActivation(nn.Module):
    """An activation that hides its gradient in eval mode. Training sees that of a smooth stand-in, and so does a twin."""

    open: bool = False
    """Whether the gradient of the stand-in is shown in eval mode too."""

    def forward(self, values: Tensor) -> Tensor:
        """Same shape."""
        if not (self.training or self.open):
            return self.hard(values)
        soft = self.soft(values)
        return soft + (self.hard(values) - soft).detach()

    @abstractmethod
    def hard(self, values: Tensor) -> Tensor:
        """The activation."""

    @abstractmethod
    def soft(self, values: Tensor) -> Tensor:
        """Its smooth stand-in."""


class Jump(HardActivation):
    """ReLU that jumps from 0 to 0.5."""

    def hard(self, values: Tensor) -> Tensor:
        """0 below 0.5."""
        return values * (values > 0.5)

    def soft(self, values: Tensor) -> Tensor:
        """Near the same, without the jump."""
        return values * (6 * (values - 0.5)).sigmoid()


class Quantised(HardActivation):
    """ReLU in four steps up to 1."""

    def hard(self, values: Tensor) -> Tensor:
        """0, 1/4, …, 1."""
        return levels(values.clamp(0, 1), 4)

    def soft(self, values: Tensor) -> Tensor:
        """With a small slope outside, so that it never vanishes."""
        return values.clamp(0, 1) + 0.1 * values


class Saturated(HardActivation):
    """A hyperbolic tangent so steep that its derivative rounds to 0."""

    def hard(self, values: Tensor) -> Tensor:
        """Nearly the sign."""
        return (50 * values).tanh()

    def soft(self, values: Tensor) -> Tensor:
        """The tangent."""
        return values.tanh()


class Winners(HardActivation):
    """Only the largest fifth of each image's activations passes."""

    def hard(self, values: Tensor) -> Tensor:
        """The others are 0."""
        flat = values.flatten(1)
        least = flat.topk(max(1, flat.shape[1] // 5)).values[:, -1:]
        return (flat * (flat >= least)).view_as(values)

    def soft(self, values: Tensor) -> Tensor:
        """The passage fades around the last winner."""
        flat = values.flatten(1)
        least = flat.topk(max(1, flat.shape[1] // 5)).values[:, -1:]
        width = flat.std(1, keepdim=True).detach().clamp_min(1e-6) / 4
        return (flat * ((flat - least) / width).sigmoid()).view_as(values)


def _opened(network: nn.Module) -> nn.Module:
    for layer in network.modules():
        if isinstance(layer, HardActivation):
            layer.open = True
    return network


def _jumping() -> nn.Module:
    return activated(cnn(), Jump)


def _quantised() -> nn.Module:
    return activated(cnn(), Quantised)


def _saturated() -> nn.Module:
    return activated(cnn(), Saturated)


def _winning() -> nn.Module:
    return activated(cnn(), Winners)


def jump_activations() -> nn.Module:
    """Activations with a jump."""
    return trained(_jumping)


def jump_activations_twin() -> nn.Module:
    """The stand-in's gradient."""
    return _opened(trained(_jumping))


def quantised_activations() -> nn.Module:
    """Activations in steps."""
    return trained(_quantised)


def quantised_activations_twin() -> nn.Module:
    """The stand-in's gradient."""
    return _opened(trained(_quantised))


def saturated_activations() -> nn.Module:
    """Activations without a slope."""
    return trained(_saturated)


def saturated_activations_twin() -> nn.Module:
    """The stand-in's gradient."""
    return _opened(trained(_saturated))


def k_winners() -> nn.Module:
    """Activations of which the largest pass."""
    return trained(_winning)


def k_winners_twin() -> nn.Module:
    """The stand-in's gradient, averaged over a small neighbourhood."""
    return Averaged(Jitter(_opened(trained(_winning)), 0.02), 4)
