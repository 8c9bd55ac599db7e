"""The artifact of a baseline: data only, named by its content, refused where it is another."""

import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gauntlet.bench.gate.artifact import ArtifactError, unpack
from gauntlet.bench.gate.pack_artifact import pack
from gauntlet.bench.models.parts.model_digest import model_digest
from gauntlet.bench.worker.try_examples import RestoreError, restore
from gauntlet.leaderboard.gate.baseline import ArtifactRef
from gauntlet.leaderboard.results.store import Store

KEY = ("net", "none", "pgd", "Linf:0.15", "custom", "digits", 0)
BLOCK = "ab" * 32


class Net(nn.Module):
    """With what state dicts leave out or share: a buffer that is not persistent, and a weight used twice."""

    def __init__(self, width=3):
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(width)
        self.register_buffer("scale", torch.rand(2), persistent=False)


@pytest.fixture
def packed(tmp_path):
    """A model, the artifact that holds it and one block, and its reference."""
    torch.manual_seed(0)
    store = Store(tmp_path / "results")
    store.path(BLOCK).parent.mkdir(parents=True)
    store.path(BLOCK).write_bytes(b"a block")
    model = Net()
    models = {model_digest(model): model}
    ref = pack(tmp_path / "baselines" / "custom.json", store, {KEY: [BLOCK]}, models)
    return (
        model,
        tmp_path / "baselines" / ref.file,
        ref,
        lambda: pack(tmp_path / "again.json", store, {KEY: [BLOCK]}, models),
    )


def test_what_is_packed_is_unpacked(packed, tmp_path):
    model, file, ref, _ = packed
    found = unpack(file, ref, tmp_path / "out")
    assert found.blocks == {KEY: (BLOCK,)}
    assert found.store.path(BLOCK).read_bytes() == b"a block"
    digest = model_digest(model)
    assert found.weights("00" * 32) is None
    other = Net()
    assert model_digest(other) != digest
    restore(other, found.weights(digest), digest)
    assert model_digest(other) == digest
    assert torch.equal(other.scale, model.scale)


def test_weights_that_are_replaced_or_appear_once_the_artifact_is_open_are_not_taken(packed, tmp_path):
    model, file, ref, _ = packed
    found = unpack(file, ref, tmp_path / "out")
    (held,) = (found.folder / "weights").iterdir()
    shutil.copy(held, held.with_name(f"{'00' * 32}.safetensors"))
    save_file({"x": torch.zeros(1)}, held)
    assert found.weights("00" * 32) is None
    with pytest.raises(ArtifactError, match="was replaced while this run was going on"):
        found.weights(model_digest(model))


def test_the_file_is_named_by_its_content_and_the_same_content_gives_the_same_bytes(packed):
    _, file, ref, again = packed
    assert ref.file == file.name == f"custom-{ref.sha256[:12]}.zip"
    assert ref.bytes == file.stat().st_size
    assert again().sha256 == ref.sha256
    assert list(file.parent.iterdir()) == [file]


def test_another_file_of_that_name_is_refused(packed, tmp_path):
    _, file, ref, _ = packed
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(ArtifactError, match="is not the artifact that the baseline names"):
        unpack(file, ref, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil", "store/ab/code.py", "weights/model.pt"])
def test_names_that_no_artifact_has_are_refused_and_nothing_is_left(tmp_path, name):
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w") as bundle:
        bundle.writestr(name, "x")
    ref = ArtifactRef(file.name, sha256(file), file.stat().st_size)
    with pytest.raises(ArtifactError, match="which no artifact has"):
        unpack(file, ref, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_is_no_zip_is_damaged(tmp_path):
    file = tmp_path / "a.zip"
    file.write_bytes(b"<html>not found</html>")
    with pytest.raises(ArtifactError, match=r"a\.zip is damaged"):
        unpack(file, ArtifactRef(file.name, sha256(file), 1), tmp_path / "out")


def test_it_is_unpacked_once_and_may_then_be_gone(packed, tmp_path):
    _, file, ref, _ = packed
    first = unpack(file, ref, tmp_path / "out")
    file.unlink()
    assert unpack(file, ref, tmp_path / "out").folder == first.folder
    shutil.rmtree(first.folder / "store")
    (first.folder / "artifact.json").write_text("{}")
    with pytest.raises(ArtifactError, match="delete it"):
        unpack(file, ref, tmp_path / "out")


@pytest.mark.parametrize("change", ["width", "dtype", "names", "damaged"])
def test_weights_that_are_not_the_models_are_refused(packed, tmp_path, change):
    model, _, _, _ = packed
    file, digest, target = tmp_path / "w.safetensors", model_digest(model), Net(4 if change == "width" else 3)
    tensors = dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers()])
    state = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    if change == "dtype":
        state["first.bias"] = state["first.bias"].to(torch.float16)
    if change == "names":
        state["extra"] = torch.zeros(1)
    save_file(state, file)
    if change == "damaged":
        Path(file).write_bytes(b"12345678")
    with pytest.raises(RestoreError):
        restore(target, Path(file).read_bytes(), digest)


def sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()
