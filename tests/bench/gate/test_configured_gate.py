"""The gate of a configuration: a run is judged by the baseline that it names."""

from __future__ import annotations

from pathlib import Path

import torch

from gate_project import BASELINE, assert_told

PROJECT = f"""
model = "model.py:build"
data = "digits"
samples = "200"
threat = "Linf:0.15"
attacks = "pgd(steps=10)"
out = "out"

[gate]
baseline = "{BASELINE.as_posix()}"
"""


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
    configure("margin = 0.005\nallow_undecided = true\n")
    assert call("run").returncode == call("gate", "out").returncode == 0
    configure("max_passes_ratio = 0.5\n")
    assert call("gate", "out").returncode == 1
    configure('[gate.min_robust]\n"model.*" = 0.99\n')
    assert call("gate", "out").returncode == 1


def test_a_gate_without_any_baseline_says_where_one_can_be_named(here, call):
    assert_told(call("gate", "out"), 2, "BASELINE", "[gate]")
