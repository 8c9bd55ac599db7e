"""What stands for a user's code in keys: it changes with every file that the code is made of, and with nothing else."""

from __future__ import annotations

import functools
import sys

import pytest

from gauntlet.attacks.adapters.run_library import builder
from gauntlet.attacks.adapters.torchattacks_adapter import TorchattacksPGD
from gauntlet.attacks.pgd import ENTRY
from gauntlet.bench.registry.import_file import import_object
from gauntlet.bench.registry.source_digest import code_digest

BUILD = "import {0}\n\ndef build():\n    return {0}.made()\n"


@pytest.fixture(autouse=True)
def modules_of_its_own(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder, files):
    for name, text in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def digest(file):
    """As in a process of its own, where nothing has been imported before."""
    sys.modules.pop(file.stem, None)
    return code_digest(import_object(f"{file}:build"))


def test_our_own_code_has_no_digest_for_it_has_versions():
    assert code_digest(ENTRY.build) == ""
    assert code_digest(functools.partial(ENTRY.build, steps=3)) == ""


def test_what_a_builder_of_ours_is_given_counts_as_a_user_s_code(tmp_path):
    write(tmp_path, {"mine": "class Mine:\n    pass\n\ndef build():\n    return Mine()\n"})
    mine = import_object(f"{tmp_path / 'mine.py'}:Mine")
    alone = code_digest(mine)
    assert alone != ""
    assert code_digest(builder(mine)) == code_digest(functools.partial(ENTRY.build, mine)) == alone
    assert code_digest(builder(TorchattacksPGD)) == ""


def test_the_same_files_elsewhere_have_the_same_digest(tmp_path):
    for folder in (tmp_path / "one", tmp_path / "two"):
        write(folder, {"mine": "def build():\n    return 1\n"})
    assert digest(tmp_path / "one" / "mine.py") == digest(tmp_path / "two" / "mine.py") != ""


def test_a_changed_file_has_another_digest(tmp_path):
    write(tmp_path, {"mine": "def build():\n    return 1\n"})
    before = digest(tmp_path / "mine.py")
    write(tmp_path, {"mine": "def build():\n    return 2\n"})
    assert digest(tmp_path / "mine.py") != before


@pytest.mark.parametrize(
    "mine",
    [
        BUILD.format("helper"),
        "from helper import made\n\ndef build():\n    return made()\n",
        "def build():\n    import helper\n    return helper.made()\n",
        "import between\n\ndef build():\n    return between.made()\n",
        "from parts import step\n\ndef build():\n    return step.made()\n",
        "import parts.step\n\ndef build():\n    return parts.step.made()\n",
        "import parts\n\ndef build():\n    return parts.made()\n",
        "class Made:\n    def __init__(self):\n        import helper\n\nbuild = Made\n",
    ],
)
def test_a_change_in_a_file_that_it_imports_changes_the_digest(tmp_path, mine):
    files = {
        "mine": mine,
        "helper": "def made():\n    return 1\n",
        "between": "from helper import made\n",
        "parts/__init__": "from .step import made\n",
        "parts/step": "from .deep.low import made\n",
        "parts/deep/low": "def made():\n    return 1\n",
    }
    write(tmp_path, files)
    before = digest(tmp_path / "mine.py")
    write(tmp_path, {"unused": "x = 1\n", "parts/unused": "x = 1\n"})
    assert digest(tmp_path / "mine.py") == before
    parts = {name: text for name, text in files.items() if name in ("helper", "parts/deep/low")}
    write(tmp_path, {name: text + "# changed\n" for name, text in parts.items()})
    assert digest(tmp_path / "mine.py") == before
    changed = {name: text.replace("return 1", "return 2") for name, text in parts.items()}
    write(tmp_path, changed)
    assert digest(tmp_path / "mine.py") != before


def test_files_of_the_working_folder_count_too(tmp_path, monkeypatch):
    write(tmp_path, {"plugins/mine": BUILD.format("helper"), "helper": "def made():\n    return 1\n"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = digest(tmp_path / "plugins" / "mine.py")
    write(tmp_path, {"helper": "def made():\n    return 2\n"})
    assert digest(tmp_path / "plugins" / "mine.py") != before


def test_what_is_installed_beside_an_installed_module_is_no_part_of_it(tmp_path):
    write(tmp_path, {"mine": BUILD.format("helper"), "helper": "def made():\n    return 1\n"})
    (tmp_path / "mine-1.0.dist-info").mkdir()
    before = digest(tmp_path / "mine.py")
    write(tmp_path, {"helper": "def made():\n    return 2\n"})
    assert digest(tmp_path / "mine.py") == before


def test_an_imported_file_that_is_no_python_counts_by_its_bytes(tmp_path):
    write(tmp_path, {"mine": "def build():\n    import helper\n", "helper": "this is no Python"})
    before = digest(tmp_path / "mine.py")
    write(tmp_path, {"helper": "nor is this"})
    assert digest(tmp_path / "mine.py") != before


def test_files_that_import_one_another_come_to_an_end(tmp_path):
    write(tmp_path, {"mine": "import other\n\ndef build():\n    return 1\n", "other": "import mine\n"})
    assert digest(tmp_path / "mine.py")


def test_code_that_is_in_no_file_is_never_taken_for_other_code():
    names: dict = {"__name__": "typed"}
    exec("def build():\n    return 1\n", names)
    assert code_digest(names["build"]) != code_digest(names["build"]) != ""
