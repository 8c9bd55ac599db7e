"""How commands that run a plan begin: imports, and sentences of the engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gauntlet.bench.run.engine import Engine


@contextmanager
def imports(*, isolated: bool) -> Iterator[None]:
    """Import what a run needs, in this process also torch unless the run is isolated."""
    from gauntlet.bench.environment.uncollected import uncollected

    with uncollected():
        if not isolated:
            import torch  # noqa: F401  # what follows imports it
        yield


def print_skipped(engine: Engine) -> None:
    """Say on standard error what was asked for and is not planned."""
    for reason in engine.run.plan.skipped:
        click.echo(f"not planned: {reason}", err=True)


def say(sentence: str) -> None:
    """Print a sentence of the engine's on standard error."""
    from gauntlet.leaderboard.results.escape import visible

    click.echo(visible(sentence), err=True)
