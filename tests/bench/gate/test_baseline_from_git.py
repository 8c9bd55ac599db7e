"""The baseline of a commit: neither an edited nor a deleted file of the change decides, and what is wrong is announced."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gate_project import BASELINE, FROM, PROJECT, assert_told, git
from gauntlet.leaderboard.gate.baseline_file import read_baseline, write_baseline


@pytest.fixture
def change(here):
    """The project as a repository whose last commit is a change."""
    Path("gauntlet.toml").write_text(PROJECT, encoding="utf-8")
    Path(".gitignore").write_text("out*/\n__pycache__/\n", encoding="utf-8")
    git("init", "-q", ".")
    git("add", "-A")
    git("commit", "-qm", "base")
    git("commit", "-qm", "change", "--allow-empty")
    return here


def commit_all():
    git("add", "-A")
    git("commit", "-q", "--amend", "--allow-empty", "-m", "change")


def test_an_edited_baseline_decides_nothing(change, call):
    accepted = read_baseline(BASELINE)
    (cell,) = accepted.cells
    cell.robust[:] = False
    write_baseline(BASELINE, accepted)
    commit_all()
    assert "0.0 % →" in call("run").stdout
    done = call("run", FROM)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Gate passed: 1 held." in done.stdout
    assert "Baseline of HEAD^, commit " in done.stdout
    assert f"{BASELINE} in the working folder differs from it, and does not count." in done.stdout
    assert "does not count" in call("gate", "out", FROM).stdout


@pytest.mark.parametrize("named", [[], [f"--gate={BASELINE}"]])
def test_a_deleted_baseline_and_a_removed_table_still_have_a_gate(change, call, named):
    BASELINE.unlink()
    if named:
        Path("gauntlet.toml").write_text(PROJECT.partition("[gate]")[0], encoding="utf-8")
    commit_all()
    done = call("run", FROM, *named)
    assert "Gate passed: 1 held." in done.stdout, done.stdout + done.stderr


def test_the_artifact_is_the_commit_s_or_the_file_beside_the_baseline(change, call):
    assert call("baseline", "accept", "out", "--reason=artifact", "--artifact", "--test=sequential").returncode == 0
    git("add", "-A")
    git("commit", "-qm", "base")
    git("commit", "-qm", "change", "--allow-empty")
    artifact = BASELINE.with_name(read_baseline(BASELINE).artifact.file)
    held = artifact.read_bytes()
    artifact.unlink()
    done = call("run", FROM, "--gate-early", "--out=first")
    assert "0 computed, the others stored" in done.stdout, done.stdout + done.stderr
    # Where git has none, as for a file of a release, the one that was fetched counts by its digest.
    git("rm", "-q", "--cached", str(artifact))
    git("commit", "-qm", "fetched from a release")
    git("commit", "-qm", "change", "--allow-empty")
    artifact.write_bytes(held)
    assert "0 computed, the others stored" in call("run", FROM, "--gate-early", "--out=second").stdout
    artifact.write_bytes(held[:-1])
    assert_told(call("run", FROM, "--gate-early", "--out=third"), 2, "is not the artifact that the baseline names")


def test_what_git_cannot_give_is_wrong_usage_with_the_way_out(change, call, monkeypatch, tmp_path_factory):
    assert_told(
        call("run", "--baseline-from=nowhere"), 2, "'nowhere' is no commit that git knows", "git fetch", "fetch-depth"
    )
    assert_told(call("run", "--baseline-from=-x"), 2, "'-x' is no commit")
    done = call("run", FROM, "--gate=new.json")
    assert_told(done, 2, "new.json is not in HEAD^", "gauntlet baseline accept")
    BASELINE.write_text("{}", encoding="utf-8")
    commit_all()
    assert_told(call("run", "--baseline-from=HEAD"), 2, f"{BASELINE} of HEAD", "accept it anew there")
    assert_told(call("run", FROM, "--no-gate"), 2, "--baseline-from needs a gate")
    shutil.rmtree(".git")
    assert_told(call("run", FROM), 2, "is no commit that git knows")
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))
    assert_told(call("run", FROM), 2, "needs git, which cannot be run")


def test_a_configured_baseline_that_is_missing_fails_where_a_service_runs_it(here, call, monkeypatch):
    Path("gauntlet.toml").write_text(PROJECT, encoding="utf-8")
    BASELINE.unlink()
    assert "Gate not applied" in call("run").stdout
    monkeypatch.setenv("CI", "true")
    assert_told(call("run"), 2, f"{BASELINE} does not exist", f"git checkout BASE -- {BASELINE}")
    assert call("run", "--no-gate").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("run", "--gate=absent.json"),
            "absent.json does not exist: correct its name, or if the change removed it, restore",
        ),
        (("gate", "out", "absent.json"), "git checkout BASE -- absent.json"),
        (("run", "--gate"), "requires an argument"),
        (("run", "--attacks=absent"), "absent"),
    ],
)
def test_wrong_usage_is_announced_on_github(here, call, monkeypatch, arguments, says):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    done = call(*arguments)
    assert done.returncode in (1, 2)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("::error title=Robustness gate::")]
    assert says in line
    summary = Path("summary.md").read_text(encoding="utf-8")
    assert "## Robustness gate" in summary
    assert "**No verdict**" in summary
    assert "::" not in done.stdout


def test_commands_that_judge_nothing_are_not_announced(here, call, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert "::error" not in call("list", "nothing").stderr


@pytest.mark.parametrize(("early", "names"), [("early = true\n", "`early = true` of the gate"), ("", "--gate-early")])
def test_a_floor_beside_a_gate_that_stops_early_is_refused_at_the_start(here, call, early, names):
    Path("gauntlet.toml").write_text(f"{PROJECT}min_robust = 0.1\n{early}", encoding="utf-8")
    shutil.rmtree("out")
    done = call("run", *([] if early else ["--gate-early"]))
    assert_told(done, 2, "min_robust of the gate and", names, "Leave out")
    assert not Path("out").exists()


def test_a_floor_given_to_a_run_that_stopped_early_is_refused(here, call):
    Path("gauntlet.toml").write_text(PROJECT, encoding="utf-8")
    assert call("run", "--gate-early", "--out=early", "--seed=3").returncode in (0, 4)
    assert list(Path("early/runs").glob("*/gate/*.json"))
    done = call("gate", "early", "--min-robust=0.1")
    assert_told(done, 2, "--min-robust", "--gate-early", "make a complete run")
