"""What test files share: paths, networks, and results with known content."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from gauntlet.leaderboard.gate.baseline import BASELINE_SCHEMA, Baseline, BaselineCell
from gauntlet.leaderboard.results.record import CellError, CellInfo, CellResult, Record, Samples, Stats

ROOT = Path(__file__).parents[1]
"""The repository."""


# Results


def cell_info(model="net", attack="pgd", *, threat="Linf:0.15", **changes):
    """A white-box attack on the digits; norm and eps are those of the threat model."""
    norm, eps = threat.split(":")
    given = {
        "model": model,
        "defense": "none",
        "attack": attack,
        "attack_spec": f"{attack}(steps=40)",
        "attack_kind": "white-box",
        "norm": norm,
        "eps": float(eps),
        "threat": threat,
        "suite": "quick",
        "data": "digits",
        "seed": 0,
    }
    return CellInfo(**(given | changes))


def samples(robust, *, correct=None, label=0, first=0, **columns):
    """The samples s0, s1, …, of which these are robust and these correct when clean (all, where `correct` is None).

    `columns` replace those made from the verdicts.
    """
    robust = np.asarray(robust, bool)
    n = len(robust)
    label = np.broadcast_to(np.asarray(label, np.int64), n).copy()
    right = np.ones(n, bool) if correct is None else np.asarray(correct, bool)
    broken = right & ~robust
    made = {
        "label": label,
        "clean_prediction": np.where(right, label, label + 1),
        "prediction": np.where(robust, label, label + 1),
        "robust": robust,
        "distance": np.where(broken, 0.1, np.nan),
        "margin": np.where(robust, 1.0, -1.0),
        "forwards": np.full(n, 4.0),
        "backwards": np.full(n, 3.0),
        "steps": np.where(broken, 2, -1).astype(np.int64),
        "wrong_share": (~robust).astype(float),
        "wrong_share_scored": (~robust).astype(float),
    }
    given = {name: np.asarray(columns.pop(name, column), column.dtype) for name, column in made.items()}
    ids = np.asarray(columns.pop("id", [f"s{first + i}" for i in range(n)]), np.str_)
    return Samples(id=ids, **given, **({"adversarial": [None] * n} | columns))


def taken(whole, places):
    """The samples at these places."""

    def pick(column):
        if column is None or len(column) == 0:
            return column
        return column[places] if isinstance(column, np.ndarray) else [column[place] for place in places]

    return Samples(**{name: pick(getattr(whole, name)) for name in Samples.__dataclass_fields__})


def record(whole, cell=None, *, key=None, stats=None, **fields):
    """A block with these samples. Blocks of the same cell with the same verdicts have the same key, unless it is given."""
    cell = cell or cell_info()
    key = key or hashlib.sha256(f"{cell} {whole.id.tolist()} {whole.robust.tolist()}".encode()).hexdigest()
    return Record(key, cell, whole, stats or Stats(1.0, 10.0), **fields)


def result(
    robust=(),
    cell=None,
    *,
    blocks=1,
    expected=None,
    error=None,
    seconds=2.0,
    flags=(),
    cached=False,
    made=None,
    **columns,
):
    """A finished cell with `samples(robust, **columns)` in `blocks` blocks; with `error` (a message) it failed after them.

    `made` is added to the provenance of each block.
    """
    cell, whole = cell or cell_info(), samples(robust, **columns)
    records = [
        record(
            taken(whole, places),
            cell,
            stats=Stats(seconds / blocks, 10.0 + number, candidates_rejected=1, disagreements=2),
            flags=tuple(flags),
            provenance={"device": "cpu", "weights": "w1", "data": f"block {number}"} | (made or {}),
            cached=cached,
        )
        for number, places in enumerate(np.array_split(np.arange(len(whole)), blocks))
        if len(places)
    ]
    failure = CellError(cell, "RuntimeError", error) if error is not None else None
    return CellResult(cell, tuple(records), failure, len(whole) if expected is None else expected)


def bits(n, robust):
    """The verdicts of n samples, of which the first `robust` are robust."""
    return np.arange(n) < robust


# Baselines


def baseline_cell(robust, **changes):
    """A cell of a baseline with these verdicts, all samples correct when clean."""
    robust = np.asarray(robust, bool)
    n = len(robust)
    given = {
        "model": "net",
        "defense": "none",
        "attack": "pgd",
        "threat": "Linf:0.15",
        "suite": "quick",
        "data": "digits",
        "seed": 0,
        "spec": "spec",
        "data_digest": "data",
        "weights": "before",
        "n": n,
        "robust": robust,
        "correct": np.ones(n, bool),
        "forwards": 4.0 * n,
        "backwards": 3.0 * n,
        "peak_memory_mib": 100.0,
        "seconds": 2.0,
        "device": "cuda",
        "randomised": False,
    }
    return BaselineCell(**(given | changes))


def baseline(*cells, test="fixed", **changes):
    """A baseline of the suite `quick` with these cells."""
    given = {"schema": BASELINE_SCHEMA, "suite": "quick", "commit": "abc", "reason": "first", "created": "2026-11-21"}
    return Baseline(test=test, cells=tuple(cells), **(given | changes))
