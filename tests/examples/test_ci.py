"""`examples/ci`: somebody's repository with a gate, as its README says to use it; and the action that runs it on GitHub."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest
from packaging.requirements import Requirement

from builders import ROOT
from gauntlet.leaderboard.gate.baseline_file import read_baseline, write_baseline

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


@pytest.mark.slow
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


def shell(script, **variables):
    """A script as GitHub runs it, with these variables."""
    own = ("GAUNTLET_", "GITHUB_", "CI", "RUNNER_")
    mine = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        env=mine | {"PATH": path} | variables,
        capture_output=True,
        text=True,
        timeout=240,
    )


def git(*arguments):
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True, capture_output=True)


def commit(message):
    git("add", "-A")
    git("commit", "-qm", message, "--allow-empty")


@pytest.fixture
def change(repository):
    """The example as a repository: a base that is accepted, and a change that loses robustness and edits its own baseline."""
    git("init", "-q", "-b", "main", ".")
    commit("base")
    git("checkout", "-q", "-b", "change")
    finetune()
    file = Path("robustness/baseline.json")
    accepted = read_baseline(file)
    (cell,) = accepted.cells
    cell.robust[:] = False
    write_baseline(file, accepted)
    commit("change")
    return repository


@pytest.mark.parametrize("changed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_action_tells_the_verdict_to_github(repository, changed):
    _, found = steps((ROOT / "action.yml").read_text(encoding="utf-8"))
    if changed:
        finetune()
    output, summary = repository / "output", repository / "summary"
    done = shell(
        found["gate"]["run"],
        BASELINE="robustness/baseline.json",
        BASELINE_FROM="",
        REUSE="",
        ARGUMENTS="--gate-early\n  --seed 0\n\n--checks\ndefault\n",
        GITHUB_ACTIONS="true",
        GITHUB_OUTPUT=str(output),
        GITHUB_STEP_SUMMARY=str(summary),
        RUNNER_TEMP=str(repository.parent),
    )
    assert done.returncode == int(changed), done.stdout + done.stderr
    told = dict(line.split("=", 1) for line in output.read_text().splitlines())
    assert told["exit-code"] == str(int(changed))
    assert json.loads(Path(told["report"]).read_text())["exit_code"] == int(changed)
    assert not Path(told["results"]).is_relative_to(repository)
    assert "## Robustness gate" in summary.read_text(encoding="utf-8")
    assert ("::error title=Robustness regressed" in done.stdout) == changed


def test_no_input_of_the_action_becomes_part_of_a_script():
    parsed, found = steps((ROOT / "action.yml").read_text(encoding="utf-8"))
    assert found
    assert all("${{" not in step["run"] for step in found.values())
    used = {value for step in parsed["runs"]["steps"] for value in map(str, (step.get("env") or {}).values())}
    for name in ("baseline", "baseline-from", "reuse", "arguments", "requirements"):
        assert f"${{{{ inputs.{name} }}}}" in used


def workflow():
    return (EXAMPLE / ".github" / "workflows" / "robustness.yml").read_text(encoding="utf-8")


def test_the_workflow_names_the_baseline_that_is_there_as_the_base_has_it():
    _, found = steps(workflow())
    (command,) = [step["run"] for step in found.values() if "gauntlet run" in step["run"]]
    assert command.startswith("gauntlet run --gate robustness/baseline.json --baseline-from ")
    baseline = json.loads((EXAMPLE / "robustness" / "baseline.json").read_text(encoding="utf-8"))
    assert (EXAMPLE / "robustness" / baseline["artifact"]["file"]).is_file()


def test_the_workflow_judges_a_change_by_the_base_in_a_fresh_folder_outside_the_checkout(change):
    _, found = steps(workflow())
    (command,) = [step["run"] for step in found.values() if "gauntlet run" in step["run"]]
    temp = change.parent / f"{change.name}-temp"
    done = shell(command, BASE="HEAD^1", RUNNER_TEMP=str(temp))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "REGRESSED" in done.stdout
    assert "nothing to reuse" in done.stderr
    assert "robustness/baseline.json in the working folder differs from it, and does not count" in done.stdout
    assert not Path("gauntlet-results").exists()
    assert (temp / "robustness" / "gate.json").is_file()
    # What the base accepted with the change's own baseline decides only where a reviewer says so.
    assert "0.0 % →" in shell(command, BASE="HEAD", RUNNER_TEMP=f"{temp}-2").stdout


def test_only_the_base_branch_writes_the_cache_and_the_label_alone_chooses_the_change_s_baseline():
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load(workflow())["jobs"]["gate"]
    caches = [step for step in job["steps"] if "actions/cache" in step.get("uses", "")]
    restore, save = caches
    assert restore["uses"].startswith("actions/cache/restore@")
    assert save["uses"].startswith("actions/cache/save@")
    assert save["if"] == "${{ github.event_name == 'push' }}"
    assert restore["with"]["path"] == save["with"]["path"] == "${{ runner.temp }}/stored"
    assert "'HEAD^1' || 'HEAD'" in job["env"]["BASE"]
    assert "renews-baseline" in job["env"]["BASE"]
    # YAML 1.1 reads the key `on` as true.
    assert yaml.safe_load(workflow())[True]["push"] == {"branches": ["main"]}


FILES = [
    "action.yml",
    ".github/workflows/ci.yml",
    ".github/workflows/slow.yml",
    "examples/ci/.github/workflows/robustness.yml",
    "docs/ci.md",
    "README.md",
]


@pytest.mark.parametrize("name", FILES)
def test_actions_are_pinned_to_commits_and_every_checkout_forgets_its_credentials(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    used = re.findall(r"uses: (\S+)(.*)", text)
    assert used or name == "README.md"
    for action, rest in used:
        if not action.startswith("OWNER/"):
            assert re.fullmatch(r"actions/[\w/-]+@[0-9a-f]{40}", action), action
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", rest), (action, rest)
    assert text.count("uses: actions/checkout@") == len(re.findall(r"\n *persist-credentials: false\n", text))
    if "uses: actions/checkout@" in text:
        assert re.search(r"permissions:\n *contents: read", text)


def test_the_gitlab_template_judges_a_merge_request_by_its_target_and_writes_junit(change, tmp_path_factory):
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load(Path(".gitlab-ci.yml").read_text(encoding="utf-8"))["robustness"]
    git("remote", "add", "origin", str(change))
    fake = tmp_path_factory.mktemp("bin") / "pip"
    fake.write_text('#!/bin/sh\n[ "$*" = "install -r requirements-robustness.txt" ]\n', encoding="utf-8")
    fake.chmod(0o755)
    path = os.pathsep.join([str(fake.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    script = "\n".join(job["script"])
    done = shell(
        script, PATH=path, CI="true", CI_MERGE_REQUEST_TARGET_BRANCH_NAME="main", CI_MERGE_REQUEST_LABELS="a,b"
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "REGRESSED" in done.stdout
    assert "does not count" in done.stdout
    (folder,) = job["artifacts"]["paths"]
    assert {"gate.json", "gate.md", "junit.xml", "pictures"} <= {file.name for file in Path(folder).iterdir()}
    assert ElementTree.parse(job["artifacts"]["reports"]["junit"]).getroot().get("failures") == "1"
    labels = "a,renews-baseline"
    done = shell(
        script, PATH=path, CI="true", CI_MERGE_REQUEST_TARGET_BRANCH_NAME="main", CI_MERGE_REQUEST_LABELS=labels
    )
    assert "0.0 % →" in done.stdout, done.stdout + done.stderr


def test_owners_are_named_for_what_judges():
    lines = (EXAMPLE / "CODEOWNERS").read_text(encoding="utf-8").splitlines()
    owned = {line.split()[0]: line.split()[1:] for line in lines if line and not line.startswith("#")}
    assert all(owners == ["@OWNER"] for owners in owned.values())
    assert {"/robustness/", "/pyproject.toml", "/requirements-robustness.txt", "/.github/", "/.gitlab-ci.yml"} <= set(
        owned
    )
    for pattern in owned.keys() - {"/gauntlet.toml"}:
        assert (EXAMPLE / pattern.strip("/")).exists(), pattern


def test_the_requirement_installs_from_a_repository_s_address():
    lines = (EXAMPLE / "requirements-robustness.txt").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if not line.startswith("#")]
    requirement = Requirement(line)
    assert (requirement.name, requirement.extras) == ("robust-gauntlet", {"pictures"})
    assert requirement.url == "git+https://github.com/OWNER/gauntlet@v0.2.0"
    assert "OWNER/gauntlet is the address" in lines[1]


def test_no_cell_of_the_example_takes_longer_than_its_attack(repository):
    from gauntlet.bench.config.schema import load_config
    from gauntlet.bench.planning.plan import make_plan

    cells = make_plan(load_config({}, folder=repository)).cells
    assert [cell.info.attack_kind for cell in cells] == ["white-box"]
