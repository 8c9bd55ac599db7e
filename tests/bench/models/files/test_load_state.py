"""Weights loaded into a model: prefixes, nested dictionaries, and what is refused."""

from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import save_file

from datafiles import write_modules
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.parts.classifier import ModelError, check_model
from gauntlet.bench.registry.import_file import import_object

pytestmark = pytest.mark.usefixtures("imports_are_undone")


IMAGES = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("nest", [None, "state_dict", "model", "model_state_dict", "net"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_nested_and_prefixed_state_dicts_are_unwrapped(tmp_path, factory, trained, nest, prefix):
    state = {prefix + name: value for name, value in trained.state_dict().items()}
    torch.save({nest: state, "epoch": 3} if nest else state, tmp_path / "w.pt")
    loaded = load_model(factory, weights=tmp_path / "w.pt")
    assert torch.equal(loaded.module(IMAGES), trained(IMAGES))
    assert check_model(loaded.module, IMAGES) == []


def test_a_prefix_that_the_model_has_itself_is_kept(tmp_path):
    text = "import torch\nclass Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    repo = write_modules(tmp_path, wrapped=f"{text}        self.module = torch.nn.Linear(2, 2)\n")
    state = import_object(f"{repo}/wrapped.py:Net")().state_dict()
    torch.save(state, tmp_path / "w.pt")
    loaded = load_model(f"{repo}/wrapped.py:Net", weights=tmp_path / "w.pt")
    assert torch.equal(loaded.module.state_dict()["model.module.weight"], state["module.weight"])


def test_safetensors_and_files_without_batch_counters_are_loaded(tmp_path, factory, trained):
    state = {name: value for name, value in trained.state_dict().items() if "num_batches" not in name}
    save_file(state, tmp_path / "w.safetensors")
    assert torch.equal(load_model(factory, weights=tmp_path / "w.safetensors").module(IMAGES), trained(IMAGES))


class Trap:
    """Unpickling it would write a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_pickled_checkpoint_is_refused_without_running_its_code(tmp_path, factory):
    torch.save({"state_dict": {}, "trap": Trap(tmp_path / "ran")}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="could run code from it: convert it once") as caught:
        load_model(factory, weights=tmp_path / "w.pt")
    assert "safetensors.torch.save_file" in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_whole_pickled_model_is_refused_and_its_recipe_works(tmp_path, factory, trained, monkeypatch):
    torch.save(trained, tmp_path / "w.pt")
    with pytest.raises(ModelError) as caught:
        load_model(factory, weights=tmp_path / "w.pt")
    recipe = "\n".join(line.strip() for line in str(caught.value).splitlines()[1:])
    monkeypatch.chdir(tmp_path)
    import safetensors.torch

    exec(recipe, {"torch": torch, "safetensors": safetensors, "FILE": "w.pt"})
    assert torch.equal(load_model(factory, weights="weights.safetensors").module(IMAGES), trained(IMAGES))


def test_keys_that_do_not_fit_are_listed_five_at_most(tmp_path, factory, trained):
    state = dict(trained.state_dict())
    del state["1.bias"]
    state |= {f"extra{number}": torch.ones(1) for number in range(7)}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ModelError) as caught:
        load_model(factory, weights=tmp_path / "w.safetensors")
    assert (
        "missing 1.bias (5,); unexpected extra0 (1,), extra1 (1,), extra2 (1,), extra3 (1,), extra4 (1,) and 2 more"
        in str(caught.value)
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"1.weight": torch.ones(2, 2)}, "missing 1.bias"),
        ([torch.ones(1)], "holds a list, not a state dict"),
        ({"1.weight": 3.0}, "beside tensors"),
    ],
)
def test_files_that_hold_something_else_are_refused(tmp_path, factory, content, message):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=message):
        load_model(factory, weights=tmp_path / "w.pt")


def test_a_shape_that_does_not_fit_is_named(tmp_path, factory, trained):
    state = {**trained.state_dict(), "1.weight": torch.ones(5, 47)}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"1\.weight has shape \(5, 47\), the model needs \(5, 48\)"):
        load_model(factory, weights=tmp_path / "w.pt")


def test_absent_and_damaged_files_are_refused(tmp_path, factory):
    for name, content in (("w.pt", b"not a checkpoint"), ("w.safetensors", b"junk"), ("empty.pt", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=r"cannot be read|damaged"):
            load_model(factory, weights=tmp_path / name)
    with pytest.raises(ModelError, match="is not there"):
        load_model(factory, weights=tmp_path / "none.pt")
