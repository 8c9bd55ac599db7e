"""Code that a results folder names is listed, and runs only where the user says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gauntlet.bench.run.named_code import named_code
from gauntlet.bench.run.run_folder import load_run

ZOO = (
    "run",
    "--model=cnn.fast_digits",
    "--data=digits",
    "--samples=20",
    "--threat=Linf:0.1",
    "--attacks=fgsm",
    "--out=out",
)
CODE = "from pathlib import Path\nPath('was-run').touch()\n"


def edit(change):
    """Edit what the folder's run names, as somebody might who hands it on and leaves no digest that tells."""
    (file,) = Path("out/runs").glob("*/run.json")
    fields = json.loads(file.read_text())
    del fields["digest"]
    change(fields)
    file.write_text(json.dumps(fields))


@pytest.fixture
def folder(tmp_path, monkeypatch, call):
    """A run that names no code, with a Python file in its folder."""
    monkeypatch.chdir(tmp_path)
    assert call(*ZOO).returncode == 0
    Path("out/evil.py").write_text(CODE)
    return tmp_path


def test_a_run_of_registered_models_and_data_names_no_code_and_is_verified(folder, call):
    assert named_code(load_run(Path("out"))) == {}
    assert call("verify", "out").returncode == 0


def name_a_plugin(fields):
    fields["plugins"] = ["out/evil.py"]


def name_a_model(fields):
    fields["cells"][0]["model"]["spec"] = "out/evil.py:build"


def name_a_black_box(fields):
    fields["cells"][0]["model"]["spec"] = "blackbox:out/evil.py:predict(classes=10)"


def name_a_script(fields):
    fields["cells"][0]["model"]["spec"] = "torchscript:out/evil.py"


def name_data(fields):
    fields["cells"][0]["data"]["spec"] = "out/evil.py:data"


def name_a_module(fields):
    fields["cells"][0]["model"]["spec"] = "out.evil:build"


@pytest.mark.parametrize(
    ("change", "listed"),
    [
        (name_a_plugin, "out/evil.py (plugin)"),
        (name_a_model, "out/evil.py (model)"),
        (name_a_black_box, "out/evil.py (model)"),
        (name_a_script, "out/evil.py (model)"),
        (name_data, "out/evil.py (data)"),
        (name_a_module, "out.evil (model)"),
    ],
)
def test_code_is_listed_and_not_run(folder, call, change, listed):
    edit(change)
    done = call("verify", "out")
    assert done.returncode == 2
    assert listed in done.stderr
    assert "Nothing was run" in done.stderr
    assert "--trust" in done.stderr
    assert not Path("was-run").exists()


def test_a_plugin_of_the_folder_runs_once_the_user_says_so(folder, call):
    edit(name_a_plugin)
    assert call("verify", "out", "--trust").returncode == 0
    assert Path("was-run").exists()


@pytest.mark.parametrize("change", [name_a_plugin, name_data])
@pytest.mark.parametrize("what", [["--pictures"], ["--sample=digits/0949", "--pictures"]])
def test_pictures_run_no_code_either(folder, call, change, what):
    edit(change)
    done = call("show", "out", *what)
    assert done.returncode == 2
    assert "out/evil.py" in done.stderr
    assert not Path("was-run").exists()


def test_a_sample_without_its_picture_needs_no_code(folder, call):
    edit(name_a_plugin)
    run = load_run(Path("out"))
    sample = run.result(run.plan.cells[0]).blocks[0].samples.id[0]
    assert call("show", "out", "--sample", sample).returncode == 0
    assert not Path("was-run").exists()


def test_pictures_build_no_model_and_ask_for_no_trust_in_one(folder, call):
    edit(name_a_model)
    assert call("show", "out", "--pictures").returncode == 0
    assert not Path("was-run").exists()


def test_a_plugin_that_is_given_by_hand_is_trusted_and_stands_for_those_of_the_folder(folder, call):
    edit(name_a_plugin)
    Path("mine.py").write_text("")
    done = call("verify", "out", "--plugin", "mine.py")
    assert done.returncode == 0, done.stderr
    assert not Path("was-run").exists()


def test_control_characters_in_the_name_of_a_file_do_nothing_to_the_terminal(folder, call):
    edit(lambda fields: fields.update(plugins=["out/\x1b[31m\u202eevil.py"]))
    done = call("verify", "out")
    assert done.returncode == 2
    assert not {"\x1b", "\u202e"} & set(done.stderr)


@pytest.mark.parametrize("wrong", ["evil.py", [5], [[]], {"a": 1}, 5, None])
def test_plugins_that_are_no_files_are_told_in_a_sentence(folder, call, wrong):
    edit(lambda fields: fields.update(plugins=wrong))
    done = call("verify", "out")
    assert done.returncode == 2
    assert "run.json is missing or damaged" in done.stderr


@pytest.mark.parametrize("wrong", [["evil.py:f"], "evil.py:f", None, 5])
def test_a_run_file_of_another_form_is_told_in_a_sentence(folder, call, wrong):
    edit(lambda fields: fields["cells"][0].update(model=wrong))
    done = call("verify", "out")
    assert done.returncode == 2
    assert "run.json is missing or damaged" in done.stderr
