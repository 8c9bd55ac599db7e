"""Weights from files: how training scripts wrap them, what does not fit, and what is no file of weights."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from builders import network
from gauntlet.bench.models.files.load_state import load_weights
from gauntlet.bench.models.files.safe_weights import read_checkpoint, weights_only
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.parts.classifier import ModelError, check_model

IMAGES = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def filled(value: float = 0.0) -> nn.Module:
    model = network(16, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def state(value: float, prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in filled(value).state_dict().items()}


def value_of(model: nn.Module) -> float:
    return float(model[1].weight.detach()[0, 0])


def saved(folder: Path, content: object, name: str = "w.pt", **how: bool) -> Path:
    torch.save(content, folder / name, **how)
    return folder / name


# --- how weights are wrapped ---


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "net.", "module.model.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_dropped_in_any_combination(tmp_path, prefix):
    model = filled()
    load_weights(model, saved(tmp_path, {"state_dict": state(0.5, prefix)}))
    assert value_of(model) == 0.5


def test_a_prefix_of_the_model_itself_is_kept_though_a_wrapper_has_the_same(tmp_path):
    model = nn.ModuleDict({"model": filled()})
    load_weights(model, saved(tmp_path, state(0.5, "model.model.")))
    assert value_of(model["model"]) == 0.5


@pytest.mark.parametrize("averaged", ["ema", "model_ema", "state_dict_ema", "ema_state_dict"])
def test_the_last_weights_are_taken_before_their_moving_average_and_a_remark_says_so(tmp_path, averaged):
    path = saved(tmp_path, {"model": state(0.5), averaged: state(0.25), "epoch": 3})
    model = filled()
    (flag,) = load_weights(model, path).remarks
    assert value_of(model) == 0.5
    assert (flag.name, flag.severity) == ("weights-entry", "warn")
    assert f"the entry 'model' of w.pt, not the moving average; it also holds {averaged}" in flag.message
    assert f"--weights w.pt#{averaged}" in flag.message


def test_the_moving_average_is_taken_where_it_is_asked_for_or_alone(tmp_path):
    model = filled()
    load_weights(model, Path(f"{saved(tmp_path, {'model': state(0.5), 'ema': {'module': state(0.25)}})}#ema"))
    assert value_of(model) == 0.25
    assert load_weights(model, saved(tmp_path, {"state_dict_ema": state(0.125)}, "ema.pt")).remarks == ()
    assert value_of(model) == 0.125


def test_torchs_own_moving_average_is_loaded_without_its_count(tmp_path):
    averaged = torch.optim.swa_utils.AveragedModel(filled(0.5))
    model = filled()
    load_weights(model, saved(tmp_path, averaged.state_dict()))
    assert value_of(model) == 0.5


def test_of_several_unknown_entries_one_must_be_named(tmp_path):
    path = saved(tmp_path, {"last": state(0.5), "best": state(0.25), "optimizer": {"momentum": torch.ones(1)}})
    with pytest.raises(
        ModelError, match="several entries with weights: write FILE#ENTRY, with ENTRY one of last, best"
    ):
        load_weights(filled(), path)
    with pytest.raises(ModelError, match="has no entry 'worst': write FILE#ENTRY, with ENTRY one of last, best"):
        load_weights(filled(), Path(f"{path}#worst"))
    model = filled()
    load_weights(model, Path(f"{path}#best"))
    assert value_of(model) == 0.25


def test_a_file_whose_name_has_a_hash_sign_is_itself(tmp_path):
    model = filled()
    load_weights(model, saved(tmp_path, state(0.5), "run#3.pt"))
    assert value_of(model) == 0.5


def test_the_older_format_and_settings_beside_the_weights_are_read(tmp_path):
    content = {"state_dict": state(0.5), "best": np.float64(0.9), "args": argparse.Namespace(lr=0.1), "epoch": 3}
    for number, older in enumerate((False, True)):
        path = saved(tmp_path, content, f"{number}.th", _use_new_zipfile_serialization=not older)
        assert read_checkpoint(path).entry == "state_dict"


def test_which_entry_was_taken_reaches_the_flags_of_the_model(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\nbuild = lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3))"
    )
    path = saved(tmp_path, {"model": state(0.5), "ema": state(0.25)})
    loaded = load_model(f"{tmp_path}/net.py:build", weights=path)
    assert [flag.name for flag in check_model(loaded.module, IMAGES)] == ["weights-entry"]


# --- what does not fit ---


def test_what_does_not_fit_is_listed_by_key_and_shape(tmp_path):
    content = {"1.weight": torch.ones(4, 16), "head.bias": torch.ones(3)}
    model = filled(0.5)
    with pytest.raises(ModelError) as caught:
        load_weights(model, saved(tmp_path, {"state_dict": content}))
    text = str(caught.value)
    assert "missing 1.bias (3,); unexpected head.bias (3,); 1.weight has shape (4, 16), the model needs (3, 16)" in text
    assert "(its entry 'state_dict')" in text
    assert value_of(model) == 0.5


def test_weights_alone_are_no_model(tmp_path):
    with pytest.raises(ModelError, match=r"is a file of weights: write --model FILE.py:FACTORY --weights .*w\.pt"):
        load_model(str(saved(tmp_path, state(0.5))))


# --- what is no file of weights ---


class Trap:
    """Unpickling it would make a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("way", ["zip", "older", "pickle", "nested", "safetensors"])
def test_a_malicious_checkpoint_is_refused_and_its_code_never_runs(tmp_path, way):
    ran, path = tmp_path / "ran", tmp_path / ("w.safetensors" if way == "safetensors" else "w.pt")
    if way == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": Trap(ran)}))
    else:
        content = (
            {"args": argparse.Namespace(trap=Trap(ran)), "state_dict": state(0.5)} if way == "nested" else Trap(ran)
        )
        torch.save(content, path, _use_new_zipfile_serialization=way != "older")
    with pytest.raises(ModelError) as caught:
        load_weights(filled(), path)
    assert not ran.exists()
    if way in ("zip", "older", "nested"):
        assert "mkdir), and reading it could run code from it: convert it once" in str(caught.value)


def test_other_libraries_loaders_are_kept_from_running_code_too(tmp_path):
    path = saved(tmp_path, Trap(tmp_path / "ran"))
    with pytest.raises(pickle.UnpicklingError), weights_only():
        torch.load(path)
    assert not (tmp_path / "ran").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html><body>Quota exceeded</body></html>", "holds a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"PK\x03\x04 no archive", "cannot be read|damaged"),
        (b"anything else", "cannot be read|damaged"),
    ],
)
def test_files_that_are_something_else_are_told_in_a_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        load_weights(filled(), tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("older", [False, True])
def test_a_checkpoint_that_was_cut_in_half_is_told(tmp_path, older):
    path = saved(tmp_path, {"w": torch.rand(1000)}, _use_new_zipfile_serialization=not older)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ModelError, match="cannot be read") as caught:
        load_weights(filled(), path)
    assert "\n" not in str(caught.value)


def test_safetensors_that_were_cut_in_half_are_told(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(state(0.5), path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ModelError, match="cannot be read"):
        load_weights(filled(), path)


def test_an_archive_of_something_else_and_a_script_are_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ModelError, match="cannot be read"):
        load_weights(filled(), tmp_path / "zip.pt")


def test_a_mapping_that_holds_itself_is_no_state_dict(tmp_path):
    content = {"epoch": 3}
    content["model"] = content
    with pytest.raises(ModelError, match="holds epoch, model beside tensors"):
        load_weights(filled(), saved(tmp_path, content))


def test_a_folder_is_answered_with_what_it_holds(tmp_path):
    saved(tmp_path, state(0.5), "best.pt")
    with pytest.raises(ModelError, match=r"is a folder \(it holds best\.pt\): name a file in it"):
        load_weights(filled(), tmp_path)
