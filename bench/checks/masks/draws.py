"""Masks that draw at random in each pass, from torch's global generator: noise, pruning, transformations."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from gauntlet.bench.checks.hidden_masks import MaskedNetwork, undefended
from gauntlet.bench.checks.masks.parts import Averaged, Jitter, labels_only, levels, seen_through
from gauntlet.bench.checks.masks.training import trained
from gauntlet.bench.models.cnn import cnn


def moved(images: Tensor) -> Tensor:
    """Each image scaled by 0.9 to 1.1 and shifted by up to a pixel, both drawn."""
    count = len(images)
    scale = 0.9 + 0.2 * torch.rand(count, device=images.device)
    shift = (2 * torch.rand(count, 2, device=images.device) - 1) * 2 / images.shape[-1]
    zero = torch.zeros_like(scale)
    rows = [torch.stack([scale, zero, shift[:, 0]], 1), torch.stack([zero, scale, shift[:, 1]], 1)]
    grid = affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False)


def moved_and_rounded(images: Tensor) -> Tensor:
    """The same in eight steps of grey."""
    return levels(moved(images), 8)


def _moving_network() -> nn.Module:
    return MaskedNetwork(cnn(), moved)


def random_transforms() -> nn.Module:
    """Random scale and shift, then rounding."""
    return seen_through(trained(_moving_network), moved_and_rounded)


def random_transforms_twin() -> nn.Module:
    """The mean over transformations, without rounding."""
    return Averaged(trained(_moving_network))


class NoisyActivation(nn.Module):
    """ReLU, then Gaussian noise in proportion to the mean activation of each image."""

    def forward(self, values: Tensor) -> Tensor:
        """Same shape."""
        active = values.relu()
        mean = active.flatten(1).mean(1).view(-1, *[1] * (values.dim() - 1))
        return active + 0.6 * mean * torch.randn_like(active)


class PrunedActivation(nn.Module):
    """ReLU, then activations are kept with a probability that follows their size, and scaled up by it."""

    def forward(self, values: Tensor) -> Tensor:
        """Same shape."""
        flat = values.relu().flatten(1)
        share = flat / flat.sum(1, keepdim=True).clamp_min(1e-12)
        kept = (1 - (1 - share) ** flat.shape[1]).detach()
        return (flat * (torch.rand_like(kept) < kept) / kept.clamp_min(1e-12)).view_as(values)


def activated(network: nn.Module, activation: type[nn.Module]) -> nn.Module:
    """A sequential network with another activation in place of each ReLU."""
    layers = (activation() if isinstance(layer, nn.ReLU) else layer for layer in network.children())
    return nn.Sequential(*layers).eval()


def _noisy_network() -> nn.Module:
    return activated(cnn(), NoisyActivation)


def activation_noise() -> nn.Module:
    """Noise on each activation."""
    return trained(_noisy_network)


def activation_noise_twin() -> nn.Module:
    """The mean over draws."""
    return Averaged(trained(_noisy_network))


def stochastic_pruning() -> nn.Module:
    """Activations pruned by lot."""
    return activated(undefended(), PrunedActivation)


def stochastic_pruning_twin() -> nn.Module:
    """The mean over draws."""
    return Averaged(activated(undefended(), PrunedActivation))


COPIES, NOISE = 16, 0.1


class NoisyVote(nn.Module):
    """Shares of votes over noisy copies of the image."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.voter = Averaged(Jitter(model, NOISE), COPIES, labels_only)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Shares (N, K)."""
        shares: Tensor = self.voter(images)
        return shares


def noisy_vote() -> nn.Module:
    """Labels of sixteen noisy copies."""
    return NoisyVote(undefended())


def noisy_vote_twin() -> nn.Module:
    """Probabilities of noisy copies."""
    return Averaged(Jitter(undefended(), NOISE), COPIES)


def noisy_input_twin() -> nn.Module:
    """The mean over draws of noise on the image."""
    return Averaged(Jitter(undefended(), NOISE))
