"""The gate of a configuration: a run is judged by the baseline that it names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import torch

from gate_project import BASELINE, PROJECT, assert_told, git


def configure(text=""):
    """The project's configuration, with more in its gate table."""
    Path("gauntlet.toml").write_text(PROJECT + text, encoding="utf-8")


def test_a_run_of_the_configuration_is_gated_by_it(here, call, states):
    configure()
    done = call("run")
    assert done.returncode == 0
    assert "Gate passed: 1 held." in done.stdout
    torch.save(states[1], "weights.pt")
    assert call("run").returncode == 1
    assert call("gate", "out").returncode == 1
    assert call("gate", "out", "--config=gauntlet.toml").returncode == 1


def test_options_that_narrow_the_run_leave_the_gate_out_unless_it_is_named(here, call):
    configure()
    done = call("run", "--samples=50")
    assert done.returncode == 0
    assert f"Gate not applied: options narrow the run. To apply it nevertheless, add --gate={BASELINE}" in done.stdout
    assert "INCOMPARABLE" not in done.stdout
    assert call("run", "--samples=50", f"--gate={BASELINE}").returncode == 3
    assert_told(call("run", "--samples=50", "--allow-undecided"), 2, "--allow-undecided needs a gate", "options narrow")


def test_a_baseline_of_the_configuration_that_is_not_there_yet_is_told_and_accepting_writes_it(here, call):
    configure()
    text = Path("gauntlet.toml").read_text(encoding="utf-8").replace(BASELINE.as_posix(), "new/first.json")
    Path("gauntlet.toml").write_text(text, encoding="utf-8")
    for extra in ((), ("--allow-undecided",)):
        done = call("run", *extra)
        assert done.returncode == 0
        assert "Gate not applied: new/first.json does not exist yet." in done.stdout
        assert "gauntlet baseline accept out --reason TEXT" in done.stdout
    assert not Path("out/gate.md").exists()
    assert_told(call("gate", "out"), 2, "new/first.json does not exist")
    assert_told(call("run", "--gate=new/first.json"), 2, "new/first.json does not exist")
    assert call("baseline", "accept", "out", "--reason=first").returncode == 0
    assert Path("new/first.json").is_file()
    assert "Gate passed" in call("run").stdout


def test_a_damaged_baseline_of_the_configuration_is_wrong_usage_before_anything_runs(here, call):
    configure()
    BASELINE.write_text("{}", encoding="utf-8")
    assert_told(call("run", "--out=new"), 2, BASELINE.name)
    assert not Path("new").exists()


def test_settings_of_the_gate_come_from_the_configuration_and_options_win(here, call):
    configure("margin = 0.005\nmin_robust = 0.1\n")
    assert call("gate", "out").returncode == 4
    assert call("gate", "out", BASELINE).returncode == 4
    assert call("run").returncode == 4
    assert call("gate", "out", "--margin=0.05").returncode == 0
    assert call("gate", "out", "--margin=0.05", "--min-robust=0.99").returncode == 1
    # Only a baseline that was accepted with it lets undecided cells pass.
    first = BASELINE.read_bytes()
    configure("margin = 0.005\nallow_undecided = true\n")
    assert call("baseline", "accept", "out", "--reason=undecided may pass").returncode == 0
    assert call("run").returncode == call("gate", "out").returncode == 0
    BASELINE.write_bytes(first)
    configure("max_passes_ratio = 0.5\n")
    assert call("gate", "out").returncode == 1
    configure('[gate.min_robust]\n"model.*" = 0.99\n')
    assert call("gate", "out").returncode == 1


def test_a_gate_without_any_baseline_says_where_one_can_be_named(here, call):
    assert_told(call("gate", "out"), 2, "BASELINE", "[gate]")


def test_a_looser_policy_than_the_baseline_s_is_the_verdict_before_anything_is_attacked(here, call, states):
    configure("margin = 0.5\nalpha = 1e-15\n")
    torch.save(states[1], "weights.pt")
    shutil.rmtree("out")
    for command in (["run"], ["run", "--gate-early"]):
        done = call(*command)
        assert done.returncode == 1
        assert "margin is 0.02 in the baseline and 0.5 here" in done.stdout
        assert "alpha is 0.05 in the baseline and 1e-15 here" in done.stdout
        assert "Gate failed: 2 policy." in done.stdout
        assert not Path("out/store").exists()
    (first, *_) = json.loads(Path("out/gate.json").read_text(encoding="utf-8"))["verdicts"]
    assert first["verdict"] == "policy"


def test_a_stored_run_is_refused_by_the_same_policy(here, call):
    configure("max_passes_ratio = 9\nallow_undecided = true\n")
    done = call("gate", "out")
    assert done.returncode == 1
    assert "max_passes_ratio is 1.25 in the baseline and 9 here" in done.stdout
    assert "allow_undecided is False in the baseline and True here" in done.stdout


def test_a_stricter_policy_is_applied_and_every_report_names_margin_and_alpha(here, call):
    configure("margin = 0.019\n")
    done = call("run")
    assert done.returncode in (0, 4)
    for text in (done.stdout, Path("out/gate.md").read_text(encoding="utf-8")):
        assert "Margin 1.9 points, alpha 5 %." in text


def test_what_is_given_by_hand_is_the_user_s_choice(here, call):
    configure()
    assert "Margin 10 points" in call("gate", "out", "--margin=0.1").stdout


def test_the_report_is_written_as_junit_xml_by_runs_and_gates_and_needs_a_gate(here, call, states):
    configure()
    assert "written: first/a.xml" in call("run", "--junit=first/a.xml").stdout
    torch.save(states[1], "weights.pt")
    assert call("run", "--gate-early", "--junit=b.xml").returncode == 1
    assert call("run").returncode == 1
    done = call("gate", "out", "--junit=c.xml", "--format=json")
    json.loads(done.stdout)
    assert "written: c.xml" in done.stderr
    counts = [ElementTree.parse(name).getroot().get("failures") for name in ("first/a.xml", "b.xml", "c.xml")]
    assert counts == ["0", "1", "1"]
    configure("margin = 0.5\n")
    assert call("run", "--junit=d.xml").returncode == 1
    assert ElementTree.parse("d.xml").getroot().find(".//failure").get("type") == "policy"
    assert_told(call("run", "--no-gate", "--junit=e.xml"), 2, "--junit needs a gate")


def test_a_junit_file_that_cannot_be_written_is_an_error_after_the_report(here, call, states):
    configure()
    Path("file").write_text("no folder", encoding="utf-8")
    for command in (["run"], ["run", "--gate-early"], ["gate", "out"], ["gate", "out", "--format=json"]):
        done = call(*command, "--junit=file/a.xml")
        assert_told(done, 1, "error: --junit: cannot write file/a.xml")
        assert "Gate passed: 1 held." in done.stdout
    assert json.loads(Path("out/gate.json").read_text(encoding="utf-8"))["passed"] is True


def test_a_gate_on_a_run_s_own_folder_judges_and_writes_in_the_results_folder(here, call):
    (run,) = Path("out/runs").iterdir()
    for change in ("", "margin = 0.5\n"):
        configure(change)
        Path("out/gate.json").unlink(missing_ok=True)
        assert call("gate", run).returncode == (1 if change else 0)
        assert Path("out/gate.json").is_file()
        assert not (run / "gate.json").exists()
    git("init", "-q", ".")
    git("add", "-f", "out")
    assert_told(call("gate", run), 2, "out='out' holds results that git tracks")


def test_no_report_of_an_earlier_gate_is_left_where_one_ends_without_a_verdict(here, call):
    assert call("gate", "out", BASELINE).returncode == 0
    assert_told(call("gate", "out", "nowhere.json"), 2, "nowhere.json does not exist")
    assert not Path("out/gate.json").exists()


def test_a_run_whose_early_traces_are_damaged_is_incomparable_in_the_report_as_well(here, call):
    configure()
    shutil.rmtree("out")
    assert call("run", "--gate-early").returncode == 0
    (trace,) = Path("out").glob("runs/*/gate/*.json")
    trace.write_text("{", encoding="utf-8")
    assert call("gate", "out").returncode == 3
    (found,) = json.loads(Path("out/gate.json").read_text(encoding="utf-8"))["verdicts"]
    assert found["verdict"] == "incomparable"
    assert trace.name in found["sentence"]


def test_the_summary_explains_its_columns_and_links_pictures_to_the_artifact(here, call, states, monkeypatch):
    configure()
    torch.save(states[1], "weights.pt")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    for name, value in (("SERVER_URL", "https://github.com"), ("REPOSITORY", "o/r"), ("RUN_ID", "7")):
        monkeypatch.setenv(f"GITHUB_{name}", value)
    assert call("run").returncode == 1
    summary = Path("summary.md").read_text(encoding="utf-8")
    head = next(line for line in summary.splitlines() if line.startswith("| verdict |"))
    explained = summary.partition("Columns. baseline % and ")[2]
    for name in ("now %", "n samples", "lost", "gained", "drop at most", "p (Holm)"):
        assert name in explained
        assert name.removesuffix(" samples") in head
    assert "picture: [out/pictures/" in summary
    assert ".png](https://github.com/o/r/actions/runs/7#artifacts)" in summary
    assert "actions/runs" not in Path("out/gate.md").read_text(encoding="utf-8")
