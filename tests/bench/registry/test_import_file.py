"""Importing what users name: their own modules beside a file, and no others."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import gauntlet
from datafiles import write_modules
from gauntlet.bench.registry.import_file import ImportSpecError, import_object, source_digest

pytestmark = pytest.mark.usefixtures("imports_are_undone")


def test_a_user_gets_the_attacks_and_utils_beside_their_own_model_file(tmp_path):
    repo = write_modules(
        tmp_path / "repo", model="import attacks, utils\nvalue = attacks.WHO + utils.WHO", attacks="WHO = 'a'"
    )
    write_modules(repo, utils="WHO = 'u'")
    assert import_object(f"{repo}/model.py:value") == "au"


def test_two_repositories_with_the_same_names_each_get_their_own(tmp_path):
    text = "import utils\nfrom models.net import WHO\nvalue = utils.WHO + WHO\nclass Box:\n    inner = value"
    for who in "ab":
        write_modules(tmp_path / who, model=text, utils=f"WHO = '{who}'", models__net=f"WHO = '{who}'")
    # The first has a whole package, the second a folder without __init__.py, which Python would rank behind it.
    (tmp_path / "a/models/__init__.py").write_text("")
    assert [import_object(f"{tmp_path}/{who}/model.py:Box.inner") for who in "aba"] == ["aa", "bb", "aa"]


def test_a_repository_inside_another_gets_its_own_utils(tmp_path):
    inner = write_modules(tmp_path / "outer/inner", model_in="import utils\nvalue = utils.WHO", utils="WHO = 'inner'")
    outer = write_modules(tmp_path / "outer", model_out="import utils\nvalue = utils.WHO", utils="WHO = 'outer'")
    assert import_object(f"{inner}/model_in.py:value") == "inner"
    assert import_object(f"{outer}/model_out.py:value") == "outer"


def test_an_import_inside_a_function_still_works_after_loading(tmp_path):
    repo = write_modules(tmp_path, model="def late():\n    import helper_of_mine\n    return helper_of_mine.WHO")
    late = import_object(f"{repo}/model.py:late")
    write_modules(tmp_path, helper_of_mine="WHO = 'late'")
    assert late() == "late"


def test_a_file_named_like_a_library_does_not_take_its_place(tmp_path):
    repo = write_modules(tmp_path, torch="WHO = 'mine'", types="WHO = 'mine too'")
    assert import_object(f"{repo}/torch.py:WHO") == "mine"
    assert import_object(f"{repo}/types.py:WHO") == "mine too"
    assert sys.modules["torch"] is torch
    assert sys.modules["types"].SimpleNamespace is SimpleNamespace


def test_a_file_that_was_edited_is_imported_again_with_the_files_beside_it(tmp_path):
    repo = write_modules(tmp_path, model="import part\nvalue = part.WHO, 1", part="WHO = 'old'")
    spec = f"{repo}/model.py:value"
    first = import_object(spec), source_digest(spec)
    write_modules(repo, model="import part\nvalue = part.WHO, 22", part="WHO = 'newer'")
    assert import_object(spec) == ("newer", 22)
    assert source_digest(spec) != first[1]


def test_a_file_is_imported_again_if_one_that_it_imports_was_edited(tmp_path):
    repo = write_modules(tmp_path, model="import part\nvalue = part.WHO", part="WHO = 'old'")
    assert import_object(f"{repo}/model.py:value") == "old"
    write_modules(repo, part="WHO = 'newer'")
    assert import_object(f"{repo}/model.py:value") == "newer"


def test_a_named_module_is_imported_again_if_one_that_it_imports_was_edited(tmp_path, monkeypatch):
    write_modules(tmp_path / "attic", nets="from .part import WHO", part="WHO = 'old'")
    monkeypatch.chdir(tmp_path)
    assert import_object("attic.nets:WHO") == "old"
    write_modules(tmp_path / "attic", part="WHO = 'newer'")
    assert import_object("attic.nets:WHO") == "newer"


def test_a_module_beside_the_shell_is_found_as_by_python_m(tmp_path, monkeypatch):
    write_modules(tmp_path / "attic", __init__="", nets="WHO = 'module'")
    (tmp_path / "attic" / "nets.py").write_text("WHO = 'module'")
    monkeypatch.chdir(tmp_path)
    assert import_object("attic.nets:WHO") == "module"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("model.py", "write package.module:name or path/to/file.py:name"),
        ("absent.py:build", "does not exist"),
        ("no_such_module_xyz.sub:build", "module 'no_such_module_xyz.sub' does not exist"),
        ("math:sqroot", "math has no 'sqroot'; did you mean sqrt"),
        ("model.py:biuld", "did you mean build"),
        ("broken.py:build", "ZeroDivisionError"),
        ("needs.py:build", r"No module named 'far_away' \(searched in"),
        ("script.py:build", "SystemExit"),
    ],
)
def test_a_spec_that_cannot_be_imported_says_why(tmp_path, monkeypatch, spec, message):
    write_modules(
        tmp_path, model="def build(): ...", broken="1 / 0", needs="import far_away", script="raise SystemExit(2)"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImportSpecError, match=message):
        import_object(spec)


def test_the_cause_of_a_failed_import_is_chained(tmp_path):
    repo = write_modules(tmp_path, broken="1 / 0")
    with pytest.raises(ImportSpecError) as caught:
        import_object(f"{repo}/broken.py:build")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_the_source_digest_follows_a_definition_elsewhere(tmp_path):
    repo = write_modules(tmp_path, two="from far import build", far="def build(): return 1\n")
    before = source_digest(f"{repo}/two.py:build")
    (repo / "far.py").write_text("def build(): return 2\n")
    assert source_digest(f"{repo}/two.py:build") != before


def test_the_working_folder_is_kept_when_a_user_changes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    leave = "import os\nos.chdir('/')\n"
    built = "import torch\n\n\ndef build():\n    os.chdir('/')\n    return torch.nn.Flatten()\n"
    made = (
        "import torch\n\n\ndef data():\n    os.chdir('/')\n    return torch.zeros(2, 1, 2, 2), torch.zeros(2).long()\n"
    )
    write_modules(tmp_path, net=leave + built, images=leave + made)
    assert isinstance(gauntlet.load_model("net.py:build").module.model, torch.nn.Flatten)
    assert Path.cwd() == tmp_path
    assert len(gauntlet.load_data("images.py:data").labels) == 2
    assert Path.cwd() == tmp_path
    (tmp_path / "ill.py").write_text(f"{leave}raise ValueError('ill')\n", encoding="utf-8")
    with pytest.raises(ImportSpecError, match="ill"):
        import_object("ill.py:build")
    assert Path.cwd() == tmp_path
