"""The tables and blocks of a run, as far as two runs of the same plan have the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gauntlet.leaderboard.report.cells_csv import read_cells
from gauntlet.leaderboard.report.leaderboard_csv import read_leaderboard
from gauntlet.leaderboard.results.store import Store

COSTS = ["seconds", "peak_memory_mib"]


def tables(out):
    """What a run's files say, but for what depends on the clock or on which process asked for memory."""
    board, cells = read_leaderboard(Path(out, "leaderboard.csv")), read_cells(Path(out, "cells.csv"))
    spent = [name for name in cells if name.endswith("_seconds")]
    return board.drop(columns=COSTS), cells.drop(columns=[*COSTS, *spent, "cached"])


def same_tables(one, other, but=()):
    """Two folders have the same tables, but for these columns."""
    for first, second in zip(tables(one), tables(other), strict=True):
        left, right = (table.drop(columns=[name for name in but if name in table]) for table in (first, second))
        assert left.equals(right), (left, right)


def same_blocks(one, other, *, some=False):
    """Every block of the first store is whole, and that of the second; `some`: the second may have more."""
    first, second = Store(Path(one)), Store(Path(other))
    assert some or first.stored_keys() == second.stored_keys()
    for key in first.stored_keys():
        a, b = first.read(key, adversarial=True), second.read(key, adversarial=True)
        assert (a.cell, a.flags) == (b.cell, b.flags)
        for name in ("id", "label", "prediction", "robust", "distance", "margin", "forwards", "backwards", "steps"):
            np.testing.assert_array_equal(getattr(a.samples, name), getattr(b.samples, name), err_msg=name)
        pairs = list(zip(a.samples.adversarial, b.samples.adversarial, strict=True))
        assert all((x is None) == (y is None) and (x is None or np.array_equal(x, y)) for x, y in pairs)
