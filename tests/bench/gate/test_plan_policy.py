"""The conditions of a baseline bind the plan of the configuration: what differs is a verdict before anything is attacked."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gate_project import ATTACK, BASELINE, RUN, assert_told, configure
from gauntlet.leaderboard.gate.baseline_file import read_baseline, write_baseline

RENEW = f"gauntlet run --no-gate && gauntlet baseline accept out --out {BASELINE} --reason TEXT"


def edit_policy(change):
    """The baseline with another policy, as a hand would edit it."""
    base = read_baseline(BASELINE)
    write_baseline(BASELINE, replace(base, policy=change(dict(base.policy))))


def test_a_baseline_stores_attacks_checks_and_versions_and_the_same_plan_is_held(here, call):
    configure()
    policy = read_baseline(BASELINE).policy
    assert policy["attacks"].keys() == {"pgd(steps=10) Linf:0.15 in custom"}
    assert "steps=10" in policy["attacks"]["pgd(steps=10) Linf:0.15 in custom"]
    assert policy["checks"] == "default"
    assert {"gauntlet", "verifier", "PGD"} <= policy["versions"].keys()
    assert "Gate passed: 1 held." in call("run").stdout


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('threat = "Linf:0.15"', 'threat = "Linf:0.1"', "is Linf:0.15 in the baseline and Linf:0.1 here"),
        ("pgd(steps=10)", "pgd(steps=1)", "pgd(steps=10) Linf:0.15 is in the baseline and not planned here; here are"),
        ('samples = "200"', 'samples = "150"', "is digits[200] in the baseline and digits[150] here"),
        ('out = "out"', 'out = "out"\nseed = 7', "the seed is 0 in the baseline and 7 here"),
        ('out = "out"', 'out = "out"\nchecks = "none"', "checks is 'default' in the baseline and 'none' here"),
    ],
)
def test_what_differs_is_the_verdict_before_anything_is_attacked(here, call, old, new, says, early):
    configure(old, new)
    shutil.rmtree("out")
    done = call("run", *(["--gate-early"] if early else []))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "POLICY all cells: " in done.stdout
    assert says in done.stdout
    assert RENEW in done.stdout
    assert not Path("out/store").exists()
    assert {one["verdict"] for one in json.loads(Path("out/gate.json").read_text())["verdicts"]} == {"policy"}


def test_a_stored_run_of_such_a_configuration_is_refused_too(here, call):
    configure('out = "out"', 'out = "out"\nseed = 7')
    assert call("run", "--no-gate").returncode == 0
    done = call("gate", "out")
    assert done.returncode == 1
    assert "the seed is 0 in the baseline and 7 here" in done.stdout


def test_what_options_chose_is_the_user_s_choice(here, call):
    configure()
    assert "the baseline's seed was 0" in call("run", "--seed=1").stdout
    done = call(*RUN, ATTACK, "--seed=1", f"--gate={BASELINE}")
    assert "POLICY" not in done.stdout
    assert "POLICY" not in call("gate", "out").stdout


def test_another_version_is_named_with_the_commands_that_renew_the_baseline(here, call):
    configure()
    edit_policy(lambda policy: policy | {"versions": policy["versions"] | {"gauntlet": "0.0.9", "PGD": "99"}})
    for command in (["run"], ["run", "--gate-early"], [*RUN, ATTACK, f"--gate={BASELINE}"]):
        done = call(*command)
        assert done.returncode == 1
        assert "the version of gauntlet is 0.0.9 in the baseline and " in done.stdout
        assert "the version of PGD is 99 in the baseline and 1 here" in done.stdout
        assert RENEW in done.stdout
    assert "the version of gauntlet is 0.0.9" in call("gate", "out").stdout


def test_a_baseline_without_conditions_binds_nothing_and_says_how_to_add_them(here, call):
    configure('out = "out"', 'out = "out"\nseed = 7')
    edit_policy(lambda policy: {})
    done = call("run")
    assert "POLICY" not in done.stdout
    assert "The baseline stores no policy, so that this run is held to none" in done.stdout
    assert RENEW in done.stdout
    assert "stores no policy" in Path("out/gate.md").read_text(encoding="utf-8")
    assert json.loads(Path("out/gate.json").read_text())["notes"]
    rules = {"margin", "alpha", "min_robust", "allow_undecided", "max_passes_ratio", "max_memory_ratio"}
    configure()
    assert call("run", "--no-gate").returncode == call("baseline", "accept", "out", "--reason=again").returncode == 0
    edit_policy(lambda policy: {name: policy[name] for name in rules})
    assert "stores neither attacks, checks nor versions" in call("run").stdout


def test_other_bytes_under_the_same_name_are_named_before_they_are_attacked(here, call, tiny):
    tiny.write_data(".", count=60)
    Path("gauntlet.toml").write_text(
        'model = "model.py:build"\ndata = "data.npz"\nthreat = "Linf:0.15"\nattacks = "pgd(steps=3)"\nout = "fresh"\n\n'
        '[gate]\nbaseline = "npz.json"\n',
        encoding="utf-8",
    )
    assert call("run").returncode == call("baseline", "accept", "fresh", "--reason=data").returncode == 0
    with np.load("data.npz") as held:
        images, labels = held["images"], held["labels"]
    np.savez_compressed("data.npz", images=images * 0.99, labels=labels)
    shutil.rmtree("fresh")
    for early in ([], ["--gate-early"]):
        done = call("run", *early)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "POLICY all cells: the images, labels or ids of data.npz are " in done.stdout
        assert not Path("fresh/store").exists()


def test_a_run_of_another_version_is_not_accepted(here, call):
    (file,) = Path("out/runs").glob("*/run.json")
    record = json.loads(file.read_text(encoding="utf-8"))
    record["context"]["versions"]["robust-gauntlet"] = "0.0.9"
    # As a version wrote it that knew no digests.
    record.pop("digest", None)
    file.write_text(json.dumps(record), encoding="utf-8")
    done = call("baseline", "accept", "out", "--reason=old")
    assert_told(done, 2, "the run was made by gauntlet 0.0.9, and this is", "run the same command again")
