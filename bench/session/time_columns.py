"""The columns of pytest-benchmark's table."""

from __future__ import annotations

import pytest

_ALL_COLUMNS = 10
"""Number of the columns of pytest-benchmark's table."""


def show_one_time(config: pytest.Config) -> None:
    """Have pytest-benchmark show one column where everything was timed once, as cells are: its columns are then the same number.

    Columns that were asked for are kept.
    """
    timed = getattr(config, "_benchmarksession", None)
    benchmarks = getattr(timed, "benchmarks", ())
    # Older versions of pytest-benchmark have a list of all columns as the default.
    chosen = len(config.getoption("benchmark_columns", None) or ()) not in (0, _ALL_COLUMNS)
    if timed is not None and not chosen and all(one.stats.rounds == 1 for one in benchmarks):
        timed.columns = ["mean"]
