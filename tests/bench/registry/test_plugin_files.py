"""Files of a user's own entries: which are refused, where they are named, and when they are loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import gauntlet
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.bench.config.files import plugin_files
from gauntlet.bench.config.schema import ConfigError, load_config
from gauntlet.bench.registries import ATTACKS
from gauntlet.bench.registry.plugin_files import PluginError, load_plugins
from plugin_texts import ATTACK, ATTACK_TEXT, DEFENSE, FAR, OWN, SIGN, stored, write

pytestmark = pytest.mark.usefixtures("registries_as_before")


pytest_plugins = ["pytester"]


# what is in the key


# wrong files


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


# configuration, and what reads stored runs


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
    with pytest.raises(ConfigError, match="plugin=5 must be a string or a list of strings"):
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
    done = tiny.run_command(project, "verify", "gauntlet-results", "--trust")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 cells" in done.stdout
    Path("elsewhere").mkdir()
    shutil.move("mine.py", "elsewhere/mine.py")
    line = refused(call, "verify", "gauntlet-results", "--trust")
    assert "plugin 'mine.py' of the run does not exist" in line
    assert "--plugin" in line.partition("searched in")[2]
    del ATTACKS._entries["mine"]
    done = call("verify", "gauntlet-results", "--trust", "--plugin", "elsewhere/mine.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 cells" in done.stdout


def test_a_changed_plugin_does_not_verify_what_another_made(project, call):
    write("mine.py", ATTACK.format(body=SIGN))
    assert not stored(call, "--attacks", "mine")
    write("mine.py", ATTACK.format(body=FAR))
    done = call("verify", "gauntlet-results", "--trust")
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


# from Python


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
