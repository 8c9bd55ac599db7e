"""The wheel and the source distribution, each installed into a fresh environment with the declared dependencies alone."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import CELL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from builders import ROOT

IGNORED = [
    line.strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines() if line.strip("/")
]
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2])"


def execute(command, folder, *, expected=0):
    """What a command printed: run in this folder, with nothing of the developer's environment but the path."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout


def source_files(root):
    """Path and content of every file of a tree that is not ignored by git."""
    skipped = shutil.ignore_patterns(*IGNORED, ".git")
    found = {}
    for folder, folders, names in os.walk(root):
        out = skipped(folder, [*folders, *names])
        folders[:] = [name for name in folders if name not in out]
        for name in names:
            if name not in out:
                file = Path(folder) / name
                found[file.relative_to(root).as_posix()] = file.read_bytes()
    return found


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source distribution, built from a copy of the repository, which the build leaves files in."""
    folder = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, folder / "copy", ignore=shutil.ignore_patterns(*IGNORED, ".git"))
    execute([sys.executable, "-W", "ignore", "-c", BUILD, "sdist", folder], folder / "copy")
    (file,) = folder.glob("*.tar.gz")
    return file


@pytest.fixture(scope="module")
def unpacked(sdist):
    """The folder that the source distribution unpacks to."""
    with tarfile.open(sdist) as archive:
        archive.extractall(sdist.parent, filter="data")
    return sdist.parent / sdist.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(unpacked, tmp_path_factory):
    """The wheel, built from the source distribution as `python -m build` does."""
    folder = tmp_path_factory.mktemp("wheel")
    execute([sys.executable, "-W", "ignore", "-c", BUILD, "wheel", folder], unpacked)
    (file,) = folder.glob("*.whl")
    return file


def declared(names):
    """The distributions that these requirements need here, with what they need themselves; no extra of ours."""
    found, waiting = {}, [Requirement(name) for name in names]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # torchattacks asks for torchvision and does not need it.
        waiting += map(Requirement, found[name].requires or ())
    return found


def fresh(folder, asked):
    """A new environment that sees the declared dependencies of the running one, by links, and nothing else of it."""
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for distribution in declared(asked).values():
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(distribution.locate_file(top)).resolve())
    return folder / "bin" / "python"


def install(python, what):
    """Install a distribution with pip, without an index: nothing is downloaded."""
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps"]
    execute([*pip, "--no-build-isolation", "--no-compile", "--disable-pip-version-check", what], python.parent)


def requirements(wheel):
    """What the wheel asks for, extras left out."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().partition("\n\n")[0].splitlines()
    asked = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    return [line for line in asked if "extra ==" not in line]


@pytest.fixture(scope="module")
def from_wheel(wheel, tmp_path_factory):
    """The interpreter of a fresh environment with the wheel."""
    python = fresh(tmp_path_factory.mktemp("fresh") / "environment", requirements(wheel))
    install(python, wheel)
    return python


def test_the_source_distribution_holds_every_file_of_the_repository(unpacked):
    held = source_files(unpacked)
    assert {name for name, content in source_files(ROOT).items() if held.get(name) != content} == set()
    made = {name for name in set(held) - set(source_files(ROOT)) if not name.startswith("build/")}
    assert made == {"PKG-INFO", "setup.cfg"}


def test_the_wheel_holds_every_module_and_every_file_of_data(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = {
        name for name in source_files(ROOT) if name.startswith(("attacks/", "defenses/", "leaderboard/", "bench/"))
    }
    renamed = {name.removeprefix("bench/facade/") for name in files}
    assert held == {f"gauntlet/{name}" for name in renamed}


def test_the_wheel_works_in_a_fresh_environment(from_wheel, tmp_path):
    where = "import gauntlet, pathlib; print(pathlib.Path(gauntlet.__file__).is_relative_to(__import__('sys').prefix))"
    assert execute([from_wheel, "-c", where], tmp_path) == "True\n"
    command = from_wheel.with_name("gauntlet")
    version = execute([command, "--version"], tmp_path)
    assert importlib.metadata.version("robust-gauntlet") in version
    assert "cnn.fast_digits" in execute([command, "list", "models"], tmp_path)
    assert "--gauntlet-model" in execute([from_wheel, "-m", "pytest", "--help"], tmp_path)


RUN = ("--model", "cnn.fast_digits", "--data", "digits", "--threat", "Linf:0.15", "--attacks", "fgsm")


@pytest.mark.slow  # About a minute: each command imports torch anew.
def test_an_installed_wheel_checks_runs_verifies_and_tests_a_model(from_wheel, tmp_path):
    command = from_wheel.with_name("gauntlet")
    assert "next: gauntlet run" in execute([command, "check", "cnn.fast_digits", "--data", "digits"], tmp_path)
    # Neither matplotlib nor itables is installed: the page is left out, and a line says so.
    shown = execute([command, "run", *RUN, "--samples", "40", "--out", "results"], tmp_path)
    assert "cnn.fast_digits keeps" in shown
    assert (tmp_path / "results" / "leaderboard.csv").is_file()
    assert not (tmp_path / "results" / "leaderboard.html").exists()
    assert "robust-gauntlet[page]" in shown
    execute([command, "verify", "results"], tmp_path)
    (tmp_path / "test_robust.py").write_text(CELL, encoding="utf-8")
    options = [f"--gauntlet-{name[2:]}={value}" for name, value in zip(RUN[::2], RUN[1::2], strict=True)]
    shown = execute([from_wheel, "-m", "pytest", *options, "--gauntlet-samples=40"], tmp_path)
    assert "1 passed" in shown


@pytest.mark.slow
def test_the_source_distribution_installs_to_the_same_files_and_passes_its_own_tests(sdist, unpacked, wheel, tmp_path):
    python = fresh(tmp_path / "environment", [*requirements(wheel), "setuptools", "packaging"])
    install(python, sdist)
    (packages,) = tmp_path.glob("environment/lib/python*/site-packages")
    installed = {file.relative_to(packages).as_posix() for file in (packages / "gauntlet").rglob("*") if file.is_file()}
    with zipfile.ZipFile(wheel) as archive:
        assert installed == {name for name in archive.namelist() if ".dist-info/" not in name}
    tests = ["tests/packaging/test_layout.py", "tests/packaging/test_packaging.py"]
    assert " passed" in execute([python, "-m", "pytest", *tests], unpacked)
