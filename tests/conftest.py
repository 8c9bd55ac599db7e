"""What several test files share: a user's project with a tiny model, and the command line run as a user runs it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

MODEL = '''
"""Nearest class mean, as logits. Its weights lie beside it."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

MEANS = Path(__file__).with_name("means.npy")


class Means(nn.Module):
    def __init__(self):
        super().__init__()
        means = torch.from_numpy(np.load(MEANS))
        self.linear = nn.Linear(64, 10)
        self.linear.weight = nn.Parameter(2 * means)
        self.linear.bias = nn.Parameter(-(means**2).sum(1))
        self.register_buffer("scale", torch.tensor(1.0))

    def forward(self, x):
        return self.linear(x.flatten(1)) * self.scale


def build():
    return Means().eval()
'''

CELL = "from gauntlet.bench.test_cells import test_cell\n\n__all__ = ['test_cell']\n"
"""The file of a user who runs the cells of the benchmark by pytest."""


def _digits():
    bunch = load_digits()
    return (bunch.images / 16).astype(np.float32)[:, None], bunch.target.astype(np.int64)


IMAGES, LABELS = _digits()
TEST = slice(1000, None)
"""The images that the tiny model's means are not taken from."""


def write_model(folder, text=MODEL, name="model.py"):
    """The tiny model, or another one's text, with the class means beside it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    flat = IMAGES[:1000].reshape(1000, -1)
    means = np.stack([flat[LABELS[:1000] == label].mean(0) for label in range(10)])
    np.save(folder / "means.npy", means)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def write_data(folder, count=30, name="data.npz"):
    """The first `count` test images."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    np.savez_compressed(Path(folder) / name, images=IMAGES[TEST][:count], labels=LABELS[TEST][:count])


def write_project(folder, count=30, text=MODEL):
    """A folder with `model.py` and `data.npz`."""
    write_model(folder, text)
    write_data(folder, count)
    return Path(folder)


def _environment():
    # One thread a process; what a developer has set must not reach the commands under test.
    mine = {
        name: value
        for name, value in os.environ.items()
        if name != "CI" and not name.startswith(("GAUNTLET_", "PYTEST_"))
    }
    return mine | {"OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}


def start_command(folder, *arguments, **environment):
    """`gauntlet` with these arguments in a process of its own, not waited for."""
    return subprocess.Popen(
        [sys.executable, "-c", "from gauntlet.bench.cli.main import main; main()", *map(str, arguments)],
        cwd=folder,
        env=_environment() | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        # A test run in the background of a shell ignores Ctrl-C, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def run_command(folder, *arguments, **environment):
    """`gauntlet` with these arguments in a process of its own, waited for."""
    process = start_command(folder, *arguments, **environment)
    out, err = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_here(*arguments):
    """`gauntlet` with these arguments in this process: its exit code."""
    from gauntlet.bench.cli.main import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gauntlet", *map(str, arguments)])
        try:
            main()
        except SystemExit as done:
            return done.code or 0
    return 0


@pytest.fixture(autouse=True)
def by_hand(monkeypatch):
    """Run by hand, wherever the tests run: services of continuous integration set CI."""
    monkeypatch.delenv("CI", raising=False)


@pytest.fixture(scope="session")
def tiny():
    """The functions above, by name."""
    return sys.modules[__name__]


@pytest.fixture
def imports_are_undone(monkeypatch):
    """Modules that a test imports from files of its own are forgotten after it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        # torch's compiler imports sympy, of which there must not be two copies.
        if not name.startswith(("torch", "gauntlet.", "sympy", "mpmath")):
            del sys.modules[name]
    sys.modules.update({name: module for name, module in before.items() if name not in sys.modules})


@pytest.fixture
def registries_as_before(monkeypatch):
    """What a test registers is forgotten after it, and so are the modules that it imports."""
    from gauntlet.bench.registries import ATTACKS, DATA, DEFENSES, MODELS

    for registry in (ATTACKS, DATA, DEFENSES, MODELS):
        for name in ("_entries", "_registrants", "_problems"):
            monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def call(capsys):
    """`gauntlet` with these arguments in this process: its exit code, and what it wrote."""

    def run(*arguments):
        capsys.readouterr()
        code = run_here(*arguments)
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, err)

    return run


@pytest.fixture
def finished(honest, tmp_path, monkeypatch):
    """A copy of the module's project with a finished run, `honest`, as the working folder."""
    shutil.copytree(honest, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def user(pytester, tiny, monkeypatch):
    """A user's project: a model, data, and the two lines that bring the cells in."""
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
        monkeypatch.delenv(name, raising=False)
    tiny.write_project(pytester.path)
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\n")
    pytester.makepyfile(test_robust=CELL)
    return pytester


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A user's project as the working folder."""
    monkeypatch.chdir(write_project(tmp_path))
    return tmp_path
