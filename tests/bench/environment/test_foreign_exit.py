"""`sys.exit` in the code that is evaluated is an error of its cell, in every way of running it, never the end of the process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import gauntlet
from gauntlet.bench.environment.foreign_exit import ExitCalledError, exits_reported
from gauntlet.bench.run.evaluation import CellFailedError

pytest_plugins = ["pytester"]

TRICK = """

class Trick(torch.nn.Module):
    calls = 0

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        Trick.calls += 1
        if Trick.calls > {after}:
            raise SystemExit({code})
        return self.net(x)


def leave():
    return Trick(build()).eval()


def at_once():
    sys.exit(0)
"""
RUN = ("run", "--data=data.npz", "--threat=Linf:0.1", "--attacks=fgsm,pgd(steps=5)", "--out=out")


def write(after, code=0):
    text = Path("model.py").read_text()
    Path("tricks.py").write_text("import sys\nimport torch\n" + text + TRICK.format(after=after, code=code))


def test_an_exit_is_an_error_that_names_it_and_nothing_else_changes():
    with pytest.raises(ExitCalledError, match=r"called sys\.exit\(3\)"), exits_reported():
        sys.exit(3)
    with pytest.raises(ZeroDivisionError), exits_reported():
        1 / 0  # noqa: B018
    with exits_reported():
        pass


@pytest.mark.parametrize("after", [0, 3, 20])
@pytest.mark.parametrize("code", [0, None])
def test_a_run_reports_the_cell_and_fails(project, call, after, code):
    write(after, code)
    done = call(*RUN, "--model=tricks.py:leave")
    assert done.returncode == 1
    assert "SystemExit" in done.stderr
    assert f"sys.exit({code!r})" in done.stdout + done.stderr


def test_a_factory_that_leaves_is_wrong_usage_or_an_error_and_no_success(project, call):
    write(0)
    done = call(*RUN, "--model=tricks.py:at_once")
    assert done.returncode != 0
    assert "sys.exit(0)" in done.stdout + done.stderr


def test_a_gate_is_not_passed(project, call):
    write(0)
    assert call(*RUN, "--model=model.py:build").returncode == 0
    for test in ("fixed", "sequential"):
        accepted = ("baseline", "accept", "out", "--out", f"{test}.json", "--reason=first", f"--test={test}")
        assert call(*accepted).returncode == 0
        Path("again.py").write_text(
            Path("tricks.py").read_text().replace("def build", "def made").replace("build()", "made()")
        )
        Path("again.py").write_text(Path("again.py").read_text().replace("def leave", "def build"))
        early = ["--gate-early"] if test == "sequential" else []
        done = call(*RUN[:-1], "--model=again.py:build", f"--out=gated-{test}", f"--gate={test}.json", *early)
        assert done.returncode not in (0, None)
        assert "SystemExit" in done.stdout + done.stderr


def test_verify_fails(project, call):
    write(10**9)
    assert call(*RUN, "--model=tricks.py:leave").returncode == 0
    sys.modules["tricks"].Trick.calls = 10**9
    done = call("verify", "out", "--trust")
    assert done.returncode == 1
    assert "sys.exit(0)" in done.stdout


def test_a_model_in_memory_is_an_error_of_python_s_own_kind():
    class Leaves(nn.Module):
        def forward(self, x):
            sys.exit(0)

    images = torch.rand(4, 1, 4, 4)
    with pytest.raises((CellFailedError, ValueError, RuntimeError), match=r"sys\.exit\(0\)"):
        gauntlet.evaluate(Leaves().eval(), images, torch.zeros(4, dtype=torch.long), threat="Linf:0.1", attacks="fgsm")


def test_under_pytest_the_test_fails_and_others_go_on(pytester, monkeypatch, tiny):
    tiny.write_project(pytester.path)
    monkeypatch.chdir(pytester.path)
    write(0)
    pytester.makepyfile(
        test_robust="from gauntlet.bench.test_cells import test_cell", test_other="def test_other():\n    pass\n"
    )
    result = pytester.runpytest_subprocess(
        "--gauntlet-model=tricks.py:leave",
        "--gauntlet-data=data.npz",
        "--gauntlet-threat=Linf:0.1",
        "--gauntlet-attacks=fgsm",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*SystemExit*sys.exit(0)*"])
