"""The command on a row's page: it asks for the cells of that row again, and finds all of them stored."""

from __future__ import annotations

import html
import re
import shlex
from pathlib import Path

import pytest

from builders import slow_unless
from gauntlet.bench.planning.row_command import row_command
from gauntlet.bench.run.run_folder import load_run
from gauntlet.bench.run.tables import row_commands

for _module in ("jinja2", "itables"):
    pytest.importorskip(_module, reason=f"{_module} is not installed")
PLAN = ("--threat=Linf:0.1", "--threat=L2:0.5", "--data=data.npz", "--samples=0:20", "--seed=3")


def commands_of_rows():
    """The command of each row, from the page."""
    pages = Path("gauntlet-results/leaderboard.html").read_text(encoding="utf-8").split('<section class="row"')[1:]
    found = [re.search(r"Repeat it</h3>\s*<pre[^>]*><code>(.*?)</code>", page, re.DOTALL) for page in pages]
    return [html.unescape(re.sub("<[^>]+>", "", one[1])) for one in found if one is not None]


@pytest.mark.parametrize(
    ("arguments", "cells"),
    [
        (("--model=model.py:build", "--attacks=fgsm,pgd(steps=3)", "--precision=float32", "--checks=none"), 2),
        (("--model=model.py:build(mean=(0.1,), std=(0.9,))", "--attacks=adaptive", "--batch-size", "7"), 4),
        slow_unless(
            False,
            ("--model=model.py:build", "--defense=none,bit_depth", "--attacks=quick,torchattacks.PGD(steps=2)"),
            0,
        ),
    ],
)
def test_the_command_of_each_row_has_nothing_left_to_do(project, call, arguments, cells):
    assert call("run", *arguments, *PLAN).returncode == 0
    commands = commands_of_rows()
    assert len(commands) == len(set(commands)) == len(row_commands(load_run(Path("gauntlet-results")))) >= 2
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "gauntlet"
        done = call(*words)
        assert done.returncode == 0, done.stderr
        count, stored = re.search(r"^(\d+) cells?: (\d+) answered from the store", done.stdout, re.MULTILINE).groups()
        assert count == stored
        assert cells in (0, int(count))


def test_a_row_under_pytest_keeps_the_options_that_decide_how_it_is_run(project, call):
    assert call("run", "--model=model.py:build", "--attacks=fgsm", *PLAN).returncode == 0
    run = load_run(Path("gauntlet-results"))
    asked = (
        "pytest bench/ --gauntlet-precision=float32 --gauntlet-model='a b' --gauntlet-checks none --gauntlet-compile -q"
    )
    words = shlex.split(row_command(run.plan.cells[:1], asked, Path("out")))
    assert words[-4:] == ["--precision=float32", "--checks", "none", "--compile"]
    assert words[words.index("--model") + 1] == "model.py:build"
    assert words[words.index("--out") + 1] == "out"


def test_a_row_without_cells_has_the_command_of_its_run():
    assert row_command((), "python mine.py", Path("out")) == "python mine.py"
