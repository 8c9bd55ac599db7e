"""Masks that write each pixel as a code: thermometers and one-hot levels, and the network reads the code."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from gauntlet.bench.checks.hidden_masks import MaskedNetwork
from gauntlet.bench.checks.masks.parts import seen_through
from gauntlet.bench.checks.masks.training import trained
from gauntlet.bench.models.cnn import cnn

LEVELS = 10


def thermometer(images: Tensor) -> Tensor:
    """Images (N, 1, H, W) as (N, 10, H, W): channel i is on where the pixel is above i / 10."""
    steps = torch.arange(LEVELS, device=images.device)[:, None, None]
    return (LEVELS * images > steps).to(images.dtype)


def soft_thermometer(images: Tensor) -> Tensor:
    """The same with a ramp between neighbouring steps."""
    steps = torch.arange(LEVELS, device=images.device)[:, None, None]
    return (LEVELS * images - steps).clamp(0, 1)


def one_hot_levels(images: Tensor) -> Tensor:
    """Images (N, 1, H, W) as (N, 10, H, W): the channel of the pixel's interval is on."""
    edges = torch.linspace(0, 1, LEVELS + 1, device=images.device)[1:-1]
    return one_hot(torch.bucketize(images[:, 0].contiguous(), edges), LEVELS).permute(0, 3, 1, 2).to(images.dtype)


def soft_levels(images: Tensor) -> Tensor:
    """The same with triangles around the centres of the intervals."""
    centres = (torch.arange(LEVELS, device=images.device)[:, None, None] + 0.5) / LEVELS
    within = images.clamp(0.5 / LEVELS, 1 - 0.5 / LEVELS)
    return (1 - LEVELS * (within - centres).abs()).clamp_min(0)


def _reader() -> nn.Module:
    return nn.Sequential(nn.Conv2d(LEVELS, 16, 3, padding=1), *list(cnn().children())[1:])


def _thermometer_network() -> nn.Module:
    return MaskedNetwork(_reader(), thermometer)


def _levels_network() -> nn.Module:
    return MaskedNetwork(_reader(), one_hot_levels)


def thermometer_codes() -> nn.Module:
    """A network that reads thermometers."""
    return trained(_thermometer_network)


def thermometer_codes_twin() -> nn.Module:
    """It reads ramps."""
    return seen_through(trained(_thermometer_network), soft_thermometer)


def discretised_pixels() -> nn.Module:
    """A network that reads one-hot intervals."""
    return trained(_levels_network)


def discretised_pixels_twin() -> nn.Module:
    """It reads triangles."""
    return seen_through(trained(_levels_network), soft_levels)
