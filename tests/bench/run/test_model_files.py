"""From the command line: networks in files, and settings of a model that say how its output is read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from gauntlet.bench.cli.main import cli
from gauntlet.bench.models.parts.errors import ModelError
from gauntlet.bench.registry.import_file import import_object
from gauntlet.leaderboard.results.store import Store

pytestmark = [
    pytest.mark.usefixtures("imports_are_undone"),
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
]
NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))

    def forward(self, x):
        return self.body(x)


class Reading(Net):
    def forward(self, x):
        z = super().forward(x)
        return {"single": z[:, 1] - z[:, 0], "pair": z, "doubled": 2 * z}


class Signals(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2))

    def forward(self, x):
        return self.body(x)


def build():
    return Net().eval()


def half():
    return Net().half().eval()


def reading():
    return Reading().eval()


def signals():
    return Signals().eval()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with nets.py, two sets of data, and the network in files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    generator = torch.Generator().manual_seed(0)
    images, signals = torch.rand(8, 1, 4, 4, generator=generator), torch.rand(8, 3, 20, generator=generator)
    net, other = (import_object(f"{tmp_path}/nets.py:{name}")() for name in ("build", "signals"))
    np.savez("images.npz", images=images.numpy(), labels=net(images).argmax(1).numpy())
    np.savez("signals.npz", images=signals.numpy(), labels=other(signals).argmax(1).numpy())
    torch.jit.script(net).save("net.pt")
    torch.export.save(torch.export.export(net, (images,)), "net.pt2")
    torch.save({"state_dict": nn.DataParallel(net).state_dict()}, "best.pth")
    return tmp_path


def run(*arguments: str):
    common = ("--samples", "8", "--threat", "Linf:0.1", "--attacks", "pgd(steps=3)", "--checks", "none", "--out", "out")
    return CliRunner().invoke(cli, ["run", *arguments, *common], catch_exceptions=False)


def records(folder):
    return list((folder / "out" / "store").rglob("*.parquet"))


@pytest.mark.parametrize(
    "model",
    [
        ("net.pt",),
        ("net.pt2",),
        ("torchscript:net.pt",),
        ("export:net.pt2",),
        ("nets.py:build@best.pth",),
        ("nets.py:build@best.pth#state_dict:module",),
        ("nets.py:half",),
        ("nets.py:reading(logits=pair)",),
        ("nets.py:reading", "--logits", "pair"),
        ("nets.py:reading(logits=single, binary=True)",),
        ("nets.py:reading", "--logits", "single", "--binary"),
    ],
)
def test_a_model_of_every_form_runs_by_its_name(folder, model):
    done = run("--model", *model, "--data", "images.npz")
    assert done.exit_code == 0, done.output
    assert "100.0" in done.output
    assert len(records(folder)) == 1


def test_a_run_says_which_prefix_was_removed(folder):
    done = run("--model", "nets.py:build@best.pth", "--data", "images.npz")
    assert (
        "weights of nets.build@best: 4 tensors are loaded, the prefix 'module.' removed from their keys" in done.output
    )
    torch.save(import_object(f"{folder}/nets.py:build")().state_dict(), "plain.pth")
    assert "weights of" not in run("--model", "nets.py:build@plain.pth", "--data", "images.npz").output


def test_signals_run_by_their_file(folder):
    done = run("--model", "nets.py:signals", "--data", "signals.npz")
    assert done.exit_code == 0, done.output
    assert "100.0" in done.output


def test_how_an_output_is_read_is_part_of_the_key(folder):
    for settings in ("logits=pair", "logits=doubled", "logits=single, binary=True"):
        assert run("--model", f"nets.py:reading({settings})", "--data", "images.npz").exit_code == 0
    assert len(records(folder)) == 3


def test_the_precision_of_a_network_in_half_precision_is_recorded(folder):
    run("--model", "nets.py:half", "--data", "images.npz")
    (file,) = records(folder)
    assert Store(folder / "out").read(file.stem).cell.precision == "float16"


@pytest.mark.parametrize("name", ["net.pt", "net.pt2"])
def test_a_file_of_a_model_takes_no_other_weights(folder, name):
    with pytest.raises(ModelError, match="contains its weights: leave out --weights"):
        run("--model", name, "--weights", "best.pth", "--data", "images.npz")


def test_weights_that_are_named_as_a_model_say_how_to_load_them(folder):
    torch.save({"a": torch.ones(1)}, "weights.pt")
    with pytest.raises(ModelError, match=r"write --model FILE\.py:FACTORY --weights weights\.pt"):
        run("--model", "weights.pt", "--data", "images.npz")
