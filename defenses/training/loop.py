"""The training loop that all recipes share."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.defenses.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from gauntlet.defenses.training.holdout import measure
from gauntlet.defenses.training.recipe import Recipe
from gauntlet.defenses.training.training_state import TrainingState, start_training

FALL = 0.2
"""Largest accepted drop of robust accuracy on a training batch in an epoch, as in locuslab/fast_adversarial (train_fgsm.py)."""

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Epoch:
    """The report after an epoch."""

    done: int
    total: int
    loss: float
    """Mean loss over the samples."""
    robust: float | None = None
    """Accuracy on the held-out samples after PGD of 10 steps, a share; None without them."""


@dataclass(frozen=True)
class FitResult:
    """The result of `fit`."""

    epoch: int
    """The epoch whose weights the model has."""
    stopped: str = ""
    """Reason for an end before the last epoch; else empty."""


Progress = Callable[[Epoch], None]


def fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    *,
    threat: ThreatModel,
    seed: int,
    held_out: tuple[Tensor, Tensor] | None = None,
    precision: Precision = "float32",
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
) -> FitResult:
    """Train `model` in place on images (N, C, H, W) in [0, 1] and labels (N,), and leave it in eval mode.

    Training is on the device of the parameters, to which images are moved batch by batch; `precision` bfloat16 computes under
    autocast. With `held_out` images and labels the model gets the weights of the epoch that is most robust on them (Rice et al.
    2020, arXiv 2002.11569), or most accurate for a recipe that is not adversarial. If a recipe has a safeguard and robust
    accuracy collapses, training ends with the weights before the collapse.

    After each epoch the state is written to `checkpoint`; if that file exists, training continues from it, with the same final
    weights as without an interruption. Batches and the recipe's random numbers come from generators of `seed`, so that the same
    seed gives the same weights on the same machine with the same number of threads; initial weights are the caller's, and
    dropout draws from torch's global generator.

    Raises ValueError for no samples, a wrong number of labels, a threat model that the recipe does not support, a checkpoint of
    another training, and a loss that is not finite.
    """
    check_training(images, labels, recipe, threat)
    first = next(model.parameters(), None)
    device = images.device if first is None else first.device
    steps = recipe.epochs * -(-len(images) // recipe.batch_size)
    course = start_training(model, device, recipe, steps=steps, seed=seed)
    identity = _identity(model, images, labels, recipe, threat, seed, precision, held_out) if checkpoint else {}
    if checkpoint is not None and checkpoint.path.exists():
        course.restore(read_checkpoint(checkpoint.path, identity))
    while course.epoch < recipe.epochs and not course.stopped:
        mean, batch = _train_epoch(course, images, labels, recipe, threat, precision)
        robust = None
        if recipe.safeguard:
            course.stopped = _collapse(course, *batch, threat, seed)
        if held_out is not None and not course.stopped:
            accuracy = measure(model, *held_out, threat, seed=seed, batch_size=recipe.batch_size, device=device)
            robust = accuracy.robust / accuracy.n
            score = robust if recipe.adversarial else accuracy.clean / accuracy.n
            if score > course.kept_score:
                course.keep(score)
        elif recipe.safeguard and not course.stopped:
            course.keep(course.watched)
        if checkpoint is not None:
            write_checkpoint(checkpoint, course.state(), identity)
        if progress is not None:
            progress(Epoch(course.epoch, recipe.epochs, mean, robust))
    if course.kept:
        model.load_state_dict(course.kept)
    model.eval()
    return FitResult(course.kept_epoch or course.epoch, course.stopped)


def check_training(images: Tensor, labels: Tensor, recipe: Recipe, threat: ThreatModel) -> None:
    """Raise ValueError for arguments that `fit` cannot train with."""
    if not len(images):
        raise ValueError("images is empty: give at least one image to train on")
    if len(images) != len(labels):
        raise ValueError(f"labels has {len(labels)} entries for {len(images)} images: give a label for each image")
    if threat.norm == "L1" or recipe.norm not in (None, threat.norm):
        raise ValueError(
            f"threat {threat} does not fit recipe {recipe.name!r}: it trains against {recipe.norm or 'Linf and L2'}"
        )
    if threat.target:
        raise ValueError(f"threat {threat} has a target: training is against any wrong class: leave out the target")


def _train_epoch(
    course: TrainingState, images: Tensor, labels: Tensor, recipe: Recipe, threat: ThreatModel, precision: Precision
) -> tuple[float, tuple[Tensor, Tensor]]:
    """Train for an epoch; returns the mean loss and the first batch."""
    model, total = course.model, 0.0
    batches = torch.randperm(len(images), generator=course.shuffle).split(recipe.batch_size)  # type: ignore[no-untyped-call]
    steps = recipe.epochs * len(batches)
    for number, rows in enumerate(batches, course.epoch * len(batches)):
        chosen = rows.to(images.device)
        x, y = images[chosen].to(course.device), labels[chosen].to(course.device)
        model.train()
        with _computing(model, course.device, precision):
            loss = recipe.loss(model, x, y, threat, course.noise, number / steps)
        course.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        course.optimiser.step()
        course.schedule.step()
        total += float(loss.detach()) * len(rows)
    course.epoch += 1
    mean = total / len(images)
    if not math.isfinite(mean):
        raise ValueError(
            f"the loss of recipe {recipe.name!r} is {mean} in epoch {course.epoch}: lower "
            f"peak_rate={recipe.peak_rate:g}, or look for NaN in the images"
        )
    first = batches[0].to(images.device)
    return mean, (images[first], labels[first])


def _collapse(course: TrainingState, x: Tensor, y: Tensor, threat: ThreatModel, seed: int) -> str:
    """A sentence if robust accuracy on a training batch collapses (catastrophic overfitting); else empty."""
    accuracy = measure(course.model, x, y, threat, seed=seed, batch_size=len(x), device=course.device)
    before, course.watched = course.watched, accuracy.robust / accuracy.n
    if course.watched >= before - FALL:
        return ""
    return (
        f"catastrophic overfitting in epoch {course.epoch}: on a training batch, accuracy after PGD fell from "
        f"{before:.0%} to {course.watched:.0%}; the weights are those before the fall"
    )


@contextmanager
def _computing(model: nn.Module, device: torch.device, precision: Precision) -> Iterator[None]:
    """Compute in `precision` within the context, with float32 logits for the losses."""
    if precision == "float32":
        yield
        return
    hook = model.register_forward_hook(lambda _module, _inputs, logits: logits.float())
    try:
        # No cache: older versions of torch reuse tensors cast under no_grad where gradients are needed.
        with torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False):
            yield
    finally:
        hook.remove()


def _identity(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    threat: ThreatModel,
    seed: int,
    precision: Precision,
    held_out: tuple[Tensor, Tensor] | None,
) -> dict[str, str]:
    """The settings that must be the same to continue from a checkpoint."""
    data = hashlib.sha256()
    for part in (images, labels, *(held_out or ())):
        data.update(part.detach().cpu().contiguous().numpy().tobytes())
    shapes = repr({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
    return {
        "model": hashlib.sha256(shapes.encode()).hexdigest(),
        "recipe": recipe.name,
        "epochs": str(recipe.epochs),
        "batch_size": str(recipe.batch_size),
        "peak_rate": str(recipe.peak_rate),
        "weight_decay": str(recipe.weight_decay),
        "threat": str(threat),
        "seed": str(seed),
        "precision": precision,
        "held_out": str(0 if held_out is None else len(held_out[0])),
        "data": data.hexdigest(),
    }
