"""`pytest bench/`: one test for each cell of the plan.

For another repository, `pytest --pyargs gauntlet.bench`, or a file of its own with
`from gauntlet.bench.test_cells import test_cell`.
"""

from __future__ import annotations

import pytest

from gauntlet.bench.config.cell import Cell
from gauntlet.bench.environment.clock import synchronised_time
from gauntlet.bench.session.pytest_session import Session


@pytest.mark.benchmark(timer=synchronised_time)
def test_cell(gauntlet_cell: Cell, gauntlet: Session, request: pytest.FixtureRequest) -> None:
    """Run the cell; low robustness is no failure, an error or a missed expectation of the configuration is."""
    gauntlet.check(gauntlet_cell, request)
