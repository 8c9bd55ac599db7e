"""`gauntlet verify`: the stored adversarial examples of a run, measured again."""

from __future__ import annotations

from pathlib import Path

import click

from gauntlet.bench.cli.shared.options import RUN, command, plugin_option, run_argument, run_option, trust_option
from gauntlet.bench.environment.exit_codes import EXIT_FAILED


@command(arguments=RUN, failed="An example failed, or the run has nothing to verify.")
@run_argument()
@run_option("device", default="auto", help="Device: auto (a GPU if available), cpu, cuda or cuda:1.")
@plugin_option()
@trust_option()
def verify(folder: Path, device: str, plugins: tuple[str, ...], trust: bool) -> None:
    """Verify the stored adversarial examples of a run again.

    Only the files of the run are used, and the model. With --trust the plugins of the run are loaded again, or
    those that --plugin names instead. What is verified bounds robustness from above only: a stronger attack may break
    what stands.
    """
    if not verify_run(folder, device, plugins, trust=trust):
        raise SystemExit(EXIT_FAILED)


def verify_run(folder: Path, device: str, plugins: tuple[str, ...] = (), *, trust: bool = False) -> bool:
    """Verify a run and print a line for each cell; False if anything failed, or if there was nothing to verify.

    Raises UntrustedCodeError where the run names code, unless `trust`.
    """
    from gauntlet.bench.environment.device import choose_device
    from gauntlet.bench.run.named_code import refuse_code
    from gauntlet.bench.run.reverify import reverify
    from gauntlet.bench.run.run_folder import load_run
    from gauntlet.leaderboard.results.escape import visible

    run = load_run(folder, plugins)
    refuse_code(run, trust=trust, by_hand=bool(plugins))
    failures = examples = boundary = cells = 0
    for check in reverify(run, choose_device(device)):
        title = visible(check.title)
        examples, boundary = examples + check.examples, boundary + check.boundary
        if check.n:
            cells += 1
            click.echo(
                f"{'FAILED' if check.failures else 'ok':<7}{title}: robust {100 * check.robust_accuracy:.1f} % of {check.n}, "
                f"{check.examples} examples, {check.boundary} on the boundary"
            )
        for failure in check.failures:
            failures += 1
            click.echo(f"FAILED {title}: {visible(failure)}")
        if check.absent:
            click.echo(f"absent {title}: {visible(check.absent)}")
    click.echo(
        f"{cells} of {len(run.plan.cells)} cells, {examples} adversarial examples measured again: "
        f"{failures} failures, {boundary} within rounding of the boundary"
    )
    return failures == 0 and cells > 0
