"""`gauntlet diagnose`: one pair, every check."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.config.schema import ConfigError, DataRef, ModelRef, default_threat
from gauntlet.bench.diagnose.diagnose import Request, diagnose
from gauntlet.bench.diagnose.matrix import matrix
from gauntlet.bench.diagnose.report import report


def make_request(options: Mapping[str, Any]) -> Request:
    """What the options of the command ask for. Raises ConfigError."""
    if not options["model"]:
        raise ConfigError("no model is named: give --model, a registered name or file.py:factory, or --matrix")
    numbers = {name: _floats(name, options[name]) for name in ("mean", "std")}
    threat = ThreatModel.parse(options["threat"] or default_threat(options["data"]))
    if threat.target:
        raise ConfigError(f"threat {str(threat)!r} has a target: the checks are of untargeted attacks, leave it out")
    return Request(
        model=ModelRef(options["model"], options["weights"], **numbers),
        defense=options["defense"],
        data=DataRef(options["data"], options["samples"]),
        threat=threat,
        attack=options["attack"],
        seed=options["seed"],
        device=options["device"],
    )


def diagnose_pair(options: Mapping[str, Any], out: Path | None, plugins: Sequence[str] = ()) -> bool:
    """Diagnose, and print or write the report; False where a check blocks."""
    request = make_request(options)
    found = diagnose(request, _tell)
    text = report(found, _command({**options, "threat": request.threat}, plugins))
    if out is None:
        click.echo(text)
    else:
        out.write_text(text, encoding="utf-8")
        click.echo(f"written: {out}")
    return not found.standing


def print_matrix(options: Mapping[str, Any], out: Path) -> None:
    """Print the matrix of every check, line by line; results are kept in the folder `out`, and used again."""
    threat = options["threat"] or default_threat("digits")
    for line in matrix(options["samples"], threat, options["seed"], options["device"], out, _tell):
        click.echo(line)


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _command(options: Mapping[str, Any], plugins: Sequence[str]) -> str:
    given = [(name, value) for name, value in options.items() if value not in (None, "")]
    given += [("plugin", file) for file in plugins]
    return shlex.join(["gauntlet", "diagnose", *(part for name, value in given for part in (f"--{name}", str(value)))])


def _floats(name: str, text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{name}={text!r} must be numbers separated by commas, one for each channel") from None
