"""`examples/ci`: somebody's repository with a gate, as its README says to use it; and the action that runs it on GitHub."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from builders import ROOT

EXAMPLE = ROOT / "examples" / "ci"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A copy of the example as the working folder."""
    if not EXAMPLE.is_dir():
        pytest.skip("the examples are not part of an installation")
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("gauntlet-results*"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def gate():
    return json.loads(Path("gauntlet-results/gate.json").read_text(encoding="utf-8"))


def finetune():
    subprocess.run([sys.executable, "train.py", "--finetune"], check=True, capture_output=True, timeout=120)


def test_the_accepted_model_passes_without_an_attack(repository, call):
    done = call("run", "--gate", "robustness/baseline.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 computed, the others stored" in done.stdout
    assert "Gate passed: 1 held." in done.stdout


def test_the_finetuned_model_fails_after_a_part_of_the_passes_and_shows_what_it_lost(repository, call):
    finetune()
    done = call("run", "--gate", "robustness/baseline.json")
    assert done.returncode == 1, done.stdout + done.stderr
    (verdict,) = gate()["verdicts"]
    assert verdict["verdict"] == "regressed"
    assert verdict["n"] <= 300
    assert "reproduce: gauntlet run --model model.py:build" in done.stdout
    assert list(Path("gauntlet-results/pictures").rglob("lost-adaptive-0.png"))


def test_the_artifact_says_nothing_of_the_machine_that_made_it(repository, tmp_path):
    artifact = json.loads(Path("robustness/baseline.json").read_text(encoding="utf-8"))["artifact"]["file"]
    with zipfile.ZipFile(Path("robustness", artifact)) as bundle:
        names = [name for name in bundle.namelist() if name.endswith(".parquet")]
        sources = [
            json.loads(pq.read_schema(io.BytesIO(bundle.read(name))).metadata[b"gauntlet"])["provenance"]
            for name in names
        ]
    assert names
    assert all(source["argv"][0] == "gauntlet" for source in sources)
    assert not any("/" in word for source in sources for word in source["argv"])


def test_a_baseline_that_was_deleted_does_not_pass(repository, call):
    Path("robustness/baseline.json").unlink()
    done = call("run", "--gate", "robustness/baseline.json")
    assert done.returncode == 2
    assert "robustness/baseline.json does not exist" in done.stderr


def steps(text):
    """The shell scripts of an action's or a workflow's steps, by id or else in order."""
    yaml = pytest.importorskip("yaml")
    parsed = yaml.safe_load(text)
    runs = parsed["runs"]["steps"] if "runs" in parsed else parsed["jobs"]["gate"]["steps"]
    return parsed, {step.get("id", number): step for number, step in enumerate(runs) if "run" in step}


@pytest.mark.parametrize("changed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_action_tells_the_verdict_to_github(repository, changed):
    _, found = steps((ROOT / "action.yml").read_text(encoding="utf-8"))
    if changed:
        finetune()
    output, summary = repository / "output", repository / "summary"
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("GAUNTLET_", "GITHUB_"))}
    environment = mine | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "BASELINE": "robustness/baseline.json",
        "ARGUMENTS": "--gate-early --seed 0",
        "GITHUB_ACTIONS": "true",
        "GITHUB_OUTPUT": str(output),
        "GITHUB_STEP_SUMMARY": str(summary),
    }
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", found["gate"]["run"]],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == int(changed), done.stdout + done.stderr
    told = dict(line.split("=", 1) for line in output.read_text().splitlines())
    assert told["exit-code"] == str(int(changed))
    assert json.loads(Path(told["report"]).read_text())["exit_code"] == int(changed)
    assert "## Robustness gate" in summary.read_text(encoding="utf-8")
    assert ("::error title=Robustness regressed" in done.stdout) == changed


def test_no_input_of_the_action_becomes_part_of_a_script():
    parsed, found = steps((ROOT / "action.yml").read_text(encoding="utf-8"))
    assert found
    assert all("${{" not in step["run"] for step in found.values())
    used = {value for step in parsed["runs"]["steps"] for value in map(str, (step.get("env") or {}).values())}
    for name in ("baseline", "arguments", "requirements"):
        assert f"${{{{ inputs.{name} }}}}" in used


def test_the_workflow_names_the_baseline_that_is_there():
    _, found = steps((EXAMPLE / ".github" / "workflows" / "robustness.yml").read_text(encoding="utf-8"))
    commands = [step["run"] for step in found.values()]
    assert "gauntlet run --gate robustness/baseline.json" in commands
    baseline = json.loads((EXAMPLE / "robustness" / "baseline.json").read_text(encoding="utf-8"))
    assert (EXAMPLE / "robustness" / baseline["artifact"]["file"]).is_file()
