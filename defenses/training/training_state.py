"""The state of a training, which checkpoints save and restore."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gauntlet.defenses.training.recipe import Recipe


@dataclass
class TrainingState:
    """The state of a training between two epochs."""

    model: nn.Module
    device: torch.device
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    shuffle: torch.Generator
    """Generator of the order of the samples."""
    noise: torch.Generator
    """Generator of the recipe's random numbers, on the model's device."""
    epoch: int = 0
    """Number of completed epochs."""
    watched: float = 0.0
    """Robust accuracy on a training batch after the last epoch, if the recipe has a safeguard."""
    kept: dict[str, Tensor] = field(default_factory=dict)
    """Weights and buffers of the best epoch so far; empty if no epoch is selected."""
    kept_epoch: int = 0
    kept_score: float = -1.0
    """Accuracy of that epoch on held-out samples."""
    stopped: str = ""
    """Why training ended before its last epoch."""

    def keep(self, score: float) -> None:
        """Keep a copy of the current weights."""
        self.kept = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.model.state_dict().items()}
        self.kept_epoch, self.kept_score = self.epoch, score

    def state(self) -> dict[str, Any]:
        """The state as tensors, numbers and strings, with torch's global generators, from which dropout draws."""
        on_gpu = self.device.type == "cuda"
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generators": {"shuffle": self.shuffle.get_state(), "noise": self.noise.get_state()},
            "cpu": torch.get_rng_state(),
            "gpu": torch.cuda.get_rng_state(self.device) if on_gpu else None,
            "plain": {name: getattr(self, name) for name in _PLAIN},
            "kept": self.kept,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a result of `state` from a training with the same settings."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.shuffle.set_state(state["generators"]["shuffle"])
        self.noise.set_state(state["generators"]["noise"])
        torch.set_rng_state(state["cpu"])
        if state["gpu"] is not None:
            torch.cuda.set_rng_state(state["gpu"], self.device)
        for name, value in state["plain"].items():
            setattr(self, name, value)
        self.kept = state["kept"]


_PLAIN = ("epoch", "watched", "kept_epoch", "kept_score", "stopped")


def start_training(model: nn.Module, device: torch.device, recipe: Recipe, *, steps: int, seed: int) -> TrainingState:
    """The initial state of a training of `steps` steps with Adam and a one-cycle learning rate."""
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.peak_rate, weight_decay=recipe.weight_decay)
    return TrainingState(
        model=model,
        device=device,
        optimiser=optimiser,
        schedule=torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.peak_rate, total_steps=steps),
        shuffle=torch.Generator().manual_seed(seed),
        noise=torch.Generator(device).manual_seed(seed + 1),
    )
