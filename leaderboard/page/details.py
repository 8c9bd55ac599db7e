"""What the page of a row needs of its blocks, beside their summaries: confusion under attack, and distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gauntlet.leaderboard.page.confusions import Confusion, confusions
from gauntlet.leaderboard.pictures.eps_curve import EpsCurve, eps_curve
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import CellResult


@dataclass(frozen=True)
class PictureColumn:
    """An adversarial example as three PNG pictures, each a `data:` address."""

    sample: str
    label: str
    prediction: str
    attack: str
    distance: float
    clean: str
    perturbation: str
    adversarial: str


@dataclass(frozen=True, eq=False)
class RowDetails:
    """What a row's page shows beside the figures of the tables."""

    confusion: Confusion | None = None
    """None where no attack has results."""
    curve: EpsCurve | None = None
    """None without minimum-norm attacks."""
    pictures: tuple[PictureColumn, ...] = ()


def row_details(results: Sequence[CellResult]) -> RowDetails:
    """The details of the row with these cells, which are read without their examples."""
    attacked = [result for result in results if result.cell.adversarial and cells.covered(result)]
    if not attacked:
        return RowDetails()
    return RowDetails(confusions(attacked), eps_curve(attacked))
