"""Models, attacks, defenses and data of a user's own: what runs, what is in the key, and what is verified."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from pandas import read_parquet

import gauntlet
from builders import ROOT
from gauntlet.bench.registry.plugin_files import load_plugins
from gauntlet.leaderboard.report.cells_csv import read_cells
from plugin_texts import ATTACK, DEFENSE, FAR, OWN, RANDOM, SIGN, stored, write

EXAMPLE = ROOT / "examples" / "plugin"


pytestmark = pytest.mark.usefixtures("registries_as_before")


pytest_plugins = ["pytester"]


DATA_SET = """
import numpy as np

import gauntlet

def load():
    return {returned}

gauntlet.register_data(
    "grey", gauntlet.DataEntry(
        gauntlet.DataCard(name="grey", summary="grey", source="here", licence="CC0", classes=10, shape=(1, 8, 8)), load
    ),
)
"""


def cells(out="gauntlet-results"):
    return {row["attack"]: row for row in read_cells(Path(out) / "cells.csv").to_dict("records")}


# the example


def test_the_example_runs_as_a_plain_file_and_is_verified_from_its_files(extras, call):
    ran = call(
        *("run", "--plugin", "extras.py", "--model", "energy", "--data", "stripes", "--defense", "none,levels"),
        *("--attacks", "simba,bim,gauntlet:fast"),
    )
    assert ran.returncode == 0, ran.stderr
    found = read_cells(Path("gauntlet-results/cells.csv"))
    assert set(zip(found["defense"], found["attack"], strict=True)) == {
        (defense, attack) for defense in ("none", "levels") for attack in ("simba", "bim", "gauntlet:fast")
    }
    assert (found["status"] == "ok").all()
    assert (found["n"] == 200).all()
    assert (found["clean_accuracy"] > 0.98).all()
    robust = found[found["defense"] == "none"].set_index("attack")["robust_accuracy"]
    assert 0.5 < robust["gauntlet:fast"] < robust["bim"] < robust["simba"] < 1
    assert "non-differentiable-defense" in "".join(found[found["defense"] == "levels"]["flags"].astype(str))
    again = call("verify", "gauntlet-results", "--trust")
    assert again.returncode == 0, again.stdout
    assert "6 of 6 cells" in again.stdout
    assert " 0 failures" in again.stdout


def test_the_example_is_listed_with_the_file_that_it_comes_from(extras, call):
    for kind, names in (("attacks", ("simba", "bim")), ("models", ("energy",)), ("defenses", ("levels",))):
        shown = call("list", kind, "--plugin", "extras.py")
        assert shown.returncode == 0
        lines = {line.split()[0]: line for line in shown.stdout.splitlines()}
        for name in names:
            assert lines[name].endswith(f"(from {extras})")
        assert sum("(from" in line for line in lines.values()) == len(names)
    assert "stripes" in call("list", "data", "str*", "--plugin", "extras.py").stdout


def test_the_example_is_diagnosed_and_swept(extras, call):
    named = ("--plugin", "extras.py", "--model", "energy", "--data", "stripes", "--samples", "40")
    told = call("diagnose", *named, "--attack", "bim")
    assert told.returncode in (0, 1), told.stderr
    assert "--plugin extras.py" in told.stdout
    swept = call("sweep", *named, "--attack", "simba", "--over", "queries=8,128")
    assert swept.returncode == 0, swept.stderr
    assert "queries=128" in swept.stdout


def test_the_simple_attack_spends_the_queries_that_it_is_allowed(extras):
    load_plugins(["extras.py"])
    data, model = gauntlet.load_data("stripes", samples=20), gauntlet.load_model("energy").module
    found = gauntlet.evaluate(model, data, attacks="simba(queries=17)", threat="Linf:8/255")
    (row,) = found.per_attack.to_dict("records")
    assert (row["forwards_per_sample"], row["backwards_per_sample"]) == (17, 0)
    assert "queries=17" in row["settings"]


def test_the_rule_of_the_example_counts_its_steps(extras):
    load_plugins(["extras.py"])
    data, model = gauntlet.load_data("stripes", samples=20), gauntlet.load_model("energy").module
    found = gauntlet.evaluate(model, data, attacks="bim(steps=7)", threat="Linf:0.001")
    (row,) = found.per_attack.to_dict("records")
    assert (row["forwards_per_sample"], row["backwards_per_sample"]) == (8, 7)


# what is in the key


def test_an_attack_is_run_again_once_its_file_has_changed_and_only_then(project, call):
    write("mine.py", ATTACK.format(body="return images"))
    assert not stored(call, "--attacks", "mine")
    assert cells()["mine"]["robust_accuracy"] == cells()["mine"]["clean_accuracy"]
    assert stored(call, "--attacks", "mine")
    write("mine.py", ATTACK.format(body=SIGN))
    assert not stored(call, "--attacks", "mine")
    assert cells()["mine"]["robust_accuracy"] < cells()["mine"]["clean_accuracy"]
    write("mine.py", ATTACK.format(body="return images"))
    assert stored(call, "--attacks", "mine")
    assert cells()["mine"]["robust_accuracy"] == cells()["mine"]["clean_accuracy"]


def test_a_defense_is_run_again_once_its_file_has_changed(project, call):
    write("mine.py", DEFENSE.format(gain=1.0))
    arguments = ("--attacks", "fgsm", "--defense", "gain")
    assert not stored(call, *arguments)
    assert stored(call, *arguments)
    write("mine.py", DEFENSE.format(gain=0.5))
    assert not stored(call, *arguments)


def test_a_model_is_run_again_once_its_file_has_changed(project, call):
    text = (
        Path("model.py").read_text(encoding="utf-8") + "\n\nimport gauntlet\n\ngauntlet.register_model('own', build)\n"
    )
    own = ("--data", "data.npz", "--threat", "Linf:0.1", "--attacks", "fgsm", "--model", "own", "--plugin", "mine.py")
    for content, cached in ((text, 0), (text, 1), (text + "# changed\n", 1), (text + "CHANGED = 1\n", 0)):
        write("mine.py", content)
        ran = call("run", *own)
        assert ran.returncode == 0, ran.stderr
        assert f" {cached} answered from the store" in ran.stdout


def test_a_comment_in_an_imported_helper_changes_no_key_and_a_constant_does(project, call):
    text = Path("model.py").read_text(encoding="utf-8").replace("def build", "import helper\n\n\ndef build")
    write("own.py", text)
    run = ("run", "--model", "own.py:build", "--data", "data.npz", "--threat", "Linf:0.1", "--attacks", "fgsm")
    edits = (
        ("GAIN = 1\n\ndef f():\n    a = GAIN\n    return a\n", 0),
        ('"""Helps."""\nGAIN = 1  # a comment\n\n\ndef f():\n    """Doc."""\n    b = GAIN\n    return b\n', 1),
        ("GAIN = 2\n\ndef f():\n    a = GAIN\n    return a\n", 0),
    )
    for helper, cached in edits:
        write("helper.py", helper)
        ran = call(*run)
        assert ran.returncode == 0, ran.stderr
        assert f" {cached} answered from the store" in ran.stdout


def test_settings_count_though_the_attack_does_not_show_them(project, call):
    hidden = ATTACK.format(body="return images + self.steps * 0.001").replace(
        "@dataclass(frozen=True, kw_only=True)\n", ""
    )
    hidden = hidden.replace(
        "    version:",
        "    def __init__(self, threat, steps=1):\n        self.threat, self.steps = threat, steps\n\n    version:",
    )
    write("mine.py", hidden)
    assert not stored(call, "--attacks", "mine(steps=1)")
    assert not stored(call, "--attacks", "mine(steps=2)")
    assert stored(call, "--attacks", "mine(steps=1)")
    assert " at 0x" not in str(cells()["mine(steps=1)"])
    both = call("run", "--plugin", "mine.py", *OWN, "--attacks", "mine(steps=1),mine(steps=3)")
    assert "2 cells: 1 answered from the store" in both.stdout


def test_a_random_attack_gives_the_same_again_and_does_not_depend_on_what_ran_before(project, call, tiny):
    tiny.write_data(project, 290)
    write("mine.py", ATTACK.format(body=RANDOM))
    command = ("run", "--plugin", "mine.py", *OWN[:-1], "Linf:0.6", "--attacks", "mine")
    assert call(*command).returncode == 0
    store = Path("gauntlet-results/store")
    # What differs from the store under the same key is an error.
    assert call(*command, "--fresh").returncode == 0
    # A block alone, as after a kill: it is the last one that the first run wrote.
    last = max(store.rglob("*.parquet"), key=lambda file: file.stat().st_mtime_ns)
    before = read_parquet(last)["distance"]
    assert before.notna().sum() >= 2
    last.unlink()
    assert call(*command).returncode == 0
    np.testing.assert_array_equal(read_parquet(last)["distance"], before)


# what is verified anyway


def test_an_attack_that_leaves_the_ball_breaks_nothing_and_is_flagged(project, call):
    write("mine.py", ATTACK.format(body=FAR))
    assert not stored(call, "--attacks", "mine")
    cell = cells()["mine"]
    assert cell["robust_accuracy"] == cell["clean_accuracy"] > 0.5
    assert "invalid-candidates" in cell["flags"]


def test_an_attack_that_spoils_model_images_and_generators_harms_nobody(project, call):
    spoils = """torch.manual_seed(1)
        for tensor in model.state_dict().values():
            tensor.zero_()
        model.train()
        labels.zero_()
        return images.fill_(0.5)"""
    write("mine.py", ATTACK.format(body=spoils))
    ran = call("run", "--plugin", "mine.py", *OWN, "--attacks", "mine,fgsm")
    assert ran.returncode == 0, ran.stderr
    spoiled = cells()
    ran = call("run", *OWN, "--attacks", "fgsm", "--out", "alone")
    assert ran.returncode == 0, ran.stderr
    assert spoiled["fgsm"]["robust_accuracy"] == cells("alone")["fgsm"]["robust_accuracy"]
    assert spoiled["mine"]["clean_accuracy"] == spoiled["mine"]["robust_accuracy"] == spoiled["fgsm"]["clean_accuracy"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return images[:1]", "where images of shape"),
        ("return None", "NoneType where images of shape"),
        ("raise KeyError('no such thing')", "no such thing"),
    ],
)
def test_an_attack_that_fails_is_an_error_of_its_cell(project, call, body, told):
    write("mine.py", ATTACK.format(body=body))
    ran = call("run", "--plugin", "mine.py", *OWN, "--attacks", "mine,fgsm")
    assert ran.returncode == 1
    assert told in ran.stderr
    assert cells()["fgsm"]["status"] == "ok"
    assert cells()["mine"]["status"] == "error"


# data


@pytest.mark.parametrize(
    "returned",
    [
        "np.full((10, 1, 8, 8), 0.5, np.float32), np.arange(10)",
        "np.full((10, 1, 8, 8), 128, np.uint8), np.arange(10), [f'id-{i}' for i in range(10)]",
        "[(np.full((1, 8, 8), 0.5, np.float32), label) for label in range(10)]",
    ],
)
def test_data_may_be_arrays_with_or_without_ids_or_a_dataset(tmp_path, monkeypatch, returned):
    monkeypatch.chdir(tmp_path)
    write("mine.py", DATA_SET.format(returned=returned))
    load_plugins(["mine.py"])
    data = gauntlet.load_data("grey", samples="2:5")
    assert (data.spec, data.classes, data.labels.tolist()) == ("grey", 10, [2, 3, 4])
    assert tuple(data.images.shape) == (3, 1, 8, 8)
    assert ("id-2" in data.ids) == ("id-" in returned)


def test_wrong_data_are_one_clear_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("mine.py", DATA_SET.format(returned="np.full((10, 8, 8, 3), 0.5, np.float32), np.arange(10)"))
    load_plugins(["mine.py"])
    with pytest.raises(ValueError, match=r"transpose to \(N, C, H, W\)"):
        gauntlet.load_data("grey")
    write("mine.py", DATA_SET.format(returned="5"))
    load_plugins(["mine.py"])
    with pytest.raises(ValueError, match=r"'grey' returned int: return \(images, labels\)"):
        gauntlet.load_data("grey")


# pytest, and what is written


def test_pytest_takes_plugins_too(pytester, tiny):
    tiny.write_project(pytester.path)
    pytester.makepyfile(test_robust="from gauntlet.bench.test_cells import test_cell\n\n__all__ = ['test_cell']\n")
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\n")
    write("mine.py", ATTACK.format(body=SIGN).replace('"mine"', '"of-pytest"'))
    named = [f"--gauntlet-{name}={value}" for name, value in (("model", "model.py:build"), ("data", "data.npz"))]
    attack = ("--gauntlet-attacks=of-pytest", "--gauntlet-threat=Linf:0.1")
    result = pytester.runpytest("-v", *named, *attack, "--gauntlet-plugin=mine.py")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*model.build × none × of-pytest[]] PASSED*"])
    missing = pytester.runpytest(*named, *attack, "--gauntlet-plugin=other.py")
    assert missing.ret == pytest.ExitCode.USAGE_ERROR
    missing.stderr.fnmatch_lines(
        ["ERROR: gauntlet: plugin 'other.py' cannot be loaded: file 'other.py' does not exist*"]
    )


def test_the_commands_of_the_example_s_readme_do_what_it_says(tmp_path, monkeypatch, call):
    shutil.copytree(EXAMPLE, tmp_path / "examples" / "plugin")
    monkeypatch.chdir(tmp_path)
    text = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    commands = [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("gauntlet ")]
    assert len(commands) == 5
    for command in commands:
        done = call(*command)
        assert done.returncode == 0, (command, done.stderr)
        if "gauntlet" in command[-1]:
            table = read_cells(Path("gauntlet-results/cells.csv"))
            told = [float(figure) for figure in re.findall(r"\d\d\.\d", text.partition("three attacks leave")[2])]
            assert len(told) == 6
            # Another processor may round otherwise, and break a sample more or less.
            np.testing.assert_allclose(100 * table["robust_accuracy"], told, rtol=0, atol=2)
