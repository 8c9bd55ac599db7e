"""Checkpoints as training code saves them: each usual wrapping is loaded, and what was removed and left is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gauntlet.bench.models.files.load_state import load_weights
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.parts.classifier import ModelError, check_model

pytestmark = [
    pytest.mark.usefixtures("imports_are_undone"),
    # torch's compiler imports scripts of its own.
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
]
IMAGES = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NET = """from torch import nn


def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))
"""


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5)).eval()


@pytest.fixture
def factory(tmp_path) -> str:
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path}/net.py:build"


class Normalise(nn.Module):
    """As MadryLab's robustness normalises: by buffers of shape (3, 1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("new_mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("new_std", torch.tensor(STD)[:, None, None])


class Attacker(nn.Module):
    """The layout of robustness' Attacker: a normaliser and the network."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.normalize, self.model = Normalise(), net


class AttackerModel(nn.Module):
    """The layout of robustness' AttackerModel, which holds the network twice."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.normalizer, self.model, self.attacker = Normalise(), net, Attacker(net)


class LightningModule(nn.Module):
    """The layout of a LightningModule: the network in an attribute, beside a loss with weights."""

    def __init__(self, net: nn.Module, name: str) -> None:
        super().__init__()
        self.add_module(name, net)
        self.criterion = nn.CrossEntropyLoss(weight=torch.ones(5))


def lightning(net: nn.Module, name: str) -> dict:
    state = LightningModule(net, name).state_dict()
    return {
        "epoch": 3,
        "state_dict": state,
        "pytorch-lightning_version": "2.4",
        "optimizer_states": [],
        "callbacks": {},
    }


def robustness(net: nn.Module) -> dict:
    return {"model": nn.DataParallel(AttackerModel(net)).state_dict(), "epoch": 90, "optimizer": {"state": {}}}


WRAPPINGS = {
    "DataParallel": (lambda net: nn.DataParallel(net).state_dict(), "module."),
    "torch.compile": (lambda net: torch.compile(net).state_dict(), "_orig_mod."),
    "compiled and parallel": (lambda net: nn.DataParallel(torch.compile(net)).state_dict(), "module._orig_mod."),
    "torch's moving average": (lambda net: torch.optim.swa_utils.AveragedModel(net).state_dict(), "module."),
    "timm, moving average alone": (lambda net: {"state_dict_ema": net.state_dict()}, ""),
    "Lightning, model": (lambda net: lightning(net, "model"), "model."),
    "Lightning, net": (lambda net: lightning(net, "net"), "net."),
    "robustness": (robustness, "module.model."),
}


@pytest.mark.parametrize("name", WRAPPINGS)
def test_usual_wrappings_are_removed_and_said(name, factory, tmp_path):
    wrap, prefix = WRAPPINGS[name]
    net = network()
    torch.save(wrap(net), tmp_path / "w.pt")
    loaded = load_model(factory, weights=tmp_path / "w.pt", mean=(0.0,), std=(1.0,))
    assert torch.equal(loaded.module(IMAGES), net(IMAGES))
    count = len(net.state_dict())
    said = f"{count} tensors are loaded, the prefix {prefix!r} removed from their keys"
    assert loaded.notes[:1] == ((said,) if prefix else ())


def test_the_moving_average_of_timm_is_selected_by_its_entry(factory, tmp_path):
    net, average = network(), network(1)
    torch.save({"state_dict": net.state_dict(), "state_dict_ema": average.state_dict()}, tmp_path / "last.pth")
    plain, averaged = (load_model(factory, weights=f"{tmp_path}/last.pth{end}") for end in ("", "#state_dict_ema"))
    assert torch.equal(plain.module(IMAGES), net(IMAGES))
    assert torch.equal(averaged.module(IMAGES), average(IMAGES))


def test_hyperparameters_of_lightning_are_read_without_its_code(factory, tmp_path, monkeypatch):
    name = "pytorch_lightning.utilities.parsing"
    for place in ("pytorch_lightning", "pytorch_lightning.utilities", name):
        monkeypatch.setitem(sys.modules, place, ModuleType(place))
    module = sys.modules[name]
    module.AttributeDict = type("AttributeDict", (dict,), {"__module__": module.__name__})
    settings = module.AttributeDict(lr=0.1, folder=Path("runs/1"))
    torch.save({**lightning(network(), "model"), "hyper_parameters": settings}, tmp_path / "w.ckpt")
    monkeypatch.delitem(sys.modules, name)
    assert torch.equal(load_model(factory, weights=tmp_path / "w.ckpt").module(IMAGES), network()(IMAGES))


# A part of the file that is named


@pytest.mark.parametrize("end", ["#model:module.model.", "#model:module.model", "#:module.attacker.model."])
def test_entry_and_prefix_can_be_named(factory, tmp_path, end):
    net = network()
    torch.save(robustness(net), tmp_path / "w.pt")
    loaded = load_model(f"{factory}@{tmp_path}/w.pt{end}", mean=(0.0,), std=(1.0,))
    assert torch.equal(loaded.module(IMAGES), net(IMAGES))


def test_a_prefix_that_no_key_has_is_refused_with_keys_of_the_file(factory, tmp_path):
    torch.save(robustness(network()), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"has no key below 'encoder\.': its keys are module\.normalizer\.new_mean"):
        load_model(factory, weights=f"{tmp_path}/w.pt#model:encoder")


def students(tmp_path, *, with_model: bool) -> Path:
    both = {"student": network(), "teacher": network(1)} | ({"model": network(2)} if with_model else {})
    torch.save(nn.ModuleDict(both).state_dict(), tmp_path / "w.pt")
    return tmp_path / "w.pt"


def test_unusual_prefixes_are_not_guessed_but_named(factory, tmp_path):
    path = students(tmp_path, with_model=False)
    with pytest.raises(ModelError, match=r"all keys are below 'student\.', 'teacher\.': write w\.pt#:student\."):
        load_model(factory, weights=path)
    loaded = load_model(factory, weights=f"{path}#:teacher.")
    assert torch.equal(loaded.module(IMAGES), network(1)(IMAGES))


def test_other_weights_that_fit_too_are_said(factory, tmp_path):
    loaded = load_model(factory, weights=students(tmp_path, with_model=True))
    assert torch.equal(loaded.module(IMAGES), network(2)(IMAGES))
    (flag,) = check_model(loaded.module, IMAGES)
    assert (flag.name, flag.severity) == ("weights-prefix", "warn")
    assert "those below 'student.' fit too, with other values: --weights w.pt#:student. takes them" in flag.message
    assert "16 others are left: student.0.weight, student.0.bias" in flag.message


def test_what_is_left_is_listed(factory, tmp_path):
    torch.save(lightning(network(), "model"), tmp_path / "w.pt")
    loaded = load_model(factory, weights=tmp_path / "w.pt")
    assert loaded.notes[1] == "1 tensors of the file are left: criterion.weight"
    (flag,) = check_model(loaded.module, IMAGES)
    assert "1 others are left: criterion.weight" in flag.message


def test_keys_below_the_prefix_that_the_model_lacks_are_refused(factory, tmp_path):
    state = {**nn.DataParallel(network()).state_dict(), "module.head.bias": torch.ones(3)}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"\(below 'module\.'\) do not fit the model: unexpected head\.bias \(3,\)"):
        load_model(factory, weights=tmp_path / "w.pt")


# Normalisers


def test_a_normaliser_in_the_checkpoint_is_used(factory, tmp_path):
    torch.save(robustness(network()), tmp_path / "w.pt")
    loaded = load_model(factory, weights=tmp_path / "w.pt")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    assert torch.allclose(loaded.module(IMAGES), network()((IMAGES - mean) / std), atol=1e-6)
    flags = {flag.name: flag for flag in check_model(loaded.module, IMAGES)}
    message = flags["weights-normalisation"].message
    assert "w.pt holds is used, module.normalizer.new_mean 0.485,0.456,0.406" in message
    assert "new_std 0.229,0.224,0.225" in message
    assert loaded.digest != load_model(factory, weights=tmp_path / "w.pt", mean=(0.0,)).digest


@pytest.mark.parametrize("names", [("mean", "std"), ("normalize.mean", "normalize.std"), ("norm._mean", "norm._std")])
def test_normalisers_are_found_under_other_names(factory, tmp_path, names):
    pair = dict(zip(names, (torch.tensor(MEAN), torch.tensor(STD)), strict=True))
    torch.save({**network().state_dict(), **pair}, tmp_path / "w.pt")
    loaded = load_model(factory, weights=tmp_path / "w.pt")
    assert loaded.module.mean is not None
    assert torch.allclose(loaded.module.mean.flatten(), torch.tensor(MEAN))


def test_mean_and_std_that_are_given_win_and_a_difference_is_said(factory, tmp_path):
    torch.save(robustness(network()), tmp_path / "w.pt")
    same = load_model(factory, weights=tmp_path / "w.pt", mean=MEAN, std=STD)
    assert "weights-normalisation" not in {flag.name for flag in check_model(same.module, IMAGES)}
    other = load_model(factory, weights=tmp_path / "w.pt", mean=(0.5,), std=(0.5,))
    assert other.module.mean is not None
    assert float(other.module.mean) == 0.5
    flags = {flag.name: flag for flag in check_model(other.module, IMAGES)}
    assert "other than the mean and std that are given" in flags["weights-normalisation"].message


def test_of_several_normalisers_none_is_used(factory, tmp_path):
    pairs = {"a.mean": torch.tensor(MEAN), "a.std": torch.tensor(STD), "b.mean": torch.zeros(3), "b.std": torch.ones(3)}
    torch.save({**network().state_dict(), **pairs}, tmp_path / "w.pt")
    loaded = load_model(factory, weights=tmp_path / "w.pt")
    assert loaded.module.mean is None
    (flag,) = check_model(loaded.module, IMAGES)
    assert "several normalisers" in flag.message
    assert "choose one by --mean and --std" in flag.message


def test_buffers_that_cannot_normalise_are_no_normaliser(factory, tmp_path):
    torch.save({**network().state_dict(), "mean": torch.ones(16), "std": torch.ones(16)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="unexpected mean"):
        load_model(factory, weights=tmp_path / "w.pt")


def test_a_model_with_a_normaliser_of_its_own_is_given_no_other(tmp_path):
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.normalizer, self.model = Normalise(), network(1)

        def forward(self, x: Tensor) -> Tensor:
            return self.model((x - self.normalizer.new_mean) / self.normalizer.new_std)

    torch.save(robustness(network()), tmp_path / "w.pt")
    model = Own()
    loaded = load_weights(model, tmp_path / "w.pt")
    assert loaded.normalisers == ()
    assert torch.equal(model.model[0].weight, network()[0].weight)
    assert loaded.notes[0] == "11 tensors are loaded, the prefix 'module.' removed from their keys"


# Divided checkpoints


def test_divided_safetensors_are_loaded_by_their_index(factory, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    net = network()
    hub.save_torch_state_dict(net.state_dict(), tmp_path, max_shard_size=300)
    index = tmp_path / "model.safetensors.index.json"
    assert len(set(json.loads(index.read_text())["weight_map"].values())) > 1
    assert torch.equal(load_model(factory, weights=index).module(IMAGES), net(IMAGES))


def test_divided_torch_files_are_loaded_by_their_index(factory, tmp_path):
    state = nn.DataParallel(network()).state_dict()
    names = {name: f"part-{number % 2}.bin" for number, name in enumerate(state)}
    for file in set(names.values()):
        torch.save({name: state[name] for name in state if names[name] == file}, tmp_path / file)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    loaded = load_model(factory, weights=tmp_path / "pytorch_model.bin.index.json")
    assert torch.equal(loaded.module(IMAGES), network()(IMAGES))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"weight_map": {"0.weight": "../other.safetensors"}}, "which is no file beside it"),
        ({"weight_map": {"0.weight": "absent.safetensors"}}, "is not there"),
        ({"weight_map": {"0.weight": "part.safetensors"}}, "which its files do not hold"),
        ({"map": {}}, "is no index of files"),
        ([], "is no index of files"),
    ],
)
def test_an_index_that_is_not_whole_is_refused(factory, tmp_path, table, message):
    save_file({"0.bias": torch.ones(4)}, tmp_path / "part.safetensors")
    (tmp_path / "m.index.json").write_text(json.dumps(table))
    with pytest.raises(ModelError, match=message):
        load_model(factory, weights=tmp_path / "m.index.json")
