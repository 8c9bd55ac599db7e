"""What the command line imports: it starts fast because it imports nothing that it does not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHECK = """
import sys
sys.argv = ["gauntlet", *{arguments!r}]
from gauntlet.bench.cli.main import main
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
found = {unwanted!r} & set(sys.modules)
assert not found, found
"""
HEAVY = {"torch", "numpy", "pandas", "scipy", "pyarrow", "rich", "sklearn", "pytest"}
RUN = ("run", "--model=cnn.standard_digits", "--data=digits", "--samples=50", "--attacks=fgsm", "--out=out")


def check(folder, arguments, unwanted):
    code = CHECK.format(arguments=list(arguments), unwanted=set(unwanted))
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["gate", "--help"]])
def test_help_imports_nothing_heavy(tmp_path, arguments):
    done = check(tmp_path, arguments, HEAVY)
    assert done.returncode == 0, done.stderr


def test_a_run_imports_neither_gates_nor_other_libraries_nor_scipy(tmp_path):
    gate = {"gauntlet.bench.gate.judge_run", "gauntlet.bench.gate.early_run", "gauntlet.leaderboard.gate.judge"}
    libraries = {"ray", "scipy", "sklearn", "matplotlib", "art", "torchattacks", "pytest", "rich"}
    for stored in (False, True):
        done = check(tmp_path, RUN, gate | libraries)
        assert done.returncode == 0, done.stderr
        assert ("(stored)" in done.stderr) == stored
