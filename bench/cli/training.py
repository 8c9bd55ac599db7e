"""`gauntlet train`: a model by a recipe, with a progress bar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.models.catalog import MODELS
from gauntlet.bench.models.train import TrainingJob, TrainResult, train, zoo_job
from gauntlet.defenses.training.catalog import RECIPES
from gauntlet.defenses.training.holdout import STEPS, Accuracy
from gauntlet.defenses.training.loop import Epoch

OF_A_ZOO_MODEL = ("seed", "out", "epochs", "resume")
"""The options that make sense beside the name of a model of the zoo."""


def make_job(name: str | None, options: dict[str, Any]) -> TrainingJob:
    """The training that the command line asks for. Raises click.UsageError for options that do not go together."""
    given = {key: value for key, value in options.items() if value is not None and value is not False}
    if name is not None:
        beside = [f"--{key.replace('_', '-')}" for key in given if key not in OF_A_ZOO_MODEL]
        if beside:
            raise click.UsageError(f"{name} is trained as its card says: leave out {', '.join(beside)}, or the name")
        out = given.pop("out", None) or Path(f"{name}.safetensors")
        return zoo_job(name, out=out, **{"seed": 0, **given})
    missing = [f"--{key}" for key in ("recipe", "model", "data", "threat", "out") if key not in given]
    if missing:
        raise click.UsageError(f"missing {', '.join(missing)}: give them, or only the name of a model of the zoo")
    if given["recipe"] not in RECIPES:
        raise click.UsageError(f"unknown recipe {given['recipe']!r}: the recipes are {', '.join(RECIPES)}")
    fields = {"epochs": "epochs", "batch_size": "batch_size", "lr": "peak_rate"}
    settings = {field: given.pop(key) for key, field in fields.items() if key in given}
    for key in ("mean", "std"):
        if key in given:
            given[key] = _numbers(key, given[key])
    given["recipe"] = replace(RECIPES[given["recipe"]], **settings)
    given["threat"] = ThreatModel.parse(given["threat"])
    return TrainingJob(**{"precision": "auto", "device": "auto", **given})


def _numbers(key: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.UsageError(f"--{key} {text!r} must be numbers separated by commas, one for each channel") from None


def train_model(job: TrainingJob, plugins: Sequence[str] = ()) -> Iterator[str]:
    """Train, then say what came out, how far training and test samples are apart, and what the card says."""
    console = Console(stderr=True)
    title = f"training {job.name or job.model}"
    with Progress(console=console, disable=not console.is_terminal) as bars:
        bar = bars.add_task(escape(title), total=None)

        def tell(epoch: Epoch) -> None:
            robust = "" if epoch.robust is None else f", held-out robust {100 * epoch.robust:.1f} %"
            text = f"loss {epoch.loss:.3f}{robust}"
            bars.update(bar, completed=epoch.done, total=epoch.total, description=escape(f"{title}, {text}"))
            if not console.is_terminal:
                click.echo(f"{title}, epoch {epoch.done}/{epoch.total}: {text}", err=True)

        result = train(job, progress=tell)
    yield f"written: {result.path} (sha256 {result.sha256})"
    yield from _figures(job, result)
    normalised = [f"--{key} {','.join(map(str, value))} " for key in ("mean", "std") if (value := getattr(job, key))]
    weights = f"--weights {result.path} {''.join(normalised)}--data {job.test or 'DATA'} --threat {job.threat}"
    network = MODELS.get(job.model).source if job.model in MODELS else job.model
    named = "".join(f"--plugin {file} " for file in plugins)
    yield f"attack it: gauntlet run {named}--model {network or job.model} {weights}"


def _figures(job: TrainingJob, result: TrainResult) -> Iterator[str]:
    if result.fitted.stopped:
        yield f"stopped: {result.fitted.stopped}"
    if result.fitted.epoch < job.recipe.epochs:
        yield f"the weights are those of epoch {result.fitted.epoch} of {job.recipe.epochs}"
    for name, found in (("training samples", result.train), (result.test_name, result.test)):
        if found is not None:
            clean, robust = _share(found.clean, found), _share(found.robust, found)
            yield f"{name}: clean accuracy {clean}, after PGD-{STEPS} at {job.threat} {robust} (n = {found.n})"
    if result.test is not None:
        gap = 100 * (result.train.robust / result.train.n - result.test.robust / result.test.n)
        yield f"robust overfitting: {gap:+.1f} points between training samples and {result.test_name}"
    if job.name in MODELS:
        card = MODELS.get(job.name).card
        yield (
            f"the card says clean {100 * (card.clean or 0):.1f} % ± {100 * card.clean_tolerance:.0f}, and "
            f"{100 * (card.robust or 0):.1f} % ± {100 * card.tolerance:.0f} after {card.claim_attack}, a stronger attack"
        )


def _share(count: int, of: Accuracy) -> str:
    return f"{100 * count / of.n:.1f} %"
