"""The files that `gauntlet init` writes for a model that was looked at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from builders import ROOT
from gauntlet.bench.cli.main import cli
from gauntlet.bench.config.model_ref import MODEL_SETTINGS
from gauntlet.bench.config.schema import DataRef, ModelRef, load_config
from gauntlet.bench.first_look.write_config import MEANINGS

NET = """
import torch
from torch import nn


def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()


def noisy():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), Noise()).eval()


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


def training():
    return build().train()
"""

pytestmark = pytest.mark.usefixtures("imports_are_undone")


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    random = torch.Generator().manual_seed(0)
    save_file({"1.weight": torch.randn(4, 64, generator=random), "1.bias": torch.zeros(4)}, tmp_path / "w.safetensors")
    images = (255 * torch.rand(30, 1, 8, 8, generator=random)).to(torch.uint8).numpy()
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(30) % 4)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(*arguments):
    return CliRunner().invoke(cli, ["init", *arguments, "--device=cpu"])


def test_the_configuration_says_what_was_named_and_measured_and_runs(project):
    done = init("net.py:noisy@w.safetensors(mean=0.5, std=0.25)", "--data=data.npz", "--samples=20", "--threat=L2:0.5")
    assert done.exit_code == 0, done.output
    read = load_config({}, folder=project)
    (group,) = read.groups
    assert group.models == (ModelRef("net.py:noisy", "w.safetensors", (0.5,), (0.25,), randomised=True),)
    assert (group.data, group.threats, group.attacks) == (DataRef("data.npz", "20"), ("L2:0.5",), ("adaptive",))
    assert read.gate.baseline is None
    assert [path.name for path in project.glob("*.toml")] == ["gauntlet.toml"]
    ran = CliRunner().invoke(cli, ["run", "--attacks=fgsm"])
    assert ran.exit_code == 0, ran.output


def test_every_line_of_the_plan_has_a_comment(project):
    init("net.py:build@w.safetensors", "--data=data.npz")
    plan = (project / "gauntlet.toml").read_text().split("\n\n")[1]
    assert all("#" in line for line in plan.splitlines())


def test_every_setting_of_a_model_has_a_comment_where_it_is_written():
    assert set(MODEL_SETTINGS) <= set(MEANINGS)


def test_keys_in_comments_are_keys(project):
    init("net.py:build@w.safetensors", "--data=data.npz")
    file = project / "gauntlet.toml"
    lines = file.read_text().splitlines()
    keys = [line.removeprefix("# ") for line in lines if line.startswith("# ") and (" = " in line or "[[" in line)]
    plan = [line for line in lines if not line.startswith("#")]
    file.write_text("\n".join([*plan, *keys]), encoding="utf-8")
    assert load_config({}, folder=project).expect[0].min_robust == 0.5


def test_the_workflow_is_that_of_the_example_and_the_gate_its_own(project):
    done = init("net.py:build@w.safetensors", "--data=data.npz", "--ci")
    assert done.exit_code == 0, done.output
    example = ROOT / "examples" / "ci"
    for name in (".github/workflows/robustness.yml", "requirements-robustness.txt"):
        assert (project / name).read_text("utf-8") == (example / name).read_text("utf-8")
    assert str(load_config({}, folder=project).gate.baseline) == "robustness/baseline.json"


def test_files_that_exist_are_not_replaced_and_nothing_is_written_beside_them(project):
    (project / "gauntlet.toml").write_text("seed = 3\n", encoding="utf-8")
    done = init("net.py:build@w.safetensors", "--data=data.npz", "--ci")
    assert done.exit_code == 2
    assert "gauntlet.toml exists already" in done.output
    assert (project / "gauntlet.toml").read_text("utf-8") == "seed = 3\n"
    assert not (project / ".github").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("net.py:training", "--data=data.npz"), 1, "PROBLEM the model is in training mode"),
        (("net.py:build",), 2, "add --data DATA"),
        (("net.py:build", "--data=absent.npz"), 2, "absent.npz"),
        (("net.py:build", "--data=data.npz", "--threat=Linf"), 1, "NORM:EPS"),
    ],
)
def test_nothing_is_written_for_what_cannot_be_run(project, arguments, code, words):
    before = sorted(path.name for path in project.iterdir() if path.suffix != ".pyc" and path.name != "__pycache__")
    done = init(*arguments)
    assert done.exit_code == code, done.output
    assert words in done.output or words in str(done.exception)
    after = sorted(path.name for path in project.iterdir() if path.suffix != ".pyc" and path.name != "__pycache__")
    assert after == before
