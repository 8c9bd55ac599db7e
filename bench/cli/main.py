"""The command `gauntlet`. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gauntlet.bench.options import OPTIONS

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

EPILOG = (
    "Exit codes: 0 all well; 1 a cell in error, an expectation missed, or a failed verification; 2 wrong usage; "
    "130 interrupted (run the same command again to resume)."
)


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a run to a command."""
    for option in reversed(OPTIONS):
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


@cli.command(epilog=EPILOG)
@run_options
@click.option("--dry-run", is_flag=True, help="Show the plan, what is stored, and an estimate; run nothing.")
def run(dry_run: bool, **options: Any) -> None:
    """Pair models with defenses and attacks, verify, store and rank."""
    from gauntlet.bench.cli.running import dry, execute

    if not (dry if dry_run else execute)(options):
        raise SystemExit(EXIT_FAILED)


@cli.command("list", epilog=EPILOG)
@click.argument("kind", type=click.Choice(["models", "attacks", "suites", "defenses", "data"]))
@click.argument("pattern", default="*")
def list_(kind: str, pattern: str) -> None:
    """List what is registered; PATTERN may have shell wildcards."""
    from gauntlet.bench.cli.listing import entries

    found = entries(kind, pattern)
    if not found:
        raise click.UsageError(f"no {kind} match {pattern!r}: `gauntlet list {kind}` shows all")
    width = max(len(name) for name, _ in found)
    for name, summary in found:
        click.echo(f"{name:<{width}}  {summary}")


@cli.command(epilog=EPILOG)
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
def show(folder: Path) -> None:
    """Show a run: its leaderboard, and every cell with its state."""
    from gauntlet.bench.cli.reading import show_run

    for line in show_run(folder):
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
def verify(folder: Path, device: str) -> None:
    """Verify every stored adversarial example of a run again, from the files alone."""
    from gauntlet.bench.cli.reading import verify_run

    if not verify_run(folder, device):
        raise SystemExit(EXIT_FAILED)


@cli.command(epilog=EPILOG)
@click.argument("name")
@click.option("--seed", default=0, show_default=True, help="Seed of initial weights, batches and attacks.")
@click.option("--out", type=click.Path(path_type=Path), help="Weights file to write (default NAME.safetensors).")
def train(name: str, seed: int, out: Path | None) -> None:
    """Train a model of the embedded zoo again."""
    from gauntlet.bench.cli.training import train_model

    for line in train_model(name, seed, out or Path(f"{name}.safetensors")):
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
def speed(out: Path, **options: Any) -> None:
    """Measure our attacks beside those of the installed libraries on the same work.

    ROWS are patterns such as 'PGD*'; all rows without any, which takes about an hour.
    """
    from gauntlet.bench.speed.run import Setup, compare_speed

    click.echo(compare_speed(Setup(**options), out, lambda line: click.echo(line, err=True)))
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
