"""Deriving the flags of a stored run again: the checks run anew, and nothing that the folder measured is believed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from gauntlet.bench.config.cell import Cell
from gauntlet.bench.environment.foreign_exit import exits_reported
from gauntlet.bench.prepare.defense_facts import merge_flags
from gauntlet.bench.prepare.prepare import Workbench
from gauntlet.bench.run.run_folder import Run
from gauntlet.bench.worker.attack_blocks import frozen
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.record import Flag


@dataclass(frozen=True)
class FlagsAgain:
    """The flags of a cell as they are found now, beside those that it has."""

    title: str
    missing: tuple[Flag, ...] = ()
    """Flags that block and are found now, but do not stand in the record: whoever wrote it left them out, or softened them."""
    noted: tuple[str, ...] = ()
    """Names of warnings that are found now alone."""
    found: int = 0
    """Number of flags that were found."""
    failure: str = ""
    """Why they could not be derived."""


def flags_again(run: Run, cells: Sequence[Cell], device: torch.device) -> Iterator[FlagsAgain]:
    """Run the checks of each cell again, on the samples of the cell. The folder's plugins must have been loaded.

    Flags of the record that are not found now are no failure: they accuse the figure, and another device may round otherwise.
    """
    # Checks need no faster form of the model, which another device may lack.
    workbench = Workbench(device, "float32", run.context.checks or "default")
    # The examples of a replay are those of other folders.
    for cell in (cell for cell in cells if not cell.info.replays):
        title = run.plan.title(cell)
        try:
            recorded = [flag for block in run.result(cell).blocks for flag in block.flags]
            found = _flags(workbench, cell)
        except StoreError as problem:
            yield FlagsAgain(title, failure=str(problem))
            continue
        except Exception as problem:
            # A user's model may raise anything; the other cells can still be checked.
            yield FlagsAgain(title, failure=f"its flags cannot be derived: {type(problem).__name__}: {problem}")
            continue
        known = {(flag.name, flag.severity) for flag in recorded}
        new = [flag for flag in found if (flag.name, flag.severity) not in known]
        yield FlagsAgain(
            title,
            tuple(flag for flag in new if flag.severity == "block"),
            tuple(flag.name for flag in new if flag.severity == "warn"),
            len(found),
        )


def _flags(workbench: Workbench, cell: Cell) -> tuple[Flag, ...]:
    with exits_reported():
        prepared = workbench.prepare(cell)
        with frozen(prepared.defended, prepared.cell.info.seed):
            return merge_flags(prepared.flags, prepared.check())
