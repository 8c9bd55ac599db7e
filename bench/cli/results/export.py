"""`gauntlet export`: a row of a results folder in the form that another benchmark wants."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from gauntlet.bench.cli.shared.options import command, option, plugin_option, trust_option


@command(
    arguments={
        "robustbench": "The benchmark.",
        "RUN": "Results folder, or one of its runs/… folders.",
        "MODEL": "Name of the model in the tables.",
    },
    failed="A file cannot be read or written.",
)
@click.argument("benchmark", metavar="robustbench", type=click.Choice(["robustbench"]))
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("model", metavar="MODEL")
@option(
    "--threat",
    group="attack",
    metavar="NORM:EPS",
    help="Threat model, where the model has several rows. [default: its only one]",
)
@option("--data", group="data", metavar="DATA", help="Data, where the model has several rows. [default: its only one]")
@option(
    "--suite",
    group="attack",
    metavar="SUITE",
    help="Attack suite, as the tables name it, where the model has rows of several. [default: its only one]",
)
@option(
    "--kind",
    group="output",
    type=click.Choice(["external", "new"]),
    help="External evaluation of a model of the zoo, or a new model. [default: external for robustbench:…, else new]",
)
@option(
    "--out",
    group="output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Folder for the files. [default: RUN/robustbench/MODEL]",
)
@plugin_option()
@trust_option()
def export(
    benchmark: str,
    folder: Path,
    model: str,
    threat: str | None,
    data: str | None,
    suite: str | None,
    kind: Literal["external", "new"] | None,
    out: Path | None,
    plugins: tuple[str, ...],
    trust: bool,
) -> None:
    """Write the files that RobustBench asks for.

    issue.md is the text of an issue, model_info.json has the fields of a file of model_info. examples.pt has one image for
    each sample, in the order of the data: the closest verified adversarial example, or the clean image of a sample that
    stands. `gauntlet verify --examples` measures it again. What results do not tell is marked FILL IN.
    """
    from gauntlet.bench.exchange.export_robustbench import export_robustbench

    lines = export_robustbench(
        folder, model, threat=threat, data=data, suite=suite, kind=kind, out=out, plugins=plugins, trust=trust
    )
    for line in lines:
        click.echo(line)
