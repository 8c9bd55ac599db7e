"""What attacks have cost before: seconds a sample, from the blocks of a results folder."""

from __future__ import annotations

from dataclasses import dataclass

from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.record import CellInfo
from gauntlet.leaderboard.results.store import Store


@dataclass(frozen=True)
class StoredCost:
    """The cost of a stored block."""

    cell: CellInfo
    samples: int
    seconds: float
    """Of the latest run."""


def stored_costs(store: Store, device: str) -> list[StoredCost]:
    """The costs of all blocks that were computed on this device; blocks that cannot be read are left out."""
    costs = []
    for key in store.stored_keys():
        try:
            record, latest = store.read(key), store.timing(key)
        except StoreError:
            continue
        if record.provenance.get("device") == device:
            seconds = record.stats.seconds if latest is None else latest.seconds
            costs.append(StoredCost(record.cell, len(record.samples), seconds))
    return costs


def seconds_a_sample(costs: list[StoredCost], cell: CellInfo) -> float | None:
    """Mean seconds that this attack cost a sample of this pipeline before: at this threat model, else at others of its norm.

    None if it has not been run.
    """
    same = [cost for cost in costs if _names(cost.cell) == _names(cell)]
    alike = [cost for cost in same if cost.cell.threat == cell.threat] or same
    samples = sum(cost.samples for cost in alike)
    return sum(cost.seconds for cost in alike) / samples if samples else None


def _names(cell: CellInfo) -> tuple[str, ...]:
    return cell.model, cell.defense, cell.attack_spec, cell.norm
