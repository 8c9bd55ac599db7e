"""`gauntlet diagnose`: every check on one model behind one defense."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gauntlet.bench.cli.shared.options import (
    command,
    load_plugins_named,
    model_options,
    option,
    plugin_option,
    run_option,
)
from gauntlet.bench.environment.exit_codes import EXIT_FAILED

if TYPE_CHECKING:
    from gauntlet.bench.diagnose.diagnose import DiagnosisRequest


_FOLDER = Path("gauntlet-diagnose")
"""Not that of `gauntlet run`, whose latest run would be replaced."""


@command(failed="A check blocks the figure, and no attack has answered it.")
@run_option("model", multiple=False, help="Model, named as for `gauntlet run`. [default: none]")
@model_options()
@run_option("defense", multiple=False, default="none", help="Defense, with its settings in brackets: jpeg(quality=50).")
@run_option("data", default="digits", help="Data set, named as for `gauntlet run`.")
@run_option("samples", default="200", help="Samples to evaluate, named as for `gauntlet run`.")
@run_option(
    "threat",
    multiple=False,
    help="Threat model NORM:EPS, such as Linf:8/255. [default: Linf:0.15 for the digits, else Linf:8/255]",
)
@option("--attack", group="attack", default="adaptive", metavar="ATTACK", help="Attack whose figure is checked.")
@option("--seed", group="attack", default=0, metavar="N", help="Seed of the attacks and checks.")
@option(
    "--matrix",
    group="attack",
    is_flag=True,
    help="Run every check on the embedded models, all defenses and masked gradients instead, then --masks; --out is a folder.",
)
@option(
    "--masks",
    group="attack",
    is_flag=True,
    help="Attack the known masked gradients naively, adaptively and with knowledge of the mask instead; --out is a folder.",
)
@option(
    "--out",
    group="output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Markdown file to write. [default: standard output; with --matrix or --masks the folder gauntlet-diagnose]",
)
@run_option("device", default="auto", help="Device: auto (a GPU if available), cpu, cuda or cuda:1.")
@plugin_option()
def diagnose(matrix: bool, masks: bool, out: Path | None, plugins: tuple[str, ...], **options: Any) -> None:
    """Run every check on one model behind one defense.

    The report says whether the robust accuracy can be trusted. The model is attacked naively and adaptively, at eps and at
    half of it, with and without the defense.
    """
    load_plugins_named(plugins)
    if matrix:
        print_matrix(options, out or _FOLDER)
        click.echo()
    if matrix or masks:
        print_masks(options, out or _FOLDER)
        return
    if not diagnose_pair(options, out, plugins):
        raise SystemExit(EXIT_FAILED)


def diagnose_pair(options: Mapping[str, Any], out: Path | None, plugins: Sequence[str] = ()) -> bool:
    """Run the checks, and print or write the report; False if a check blocks."""
    from gauntlet.bench.diagnose import diagnose as diagnosis
    from gauntlet.bench.diagnose.report import report

    request = _request(options)
    found = diagnosis.diagnose(request, _print_progress)
    text = report(found, _command_line({**options, "threat": request.threat}, plugins))
    if out is None:
        click.echo(text)
    else:
        out.write_text(text, encoding="utf-8")
        click.echo(f"written: {out}")
    return not found.standing


def print_matrix(options: Mapping[str, Any], out: Path) -> None:
    """Print the matrix of every check, line by line; results are stored in the folder `out` and used again."""
    from gauntlet.bench.config.schema import default_threat
    from gauntlet.bench.diagnose.matrix import matrix

    threat = options["threat"] or default_threat("digits")
    for line in matrix(options["samples"], threat, options["seed"], options["device"], out, _print_progress):
        click.echo(line)


def print_masks(options: Mapping[str, Any], out: Path) -> None:
    """Print the table of masks, line by line; results of cells are stored in the folder `out` and used again."""
    from gauntlet.bench.config.schema import default_threat
    from gauntlet.bench.diagnose.masks import masks_table

    threat = options["threat"] or default_threat("digits")
    for line in masks_table(options["samples"], threat, options["seed"], options["device"], out, _print_progress):
        click.echo(line)


def _request(options: Mapping[str, Any]) -> DiagnosisRequest:
    """What the options ask for. Raises ConfigError."""
    from gauntlet.attacks.ops.threat import ThreatModel
    from gauntlet.bench.config.model_ref import model_settings, parse_model
    from gauntlet.bench.config.schema import ConfigError, DataRef, default_threat
    from gauntlet.bench.diagnose.diagnose import DiagnosisRequest

    if not options["model"]:
        raise ConfigError("--model is missing: give a registered name or file.py:factory, or --matrix")
    threat = ThreatModel.parse(options["threat"] or default_threat(options["data"]))
    if threat.target:
        raise ConfigError(f"threat {str(threat)!r} has a target, but the checks use untargeted attacks: leave it out")
    return DiagnosisRequest(
        model=parse_model(options["model"], model_settings(options)),
        defense=options["defense"],
        data=DataRef(options["data"], options["samples"]),
        threat=threat,
        attack=options["attack"],
        seed=options["seed"],
        device=options["device"],
    )


def _print_progress(line: str) -> None:
    click.echo(line, err=True)


def _command_line(options: Mapping[str, Any], plugins: Sequence[str]) -> str:
    given = [(name, value) for name, value in options.items() if value not in (None, "")]
    given += [("plugin", file) for file in plugins]
    return shlex.join(["gauntlet", "diagnose", *(part for name, value in given for part in (f"--{name}", str(value)))])
