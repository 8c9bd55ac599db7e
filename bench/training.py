"""Training a model of the embedded zoo again."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from gauntlet.attacks.threat import ThreatModel
from gauntlet.bench.data.sources import load_data
from gauntlet.bench.models.catalog import MODELS
from gauntlet.bench.models.cnn import cnn
from gauntlet.bench.models.weights import file_sha256
from gauntlet.defenses.training.catalog import RECIPES
from gauntlet.defenses.training.loop import Progress, Recipe, fit

THREAT = ThreatModel("Linf", 0.15)
"""What the robust models of the zoo are trained against."""


@dataclass(frozen=True)
class TrainResult:
    """A model trained again."""

    name: str
    path: Path
    sha256: str
    clean: float
    """Accuracy on the digits' test images, a share."""
    n: int
    """How many those are."""
    expected: float | None
    """The card's."""
    tolerance: float
    """How far `clean` may lie from it."""


def train(
    name: str, *, seed: int, out: Path, epochs: int | None = None, progress: Progress | None = None
) -> TrainResult:
    """Train a registered model of the zoo by its recipe on `digits-train`, and write its weights as safetensors.

    `epochs` shortens the recipe, for trying. The file appears whole, once training is done: a failure leaves an older
    one as it was. Raises LookupError for an unknown name, ValueError for a model that has no recipe, OSError where
    `out` cannot be written (checked before training).
    """
    card = MODELS.get(name).card
    if card.recipe not in RECIPES:
        zoo = ", ".join(MODELS.names("cnn.*"))
        raise ValueError(f"model {name!r} has no recipe here: the models of the zoo are {zoo}")
    recipe = RECIPES[card.recipe] if epochs is None else replace(RECIPES[card.recipe], epochs=epochs)
    if out.is_dir():
        raise IsADirectoryError(f"out={str(out)!r} is a folder: name a file, for instance {out / card.weights}")
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.touch()
        model = train_cnn(recipe, seed=seed, progress=progress)
        # One entry only: several are written in a random order, and the file's sha256 would differ each time.
        made = {"gauntlet": f"{name}, recipe {recipe.name}, {recipe.epochs} epochs, seed {seed}"}
        part.write_bytes(save(model.state_dict(), metadata=made))
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    test = load_data("digits")
    with torch.no_grad():
        clean = float((model(test.images).argmax(1) == test.labels).double().mean())
    return TrainResult(name, out, file_sha256(out), clean, len(test.labels), card.clean, card.clean_tolerance)


def train_cnn(recipe: Recipe, *, seed: int, progress: Progress | None = None) -> nn.Module:
    """The zoo's network trained on `digits-train` by `recipe`, in eval mode; torch's global generator is kept.

    On one thread: the network is too small for more, and the order of sums, so the weights, would depend on their number.
    """
    data = load_data("digits-train")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cnn()
            fit(model, data.images, data.labels, recipe, threat=THREAT, seed=seed, progress=progress)
    finally:
        torch.set_num_threads(threads)
    return model
