"""The baseline of a gate: a run's outcomes sample by sample, and the differences between two baselines."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.cell_summary import Status
from gauntlet.leaderboard.results.record import CellInfo, CellResult
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.row import LeaderboardRow
from gauntlet.leaderboard.rows.worst_case import row_key

BASELINE_SCHEMA = 3
"""The schema of written files; schema 1 can be read as well."""

Key = tuple[str, str, str, str, str, str, int]
Test = Literal["fixed", "sequential"]
"""`fixed`: a single test on all samples. `sequential`: a test on samples in random order that is valid whenever it stops."""


class BaselineError(ValueError):
    """A baseline cannot be used; the message names the file and says what to do."""


@dataclass(frozen=True, eq=False)
class BaselineCell:
    """The outcome of a cell of a run."""

    model: str
    defense: str
    attack: str
    threat: str
    suite: str
    data: str
    seed: int
    spec: str
    """sha256 of the attack with its settings, whether it is a minimum-norm attack, and the precision."""
    data_digest: str
    """sha256 of the digests of the blocks' images and labels, and of the sample ids in order."""
    weights: str
    """Digest of the model's parameters and buffers; empty if the run did not record it."""
    n: int
    robust: npt.NDArray[np.bool_]
    """(n,), correct when clean and not broken; for a randomised model, by the majority of the scoring draws."""
    correct: npt.NDArray[np.bool_]
    """(n,), correct when clean."""
    forwards: float
    """Forward passes of the attack, summed over the samples."""
    backwards: float
    peak_memory_mib: float
    """NaN if nothing was run."""
    seconds: float
    """The attack's alone."""
    device: str
    """`cpu` or `cuda`; both, separated by a blank, if the blocks come from both."""
    randomised: bool
    status: Status = "ok"
    error: str = ""
    """Why the cell failed; empty if it did not fail."""
    blocks: Mapping[str, str] | None = None
    """The flags that block the rank of the cell's row, with their sentences, which a file does not keep; None: not recorded."""
    lifted: tuple[str, ...] = ()
    """The names of its flags that would block it if attacks on the row did not answer them, sorted."""
    masked: int | None = None
    """Number of samples that the attack left standing with masked gradients (`Stats.masked`); None: not recorded."""

    @property
    def key(self) -> Key:
        """The key of the cell, by which runs are compared."""
        return self.model, self.defense, self.attack, self.threat, self.suite, self.data, self.seed

    @property
    def title(self) -> str:
        """A readable title with the threat model."""
        return f"{self.model} × {self.defense} × {self.attack} {self.threat}"


@dataclass(frozen=True)
class ArtifactRef:
    """A reference to the file with the baseline's examples and weights, which is named by its content."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True, eq=False)
class Baseline:
    """The cells of a run that was accepted as a baseline."""

    schema: int
    suite: str
    test: Test
    """The gate's test. The baseline fixes it in advance: choosing after a run would give two chances to pass."""
    commit: str
    reason: str
    created: str
    cells: tuple[BaselineCell, ...]
    artifact: ArtifactRef | None = None
    policy: Mapping[str, Any] = field(default_factory=dict)
    """The rules of the gate (`policy_fields`), which a configuration may only tighten; empty in files of earlier versions."""


def baseline_of(
    results: Sequence[CellResult],
    *,
    suite: str,
    commit: str,
    reason: str,
    created: str,
    test: Test = "fixed",
    rows: Sequence[LeaderboardRow] | None = None,
) -> Baseline:
    """The baseline of a run's results, with cells in the order of the plan. Certificates and corruptions are left out.

    `rows`: the rows of the leaderboard that the cells belong to, whose flags are recorded; None: those of `results`. Raises
    BaselineError if two cells have the same key.
    """
    attacks = [result for result in results if result.cell.adversarial]
    row_of = {row.key: row for row in (build_rows(results) if rows is None else rows)}
    baseline_cells = tuple(_cell(result, row_of[row_key(result.cell)]) for result in attacks)
    refuse_twins(baseline_cells, "the run")
    return Baseline(BASELINE_SCHEMA, suite, test, commit, reason, created, baseline_cells)


def _cell(result: CellResult, row: LeaderboardRow) -> BaselineCell:
    info, samples, spent = result.cell, cells.outcomes(result), cells.costs(result)
    sources = [block.provenance for block in result.blocks]
    digests = [str(source.get("data") or "") for source in sources]
    return BaselineCell(
        model=info.model,
        defense=info.defense,
        attack=info.attack,
        threat=info.threat,
        suite=info.suite,
        data=info.data,
        seed=info.seed,
        spec=spec_digest(info, cells.precision(result)),
        data_digest=data_digest(digests, samples.id.tolist()),
        weights=" ".join(dict.fromkeys(str(source.get("weights") or "") for source in sources)),
        n=len(samples),
        robust=samples.robust,
        correct=samples.correct,
        forwards=float(sum(block.samples.forwards.sum() for block in result.blocks)),
        backwards=float(sum(block.samples.backwards.sum() for block in result.blocks)),
        peak_memory_mib=spent.peak_memory_mib,
        seconds=spent.seconds,
        device=devices(sources),
        randomised=info.randomised,
        status=cells.status(result),
        error=f"{result.error.kind}: {result.error.message}" if result.error else "",
        blocks={flag.name: flag.message for flag in row.flags if flag.stands(row.answered)},
        lifted=tuple(
            sorted({flag.name for flag in row.flags if flag.severity == "block" and not flag.stands(row.answered)})
        ),
        masked=cells.masked(result),
    )


def spec_digest(info: CellInfo, precision: str) -> str:
    """sha256 of the attack with its settings, whether it is a minimum-norm attack, and the precision."""
    return _digest([info.attack_spec, info.minimum_norm, precision])


def devices(sources: Iterable[Mapping[str, Any]]) -> str:
    """The kinds of device in the provenances of blocks, sorted and separated by blanks."""
    return " ".join(sorted({str(one.get("device", "")).partition(" ")[0].partition(":")[0] for one in sources}))


def data_digest(blocks: Sequence[str], ids: Sequence[str]) -> str:
    """sha256 of the digests of a cell's blocks and of its sample ids in order; empty if a block's digest is unknown."""
    return _digest([list(blocks), list(ids)]) if all(blocks) else ""


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def refuse_twins(baseline_cells: Sequence[BaselineCell], where: str) -> None:
    """Raise BaselineError if two cells have the same key. `where`: the file or run, for the message."""
    twins = [key for key, count in Counter(cell.key for cell in baseline_cells).items() if count > 1]
    if twins:
        raise BaselineError(f"{where} has two cells {twins[0]}: give the attacks of a suite different labels")


def diff(old: Baseline, new: Baseline) -> list[str]:
    """The differences between two baselines, a sentence each: first in the order of the new baseline, then removed cells.

    Empty if nothing changed. Figures are those of the files, without a statistical test.
    """
    before, after = ({cell.key: cell for cell in one.cells} for one in (old, new))
    sentences = [f"Suite: {old.suite} → {new.suite}."] if old.suite != new.suite else []
    sentences += [f"Test: {old.test} → {new.test}."] if old.test != new.test else []
    if old.policy and new.policy:
        ruled, rules = _flat(old.policy), _flat(new.policy)
        changed = (name for name in {**ruled, **rules} if ruled.get(name) != rules.get(name))
        sentences += [f"Policy: {name} {ruled.get(name)} → {rules.get(name)}." for name in changed]
    for key, cell in after.items():
        if key not in before:
            sentences.append(f"New: {cell.title}, seed {cell.seed}: {_figure(cell)}.")
        elif changes := _changes(before[key], cell):
            sentences.append(f"{cell.title}, seed {cell.seed}: {'; '.join(changes)}.")
    gone = (cell for key, cell in before.items() if key not in after)
    return sentences + [f"Gone: {cell.title}, seed {cell.seed}: it was {_figure(cell)}." for cell in gone]


def _flat(policy: Mapping[str, Any]) -> dict[str, Any]:
    """The rules of a policy by name; those of a table by the table's name and their own."""
    tables = {name: value if isinstance(value, Mapping) else {"": value} for name, value in policy.items()}
    return {f"{name} {key}".strip(): value for name, table in tables.items() for key, value in table.items()}


def _changes(old: BaselineCell, new: BaselineCell) -> list[str]:
    changes = []
    paired = old.data_digest == new.data_digest and old.n == new.n
    moved = paired and bool((old.robust != new.robust).any())
    if moved or not paired or (old.status, old.error) != (new.status, new.error):
        changes.append(f"{_figure(old)} → {_figure(new)}")
    if moved:
        changes.append(f"{int((old.robust & ~new.robust).sum())} lost, {int((~old.robust & new.robust).sum())} gained")
    if paired and (old.correct != new.correct).any():
        changes.append(f"correct when clean {int(old.correct.sum())} → {int(new.correct.sum())}")
    names = {"spec": "settings of the attack", "data_digest": "data or sample ids", "weights": "weights"}
    changes += [f"other {text}" for name, text in names.items() if getattr(old, name) != getattr(new, name)]
    if old.blocks is not None and new.blocks is not None:
        changes += [f"blocked now by {name}" for name in sorted(new.blocks.keys() - old.blocks.keys())]
        changes += [f"no longer blocked by {name}" for name in sorted(old.blocks.keys() - new.blocks.keys())]
    if old.randomised != new.randomised:
        changes.append("randomised now" if new.randomised else "no longer randomised")
    if (old.forwards, old.backwards) != (new.forwards, new.backwards):
        passes = (f"{one.forwards:,.0f} + {one.backwards:,.0f}" for one in (old, new))
        changes.append(f"forward + backward passes {' → '.join(passes)}")
    return changes


def _figure(cell: BaselineCell) -> str:
    if cell.status == "error":
        return f"failed ({cell.error})"
    share = f"{100 * cell.robust.mean():.1f} % robust (n={cell.n})" if cell.n else "no samples"
    return share if cell.status == "ok" else f"unfinished, {share}"
