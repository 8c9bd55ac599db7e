"""`gauntlet check`: a look at a model before anything is attacked, and the command to run next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from gauntlet.bench.cli.shared.options import command, load_plugins_named, model_options, plugin_option, run_option
from gauntlet.bench.environment.exit_codes import EXIT_FAILED, EXIT_USAGE

if TYPE_CHECKING:
    from gauntlet.bench.first_look.line import Line
    from gauntlet.bench.first_look.look import Look

MODEL = {"MODEL": "Model, named as for `gauntlet run --model`, such as net.py:build@best.pth."}
"""Help of the argument MODEL."""
_WIDTH = 15


def look_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The argument and options of a look at a model."""
    for decorate in (
        plugin_option(),
        run_option("device", default="auto", help="Device: auto (a GPU if available), cpu, cuda or cuda:1."),
        run_option(
            "threat",
            multiple=False,
            help="Threat model NORM:EPS of the next command. [default: by the size of the images]",
        ),
        run_option("samples", help="Samples of the data, named as for `gauntlet run`. [default: all]"),
        run_option(
            "data",
            help="Data set, named as for `gauntlet run`. [default: that of the model's card, else random images]",
        ),
        model_options(),
        click.argument("model", metavar="MODEL"),
    ):
        function = decorate(function)
    return function


@command(arguments=MODEL, failed="The model cannot be loaded, or an attack on it would fail or mean nothing.")
@look_options
def check(plugins: tuple[str, ...], **options: Any) -> None:
    """Look at a model before it is attacked, in a minute.

    Shows what it takes and answers, what it hides, what a pass costs, and the command to run next. Nothing is attacked, and no
    file is written.
    """
    from gauntlet.bench.first_look.next_command import next_command

    load_plugins_named(plugins)
    found = looked_at(options)
    if found.state == "problem":
        raise SystemExit(problem_exit(found))
    click.echo(f"\nnext: {next_command(found, options['threat'], plugins)}")


def problem_exit(found: Look) -> int:
    """The exit code of a look that found a problem: wrong usage where a name or a file does not exist."""
    return EXIT_USAGE if found.misnamed else EXIT_FAILED


def looked_at(options: Mapping[str, Any]) -> Look:
    """Look at the model of the options, and print each line when it is known. Raises ConfigError."""
    from gauntlet.attacks.ops.threat import ThreatModel
    from gauntlet.bench.config.model_ref import model_settings, parse_model
    from gauntlet.bench.config.schema import DataRef
    from gauntlet.bench.environment.device import choose_device
    from gauntlet.bench.first_look.look import look

    if options["threat"]:
        ThreatModel.parse(options["threat"])
    model = parse_model(options["model"], model_settings(options))
    data = DataRef(options["data"], options["samples"]) if options["data"] else None
    return look(model, data, choose_device(options["device"]), _print_line)


def _print_line(line: Line) -> None:
    from gauntlet.leaderboard.results.escape import visible

    word = {"ok": "", "note": "note: ", "problem": "PROBLEM "}[line.state]
    click.echo(f"{line.topic:<{_WIDTH}}{word}{visible(line.text)}")
