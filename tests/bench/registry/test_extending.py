"""Models, attacks, defenses and data of a user's own, from a plain Python file: what runs, what is keyed, what is refused."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pandas import read_parquet

import gauntlet
from builders import ROOT
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.bench.config.files import plugin_files
from gauntlet.bench.config.schema import ConfigError, load_config
from gauntlet.bench.registries import ATTACKS, DATA, DEFENSES, MODELS
from gauntlet.bench.registry.plugin_files import PluginError, load_plugins
from gauntlet.leaderboard.report.cells_csv import read_cells

pytest_plugins = ["pytester"]

EXAMPLE = ROOT / "examples" / "plugin"

ATTACK = """
from dataclasses import dataclass
from typing import ClassVar

import torch

import gauntlet


@dataclass(frozen=True, kw_only=True)
class Attack:
    threat: gauntlet.ThreatModel
    steps: int = 1
    version: ClassVar[int] = 1

    def __call__(self, model, images, labels, seed):
        {body}


gauntlet.register_attack(
    "mine",
    gauntlet.AttackEntry(
        gauntlet.AttackCard(name="mine", summary="mine", source="here", norms=("Linf",)),
        lambda threat, **settings: Attack(threat=threat, **settings),
    ),
)
"""
SIGN = """points = images.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(points), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, points)
        return (images + self.threat.eps * gradient.sign()).clamp(0, 1)"""
RANDOM = "return (images + self.threat.eps * (2 * torch.rand_like(images) - 1)).clamp(0, 1)"
FAR = "return 1 - images"
ATTACK_TEXT = ATTACK.format(body=FAR)

DEFENSE = """
import torch

import gauntlet


class Gain(torch.nn.Module):
    def __init__(self, gain):
        super().__init__()
        self.gain = gain

    def forward(self, images):
        return images * self.gain


gauntlet.register_defense(
    "gain",
    gauntlet.DefenseEntry(
        gauntlet.DefenseCard(name="gain", summary="darker", source="here", differentiable=True, randomised=False),
        lambda gain={gain}: Gain(gain),
    ),
)
"""

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


@pytest.fixture(autouse=True)
def registries_as_before(monkeypatch):
    """What a test registers is forgotten after it, and so are the modules that it imports."""
    for registry in (ATTACKS, DATA, DEFENSES, MODELS):
        for name in ("_entries", "_registrants", "_problems"):
            monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def extras(tmp_path, monkeypatch):
    """The example's file in the working folder."""
    shutil.copy(EXAMPLE / "extras.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "extras.py"


def write(name, text):
    Path(name).write_text(text, encoding="utf-8")


def cells(out="gauntlet-results"):
    return {row["attack"]: row for row in read_cells(Path(out) / "cells.csv").to_dict("records")}


OWN = ("--model", "model.py:build", "--data", "data.npz", "--threat", "Linf:0.1")


# --- the example ---


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
    again = call("verify", "gauntlet-results")
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


# --- what is in the key ---


def stored(call, *arguments):
    """Whether the only cell of a run was answered from the store."""
    ran = call("run", "--plugin", "mine.py", *OWN, *arguments)
    assert ran.returncode == 0, ran.stderr
    return " 1 answered from the store" in ran.stdout


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
    for content, cached in ((text, 0), (text, 1), (text + "# changed\n", 0)):
        write("mine.py", content)
        ran = call("run", *own)
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


# --- what is verified anyway ---


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


# --- data ---


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


# --- wrong files ---


def refused(call, *arguments):
    """The one sentence of a command that ends with exit code 2."""
    done = call(*arguments)
    assert done.returncode == 2, (done.stdout, done.stderr)
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    return line


TAKEN = "import gauntlet\n\n\n\ngauntlet.register_attack('pgd', gauntlet.AttackEntry(None, None))\n"
NO_ENTRY = "import gauntlet\ngauntlet.register_{0}('mine', {1})\n"


@pytest.mark.parametrize(
    "command", [("run", *OWN), ("list", "attacks"), ("sweep", *OWN, "--attack", "pgd", "--over", "steps=1,2")]
)
@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("mine.py", None, "file 'mine.py' does not exist"),
        ("mine.txt", "", "is not a Python file"),
        ("mine.py", "\n\n1 / 0\n", "ZeroDivisionError: division by zero (line 3)"),
        ("mine.py", "def broken(:\n", "SyntaxError"),
        ("mine.py", "import nothing_of_that_name\n", "No module named 'nothing_of_that_name'"),
        ("mine.py", "raise SystemExit(0)\n", "SystemExit"),
        (
            "mine.py",
            TAKEN.replace("None, None", "None, print"),
            "attack 'pgd' is registered already: choose another name (line 5)",
        ),
        (
            "mine.py",
            NO_ENTRY.format("attack", "print"),
            "'mine' is a builtin_function_or_method: give AttackEntry(card, …)",
        ),
        ("mine.py", NO_ENTRY.format("defense", "5"), "'mine' is a int: give DefenseEntry(card, …)"),
        ("mine.py", NO_ENTRY.format("data", "5"), "'mine' is a int: give DataEntry(card, …)"),
        ("mine.py", "import gauntlet\ngauntlet.register_model('a b', print)\n", "'a b' is not usable"),
        (
            "mine.py",
            ATTACK_TEXT.replace('("Linf",)', '("linf",)'),
            "attack 'mine' has among its norms 'linf': use Linf, L2, L1",
        ),
        ("mine.py", ATTACK_TEXT.replace('norms=("Linf",)', 'norms="Linf"'), "attack 'mine' has among its norms 'L'"),
        (
            "mine.py",
            ATTACK_TEXT.replace('"here",', '"here", kind="blackbox",'),
            "attack 'mine' has kind 'blackbox': use white-box",
        ),
        (
            "mine.py",
            ATTACK_TEXT.replace('"here",', '"here", kind="certificate",'),
            "attack 'mine' has kind 'certificate': use",
        ),
        (
            "mine.py",
            DEFENSE.format(gain=1).replace("differentiable", "kind='inputs', differentiable"),
            "use input, output",
        ),
    ],
)
def test_a_wrong_file_is_one_sentence_and_exit_code_2(project, call, command, file, text, told):
    if text is not None:
        write(file, text)
    line = refused(call, *command, "--plugin", file)
    assert told in line
    assert repr(file) in line


@pytest.mark.parametrize(
    ("change", "attack", "told"),
    [
        (("version: ClassVar[int] = 1", "other: ClassVar[int] = 1"), "mine", "attack 'mine' has version None"),
        (("__call__", "run"), "mine", "attack 'mine' is a Attack: write __call__(self, model, images, labels, seed)"),
        (
            ("lambda threat, **settings: Attack", "lambda threat, **settings: threat.nothing or Attack"),
            "mine",
            "cannot be built",
        ),
        (("", ""), "mine(wrong=1)", "attack 'mine' has no setting 'wrong': it has steps"),
        (
            ("lambda threat, **settings: Attack(threat=threat, **settings)", "lambda threat: Attack(threat=threat)"),
            "mine(a=1)",
            "no setting",
        ),
        (("@dataclass(frozen=True, kw_only=True)", ""), "mine(a=1)", "settings {'a': 1} do not fit attack 'mine'"),
    ],
)
def test_an_attack_that_is_none_is_refused_when_it_is_named(project, call, change, attack, told):
    write("mine.py", ATTACK.format(body=FAR).replace(*change))
    assert told in refused(call, "run", "--plugin", "mine.py", *OWN, "--attacks", attack)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        ("lambda gain=1: gain", "defense 'gain' is a int: build a torch.nn.Module"),
        ("lambda gain=1: gain.nothing", "defense 'gain' cannot be built: AttributeError"),
        ("lambda: Gain(1)", "settings {'gain': 2} do not fit defense 'gain'"),
    ],
)
def test_a_defense_that_is_none_is_refused_when_it_is_named(project, call, build, told):
    write("mine.py", DEFENSE.replace("lambda gain={gain}: Gain(gain)", build))
    assert told in refused(call, "run", "--plugin", "mine.py", *OWN, "--defense", "gain(gain=2)", "--attacks", "fgsm")


def test_two_files_that_register_one_name_are_told_apart(project, call):
    write("mine.py", ATTACK.format(body=FAR))
    write("yours.py", ATTACK.format(body=SIGN))
    line = refused(call, "list", "attacks", "--plugin", "mine.py", "--plugin", "yours.py")
    assert f"attack 'mine' is registered already by {project / 'mine.py'}: choose another name" in line
    assert "'yours.py'" in line


def test_a_file_that_registers_one_name_twice_is_refused(project, call):
    write("mine.py", ATTACK.format(body=FAR) + ATTACK.format(body=SIGN))
    assert "registered already" in refused(call, "list", "attacks", "--plugin", "mine.py")


def test_loading_twice_is_harmless(project, call):
    write("mine.py", ATTACK.format(body=FAR))
    shown = call("list", "attacks", "mine", "--plugin", "mine.py", "--plugin", "mine.py", "--plugin", "./mine.py")
    assert shown.returncode == 0
    assert len(shown.stdout.splitlines()) == 1


def test_two_folders_with_files_of_one_name_can_be_loaded_in_turn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, name in (("one", "mine"), ("two", "yours")):
        Path(folder).mkdir()
        write(f"{folder}/plugin.py", ATTACK.format(body=FAR).replace('"mine"', f'"{name}"'))
    for _ in range(2):
        load_plugins(["one/plugin.py", "two/plugin.py"])
    assert {"mine", "yours"} <= set(gauntlet.list_attacks())


def test_a_name_that_a_plugin_registers_is_among_the_near_matches(project, call):
    write("mine.py", ATTACK.format(body=FAR).replace('"mine"', '"my-attack"'))
    line = refused(call, "run", "--plugin", "mine.py", *OWN, "--attacks", "my-atack")
    assert "unknown attack 'my-atack'; did you mean my-attack" in line


# --- configuration, and what reads stored runs ---


def test_the_configuration_names_plugins_too(project, call):
    write("mine.py", ATTACK.format(body=SIGN))
    write(
        "gauntlet.toml",
        'plugin = ["mine.py"]\nmodel = "model.py:build"\ndata = "data.npz"\nattacks = "mine"\nthreat = "Linf:0.1"\n',
    )
    assert call("run").returncode == 0
    assert "mine" in call("list", "attacks", "mine").stdout
    assert load_config({}, folder=project).plugins == ("mine.py",)
    assert load_config({"plugin": ("a.py,b.py", "c.py")}, folder=project).plugins == ("a.py", "b.py", "c.py")
    assert plugin_files((), project) == ("mine.py",)
    assert plugin_files(("other.py",), project) == ("other.py",)


def test_a_wrong_plugin_key_is_named(project):
    write("gauntlet.toml", "plugin = 5\n")
    with pytest.raises(ConfigError, match="plugin=5 must be a text or a list of texts"):
        load_config({}, folder=project)


def test_what_only_reads_a_run_does_not_need_the_plugin(project, call):
    write("mine.py", ATTACK.format(body=SIGN))
    assert call("run", "--plugin", "mine.py", *OWN, "--attacks", "mine", "--defense", "none,scaled").returncode == 0
    assert call("baseline", "accept", "gauntlet-results", "--out", "base.json").returncode == 0
    Path("mine.py").unlink()
    del ATTACKS._entries["mine"]
    for command in (("show",), ("leaderboard",), ("compare",), ("show", "--sample", "0")):
        done = call(*command[:1], "gauntlet-results", *command[1:])
        assert done.returncode == 0, (command, done.stderr)
    assert call("gate", "gauntlet-results", "base.json", "--allow-undecided").returncode == 0


def test_verifying_a_run_loads_its_plugins_again(project, call, tiny):
    write("mine.py", ATTACK.format(body=SIGN))
    assert not stored(call, "--attacks", "mine")
    record = json.loads(next(Path("gauntlet-results/runs").glob("*/run.json")).read_text())
    assert record["plugins"] == ["mine.py"]
    # In a process of its own nothing is registered.
    done = tiny.run_command(project, "verify", "gauntlet-results")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 cells" in done.stdout
    Path("elsewhere").mkdir()
    shutil.move("mine.py", "elsewhere/mine.py")
    line = refused(call, "verify", "gauntlet-results")
    assert "plugin 'mine.py' of the run does not exist" in line
    assert "--plugin" in line.partition("searched in")[2]
    del ATTACKS._entries["mine"]
    done = call("verify", "gauntlet-results", "--plugin", "elsewhere/mine.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 cells" in done.stdout


def test_a_changed_plugin_does_not_verify_what_another_made(project, call):
    write("mine.py", ATTACK.format(body=SIGN))
    assert not stored(call, "--attacks", "mine")
    write("mine.py", ATTACK.format(body=FAR))
    done = call("verify", "gauntlet-results")
    assert done.returncode == 1
    assert "have changed since the run" in done.stdout


def test_an_artifact_of_a_plugin_s_model_is_packed_with_the_plugin(extras, call):
    ran = call("run", "--plugin", "extras.py", "--model", "energy", "--data", "stripes", "--attacks", "bim")
    assert ran.returncode == 0
    done = call("baseline", "accept", "gauntlet-results", "--out", "base.json", "--artifact")
    assert done.returncode == 0, done.stderr
    extras.unlink()
    assert "plugin 'extras.py' of the run does not exist" in refused(
        call, "baseline", "accept", "gauntlet-results", "--out", "base.json", "--artifact"
    )


# --- from Python ---


class Halves:
    """Says of itself nothing but where it lies."""

    version = 1

    def __call__(self, model, images, labels, seed):
        return images / 2


def test_an_attack_registered_in_python_is_named_in_evaluate(tmp_path, tiny):
    card = AttackCard(name="another name", summary="darker", source="here", norms=("Linf",))
    gauntlet.register_attack("halves", AttackEntry(card, lambda threat: Halves()))
    assert ATTACKS.get("halves").card.name == "halves"
    tiny.write_model(tmp_path)
    model = gauntlet.load_model(f"{tmp_path / 'model.py'}:build").module
    images, labels = torch.from_numpy(tiny.IMAGES[:50]), torch.from_numpy(tiny.LABELS[:50])
    found = gauntlet.evaluate(model, images, labels, threat="Linf:0.5", attacks="halves")
    assert 0 <= found.robust_accuracy <= found.clean_accuracy
    assert found.per_attack["settings"].iloc[0].startswith("halves: <")
    assert " at 0x" not in found.per_attack["settings"].iloc[0]
    broken = ~found.robust.numpy() & found.correct.numpy()
    np.testing.assert_array_equal(found.adversarials.numpy()[broken], tiny.IMAGES[:50][broken] / 2)


def test_a_name_is_taken_within_one_import_and_free_for_the_next():
    names = {"__file__": "/somewhere/mine.py", "gauntlet": gauntlet}
    code = "gauntlet.register_model('next', print)"
    exec(code, names)
    with pytest.raises(ValueError, match=r"model 'next' is registered already by /somewhere/mine\.py"):
        exec(code, names)
    exec(code, dict(names))
    with pytest.raises(ValueError, match="registered already"):
        exec(code, {**names, "__file__": "/somewhere/yours.py"})


def test_an_entry_by_its_name_is_imported_on_first_use_and_its_failure_is_told():
    gauntlet.register_attack("lazy", "gauntlet.attacks.pgd:ENTRY")
    assert ATTACKS.get("lazy").card.name == "pgd"
    gauntlet.register_attack("missing", "no_such_module:ENTRY")
    with pytest.raises(
        LookupError, match=r"attack 'missing' cannot be loaded from 'no_such_module:ENTRY' \(ModuleNotFound"
    ):
        ATTACKS.get("missing")


def test_a_plugin_that_fails_can_be_mended_and_loaded_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("mine.py", ATTACK.format(body=FAR) + "\nraise RuntimeError('not yet')\n")
    with pytest.raises(PluginError, match=r"RuntimeError: not yet \(line 28\)"):
        load_plugins(["mine.py"])
    write("mine.py", ATTACK.format(body=FAR))
    load_plugins(["mine.py"])
    assert "mine" in gauntlet.list_attacks()


# --- pytest, and what is written ---


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
