"""The package: the lists of setuptools against the folders, and the cost of imports."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import gauntlet
from builders import ROOT

ROOMS = ("attacks", "defenses", "leaderboard", "bench")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]


def folders():
    """Every package below the rooms: its name in Python, and its folder."""
    found = {}
    for room in ROOMS:
        for file in (ROOT / room).rglob("__init__.py"):
            parts = file.parent.relative_to(ROOT).parts
            name = "gauntlet" if parts == ("bench", "facade") else ".".join(("gauntlet", *parts))
            found[name] = "/".join(parts)
    return found


def sources():
    return [(room, file) for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))]


def loaded(code, *names):
    """Which of the names are in sys.modules after the code has run in a process of its own."""
    code += f"\nimport sys\nsys.stderr.write(repr([name for name in {names!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stderr), done.stdout


def test_both_lists_of_pyproject_name_every_package_on_disk():
    assert folders() == SETUPTOOLS["package-dir"]
    assert sorted(folders()) == SETUPTOOLS["packages"]


def test_every_folder_with_modules_is_a_package():
    for _, file in sources():
        assert (file.parent / "__init__.py").is_file(), file.parent


def test_files_that_are_no_modules_are_packaged():
    files = {
        file.relative_to(ROOT).as_posix()
        for room in ROOMS
        for file in (ROOT / room).rglob("*")
        if file.suffix not in (".py", ".pyc") and file.is_file()
    }
    packaged = {
        file.relative_to(ROOT).as_posix()
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for file in (ROOT / SETUPTOOLS["package-dir"][package]).glob(pattern)
    }
    assert files
    assert files == packaged


def test_the_licence_is_packaged():
    assert PYPROJECT["project"]["license-files"] == ["LICENSE"]
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").strip()


def test_the_entry_points_are_there():
    from importlib.metadata import entry_points

    (command,) = entry_points(group="console_scripts", name="gauntlet")
    assert callable(command.load())
    (plugin,) = entry_points(group="pytest11", name="gauntlet")
    assert plugin.value == "gauntlet.bench.pytest_plugin"


def test_every_public_name_resolves():
    assert gauntlet.__all__ == sorted(gauntlet.__all__)
    for name in gauntlet.__all__:
        found = getattr(gauntlet, name)
        assert found.__doc__, name
        assert getattr(found, "__module__", found.__name__).startswith("gauntlet."), name
    assert dir(gauntlet) == sorted(gauntlet.__all__)


def test_a_name_that_is_not_public_is_refused_with_those_that_are():
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'.*evaluate"):
        gauntlet.nothing  # noqa: B018


HEAVY = ("torch", "numpy", "pandas", "pyarrow", "scipy", "sklearn", "art", "torchattacks", "pytest", "rich")


@pytest.mark.parametrize(
    "code", ["import gauntlet; gauntlet.__all__; dir(gauntlet)", "import gauntlet.bench.pytest_plugin"]
)
def test_importing_imports_nothing_heavy(code):
    found, _ = loaded(code, *HEAVY)
    # The plugin is loaded by pytest itself.
    assert found == (["pytest"] if "plugin" in code else [])


@pytest.mark.parametrize("kind", ["models", "suites", "data"])
def test_listing_imports_nothing_heavy(kind):
    code = f"from gauntlet.bench.cli.main import cli; cli.main(['list', '{kind}'], standalone_mode=False)"
    found, shown = loaded(code, *HEAVY)
    assert found == []
    assert len(shown.splitlines()) >= 2


@pytest.mark.parametrize("kind", ["models", "attacks", "defenses", "data"])
def test_names_are_listed_without_importing_anything_heavy(kind):
    found, shown = loaded(f"import gauntlet; print(*gauntlet.list_{kind}())", *HEAVY)
    assert found == []
    assert shown.split()


def test_environments_of_tox_share_a_directory_exactly_where_they_install_the_same():
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    shared = tox["testenv"]["env_dir"]
    own = {"extras", "deps", "package", "install_command", "base_python"}
    found = {name: tox[name] for name in tox.sections() if name.startswith("testenv:")}
    assert found
    for name, section in found.items():
        apart = section.get("env_dir", shared) != shared
        assert (section.get("runner", "shared") != "shared") is apart, name
        assert bool(own & set(section)) is apart, name


def floors(requirements):
    """The oldest version of each distribution that these requirements allow."""
    parsed = map(Requirement, requirements)
    bounds = [(one.name, bound) for one in parsed for bound in one.specifier if bound.operator == ">="]
    return {name: Version(bound.version) for name, bound in bounds}


def test_no_version_with_a_known_flaw_in_reading_files_is_allowed():
    project = PYPROJECT["project"]
    assert floors(project["dependencies"])["torch"] >= Version("2.10")
    for extra in ("onnx", "dev"):
        assert floors(project["optional-dependencies"][extra])["onnx"] >= Version("1.21")


def test_the_versions_that_are_tested_are_allowed():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line)
    project = PYPROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    required = [
        requirement for group in groups for requirement in map(Requirement, group) if requirement.name in tested
    ]
    # robustbench needs an older setuptools than the one that is pinned, and has an environment of its own.
    wrong = {one.name for one in required if not one.specifier.contains(tested[one.name]) and one.name != "setuptools"}
    assert wrong == set()
    assert {"torch", "onnx", "safetensors"} <= {one.name for one in required}
