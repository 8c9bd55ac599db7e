"""A data set, a model, a defense and two attacks that Gauntlet does not have. Importing this file registers them.

The data set and the model are toys, so that everything runs in seconds.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn

import gauntlet
from gauntlet import ops

SIZE = 8
ANGLES = torch.tensor([0.0, 0.25, 0.5, 0.75]) * torch.pi
"""The angle of the stripes of each class."""


def waves(angle, phase):
    """Waves of period 4, (..., SIZE, SIZE) in [-1, 1]; the angles and phases are (...,)."""
    down, right = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    along = right * angle.cos()[..., None, None] + down * angle.sin()[..., None, None]
    return torch.sin(torch.pi / 2 * along + phase[..., None, None])


# --- a data set: a function that returns images and labels, or a torch Dataset, or a DataLoader ---


def stripes():
    """200 images (200, 1, 8, 8) in [0, 1], noisy stripes of one of four directions, and their labels."""
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, len(ANGLES), 200))
    phase = torch.from_numpy(rng.uniform(0, 2 * np.pi, 200))
    noise = torch.from_numpy(rng.normal(0, 0.1, (200, 1, SIZE, SIZE)))
    images = 0.5 + 0.1 * waves(ANGLES[labels], phase)[:, None] + noise
    return images.clamp(0, 1).float(), labels


STRIPES = gauntlet.DataEntry(
    gauntlet.DataCard(
        name="stripes",
        summary="200 noisy pictures of stripes, 8×8 grey, 4 directions",
        source="made by this file",
        licence="CC0",
        classes=len(ANGLES),
        shape=(1, SIZE, SIZE),
    ),
    stripes,
)


# --- a model: a function without arguments that returns it in eval mode, with its weights ---


class Energy(nn.Module):
    """Energy of the stripes in each direction, independent of their phase: Adelson and Bergen 1985,
    doi 10.1364/JOSAA.2.000284."""

    def __init__(self):
        super().__init__()
        pair = torch.stack([waves(ANGLES, torch.full_like(ANGLES, phase)) for phase in (0, torch.pi / 2)])
        self.register_buffer("filters", pair.flatten(2) / SIZE)

    def forward(self, images):
        """Logits (N, 4) of images (N, 1, 8, 8) in [0, 1]."""
        seen = images.flatten(1) - images.flatten(1).mean(1, keepdim=True)
        return torch.einsum("nd,pkd->pnk", seen, self.filters).square().sum(0)


def energy():
    return Energy().eval()


ENERGY = gauntlet.ModelEntry(
    gauntlet.ModelCard(name="energy", summary="the energy of stripes in four directions", licence="CC0"), energy
)


# --- a defense: a function whose arguments are its settings, and which returns a module from images to images ---


class Levels(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.steps = count - 1

    def forward(self, images):
        return (images * self.steps).round() / self.steps


def levels(count=4):
    if count < 2:
        raise ValueError(f"count={count!r} must be at least 2")
    return Levels(count)


LEVELS = gauntlet.DefenseEntry(
    gauntlet.DefenseCard(
        name="levels",
        summary="rounds every pixel to one of `count` values",
        source="Xu et al. 2018, arXiv 1704.01155",
        differentiable=False,  # so that it is attacked through BPDA
        randomised=False,
    ),
    levels,
)


# --- an attack in one call ---


@dataclass(frozen=True, kw_only=True)
class SimBA:
    """Simple black-box attack: Guo et al. 2019, arXiv 1905.07121, algorithm 1, in the pixel basis.

    Moves the pixels in random order by +eps and by -eps, and keeps a change if it lowers the label's probability.
    Departure from the paper: it is for Linf, where a pixel moves by eps at once.
    """

    threat: gauntlet.ThreatModel
    queries: int = 128

    version: ClassVar[int] = 1  # increase it when the output changes for a reason outside the files of the plugin

    def __call__(self, model, images, labels, seed):
        """Candidates (N, C, H, W); the clean image where no example was found. Gauntlet verifies them."""
        order = torch.randperm(images[0].numel(), generator=torch.Generator().manual_seed(seed))
        best, rows = images.clone(), labels[:, None]
        with torch.no_grad():
            lowest = model(best).softmax(1).gather(1, rows).squeeze(1)
            for turn in range(self.queries - 1):
                pixel, sign = order[turn // 2 % len(order)], 1 - 2 * (turn % 2)
                tried = best.flatten(1).clone()
                tried[:, pixel] = (images.flatten(1)[:, pixel] + sign * self.threat.eps).clamp(0, 1)
                tried = tried.view_as(images)
                found = model(tried).softmax(1).gather(1, rows).squeeze(1)
                better = found < lowest
                best[better], lowest[better] = tried[better], found[better]
        return best


SIMBA = gauntlet.AttackEntry(
    gauntlet.AttackCard(
        name="simba",
        summary="single pixels in random order, kept where they help",
        source="Guo et al. 2019, arXiv 1905.07121",
        norms=("Linf",),
        kind="black-box",
    ),
    lambda threat, **settings: SimBA(threat=threat, **settings),
)


# --- an attack as a rule: one step for a batch of samples; Gauntlet stops, counts and verifies ---


class Point(NamedTuple):
    x: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class BIM(gauntlet.Rule[Point]):
    """Basic iterative method: Kurakin, Goodfellow and Bengio 2017, arXiv 1607.02533, section 2.1."""

    steps: int = 10

    def start(self, oracle):
        return Point(x=oracle.clean)

    def step(self, state, oracle):
        gradient = oracle.gradient(state.x, ops.ce).gradient
        x = state.x + 2 * oracle.threat.eps / self.steps * gradient.sign()
        return Point(x=ops.project(x, oracle.clean, oracle.threat))


ITERATED = gauntlet.AttackEntry(
    gauntlet.AttackCard(
        name="bim",
        summary="signed gradient steps without momentum or random start",
        source="Kurakin et al. 2017, arXiv 1607.02533",
        norms=("Linf",),
    ),
    lambda threat, **settings: BIM(**settings),
)


# --- registration, for `--plugin`; an installed distribution needs only the entry points of pyproject.toml ---

gauntlet.register_data("stripes", STRIPES)
gauntlet.register_model("energy", energy, card=ENERGY.card)
gauntlet.register_defense("levels", LEVELS)
gauntlet.register_attack("simba", SIMBA)
gauntlet.register_attack("bim", ITERATED)
