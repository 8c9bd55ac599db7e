"""`gauntlet compare`: models and defenses compared on the same samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from gauntlet.bench.cli.shared.options import command, option


@command(
    arguments={"RUN…": "One or more results folders (the latest run of each), or runs/… folders."},
    failed="A file cannot be written.",
)
@click.argument("folders", metavar="RUN…", nargs=-1, required=True, type=click.Path(path_type=Path))
@option("--model", group="model", default="*", metavar="PATTERN", help="Models to compare, such as 'cnn.*'.")
@option("--defense", group="model", default="*", metavar="PATTERN", help="Defenses to compare.")
@option(
    "--format",
    "form",
    group="output",
    type=click.Choice(["text", "markdown", "csv", "json"]),
    default="text",
    help="Output format: csv has one line for each pair, json all figures.",
)
@option(
    "--out",
    group="output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="File to write. [default: standard output]",
)
def compare(folders: tuple[Path, ...], model: str, defense: str, form: str, out: Path | None) -> None:
    """Compare models and defenses in pairs, on the same samples.

    The rows of all runs are put together. The output has differences of robust accuracy with intervals, adjusted p-values,
    ranks, and which attack broke which samples. Rows with different data, samples, threat models or attacks are not compared,
    and the reason is given.
    """
    from gauntlet.leaderboard.report.terminal import WIDTH, terminal_width

    text = comparison_output(folders, model, defense, form, terminal_width() if out is None else WIDTH)
    if out is None:
        click.echo(text, nl=False)
        return
    from gauntlet.leaderboard.results.atomic_files import replace_text

    replace_text(out, text)
    click.echo(f"written: {out}")


def comparison_output(folders: Sequence[Path], model: str, defense: str, form: str, width: int) -> str:
    """The comparison as `text` in `width` columns, `markdown`, `csv` or `json`. Raises as `compare_runs`."""
    from gauntlet.bench.compare.compare import compare_runs
    from gauntlet.leaderboard.compare.comparison_export import comparison_json, pairs_frame
    from gauntlet.leaderboard.compare.comparison_report import comparison_markdown, comparison_text
    from gauntlet.leaderboard.report.csv_writer import csv_text

    found = compare_runs(folders, model=model, defense=defense)
    if form == "csv":
        return csv_text(pairs_frame(found.comparison))
    if form == "json":
        return json.dumps(comparison_json(found.comparison, found.plain_sources), indent=1, allow_nan=False) + "\n"
    lines = [source.line for source in found.sources] if len(found.sources) > 1 else []
    if lines:
        lines.append("Replays are left out: each tries the examples of its own results folder.")
    if form == "markdown":
        return comparison_markdown(found.comparison, lines)
    return comparison_text(found.comparison, lines, width)
