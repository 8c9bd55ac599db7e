"""The files that code is made of: what each form of an import, of a name of a file and of a folder brings in."""

from __future__ import annotations

import sys

import pytest

from datafiles import write_modules
from gauntlet.bench.registry.source_files import files_digest

pytestmark = pytest.mark.usefixtures("imports_are_undone")

MADE = "def made():\n    return 1\n"


def changes(file, changed, text="def made():\n    return 2\n"):
    """Whether the digest of a file follows a change of another one."""
    before = files_digest([file])
    changed.write_text(text, encoding="utf-8")
    return files_digest([file]) != before


@pytest.mark.parametrize(
    "imports",
    [
        "import part",
        "from part import made",
        "from part import *",
        "import part as p",
        "try:\n    import fast\nexcept ImportError:\n    import part as fast",
        "import sys\nif sys.platform == 'win32':\n    from part import made",
        "def build():\n    from part import made\n    return made()",
        "import importlib\nname = 'pa' + 'rt'\nm = importlib.import_module(name)",
        "name = 'pa' + 'rt'\nm = __import__(name)",
        "from importlib import import_module as load\nm = load('.'.join(['part']))",
        "exec(open('par' 't.py').read())",
    ],
)
def test_a_module_beside_the_file_counts_however_it_is_imported(tmp_path, imports):
    write_modules(tmp_path, model=imports, part=MADE)
    assert changes(tmp_path / "model.py", tmp_path / "part.py")


@pytest.mark.parametrize("imports", ["from . import part", "from .part import made", "from ..pack import part"])
@pytest.mark.parametrize("init", [True, False])
def test_relative_imports_count_in_packages_and_in_folders_without_init(tmp_path, imports, init):
    write_modules(tmp_path / "pack", model=imports, part=MADE)
    if init:
        (tmp_path / "pack" / "__init__.py").touch()
    assert changes(tmp_path / "pack" / "model.py", tmp_path / "pack" / "part.py")


def test_the_init_of_each_package_of_the_file_counts(tmp_path):
    write_modules(tmp_path / "outer" / "inner", model=MADE)
    for folder in ("outer", "outer/inner"):
        (tmp_path / folder / "__init__.py").touch()
    for folder in ("outer", "outer/inner"):
        assert changes(tmp_path / "outer" / "inner" / "model.py", tmp_path / folder / "__init__.py")


def test_what_a_package_exports_by_name_counts(tmp_path):
    write_modules(tmp_path / "pack", part=MADE)
    (tmp_path / "pack" / "__init__.py").write_text("__all__ = ['part']", encoding="utf-8")
    write_modules(tmp_path, model="from pack import *")
    assert changes(tmp_path / "model.py", tmp_path / "pack" / "part.py")


def test_a_folder_that_the_code_puts_on_the_path_counts_once_the_module_is_loaded(tmp_path, monkeypatch):
    write_modules(tmp_path / "shared", part=MADE)
    write_modules(tmp_path / "repo", model="import part")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "shared")])
    assert changes(tmp_path / "repo" / "model.py", tmp_path / "shared" / "part.py")


def test_a_file_that_nothing_imports_does_not_count(tmp_path):
    write_modules(tmp_path, model=MADE, part=MADE)
    assert not changes(tmp_path / "model.py", tmp_path / "part.py")


def test_installed_libraries_are_not_followed(tmp_path, monkeypatch):
    place = tmp_path / "site-packages"
    write_modules(place, library=MADE)
    write_modules(tmp_path / "repo", model="import library, torch, json")
    monkeypatch.setattr(sys, "path", [*sys.path, str(place)])
    assert not changes(tmp_path / "repo" / "model.py", place / "library.py")


@pytest.mark.parametrize(
    "code",
    [
        "x = open('steps.json')",
        "x = Path(__file__).with_name('steps.json')",
        "x = f'{HERE}/steps.json'",
        "x = Path(__file__).with_suffix('.json')",
    ],
)
def test_a_file_that_the_code_names_counts(tmp_path, code):
    write_modules(tmp_path, model=code)
    name = "model.json" if "suffix" in code else "steps.json"
    (tmp_path / name).write_text("3", encoding="utf-8")
    assert changes(tmp_path / "model.py", tmp_path / name, "4")


def test_a_file_in_a_folder_that_the_code_names_counts(tmp_path):
    write_modules(tmp_path, model="x = os.path.join(HERE, 'parts', 'small', 'steps.json')")
    folder = tmp_path / "parts" / "small"
    folder.mkdir(parents=True)
    (folder / "steps.json").write_text("3", encoding="utf-8")
    assert changes(tmp_path / "model.py", folder / "steps.json", "4")


@pytest.mark.parametrize(
    "code",
    [
        "open('steps.json', 'a').write('.')",
        "(HERE / 'steps.json').open(mode='w').write('.')",
        "(HERE / 'steps.json').write_text('.')",
        "torch.save(x, HERE / 'steps.json')",
        "LOG = HERE / 'steps.json'\nLOG.write_text('.')",
    ],
)
def test_a_file_that_the_code_only_writes_does_not_count(tmp_path, code):
    write_modules(tmp_path, model=code)
    (tmp_path / "steps.json").write_text("3", encoding="utf-8")
    assert not changes(tmp_path / "model.py", tmp_path / "steps.json", "4")
    write_modules(tmp_path, model=f"{code}\nx = open('steps.json')")
    assert changes(tmp_path / "model.py", tmp_path / "steps.json", "5")


def test_a_comment_in_an_imported_file_does_not_count_unless_any_file_reads_source(tmp_path):
    write_modules(tmp_path, model="import part", part=MADE)
    assert not changes(tmp_path / "model.py", tmp_path / "part.py", MADE + "# a comment\n")
    write_modules(tmp_path, model="import part, inspect\ntext = inspect.getsource(part)")
    assert changes(tmp_path / "model.py", tmp_path / "part.py", MADE + "# another comment\n")


def test_a_local_name_counts_where_a_called_function_reads_the_variables_of_its_caller(tmp_path):
    one, other = "import part\ndef f():\n    a = 1\n    part.g()", "import part\ndef f():\n    b = 1\n    part.g()"
    write_modules(tmp_path, model=one, part="def g(): ...")
    assert not changes(tmp_path / "model.py", tmp_path / "model.py", other)
    write_modules(tmp_path, model=one, part="import sys\ndef g(): return sys._getframe(1).f_locals")
    assert changes(tmp_path / "model.py", tmp_path / "model.py", other)


def test_the_same_files_elsewhere_have_the_same_digest(tmp_path):
    for folder in ("one", "two"):
        write_modules(tmp_path / folder, model="import part, importlib", part=MADE)
    assert files_digest([tmp_path / "one" / "model.py"]) == files_digest([tmp_path / "two" / "model.py"])


def test_a_relative_import_beyond_all_packages_is_no_error(tmp_path):
    write_modules(tmp_path, model="from ......... import part\nfrom .. import other")
    assert files_digest([tmp_path / "model.py"])
