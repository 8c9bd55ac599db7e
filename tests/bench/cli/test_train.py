"""`gauntlet train`: any network on any data, killed and gone on with, and what it refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from gauntlet.bench.cli.main import cli
from gauntlet.bench.models import train as training
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.train import TrainingJob, train, zoo_job
from gauntlet.defenses.training.catalog import RECIPES

NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(36, 3))

    def forward(self, x):
        return {"logits": self.head(self.stem(x))}
"""
BLOCKING = """
import itertools, sys
from dataclasses import replace
from gauntlet.bench.cli.main import main
from gauntlet.defenses.training.catalog import RECIPES

recipe, calls = RECIPES["fast"], itertools.count()

def loss(*arguments):
    if next(calls) == 10:  # in the middle of an epoch
        print("here", flush=True)
        sys.stdin.read()
    return recipe.loss(*arguments)

RECIPES["fast"] = replace(recipe, loss=loss)
main()
"""


@pytest.fixture
def place(tmp_path):
    """A folder with a network for colour images that returns a dict, and data of three classes to learn."""
    rng = np.random.default_rng(0)
    (tmp_path / "net.py").write_text(NETWORK)
    for name, count in (("train", 60), ("test", 30)):
        labels = np.arange(count) % 3
        images = rng.uniform(0.3, 0.7, (count, 3, 6, 6)).astype(np.float32)
        images[np.arange(count), labels] += 0.25
        np.savez(tmp_path / f"{name}.npz", images=images, labels=labels)
    return tmp_path


def arguments(place, out="w.safetensors", **changed):
    options = {
        "recipe": "fast",
        "model": f"{place}/net.py:Net",
        "data": place / "train.npz",
        "test": place / "test.npz",
        "threat": "Linf:0.03",
        "epochs": 8,
        "batch-size": 16,
        "seed": 2,
        "hold-out": 0.1,
        "device": "cpu",
        "out": None if out is None else place / out,
        **changed,
    }
    return ["train", *(f"--{name}={value}" for name, value in options.items() if value is not None)]


def run(*words):
    return CliRunner().invoke(cli, [str(word) for word in words])


def test_a_network_of_the_users_is_trained_by_one_command_and_loads_for_a_run(place):
    done = run(*arguments(place, epochs=20, lr=0.02, mean="0.5,0.5,0.5", std="0.2,0.2,0.2"))
    assert done.exit_code == 0, done.output
    assert f"written: {place}/w.safetensors" in done.output
    assert "training samples: clean accuracy" in done.output
    assert f"{place}/test.npz: clean accuracy" in done.output
    assert "(n = 30)" in done.output
    assert "robust overfitting: " in done.output
    assert "epoch 20/20: loss" in done.output
    assert "held-out robust" in done.output
    assert f"gauntlet run --model {place}/net.py:Net --weights {place}/w.safetensors --mean 0.5,0.5,0.5 " in done.output
    loaded = load_model(f"{place}/net.py:Net", weights=place / "w.safetensors", mean=(0.5,) * 3, std=(0.2,) * 3)
    with np.load(place / "test.npz") as arrays:
        right = loaded.module(torch.from_numpy(arrays["images"])).argmax(1).numpy() == arrays["labels"]
    assert right.mean() > 0.9
    assert sorted(path.name for path in place.glob("*w.safetensors*")) == ["w.safetensors"]


@pytest.fixture
def one_thread():
    """As many as the child process is given: the order of sums depends on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_training_that_is_killed_goes_on_to_the_weights_of_one_that_was_not(place, one_thread):
    """Killed by SIGKILL in the middle of an epoch; the child says when it is there, and waits."""
    with subprocess.Popen(
        [sys.executable, "-c", BLOCKING, *map(str, arguments(place))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as child:
        assert child.stdout.readline() == "here\n"
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    checkpoint = place / "w.safetensors.checkpoint"
    # 54 samples in batches of 16 are four steps an epoch: the eleventh is in the third.
    assert torch.load(checkpoint, weights_only=True)["state"]["plain"]["epoch"] == 2
    assert not (place / "w.safetensors").exists()

    assert "continue it with --resume, or delete it" in str(run(*arguments(place)).exception)
    resumed = run(*arguments(place), "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert "epoch 2/8" not in resumed.output
    assert "epoch 3/8" in resumed.output
    assert run(*arguments(place, out="whole.safetensors")).exit_code == 0
    assert (place / "w.safetensors").read_bytes() == (place / "whole.safetensors").read_bytes()
    assert not checkpoint.exists()


def test_the_networks_of_the_zoo_begin_with_fresh_weights(place, monkeypatch):
    monkeypatch.setattr(training, "SAMPLE", 20)
    out = place / "w.safetensors"
    words = {"model": "cnn.trades_digits", "data": "digits-train", "test": None, "hold-out": None, "recipe": "standard"}
    done = run(*arguments(place, **words, epochs=1, lr=1e-9))
    assert done.exit_code == 0, done.output
    assert "training samples" in done.output
    assert "robust overfitting" not in done.output  # there is nothing to compare with
    trained = load_model("cnn.trades_digits").module.model.state_dict()
    assert (load_file(out)["0.weight"] - trained["0.weight"]).abs().max() > 0.01


def test_a_model_of_the_zoo_is_trained_by_its_name_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAMPLE", 20)
    monkeypatch.chdir(tmp_path)
    done = run("train", "cnn.pgd_l2_digits", "--epochs=1")
    assert done.exit_code == 0, done.output
    assert "written: cnn.pgd_l2_digits.safetensors" in done.output
    assert "at L2:0.5" in done.output
    assert "the card says clean" in done.output
    assert "--model gauntlet.bench.models.cnn:cnn" in done.output


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"recipe": "madri"}, "unknown recipe 'madri'"),
        ({"threat": None, "out": None}, "missing --threat, --out"),
        ({"precision": "int8"}, "int8"),
        ({"hold-out": 1.5}, "hold-out 1.5 must be between 0 and 1"),
        ({"epochs": 0}, "epochs=0 must be a finite number, above 0"),
        ({"threat": "L1:2"}, "trains against Linf and L2"),
        ({"recipe": "ibp"}, "IBP has no bounds for Net"),
        ({"recipe": "ibp", "std": "1,1,1"}, "IBP has no bounds for Classifier"),
        ({"mean": "a,b"}, "mean='a,b' must be numbers"),
        ({"out": "w.pt"}, "must end in .safetensors"),
        ({"data": "digits-train"}, "the model fails on images of shape"),
        ({"model": "cnn.fats_digits"}, "cnn.fast_digits"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not available"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_the_way_out(place, changed, message):
    done = run(*arguments(place, **changed))
    assert done.exit_code != 0
    assert message in f"{done.output} {done.exception}"
    assert not (place / "w.safetensors").exists()


def test_options_beside_the_name_of_a_zoo_model_are_refused():
    done = run("train", "cnn.pgd_digits", "--recipe=trades", "--hold-out=0.1")
    assert done.exit_code == 2
    assert "leave out --recipe, --hold-out" in done.output


def test_a_training_that_fails_leaves_the_older_file_and_a_checkpoint_to_go_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAMPLE", 20)
    out = tmp_path / "w.safetensors"
    out.write_bytes(b"older")

    def stop(epoch):
        if epoch.done == 2:
            raise KeyboardInterrupt

    job = zoo_job("cnn.standard_digits", seed=0, out=out, epochs=3)
    with pytest.raises(KeyboardInterrupt):
        train(job, progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w.safetensors", "w.safetensors.checkpoint"]
    assert out.read_bytes() == b"older"
    with pytest.raises(ValueError, match=r"interrupted training: continue it with --resume, or delete it"):
        train(job)
    whole = train(zoo_job("cnn.standard_digits", seed=0, out=tmp_path / "whole.safetensors", epochs=3))
    resumed = train(zoo_job("cnn.standard_digits", seed=0, out=out, epochs=3, resume=True))
    assert resumed.sha256 == whole.sha256


def test_a_folder_or_an_unknown_model_is_refused_before_training(tmp_path):
    with pytest.raises(IsADirectoryError, match="name a file, for instance"):
        train(zoo_job("cnn.standard_digits", seed=0, out=tmp_path))
    with pytest.raises(LookupError, match=r"cnn\.fast_digits"):
        zoo_job("cnn.fats_digits", seed=0, out=tmp_path / "w.safetensors")


def test_the_global_state_of_torch_is_as_before(place, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = torch.random.get_rng_state(), torch.get_num_threads()
    threat = training.ThreatModel("Linf", 0.03)
    job = TrainingJob(
        recipe=RECIPES["standard"],
        model=f"{place}/net.py:Net",
        data=str(place / "train.npz"),
        threat=threat,
        out=Path(place / "w.safetensors"),
        threads=1,
    )
    result = train(job)
    assert result.test is None
    assert result.train.n == 60
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    assert torch.backends.cudnn.benchmark
