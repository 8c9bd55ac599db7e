"""The command `gauntlet`. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import click

from gauntlet.bench.cli.compare_commands import bisect, compare
from gauntlet.bench.cli.gate_commands import baseline, gate, gate_costs
from gauntlet.bench.cli.reproducing import reproduce
from gauntlet.bench.config.options import OPTIONS
from gauntlet.bench.environment.exit_codes import EPILOG, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE


def plugin_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--plugin` alone, for commands that have not all options of a run."""
    (option,) = (one for one in OPTIONS if one.name == "plugin")
    named = click.option("--plugin", "plugins", multiple=True, metavar=option.metavar, help=option.help)
    return named(command)


def load_named(plugins: tuple[str, ...]) -> None:
    """Load the plugins that the option names, or else the configuration."""
    from gauntlet.bench.config.files import plugin_files

    if files := plugin_files(plugins, Path.cwd()):
        from gauntlet.bench.registry.plugin_files import load_plugins

        load_plugins(files)


def run_options(command: Callable[..., Any], without: Collection[str] = ()) -> Callable[..., Any]:
    """Add the options of a run to a command, all `without` some."""
    for option in reversed([one for one in OPTIONS if one.name not in without]):
        if option.flag:
            command = click.option(f"--{option.name}", is_flag=True, help=option.help)(command)
            continue
        extra: dict[str, Any] = {"type": option.kind, "multiple": option.many, "metavar": option.metavar}
        command = click.option(f"--{option.name}", help=option.help, **extra)(command)
    return command


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="robust-gauntlet", prog_name="gauntlet")
def cli() -> None:
    """Adversarial-robustness benchmarks for PyTorch image classifiers."""


for _command in (baseline, gate, gate_costs, compare, bisect, reproduce):
    cli.add_command(_command)


@cli.command(epilog=EPILOG)
@run_options
@click.option("--dry-run", is_flag=True, help="Show the plan, what is stored, and an estimate; run nothing.")
def run(dry_run: bool, **options: Any) -> None:
    """Pair models with defenses and attacks, verify, store and rank."""
    from gauntlet.bench.cli.running import dry, execute

    raise SystemExit((dry if dry_run else execute)(options))


@cli.command(epilog=EPILOG)
@partial(run_options, without=("attacks", "out", "gate", "allow-undecided"))
@click.option(
    "--attack", required=True, help="One attack, with the settings that stay: 'pgd(loss=cw)'.", metavar="ATTACK"
)
@click.option(
    "--over",
    multiple=True,
    required=True,
    help="A setting and its values, or eps; may be repeated.",
    metavar="NAME=V,V…",
)
@click.option("--seeds", default=1, show_default=True, help="So many seeds, from --seed on; their worst case counts.")
@click.option("--out", default="gauntlet-sweep", show_default=True, help="Folder of the results.", metavar="FOLDER")
def sweep(attack: str, over: tuple[str, ...], seeds: int, **options: Any) -> None:
    """Show where robust accuracy stops falling as an attack's settings grow.

    One model, one defense and one threat model; the same command again resumes. For instance: gauntlet sweep --model
    cnn.trades_digits --attack pgd --over steps=5,10,20,40,80
    """
    from gauntlet.bench.cli.sweeping import sweep as run_sweep

    if not run_sweep(options, attack, over, seeds):
        raise SystemExit(EXIT_FAILED)


@cli.command("list", epilog=EPILOG)
@click.argument("kind", type=click.Choice(["models", "attacks", "suites", "defenses", "data"]))
@click.argument("pattern", default="*")
@plugin_option
def list_(kind: str, pattern: str, plugins: tuple[str, ...]) -> None:
    """List what is registered, by Gauntlet, by plugins, and by what is installed; PATTERN may have shell wildcards.

    Other models are named by where they come from, such as robustbench:NAME or hf:OWNER/REPOSITORY (docs/models.md).
    """
    from gauntlet.bench.cli.listing import entries, problems

    load_named(plugins)
    found = entries(kind, pattern)
    for problem in problems(kind):
        click.echo(f"warning: {problem}", err=True)
    if not found:
        raise click.UsageError(f"no {kind} match {pattern!r}: `gauntlet list {kind}` shows all")
    width = max(len(name) for name, _ in found)
    for name, summary in found:
        click.echo(f"{name:<{width}}  {summary}")


@cli.command(epilog=EPILOG)
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--pictures", is_flag=True, help="Write pictures of every row to RUN/pictures (needs matplotlib).")
@click.option("--sample", help="Show what became of one sample, by its id.", metavar="ID")
@click.option("--model", default="*", help="Models for --pictures and --sample, a pattern such as 'cnn.*'.")
@click.option("--defense", default="*", help="Defenses for --pictures and --sample, a pattern.")
@click.option("--attack", default="*", help="Attacks for --pictures and --sample, a pattern.")
@plugin_option
def show(folder: Path, pictures: bool, sample: str | None, plugins: tuple[str, ...], **patterns: str) -> None:
    """Show a run: its leaderboard, and every cell with its state; or one sample; or draw pictures."""
    from gauntlet.bench.cli.reading import draw_run, show_run, show_sample
    from gauntlet.bench.run.pictures import Patterns

    chosen = Patterns(**patterns)
    if sample is None and not pictures and chosen != Patterns():
        raise click.UsageError("--model, --defense and --attack narrow --pictures and --sample: add one of these")
    if sample is not None:
        lines = show_sample(folder, sample, chosen, pictures=pictures, plugins=plugins)
    else:
        lines = draw_run(folder, chosen, plugins) if pictures else show_run(folder)
    for line in lines:
        click.echo(line)


@cli.command(epilog=EPILOG)
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
def leaderboard(folder: Path) -> None:
    """Write leaderboard.csv, cells.csv and leaderboard.md again, from the store."""
    from gauntlet.bench.cli.reading import write_files

    for line in write_files(folder):
        click.echo(line)


@cli.command(epilog=EPILOG)
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:1.", metavar="DEVICE")
@plugin_option
def verify(folder: Path, device: str, plugins: tuple[str, ...]) -> None:
    """Verify every stored adversarial example of a run again, from the files alone.

    The plugins that the run was made with are loaded again, or, where given, those of --plugin in their place.
    """
    from gauntlet.bench.cli.reading import verify_run

    if not verify_run(folder, device, plugins):
        raise SystemExit(EXIT_FAILED)


@cli.command(epilog=EPILOG)
@click.option("--model", help="A model as `run` takes it.", metavar="MODEL")
@click.option("--weights", help="Weights for the model.", metavar="FILE")
@click.option("--mean", help="Per-channel mean subtracted before the model.", metavar="M,…")
@click.option("--std", help="Per-channel standard deviation to divide by before the model.", metavar="S,…")
@click.option("--defense", default="none", show_default=True, help="Defense, with settings like jpeg(quality=50).")
@click.option("--data", default="digits", show_default=True, help="Data as `run` takes them.", metavar="DATA")
@click.option("--samples", default="200", show_default=True, help="Which samples, as `run` takes them.")
@click.option("--threat", help="Threat model, for instance Linf:8/255.", metavar="THREAT")
@click.option("--attack", default="adaptive", show_default=True, help="The attack whose figure is put to the test.")
@click.option("--seed", default=0, show_default=True, help="Seed of the attacks and checks.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.", metavar="DEVICE")
@click.option(
    "--matrix",
    is_flag=True,
    help="Instead: every check on the zoo, all defenses and hidden masks; results kept in --out.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Report to write, in Markdown.")
@plugin_option
def diagnose(matrix: bool, out: Path | None, plugins: tuple[str, ...], **options: Any) -> None:
    """Run every check on one model behind one defense: can the number be trusted?

    Attacks it naively and adaptively, at half of eps, and without the defense, and prints a report. Exit code 1 where a
    blocking check fires that no attack has answered.
    """
    from gauntlet.bench.cli.diagnosing import diagnose_pair, print_matrix

    load_named(plugins)
    if matrix:
        print_matrix(options, out or Path("gauntlet-results"))
        return
    if not diagnose_pair(options, out, plugins):
        raise SystemExit(EXIT_FAILED)


@cli.command(epilog=EPILOG)
@click.argument("name", required=False)
@click.option("--recipe", help="standard, gauss, fast, pgd, pgd_l2, trades, mart, awp or ibp.", metavar="RECIPE")
@click.option("--model", help="file.py:factory, package.module:factory, or a model of the zoo.", metavar="MODEL")
@click.option("--mean", help="Per-channel mean subtracted before the model.", metavar="M,…")
@click.option("--std", help="Per-channel standard deviation to divide by before the model.", metavar="S,…")
@click.option("--data", help="Data to train on, as `run` takes them.", metavar="DATA")
@click.option("--test", help="Data for the accuracies at the end (default: the held-out part).", metavar="DATA")
@click.option("--threat", help="Threat model, for instance Linf:8/255 or L2:0.5.", metavar="THREAT")
@click.option("--epochs", type=int, help="Default: the recipe's.")
@click.option("--batch-size", type=int, help="Default: the recipe's.")
@click.option("--lr", type=float, help="Highest learning rate (default: the recipe's).")
@click.option("--seed", default=0, show_default=True, help="Seed of initial weights, batches and attacks.")
@click.option("--hold-out", type=float, help="Share not trained on, by which the best epoch is chosen.")
@click.option("--precision", help="auto (default: bfloat16 on GPUs), float32 or bfloat16.", metavar="PRECISION")
@click.option("--device", help="auto (default), cpu, cuda or cuda:1.", metavar="DEVICE")
@click.option("--out", type=click.Path(path_type=Path), help="Weights to write (for a NAME: NAME.safetensors).")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint that a killed training left beside --out.")
@plugin_option
def train(name: str | None, plugins: tuple[str, ...], **options: Any) -> None:
    """Train a model by a published recipe.

    NAME is a model of the embedded zoo, made again as its card says. Without it --recipe, --model, --data, --threat and
    --out train any network on any data.
    """
    from gauntlet.bench.cli.training import make_job, train_model

    load_named(plugins)
    for line in train_model(make_job(name, options), plugins):
        click.echo(line)


@cli.command(epilog=EPILOG)
@click.argument("rows", nargs=-1)
@click.option("--model", default="cnn.pgd_digits", show_default=True, help="A model as `run` takes it.")
@click.option("--data", default="digits", show_default=True, help="Data as `run` takes them.")
@click.option("--samples", help="The first so many samples (default: all).")
@click.option(
    "--peers", default="*", help="Libraries to compare with, a pattern such as torchattacks.", metavar="PATTERN"
)
@click.option("--rounds", default=5, show_default=True, help="Each with a seed of its own.")
@click.option("--batch-size", default=256, show_default=True, help="For everybody.")
@click.option("--threads", default=1, show_default=True, help="Of the CPU.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:1.", metavar="DEVICE")
@click.option("--linf", default=0.15, show_default=True, help="eps of the rows in Linf.")
@click.option("--l2", default=0.8, show_default=True, help="eps of the rows in L2.")
@click.option(
    "--out", default="gauntlet-speed", show_default=True, type=click.Path(path_type=Path), help="Folder to write."
)
@plugin_option
def speed(out: Path, plugins: tuple[str, ...], **options: Any) -> None:
    """Measure our attacks beside those of the installed libraries on the same work.

    ROWS are patterns such as 'PGD*'; all rows without any, which takes about an hour.
    """
    from gauntlet.bench.speed.compare_speed import SpeedConfig, compare_speed

    load_named(plugins)
    click.echo(compare_speed(SpeedConfig(**options), out, lambda line: click.echo(line, err=True)))
    click.echo(f"written: {out / 'speed.md'}, {out / 'speed.csv'}")


def main() -> None:
    """Run the command line; expected errors are one line, not a traceback."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("\ninterrupted: what was finished is stored; run the same command again to resume", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except (ValueError, LookupError) as error:
        click.echo(f"error: {error.args[0] if error.args else error}", err=True)
        sys.exit(EXIT_USAGE)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(EXIT_FAILED)
    except (OSError, RuntimeError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_FAILED)
