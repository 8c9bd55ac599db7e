"""`pytest bench/ --gauntlet-ray`: a test for each cell, which the workers of a cluster run."""

from __future__ import annotations

import pytest

from gauntlet.leaderboard.report.cells_csv import read_cells

pytest.importorskip("ray")
pytest_plugins = ["pytester"]

MODEL = ("--gauntlet-model=model.py:build", "--gauntlet-data=data.npz", "--gauntlet-threat=Linf:0.1")
CELLS = (*MODEL, "--gauntlet-attacks=fgsm,pgd(steps=5),noise,replay", "--gauntlet-device=cpu")


def test_cells_of_selected_tests_run_and_show_their_recorded_seconds(user):
    result = user.runpytest_subprocess("-v", *CELLS, "--gauntlet-ray=local", "-k", "not noise")
    result.assert_outcomes(passed=3, deselected=1)
    result.stdout.fnmatch_lines(["*model.build × none × replay] PASSED*", "*gauntlet leaderboard*", "*model.build*"])
    result.stdout.no_fnmatch_line("*benchmark*: * tests*")
    cells = read_cells(user.path / "gauntlet-results" / "cells.csv").set_index("attack")
    assert cells.n.to_dict() == {"fgsm": 30, "pgd(steps=5)": 30, "noise": 0, "replay": 30}
    assert (cells.seconds[cells.n > 0] > 0).all()


def test_wrong_usage_ends_the_run(user):
    parallel = user.runpytest_subprocess("-n", "2", *CELLS, "--gauntlet-ray")
    assert parallel.ret == pytest.ExitCode.USAGE_ERROR
    parallel.stderr.fnmatch_lines(["*--gauntlet-ray shares out the cells by itself: leave out -n*"])


@pytest.mark.slow
def test_a_cluster_that_cannot_be_reached_ends_the_run(user):
    nobody = user.runpytest_subprocess(*CELLS, "--gauntlet-ray=127.0.0.1:1")
    assert nobody.ret == pytest.ExitCode.USAGE_ERROR
    nobody.stdout.fnmatch_lines(["*cannot be reached*"])
