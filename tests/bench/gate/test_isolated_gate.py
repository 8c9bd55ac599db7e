"""The installed command: a gated run is judged by a process that imports neither torch nor code of the user's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from builders import slow_unless
from gate_project import BASELINE, RUN, assert_told
from gauntlet.bench.config.schema import load_config
from gauntlet.bench.gate.choose_gate import gate_of
from gauntlet.bench.gate.judge_run import judge_run, unpassed
from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.gate.policy import Policy

ENTRY = "import sys; sys.argv[0] = 'gauntlet'; from gauntlet.bench.cli.main import entry; entry()"
GATED = (*RUN, "--attacks=pgd(steps=10)", f"--gate={BASELINE}")


def gauntlet(*arguments, **environment):
    command = [sys.executable, "-c", ENTRY, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, **environment)


def report():
    return json.loads(Path("out/gate.json").read_text(encoding="utf-8"))


def test_a_gate_passes_by_the_report_of_this_run_and_the_table_names_the_command(here):
    before = report()["nonce"] if Path("out/gate.json").exists() else ""
    done = gauntlet(*GATED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Gate passed: 1 held." in done.stdout
    assert report()["passed"] is True
    assert len(report()["nonce"]) == 32
    assert report()["nonce"] != before
    assert "gauntlet run" in Path("out/leaderboard.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("before", "after", "variables"),
    [
        (["--"], [], {}),
        slow_unless(False, [], ["--out", "-h"], {}),
        slow_unless(False, [], [], {"GAUNTLET_GATE_NONCE": "x"}),
    ],
)
def test_no_spelling_of_the_command_and_no_variable_leaves_the_judge_out(here, before, after, variables):
    with Path("model.py").open("a", encoding="utf-8") as file:
        file.write("\n\nimport os\nos._exit(0)\n")
    done = gauntlet(*before, *GATED, *after, env={**os.environ, **variables})
    assert done.returncode != 0, done.stdout + done.stderr


def test_a_report_that_cannot_be_written_passes_no_gate(here):
    Path("out/gate.json").unlink(missing_ok=True)
    Path("out/gate.json").mkdir()
    Path("out/gate.json/file").write_text("in the way")
    done = gauntlet(*GATED)
    assert done.returncode == 1
    assert "cannot replace out/gate.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_report_that_is_not_that_of_this_run_passes_no_gate(here, tmp_path):
    gate = gate_of(BASELINE, load_config({}, folder=here), Policy())
    run = load_run(Path("out"))
    judged, other = judge_run(run, gate), judge_run(run, gate)
    assert judged.report.passed
    assert judged.json != other.json
    assert "is not the report of this run" in unpassed(judged, run.root)
    assert unpassed(other, run.root) == ""
    Path("out/gate.json").unlink()
    assert "out/gate.json cannot be read" in unpassed(other, run.root)


def test_results_that_git_tracks_are_refused_by_every_gate(here, call):
    def git(*arguments):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True, capture_output=True
        )

    git("init", "-q", ".")
    assert call(*GATED).returncode == 0
    git("add", "-fA")
    git("commit", "-qm", "with results")
    for command in (GATED, (*GATED, "--gate-early"), ("gate", "out")):
        done = call(*command, *([BASELINE] if command[0] == "gate" else []))
        assert_told(done, 2, "out='out' holds results that git tracks", "out", ".gitignore")
    assert call(*GATED, "--out=fresh").returncode == 0
    assert call(*RUN, "--attacks=pgd(steps=10)").returncode == 0


def test_the_exit_codes_of_a_run_are_kept_and_wrong_usage_is_told_once(here, states):
    done = gauntlet(*GATED, "--samples=50")
    assert done.returncode == 3
    done = gauntlet("run", "--model=model.py:build", "--gate=nowhere.json")
    assert done.returncode == 2
    assert done.stderr.count("nowhere.json does not exist") == 1
    done = gauntlet("run", "--help")
    assert done.returncode == 0
    assert done.stdout.count("Usage:") == 1
    assert gauntlet("--version").stdout.startswith("gauntlet, version")


@pytest.mark.parametrize(
    "more",
    [
        slow_unless(False, ["--gate", str(BASELINE)]),
        ["--gate", str(BASELINE), "--gate-early"],
        slow_unless(False, ["--isolate"]),
    ],
)
def test_the_judging_process_imports_neither_torch_nor_what_the_user_wrote_nor_anything_late(here, states, more):
    Path("plugin.py").write_text("import model\nfrom gauntlet.bench.cli.main import main\n")
    torch.save(states[1], "weights.pt")
    code = (
        f"import sys; sys.argv[:] = {['gauntlet', *RUN, '--attacks=pgd(steps=10)', '--plugin=plugin.py', *more]!r}\n"
        "from gauntlet.bench.cli.main import entry\n"
        "from gauntlet.bench.worker.process_worker import ProcessWorker\n"
        "before, work = [], ProcessWorker.work\n"
        "ProcessWorker.work = lambda *given: before.append(set(sys.modules)) or work(*given)\n"
        "try:\n    entry()\nexcept SystemExit as done:\n    print('code', done.code)\n"
        "late = {name for name in set(sys.modules) - before[0] if name.startswith('gauntlet') or name == 'pandas'}\n"
        "print('late', sorted(late))\n"
        "print('imported', sorted({'torch', 'model', 'plugin', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"code {1 if '--gate' in more else 0}\nlate []\nimported []\n" in done.stdout, done.stdout + done.stderr
    if "--gate" in more:
        assert "REGRESSED" in done.stdout
        assert "picture: out/pictures/" in done.stdout
