"""The table of masks: what a naive, the adaptive and an informed attacker leave standing of each, and whether it has a rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.checks.masks.catalog import MASKS
from gauntlet.bench.checks.masks.informed import STARTS, STEPS, InformedResult, informed
from gauntlet.bench.checks.masks.mask import Mask
from gauntlet.bench.config.schema import Config, DataRef, Group, ModelRef
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.diagnose.diagnose import NAIVE, Log
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.run.engine import Engine
from gauntlet.leaderboard.report.formatting import number, percent
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import CellResult
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.reasons import reasons
from gauntlet.leaderboard.rows.row import LeaderboardRow

ADAPTIVE = "adaptive"
HEAD = (
    "| mask | what hides the gradient | clean | naive | adaptive | informed | passes adaptive | passes informed | "
    "standing flags | lifted flags | rank |"
)
LEGEND = (
    f"Robust accuracy in percent. Informed: PGD on the margin of the mask's smooth twin, {STEPS} steps from {STARTS} starts, "
    "each iterate judged on the mask itself. Passes: forward and backward, a mean over the samples."
)


@dataclass(frozen=True)
class MaskResult:
    """The attackers' results on one mask, on the same samples."""

    mask: Mask
    naive: CellResult
    adaptive: CellResult
    row: LeaderboardRow
    """The row of both attacks."""
    informed: InformedResult

    @property
    def standing(self) -> tuple[str, ...]:
        """What blocks the rank: flags, an error, or randomness without an attack on its expectation."""
        return tuple(dict.fromkeys(reason.name for reason in reasons(self.row) if reason.blocks))

    @property
    def lifted(self) -> tuple[str, ...]:
        """The flags that would block the rank, had no evidence lifted them."""
        blocking = (flag for flag in self.row.flags if flag.severity == "block" and not flag.stands(self.row.answered))
        return tuple(dict.fromkeys(flag.name for flag in blocking))

    @property
    def line(self) -> str:
        """The line of the table."""
        spent = cells.costs(self.adaptive)
        parts = [
            self.mask.name,
            self.mask.summary,
            percent(self.informed.clean),
            _figure(self.naive),
            _figure(self.adaptive),
            percent(self.informed.robust),
            number(spent.forwards_per_sample + spent.backwards_per_sample, 0),
            number(self.informed.passes, 0),
            ", ".join(self.standing),
            ", ".join(self.lifted),
            "blocked" if self.row.rank is None else "ranked",
        ]
        return f"| {' | '.join(parts)} |"


def masks_table(
    samples: str,
    threat: str,
    seed: int,
    device: str,
    out: Path,
    log: Log,
    masks: tuple[Mask, ...] = MASKS,
) -> Iterator[str]:
    """The lines of the table, each as soon as its mask is attacked. The folder `out` keeps the results of cells.

    `samples`: the selection of digits. Raises ValueError for an invalid threat model or selection.
    """
    yield f"{LEGEND} Digits {samples}, {threat}, seed {seed}."
    yield ""
    yield HEAD
    yield "|" + " --- |" * HEAD.count(" |")
    for mask in masks:
        log(mask.name)
        yield attack_mask(mask, samples, threat, seed, device, out).line


def attack_mask(mask: Mask, samples: str, threat: str, seed: int, device: str, out: Path) -> MaskResult:
    """Attack the mask naively, adaptively and with the knowledge of its twin. See `masks_table`."""
    group = Group(
        (ModelRef(mask.model),), ("none",), (f"{NAIVE}()", f"{ADAPTIVE}()"), (threat,), DataRef("digits", samples)
    )
    config = Config((group,), seed=seed, device=device, out=out)
    engine = Engine(make_plan(config), config)
    naive, adaptive = sorted(
        (engine.cell(cell) for cell in engine.run.plan.cells), key=lambda result: not result.cell.naive
    )
    (row,) = build_rows([naive, adaptive])
    data = load_data("digits", samples=samples)
    found = informed(
        mask.build(),
        mask.twin(),
        data.images[:],
        data.labels,
        data.ids,
        ThreatModel.parse(threat),
        randomised=mask.randomised,
        seed=seed,
    )
    return MaskResult(mask, naive, adaptive, row, found)


def _figure(result: CellResult) -> str:
    return "error" if result.error is not None else percent(cells.robust_accuracy(result))
