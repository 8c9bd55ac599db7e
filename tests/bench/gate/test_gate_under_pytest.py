"""`pytest bench/ --gauntlet-gate=BASELINE`: the gate's verdict in the terminal, and in the exit status."""

from __future__ import annotations

import json
import shutil
import subprocess
from xml.etree import ElementTree

import pytest
from conftest import CELL

# Imported before pytester looks, which forgets all modules that a run in this process brings: torch loads only once.
import gauntlet.attacks.fgsm
import gauntlet.attacks.pgd
import gauntlet.bench.gate.judge_run
import gauntlet.bench.session.pytest_session
import gauntlet.bench.test_cells  # noqa: F401
from gauntlet.leaderboard.report.cells_csv import read_cells
from gauntlet.leaderboard.report.leaderboard_csv import read_leaderboard

pytest_plugins = ["pytester"]

MODEL = ("--model=model.py:build", "--data=data.npz", "--threat=Linf:0.1", "--attacks=quick")
OPTIONS = tuple(one.replace("--", "--gauntlet-", 1) for one in MODEL)
GATE = "--gauntlet-gate=baseline.json"
WORKERS = [(), pytest.param(("-n", "2"), marks=pytest.mark.slow)]
BLURRED = ("2 * means", "2 * (0.4 * means + 0.6 * means.mean(0) + 0.1 * means.roll(1, 0))")
"""What makes the tiny model wrong about many samples under attack."""


def accept(tiny, *arguments):
    assert tiny.run_here("run", *MODEL, "--out=accepted", *arguments) == 0
    assert tiny.run_here("baseline", "accept", "accepted", "--out=baseline.json") == 0


@pytest.fixture(scope="module")
def accepted(tiny, tmp_path_factory):
    """A project with a model, 200 images, and the baseline of its run."""
    folder = tiny.write_project(tmp_path_factory.mktemp("accepted"), count=200)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        accept(tiny)
    return folder


@pytest.fixture
def user(pytester, accepted, monkeypatch):
    """A copy of that project with the two lines that bring the cells in."""
    pytest_names = ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT")
    for name in (*pytest_names, "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("model.py", "means.npy", "data.npz", "baseline.json"):
        shutil.copy(accepted / name, pytester.path)
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\n")
    pytester.makepyfile(test_robust=CELL)
    return pytester


def change_model(user, tiny):
    """A change to the user's model that loses robustness."""
    text = tiny.MODEL.replace(*BLURRED)
    assert text != tiny.MODEL
    (user.path / "model.py").write_text(text, encoding="utf-8")


def test_the_accepted_model_passes_and_the_verdicts_stand_in_the_summary(user):
    result = user.runpytest(*OPTIONS, GATE)
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*= gauntlet leaderboard =*", "*= gauntlet gate =*", "*pgd-10*", "written: *gate.md"])
    assert (user.path / "gauntlet-results" / "gate.md").is_file()
    assert json.loads((user.path / "gauntlet-results" / "gate.json").read_text(encoding="utf-8"))["exit_code"] == 0


def properties(file):
    """The properties of the suite in a JUnit report."""
    return {
        one.get("name"): one.get("value") for one in ElementTree.parse(file).iterfind("testsuite/properties/property")
    }


def lost(user, run, *arguments):
    """A run that the gate fails though every test passes, by its results."""
    result = run(*arguments, *OPTIONS, GATE, "--junitxml=report.xml")
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["2 cells: * answered from the store*, 0 in error, 0 not run"])
    text = result.stdout.str()
    assert text.count("gauntlet leaderboard") == text.count("gauntlet gate") == 1
    assert "regressed" in text.partition("gauntlet gate")[2].lower()
    found = properties(user.path / "report.xml")
    assert found.pop("gauntlet.gate.passed") == "false"
    assert sorted(found) == [
        "gauntlet.gate.model.build × none × fgsm Linf:0.1, seed 0",
        "gauntlet.gate.model.build × none × pgd-10 Linf:0.1, seed 0",
    ]
    assert all(value.startswith("REGRESSED model.build") for value in found.values())
    return read_leaderboard(user.path / "gauntlet-results" / "leaderboard.csv")


def test_lost_robustness_fails_the_run_though_every_test_passed(user, tiny):
    change_model(user, tiny)
    lost(user, user.runpytest)


@pytest.mark.slow
def test_so_it_does_with_and_without_workers_that_share_the_store(user, tiny):
    change_model(user, tiny)
    alone = lost(user, user.runpytest)
    shutil.rmtree(user.path / "gauntlet-results")
    shared = lost(user, user.runpytest_subprocess, "-n", "2", "-W", "error")
    # A block for each hundred samples of each cell.
    assert len(list((user.path / "gauntlet-results" / "store").rglob("*.parquet"))) == 4
    report = (user.path / "gauntlet-results" / "leaderboard.md").read_text(encoding="utf-8")
    assert "-n 2 -W error --gauntlet-model=model.py:build" in report
    costs = ["seconds", "peak_memory_mib"]
    assert shared.drop(columns=costs).equals(alone.drop(columns=costs))
    # What the workers stored answers a run without them.
    lost(user, user.runpytest)
    assert len(list((user.path / "gauntlet-results" / "store").rglob("*.parquet"))) == 4
    assert read_cells(user.path / "gauntlet-results" / "cells.csv")["cached"].all()


@pytest.mark.slow
def test_workers_do_not_change_a_pass(user):
    result = user.runpytest_subprocess("-n", "2", "-W", "error", *OPTIONS, GATE)
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.OK
    assert "held" in result.stdout.str().lower()


def test_too_few_samples_fail_unless_undecided_is_allowed(user, tiny):
    accept(tiny, "--samples=30")
    options = (*OPTIONS, "--gauntlet-samples=30", GATE)
    result = user.runpytest(*options)
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "undecided" in result.stdout.str().lower()
    assert user.runpytest(*options, "--gauntlet-allow-undecided").ret == pytest.ExitCode.OK


@pytest.mark.parametrize("arguments", [("-k", "fgsm"), ("--gauntlet-samples=150",), ("--gauntlet-attacks=fgsm",)])
def test_what_was_not_compared_does_not_pass(user, arguments):
    result = user.runpytest(*OPTIONS, *arguments, GATE, "--gauntlet-allow-undecided")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "incomparable" in result.stdout.str().lower()


def test_allowing_undecided_without_a_gate_is_a_usage_error(user):
    result = user.runpytest(*OPTIONS, "--gauntlet-allow-undecided")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--gauntlet-allow-undecided needs a gate*"])
    assert not (user.path / "gauntlet-results").exists()


@pytest.mark.parametrize("workers", [(), pytest.param(("-n", "2"), marks=pytest.mark.slow)])
def test_a_gate_that_stops_early_shows_the_verdicts_and_no_leaderboard(user, tiny, workers):
    change_model(user, tiny)
    run = user.runpytest_subprocess if workers else user.runpytest
    result = run(*workers, *OPTIONS, GATE, "--gauntlet-gate-early", "--junitxml=report.xml")
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    assert "regressed" in text.partition("gauntlet gate")[2].lower()
    assert "no replay: the baseline was accepted without --artifact" in text
    assert "gauntlet leaderboard" not in text
    report = json.loads((user.path / "gauntlet-results" / "gate.json").read_text(encoding="utf-8"))
    table = (user.path / "gauntlet-results" / "gate.md").read_text(encoding="utf-8")
    lines = properties(user.path / "report.xml")
    for verdict in report["verdicts"]:
        assert len(verdict["lost_ids"]) == len(verdict["lost_at"]) == verdict["lost"]
        figures = f"{100 * verdict['baseline_robust']:.1f} % → {100 * verdict['robust']:.1f} %"
        sentence = verdict["sentence"]
        assert sentence.startswith(figures)
        assert f"after {verdict['n']} of 200 samples; {verdict['lost']} lost, {verdict['gained']} gained" in sentence
        assert f"accepted on all 200 samples: {100 * verdict['accepted_robust']:.1f} %" in sentence
        assert sentence in text
        assert sentence in lines[f"gauntlet.gate.{verdict['title']}"]
        entries = f"| {figures.replace(' %', '').replace(' →', ' |')} | {verdict['n']} | {verdict['lost']} |"
        assert entries in table
    assert not (user.path / "gauntlet-results" / "leaderboard.csv").exists()


def test_a_session_without_a_cell_does_not_pass_the_gate(user):
    user.makepyfile(test_robust="def test_it():\n    pass\n")
    result = user.runpytest(*OPTIONS, GATE)
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["INCOMPARABLE all cells: No cell was run*"])


def test_without_a_gate_the_same_change_passes(user, tiny):
    change_model(user, tiny)
    result = user.runpytest(*OPTIONS)
    assert result.ret == pytest.ExitCode.OK
    assert "gauntlet gate" not in result.stdout.str()
    assert not (user.path / "gauntlet-results" / "gate.md").exists()


def test_collecting_judges_nothing(user):
    result = user.runpytest("--collect-only", "-q", *OPTIONS, GATE)
    assert result.ret == pytest.ExitCode.OK
    assert "gauntlet gate" not in result.stdout.str()
    assert not (user.path / "gauntlet-results").exists()


@pytest.mark.parametrize(
    ("damage", "workers"),
    [("missing", ()), ("cut", ()), ("older schema", ()), ("missing", ("-n", "2"))],
)
def test_a_baseline_that_cannot_be_read_is_a_usage_error_before_anything_runs(user, damage, workers):
    file = user.path / "baseline.json"
    text = file.read_text(encoding="utf-8")
    broken = {"missing": None, "cut": text[:100], "older schema": json.dumps({**json.loads(text), "schema": 0})}[damage]
    if broken is None:
        file.unlink()
    else:
        file.write_text(broken, encoding="utf-8")
    result = (user.runpytest_subprocess if workers else user.runpytest)(*workers, *OPTIONS, GATE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*gauntlet: *baseline.json*"])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert not (user.path / "gauntlet-results").exists()
    assert not file.exists() if broken is None else file.read_text(encoding="utf-8") == broken


# --- where people look ------------------------------------------------------------------------------------------------


def test_a_gate_that_passes_is_a_property_too_and_without_a_gate_there_is_none(user):
    user.runpytest(*OPTIONS, GATE, "--junitxml=report.xml")
    assert properties(user.path / "report.xml")["gauntlet.gate.passed"] == "true"
    user.runpytest(*OPTIONS, "--junitxml=report.xml")
    assert properties(user.path / "report.xml") == {}


def test_inside_github_lost_robustness_is_annotated_and_summarised(user, tiny, monkeypatch):
    change_model(user, tiny)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(user.path / "summary.md"))
    result = user.runpytest(*OPTIONS, GATE)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["::error title=Robustness regressed%3A model.build*"])
    assert "REGRESSED" not in (user.path / "summary.md").read_text(encoding="utf-8")
    assert "Gate failed: 2 regressed." in (user.path / "summary.md").read_text(encoding="utf-8")


# --- the gate of the configuration ------------------------------------------------------------------------------------

CONFIG = """
model = "model.py:build"
data = "data.npz"
threat = "Linf:0.1"
attacks = "quick"

[gate]
baseline = "baseline.json"
"""


@pytest.fixture
def configured(user):
    """The project with a configuration that names its baseline."""
    (user.path / "gauntlet.toml").write_text(CONFIG, encoding="utf-8")
    return user


@pytest.mark.parametrize("workers", WORKERS)
def test_a_run_of_the_configuration_is_gated_by_it(configured, tiny, workers):
    change_model(configured, tiny)
    result = (configured.runpytest_subprocess if workers else configured.runpytest)(*workers)
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["Gate failed: 2 regressed."])


def test_a_plan_that_differs_from_the_baseline_s_is_a_usage_error_before_anything_is_attacked(configured):
    text = (configured.path / "gauntlet.toml").read_text(encoding="utf-8")
    (configured.path / "gauntlet.toml").write_text("seed = 5\n" + text, encoding="utf-8")
    result = configured.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*gauntlet: gate: POLICY the seed is 0 in the baseline and 5 here. To renew the baseline*"]
    )
    assert not (configured.path / "gauntlet-results").exists()


def test_rules_that_are_looser_than_the_baseline_s_are_told_with_the_commands_that_renew_it(configured):
    folder = configured.path / "gauntlet-results"
    folder.mkdir()
    (folder / "gate.json").write_text('{"passed": true}', encoding="utf-8")
    (configured.path / "gauntlet.toml").write_text(f"{CONFIG}margin = 0.9\n", encoding="utf-8")
    result = configured.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*POLICY margin is * in the baseline and 0.9 here. To renew the baseline*"])
    assert not (folder / "gate.json").exists()


@pytest.mark.parametrize("ref", ["HEAD", "nowhere"])
def test_the_baseline_can_be_that_of_a_commit(user, ref):
    for command in (["init", "-q", "."], ["add", "-A"], ["commit", "-qm", "base"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *command], check=True, cwd=user.path)
    (user.path / "baseline.json").unlink()
    result = user.runpytest(*OPTIONS, GATE, f"--gauntlet-baseline-from={ref}")
    if ref == "HEAD":
        assert result.ret == pytest.ExitCode.OK
        result.stdout.fnmatch_lines(["Baseline of HEAD, commit *", "Gate passed: *"])
    else:
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["*baseline-from='nowhere' is no commit that git knows*"])
    alone = user.runpytest("--gauntlet-baseline-from=HEAD")
    assert alone.ret == pytest.ExitCode.USAGE_ERROR
    alone.stderr.fnmatch_lines(["*--gauntlet-baseline-from needs a gate*"])


def test_other_bytes_under_the_same_name_fail_each_cell_unattacked(configured, tiny):
    tiny.write_data(configured.path, count=199)
    result = configured.runpytest()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*POLICY the images, labels or ids of data.npz are *"])
    assert not (configured.path / "gauntlet-results" / "store").exists()


def test_settings_of_the_gate_come_from_the_configuration_for_a_named_baseline_too(configured):
    (configured.path / "gauntlet.toml").write_text(f"{CONFIG}min_robust = 1\n", encoding="utf-8")
    for options in ((), (GATE,)):
        result = configured.runpytest(*options)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.stdout.fnmatch_lines(["LIMIT model.build*below the floor of 100 %."])


def test_options_that_narrow_the_run_leave_the_gate_of_the_configuration_out(configured):
    result = configured.runpytest("--gauntlet-attacks=fgsm")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["Gate not applied: options narrow*add --gauntlet-gate=baseline.json"])
    result = configured.runpytest("--gauntlet-attacks=fgsm", "--gauntlet-allow-undecided")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize("workers", WORKERS)
def test_a_baseline_of_the_configuration_that_is_not_there_yet_is_told(configured, workers):
    (configured.path / "baseline.json").unlink()
    result = (configured.runpytest_subprocess if workers else configured.runpytest)(*workers)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["Gate not applied: baseline.json does not exist yet.*gauntlet baseline accept*"])
    assert not (configured.path / "gauntlet-results" / "gate.md").exists()


@pytest.mark.parametrize("workers", WORKERS)
def test_a_damaged_baseline_of_the_configuration_ends_the_run_before_anything_is_attacked(configured, workers):
    (configured.path / "baseline.json").write_text("{}", encoding="utf-8")
    result = (configured.runpytest_subprocess if workers else configured.runpytest)(*workers)
    assert result.ret not in (pytest.ExitCode.OK, pytest.ExitCode.INTERNAL_ERROR)
    assert "baseline.json" in result.stdout.str() + result.stderr.str()
    assert not (configured.path / "gauntlet-results").exists()


def test_tests_that_run_no_cell_are_not_gated_by_the_configuration(configured):
    configured.makepyfile(test_robust="def test_it():\n    pass\n")
    (configured.path / "baseline.json").write_text("{}", encoding="utf-8")
    result = configured.runpytest()
    assert result.ret == pytest.ExitCode.OK
    assert "gauntlet gate" not in result.stdout.str()
