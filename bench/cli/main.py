"""The command `gauntlet`, assembled from one module for each sub-command, which imports what is heavy when it runs."""

from __future__ import annotations

import os
import sys
import warnings
from typing import NoReturn, TextIO

import click

from gauntlet.bench.cli.agreement import agreement
from gauntlet.bench.cli.baseline import baseline
from gauntlet.bench.cli.check import check
from gauntlet.bench.cli.diagnose import diagnose
from gauntlet.bench.cli.gate import gate
from gauntlet.bench.cli.gate_costs import gate_costs
from gauntlet.bench.cli.init import init
from gauntlet.bench.cli.list_command import list_command
from gauntlet.bench.cli.reproduce import reproduce
from gauntlet.bench.cli.results.bisect import bisect
from gauntlet.bench.cli.results.compare import compare
from gauntlet.bench.cli.results.curve import curve
from gauntlet.bench.cli.results.export import export
from gauntlet.bench.cli.results.gc import gc
from gauntlet.bench.cli.results.leaderboard import leaderboard
from gauntlet.bench.cli.results.merge import merge
from gauntlet.bench.cli.results.migrate import migrate
from gauntlet.bench.cli.results.pack import pack
from gauntlet.bench.cli.results.page import page
from gauntlet.bench.cli.results.remove import remove
from gauntlet.bench.cli.results.show import show
from gauntlet.bench.cli.results.verify import verify
from gauntlet.bench.cli.run import run
from gauntlet.bench.cli.shared.options import SectionedGroup
from gauntlet.bench.cli.speed import speed
from gauntlet.bench.cli.stages import stages
from gauntlet.bench.cli.strength import strength
from gauntlet.bench.cli.sweep import sweep
from gauntlet.bench.cli.train import train
from gauntlet.bench.environment.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, MEANINGS


@click.group(
    cls=SectionedGroup,
    exits=MEANINGS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="robust-gauntlet", prog_name="gauntlet")
def cli() -> None:
    """Adversarial-robustness benchmarks for PyTorch image classifiers."""


COMMANDS = (
    *(check, init, run, list_command, show, leaderboard, page, curve, verify),
    *(merge, remove, pack, gc, migrate, export),
    *(diagnose, sweep, compare, bisect, reproduce),
    *(gate, baseline, train, speed, strength, agreement, stages, gate_costs),
)
"""In the order of the help."""
for _command in COMMANDS:
    cli.add_command(_command)


def entry() -> None:
    """The installed command: `main`, in which a gated run evaluates in a process of its own."""
    main(isolate_gates=True)


def main(*, isolate_gates: bool = False) -> None:
    """Run the command line; expected errors, and warnings of ours, are one line, not a traceback."""
    _show_warnings_in_a_line()
    try:
        cli.main(standalone_mode=False, obj=isolate_gates)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        _announce(error.format_message())
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo(
            "\ninterrupted: run the same command again; it continues from stored results, if there are any",
            err=True,
        )
        sys.exit(EXIT_INTERRUPTED)
    except (ValueError, LookupError) as error:
        _fail(str(error.args[0] if error.args else error), EXIT_USAGE)
    except FileNotFoundError as error:
        _fail(str(error), EXIT_USAGE)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(EXIT_FAILED)
    except (OSError, RuntimeError) as error:
        _fail(str(error), EXIT_FAILED)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    _announce(message)
    sys.exit(code)


def _announce(message: str) -> None:
    """Annotate a failure on GitHub, where the workflow runs a gate or a run that may be gated."""
    if os.environ.get("GITHUB_ACTIONS") == "true" and {"run", "gate"} & set(sys.argv[1:2]):
        from gauntlet.bench.gate.publish import announce_failure

        for line in announce_failure(message):
            click.echo(line, err=True)


def _show_warnings_in_a_line() -> None:
    before = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if category.__module__.startswith("gauntlet."):
            click.echo(f"warning: {message}", err=True)
        else:
            before(message, category, filename, lineno, file, line)

    warnings.showwarning = show


if __name__ == "__main__":
    entry()
