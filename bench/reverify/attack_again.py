"""Attacking a random sample of what a stored run left standing: the recorded attack with another seed, and `adaptive` on a few.

Measuring stored examples again says nothing of samples that are said to stand: they may have been attacked badly, or not at all.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch

from gauntlet.attacks.ops.random import sample_keys
from gauntlet.attacks.registry.settings import Named
from gauntlet.bench.config.cell import Cell
from gauntlet.bench.environment.foreign_exit import exits_reported
from gauntlet.bench.executors.executable import Prepared, RunSettings
from gauntlet.bench.prepare.prepare import Workbench
from gauntlet.bench.registries import executable_entry
from gauntlet.bench.run.run_folder import Run
from gauntlet.bench.worker.attack_blocks import attack_blocks
from gauntlet.leaderboard.results.cell_summary import SampleOutcomes, outcomes
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.record import CellResult
from gauntlet.leaderboard.rows.worst_case import row_key, worst_case
from gauntlet.leaderboard.stats.proportions import Proportion
from gauntlet.leaderboard.stats.repeated_attack import RepeatedAttack

CONTROLS = 4
"""Broken samples that are attacked again for each standing one: most of them fall after few passes, and they measure the luck."""
ADAPTIVE = 5
"""One in so many of the sample is attacked by `adaptive`, which costs several times what usual attacks do."""
LEAST_ADAPTIVE = 10
_KEYS = 2**32
_BLOCK = 100


@dataclass(frozen=True)
class Amount:
    """How many of the standing samples to attack again: a share in 0..1, or a number."""

    share: float | None = None
    number: int = 0

    @classmethod
    def parse(cls, text: str) -> Amount:
        """The amount of `5%` or `50`. Raises ValueError for anything else."""
        try:
            if text.endswith("%"):
                share = float(text[:-1]) / 100
                if not 0 < share <= 1:
                    raise ValueError
                return cls(share=share)
            number = int(text)
            if number < 1:
                raise ValueError
            return cls(number=number)
        except ValueError:
            raise ValueError(
                f"--attack {text!r} must be a share of the standing samples, such as 5%, or their number, such as 50"
            ) from None

    def of(self, standing: int) -> int:
        """The number of samples among so many: at least one, if there is one."""
        wanted = self.number if self.share is None else math.ceil(self.share * standing - 1e-9)
        return min(standing, wanted)


@dataclass(frozen=True)
class AttackedAgain:
    """What repeating a cell's attack gave."""

    title: str
    counts: RepeatedAttack
    claimed: Proportion
    """Samples that stand, of all."""
    fell: tuple[str, ...] = ()
    """Ids of standing samples that were broken now."""
    failure: str = ""
    """Why nothing was attacked, if that is an error."""


@dataclass(frozen=True)
class AdaptiveAgain:
    """What `adaptive` gave on samples that stand under every attack of a row."""

    title: str
    claimed: Proportion
    """Samples that stand under every attack, of all."""
    broken: Proportion
    """Those of the attacked ones that fell."""
    fell: tuple[str, ...] = ()
    absent: str = ""
    """Why nothing was attacked."""


def fresh_key() -> int:
    """A key that nobody who wrote a folder could know."""
    return secrets.randbelow(_KEYS)


def attack_again(
    run: Run, cells: Sequence[Cell], amount: Amount, key: int, device: torch.device
) -> Iterator[AttackedAgain | AdaptiveAgain]:
    """Repeat the attack of each of `cells`, then attack each row by `adaptive` where it has not been among its attacks.

    The samples are drawn by `key`, and the attacks' seeds are derived from it. What the folder measured of models is not used:
    the attack's stages and the form that it sees are chosen here. The folder's plugins must have been loaded.
    """
    workbench = Workbench(device, checks="none")
    attacked = [cell for cell in cells if cell.info.searches]
    results: dict[str, CellResult] = {}
    for cell in attacked:
        try:
            results[cell.name] = run.result(cell)
        except StoreError as problem:
            yield _failed(run.plan.title(cell), str(problem))
            continue
        yield _repeat(workbench, cell, run.plan.title(cell), outcomes(results[cell.name]), amount, key)
    rows: dict[tuple[str, ...], list[Cell]] = {}
    for cell in attacked:
        if cell.name in results:
            rows.setdefault(row_key(cell.info), []).append(cell)
    for row in rows.values():
        if not any(cell.attack.name == "adaptive" for cell in row):
            yield _adaptive(workbench, row, [results[cell.name] for cell in row], amount, key)


def _failed(title: str, failure: str) -> AttackedAgain:
    return AttackedAgain(title, RepeatedAttack(0, 0, 0, 0, 0, 0), Proportion(0, 0), failure=failure)


def _repeat(
    workbench: Workbench, cell: Cell, title: str, recorded: SampleOutcomes, amount: Amount, key: int
) -> AttackedAgain:
    standing = _drawn(recorded.id[recorded.robust].tolist(), key)
    broken = _drawn(recorded.id[recorded.correct & ~recorded.robust].tolist(), key)
    few = standing[: amount.of(len(standing))]
    controls = broken[: CONTROLS * len(few)] if few else []
    again = replace(cell, info=replace(cell.info, seed=key if key != cell.info.seed else key + 1))
    try:
        stands = _attacked(workbench, again, [*few, *controls])
    except Exception as problem:
        # A user's model may raise anything; the other cells can still be attacked.
        return _failed(title, f"cannot be attacked again: {type(problem).__name__}: {problem}")
    # What is misclassified when clean now is no fall, and no sample that withstood: of randomised models it happens.
    fell = tuple(name for name in few if stands.get(name) is False)
    stood = sum(stands.get(name) is True for name in controls)
    counts = RepeatedAttack(len(standing), len(few), len(fell), len(broken), len(controls), stood)
    return AttackedAgain(title, counts, Proportion.of(recorded.robust), fell)


def _adaptive(
    workbench: Workbench, cells: Sequence[Cell], results: Sequence[CellResult], amount: Amount, key: int
) -> AdaptiveAgain:
    worst, info = worst_case(results), cells[0].info
    title = f"{info.model} × {info.defense} {info.threat} on {info.data}"
    standing = _drawn(worst.id[worst.robust].tolist(), key)
    count = amount.of(len(standing))
    few = standing[: min(count, max(LEAST_ADAPTIVE, math.ceil(count / ADAPTIVE)))]
    claimed = Proportion.of(worst.robust)
    try:
        stands = _attacked(workbench, _by_adaptive(cells[0], key), few)
    except Exception as problem:
        return AdaptiveAgain(title, claimed, Proportion(0, 0), absent=f"{type(problem).__name__}: {problem}")
    fell = tuple(name for name in few if stands.get(name) is False)
    return AdaptiveAgain(title, claimed, Proportion(len(fell), len(few)), fell)


def _by_adaptive(cell: Cell, key: int) -> Cell:
    """The cell's question, with `adaptive` for its attack."""
    entry = executable_entry("adaptive")
    info = replace(
        cell.info,
        attack="adaptive",
        attack_spec=entry.make(cell.threat).spec,
        attack_kind=entry.card.kind,
        role=entry.card.role,
        minimum_norm=entry.card.minimum_norm,
        severities=(),
        seed=key,
    )
    return replace(cell, attack=Named("adaptive"), info=info)


def _drawn(ids: Sequence[str], key: int) -> list[str]:
    """The samples in the order of a keyed draw: the first few are a random sample, the same for every attack."""
    if not ids:
        return []
    return [ids[place] for place in torch.argsort(sample_keys(key, "attack again", ids), stable=True).tolist()]


def _attacked(workbench: Workbench, cell: Cell, ids: Sequence[str]) -> dict[str, bool]:
    """Whether each of these samples stands; those that are misclassified when clean are left out."""
    if not ids:
        return {}
    with exits_reported():
        prepared = workbench.prepare(cell)
        rows = _rows(prepared, ids)
        blocks = [prepared.block(rows[start : start + _BLOCK]) for start in range(0, len(rows), _BLOCK)]
        stands: dict[str, bool] = {}
        with closing(attack_blocks(prepared, blocks, RunSettings(workbench.device))) as records:
            for record in records:
                right = np.flatnonzero(record.samples.correct)
                stands |= dict(
                    zip(record.samples.id[right].tolist(), record.samples.robust[right].tolist(), strict=True)
                )
    return stands


def _rows(prepared: Prepared, ids: Sequence[str]) -> list[int]:
    """The places of these samples in the data, in the order of the data. Raises ValueError for an unknown one."""
    places = {name: row for row, name in enumerate(prepared.data.ids)}
    if unknown := [name for name in ids if name not in places]:
        raise ValueError(f"sample {unknown[0]!r} is not in the data {prepared.cell.info.data}")
    return sorted(places[name] for name in ids)
