"""`gauntlet verify`: the stored adversarial examples of a run, measured again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gauntlet.bench.cli.shared.options import (
    RUN,
    command,
    load_plugins_named,
    model_options,
    option,
    plugin_option,
    run_option,
    trust_option,
)
from gauntlet.bench.environment.exit_codes import EXIT_FAILED

if TYPE_CHECKING:
    import torch

    from gauntlet.bench.config.cell import Cell
    from gauntlet.bench.reverify.attack_again import Amount
    from gauntlet.bench.run.reverify import CellCheck
    from gauntlet.bench.run.run_folder import Run

UPPER_BOUND = "this bounds robustness from above only: what stands may fall to a stronger attack"


@command(
    arguments=RUN,
    failed="An example failed, a blocking flag is missing in the record, more fell than honest folders explain, the run has "
    "nothing to verify, or one of --examples is not within the threat model (those that are not adversarial fail nothing).",
)
@click.argument("folder", metavar="RUN", required=False, type=click.Path(path_type=Path))
@option("--run", "run_id", group="data", metavar="ID", help="Verify this run of the folder. [default: the latest run]")
@option(
    "--examples",
    group="data",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Verify the images of a .pt, .npy, .npz or .safetensors file (FILE#ENTRY: one of several) in place of a run: "
    "(N, C, H, W) for the first N samples of --data, floats in [0, 1] or uint8. [default: none]",
)
@run_option("data", help="With --examples: data set, named as for `gauntlet run`. [default: none]")
@run_option("samples", help="With --examples: samples of the data, named as for `gauntlet run`. [default: all]")
@run_option("model", multiple=False, help="With --examples: model, named as for `gauntlet run`. [default: none]")
@model_options()
@run_option("defense", multiple=False, default="none", help="With --examples: defense, named as for `gauntlet run`.")
@run_option(
    "threat", multiple=False, help="With --examples: threat model NORM:EPS, such as Linf:8/255. [default: none]"
)
@option(
    "--out",
    group="output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With --examples: CSV file to write, with the verdict on each image. [default: none]",
)
@option(
    "--attack",
    "amount",
    group="attack",
    metavar="N|N%",
    help="Attack a random sample of the standing samples again: 5% of each cell's, or 50. [default: none]",
)
@option(
    "--seed",
    group="attack",
    type=click.IntRange(min=0),
    metavar="N",
    help="Key of that sample and of the attacks. [default: a fresh one, which is printed]",
)
@run_option("device", default="auto", help="Device: auto (a GPU if available), cpu, cuda or cuda:1.")
@plugin_option()
@trust_option()
def verify(
    folder: Path | None,
    run_id: str | None,
    examples: Path | None,
    out: Path | None,
    amount: str | None,
    seed: int | None,
    device: str,
    plugins: tuple[str, ...],
    trust: bool,
    **options: Any,
) -> None:
    """Verify the stored adversarial examples of a run again.

    Its flags are derived again, too. Only the files of the run are used, and the model. With --trust the plugins of the run are
    loaded again, or those that --plugin names instead. What is verified bounds robustness from above only: a stronger attack may
    break what stands. --attack attacks some of it: by the recorded attack with another seed, which shows whether the folder says
    what this attack gives, and by adaptive, which shows whether the attack was strong enough. --examples takes a file of images
    in place of a run.
    """
    asked = [f"--{name}" for name in _WITH_EXAMPLES if options[name] not in (None, "none")]
    asked += ["--out"] if out is not None else []
    if examples is None:
        if folder is None:
            raise click.UsageError(
                "RUN is missing: give a results folder, or --examples FILE with --model, --data and --threat"
            )
        if asked:
            raise click.UsageError(
                f"{asked[0]} goes with --examples: of RUN all is verified, with the models and data that it names"
            )
        if seed is not None and amount is None:
            raise click.UsageError("--seed goes with --attack: without it no sample is drawn")
        from gauntlet.bench.results_folder.all_runs import run_folder_of

        folder = run_folder_of(folder, run_id)
        passed = verify_run(folder, device, plugins, trust=trust, amount=amount, seed=seed)
    else:
        if any(given is not None for given in (folder, run_id, amount, seed)):
            raise click.UsageError("--examples stands in place of RUN, without --run, --attack and --seed")
        if missing := [f"--{name}" for name in ("model", "data", "threat") if not options[name]]:
            raise click.UsageError(
                f"--examples needs {', '.join(missing)}: what the images are to mislead, and how far they may go"
            )
        if out is not None and out.exists() and out.resolve() == Path(str(examples).partition("#")[0]).resolve():
            raise click.UsageError(
                f"--out {out} is the file of the examples, which it would overwrite: name another one"
            )
        passed = verify_file(examples, options, device, plugins, out)
    if not passed:
        raise SystemExit(EXIT_FAILED)


_WITH_EXAMPLES = ("model", "data", "samples", "threat", "defense")


def verify_file(
    examples: Path, options: Mapping[str, Any], device: str, plugins: tuple[str, ...], out: Path | None
) -> bool:
    """Verify a file of bare examples, print the verdict, and write a line for each image into `out`.

    False if an image is not within the threat model. Raises ExamplesError, ConfigError and what loading model and data raises.
    """
    from gauntlet.bench.config.model_ref import model_settings, parse_model
    from gauntlet.bench.config.schema import DataRef
    from gauntlet.bench.environment.device import choose_device
    from gauntlet.bench.reverify.bare_examples import INVALID, verify_examples
    from gauntlet.bench.reverify.examples_file import read_examples
    from gauntlet.bench.reverify.lines import example_lines
    from gauntlet.leaderboard.report.csv_writer import csv_text
    from gauntlet.leaderboard.results.atomic_files import replace_text

    load_plugins_named(plugins)
    model = parse_model(options["model"], model_settings(options))
    data = DataRef(options["data"], options["samples"])
    found = verify_examples(
        read_examples(examples), model, data, options["threat"], options["defense"], choose_device(device)
    )
    for line in example_lines(examples.name, found):
        click.echo(line)
    if out is not None:
        replace_text(out, csv_text(found.table))
        click.echo(f"written: {out}")
    click.echo(UPPER_BOUND)
    return not len(found.of(*INVALID))


def verify_run(
    folder: Path,
    device: str,
    plugins: tuple[str, ...] = (),
    *,
    trust: bool = False,
    amount: str | None = None,
    seed: int | None = None,
) -> bool:
    """Verify a run and print a line for each cell; False if anything failed, or if there was nothing to verify.

    Raises UntrustedCodeError where the run names code, unless `trust`; ValueError for an `amount` that is none.
    """
    from gauntlet.bench.environment.device import choose_device
    from gauntlet.bench.reverify.attack_again import Amount
    from gauntlet.bench.run.named_code import refuse_code
    from gauntlet.bench.run.reverify import reverify, table_problem
    from gauntlet.bench.run.run_folder import load_run
    from gauntlet.leaderboard.results.escape import visible

    asked, chosen = None if amount is None else Amount.parse(amount), choose_device(device)
    run = load_run(folder, plugins)
    refuse_code(run, trust=trust, by_hand=bool(plugins))
    failures = examples = boundary = 0
    sound: list[Cell] = []
    verified = unfinished = 0
    for cell, check in zip(run.plan.cells, reverify(run, chosen), strict=True):
        title = visible(check.title)
        examples, boundary = examples + check.examples, boundary + check.boundary
        if check.n:
            verified += 1
            unfinished += check.missing > 0
            click.echo(f"{'FAILED' if check.failures else 'ok':<7}{title}: {_verified(run, cell, check)}")
            if not check.failures:
                sound.append(cell)
        for failure in check.failures:
            failures += 1
            click.echo(f"FAILED {title}: {visible(failure)}")
        if check.absent:
            click.echo(f"absent {title}: {visible(check.absent)}")
    if problem := table_problem(run):
        failures += 1
        click.echo(f"FAILED {visible(problem)}")
    failures += _flag_failures(run, sound, chosen)
    if asked is not None:
        failures += _attack_failures(run, sound, asked, seed, chosen)
    partly = f" ({unfinished} of them unfinished)" if unfinished else ""
    click.echo(
        f"{verified} of {len(run.plan.cells)} cells{partly}, {examples} adversarial examples measured again and flags derived "
        f"again: {failures} failures, {boundary} within rounding of the boundary; {UPPER_BOUND}"
    )
    return failures == 0 and verified > 0


def _verified(run: Run, cell: Cell, check: CellCheck) -> str:
    """What was verified of a cell: of a certificate no proof, but the examples of its search."""
    share = f"{100 * check.robust_accuracy:.1f} % of {check.n}"
    measured = f"{check.examples} examples, {check.boundary} on the boundary"
    if cell.info.proves:
        return f"{share} not broken by its search, no proof was made again; {measured}"
    if cell.info.replays and not check.failures and run.summary(cell).nothing_replayed:
        return f"nothing was replayed: no example was there to try on {check.n} samples"
    return f"robust {share}, {measured}"


def _flag_failures(run: Run, cells: list[Cell], device: torch.device) -> int:
    """Print what is wrong with the flags of these cells, and count it."""
    from gauntlet.bench.reverify.flags_again import flags_again
    from gauntlet.leaderboard.results.escape import visible

    failures = 0
    for one in flags_again(run, cells, device):
        title = visible(one.title)
        if one.failure:
            failures += 1
            click.echo(f"FAILED {title}: {visible(one.failure)}")
        for flag in one.missing:
            failures += 1
            click.echo(
                f"FAILED {title}: the flag {flag.name!r} blocks, and is not in the record: {visible(flag.message)}"
            )
        if one.noted:
            click.echo(f"note   {title}: found now, and not in the record: {', '.join(one.noted)}")
    return failures


def _attack_failures(run: Run, cells: list[Cell], amount: Amount, seed: int | None, device: torch.device) -> int:
    """Attack some of what stands, print what fell, and count the cells that honest folders do not explain."""
    from gauntlet.bench.reverify.attack_again import AdaptiveAgain, attack_again, fresh_key
    from gauntlet.bench.reverify.lines import adaptive_line, closing_lines, repeated_line, unlikely

    key = fresh_key() if seed is None else seed
    every = list(attack_again(run, cells, amount, key, device))
    repeated = [one for one in every if not isinstance(one, AdaptiveAgain)]
    failed = unlikely(repeated)
    for one, bad in zip(repeated, failed, strict=True):
        click.echo(repeated_line(one, failed=bad))
    for row in every:
        if isinstance(row, AdaptiveAgain):
            click.echo(adaptive_line(row))
    for line in closing_lines(key):
        click.echo(line)
    return sum(bad or bool(one.failure) for one, bad in zip(repeated, failed, strict=True))
