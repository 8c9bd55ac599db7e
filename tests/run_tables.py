"""The tables of a run, as far as two runs of the same plan have the same."""

from __future__ import annotations

from pathlib import Path

from gauntlet.leaderboard.report.cells_csv import read_cells
from gauntlet.leaderboard.report.leaderboard_csv import read_leaderboard

COSTS = ["seconds", "peak_memory_mib"]


def tables(out):
    """What a run's files say, but for what depends on the clock or on which process asked for memory."""
    board, cells = read_leaderboard(Path(out, "leaderboard.csv")), read_cells(Path(out, "cells.csv"))
    spent = [name for name in cells if name.endswith("_seconds")]
    return board.drop(columns=COSTS), cells.drop(columns=[*COSTS, *spent, "cached"])


def same_tables(one, other):
    """Two folders have the same tables."""
    for first, second in zip(tables(one), tables(other), strict=True):
        assert first.equals(second), (first, second)
