"""`gauntlet train`: a model trained by a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gauntlet.bench.cli.shared.options import command, load_plugins_named, option, plugin_option, run_option

if TYPE_CHECKING:
    from gauntlet.bench.models.train import TrainingJob, TrainResult
    from gauntlet.defenses.training.holdout import Accuracy
    from gauntlet.defenses.training.loop import Epoch

BESIDE_NAME = ("seed", "out", "epochs", "resume")
"""The options that may stand beside NAME."""


@command(
    arguments={"NAME": "Embedded model to train again as its card says."},
    failed="Training failed, or a file cannot be written.",
)
@click.argument("name", metavar="[NAME]", required=False)
@option(
    "--recipe",
    group="training",
    metavar="RECIPE",
    help="Recipe: standard, gauss, fast, pgd, pgd_l2, trades, mart, awp or ibp. [default: none]",
)
@run_option(
    "model",
    multiple=False,
    help="Model with the network to train: file.py:factory, package.module:factory, or an embedded model. [default: none]",
)
@run_option("mean")
@run_option("std")
@run_option("data", help="Data set to train on, named as for `gauntlet run`. [default: none]")
@option(
    "--test",
    group="data",
    metavar="DATA",
    help="Data set for the accuracies at the end. [default: the held-out samples]",
)
@option(
    "--hold-out",
    group="data",
    type=float,
    metavar="SHARE",
    help="Share of the data to hold out, by which the best epoch is chosen. [default: 0]",
)
@run_option(
    "threat",
    multiple=False,
    help="Threat model NORM:EPS to train against, such as Linf:8/255 or L2:0.5. [default: none]",
)
@option("--epochs", group="training", type=int, metavar="N", help="Number of epochs. [default: the recipe's]")
@option("--batch-size", group="training", type=int, metavar="N", help="Batch size. [default: the recipe's]")
@option("--lr", group="training", type=float, metavar="RATE", help="Highest learning rate. [default: the recipe's]")
@option("--seed", group="training", default=0, metavar="N", help="Seed of the initial weights, batches and attacks.")
@option(
    "--out",
    group="output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File for the weights. [default: NAME.safetensors, if NAME is given]",
)
@option(
    "--resume",
    group="output",
    is_flag=True,
    help="Resume from the checkpoint that an interrupted training left beside --out.",
)
@run_option("device")
@run_option("precision", help="Precision: auto (bfloat16 on a GPU), float32 or bfloat16. [default: auto]")
@plugin_option()
def train(name: str | None, plugins: tuple[str, ...], **options: Any) -> None:
    """Train a model by a published recipe.

    Without NAME, --recipe, --model, --data, --threat and
    --out are required, and any network can be trained on any data set.
    """
    load_plugins_named(plugins)
    for line in train_model(make_job(name, options), plugins):
        click.echo(line)


def make_job(name: str | None, options: Mapping[str, Any]) -> TrainingJob:
    """The training that the command line asks for. Raises click.UsageError for options that do not go together."""
    from gauntlet.attacks.ops.threat import ThreatModel
    from gauntlet.bench.config.schema import channel_values
    from gauntlet.bench.models.train import TrainingJob, zoo_job
    from gauntlet.defenses.training.catalog import RECIPES

    given = {key: value for key, value in options.items() if value is not None and value is not False}
    if name is not None:
        beside = [f"--{key.replace('_', '-')}" for key in given if key not in BESIDE_NAME]
        if beside:
            raise click.UsageError(f"{name} is trained as its card says: leave out {', '.join(beside)}, or NAME")
        out = given.pop("out", None) or Path(f"{name}.safetensors")
        return zoo_job(name, out=out, **{"seed": 0, **given})
    missing = [f"--{key}" for key in ("recipe", "model", "data", "threat", "out") if key not in given]
    if missing:
        raise click.UsageError(f"missing {', '.join(missing)}: give them, or only the name of an embedded model")
    if given["recipe"] not in RECIPES:
        raise click.UsageError(f"unknown recipe {given['recipe']!r}: the recipes are {', '.join(RECIPES)}")
    fields = {"epochs": "epochs", "batch_size": "batch_size", "lr": "peak_rate"}
    settings = {field: given.pop(key) for key, field in fields.items() if key in given}
    for key in ("mean", "std"):
        if key in given:
            given[key] = channel_values(given[key], key)
    given["recipe"] = replace(RECIPES[given["recipe"]], **settings)
    given["threat"] = ThreatModel.parse(given["threat"])
    return TrainingJob(**{"precision": "auto", "device": "auto", **given})


def train_model(job: TrainingJob, plugins: Sequence[str] = ()) -> Iterator[str]:
    """Train with a progress bar, then yield lines on the weights, their accuracies and the claims of the card."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    from gauntlet.bench.models import train as training
    from gauntlet.bench.models.catalog import MODELS

    console = Console(stderr=True)
    title = f"training {job.name or job.model}"
    with Progress(console=console, disable=not console.is_terminal) as bars:
        bar = bars.add_task(escape(title), total=None)

        def show(epoch: Epoch) -> None:
            robust = "" if epoch.robust is None else f", held-out robust {100 * epoch.robust:.1f} %"
            text = f"loss {epoch.loss:.3f}{robust}"
            bars.update(bar, completed=epoch.done, total=epoch.total, description=escape(f"{title}, {text}"))
            if not console.is_terminal:
                click.echo(f"{title}, epoch {epoch.done}/{epoch.total}: {text}", err=True)

        result = training.train(job, progress=show)
    yield f"written: {result.path} (sha256 {result.sha256})"
    yield from _figures(job, result)
    normalised = [f"--{key} {','.join(map(str, value))} " for key in ("mean", "std") if (value := getattr(job, key))]
    weights = f"--weights {result.path} {''.join(normalised)}--data {job.test or 'DATA'} --threat {job.threat}"
    network = MODELS.get(job.model).source if job.model in MODELS else job.model
    named = "".join(f"--plugin {file} " for file in plugins)
    yield f"attack it: gauntlet run {named}--model {network or job.model} {weights}"


def _figures(job: TrainingJob, result: TrainResult) -> Iterator[str]:
    from gauntlet.bench.models.catalog import MODELS
    from gauntlet.defenses.training.holdout import STEPS

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
        clean, robust = _claim(card.clean, card.clean_tolerance), _claim(card.robust, card.tolerance)
        yield f"the card says clean {clean}, and {robust} after {card.claim_attack}, a stronger attack"


def _claim(accuracy: float | None, tolerance: float) -> str:
    """The card's figure; without a tolerance where it is that of one seed."""
    return f"{100 * (accuracy or 0):.1f} %" + (f" ± {100 * tolerance:.0f}" if tolerance else "")


def _share(count: int, of: Accuracy) -> str:
    return f"{100 * count / of.n:.1f} %"
