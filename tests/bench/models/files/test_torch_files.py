"""TorchScript and torch.export files: what torch writes is read, and nothing in a file is run by reading it."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from gauntlet.bench.models.files.exported_program import read_exported
from gauntlet.bench.models.files.torchscript import is_torchscript, read_torchscript
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.parts.errors import ModelError

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
IMAGES = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()


@pytest.fixture
def exported(network, tmp_path) -> Path:
    sizes = ({0: torch.export.Dim("batch", min=1, max=512)},)
    torch.export.save(torch.export.export(network, (IMAGES[:2],), dynamic_shapes=sizes), tmp_path / "net.pt2")
    return tmp_path / "net.pt2"


def scripts(network: nn.Module) -> dict[str, torch.jit.ScriptModule]:
    traced = torch.jit.trace(network, IMAGES)
    return {"traced": traced, "scripted": torch.jit.script(network), "frozen": torch.jit.freeze(traced.eval())}


@pytest.mark.parametrize("kind", ["traced", "scripted", "frozen"])
@pytest.mark.parametrize("name", ["torchscript:{}/net.pt", "{}/net.pt"])
def test_a_script_is_a_model_by_its_file(network, tmp_path, kind, name):
    scripts(network)[kind].save(tmp_path / "net.pt")
    loaded = load_model(name.format(tmp_path))
    assert torch.allclose(loaded.module(IMAGES), network(IMAGES), atol=1e-6)
    assert loaded.card is not None
    assert (loaded.card.name, loaded.access) == ("torchscript:net", "white-box")


@pytest.mark.parametrize("name", ["export:{}", "{}"])
def test_an_exported_program_is_a_model_by_its_file(network, exported, name):
    loaded = load_model(name.format(exported))
    for count in (1, 2, 5):
        assert torch.allclose(loaded.module(IMAGES[:count]), network(IMAGES[:count]), atol=1e-6)


def test_files_of_models_take_no_weights(exported):
    with pytest.raises(ModelError, match="contains its weights: leave out --weights"):
        load_model(str(exported), weights="other.pth")


def test_a_script_is_told_from_weights(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    torch.jit.script(network).save(tmp_path / "net.pt")
    assert is_torchscript(tmp_path / "net.pt")
    assert not is_torchscript(tmp_path / "weights.pt")
    with pytest.raises(ModelError, match="holds no TorchScript"):
        read_torchscript(tmp_path / "weights.pt")


class Writing(nn.Module):
    """A module whose script writes a file."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The images."""
        torch.save(images, self.place)
        return images


class Mapping(Writing):
    """A module whose script maps a file."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """What is in the file."""
        return torch.from_file(self.place, True, 1024)


@pytest.mark.parametrize("kind", [Writing, Mapping])
def test_a_script_that_uses_files_is_refused(tmp_path, kind):
    torch.jit.script(kind(str(tmp_path / "written"))).save(tmp_path / "net.pt")
    with pytest.raises(ModelError, match="reads or writes files"):
        read_torchscript(tmp_path / "net.pt")
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize("read", [read_torchscript, read_exported])
def test_damaged_files_are_refused_in_a_sentence(network, exported, tmp_path, read):
    torch.jit.script(network).save(tmp_path / "net.pt")
    whole = (tmp_path / "net.pt" if read is read_torchscript else exported).read_bytes()
    (tmp_path / "cut.pt2").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="damaged"):
        read(tmp_path / "cut.pt2")


def changed(path: Path, change) -> Path:
    """A copy of an archive whose JSON of the program went through `change`."""
    copy = path.with_name("changed.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        for name in old.namelist():
            raw = old.read(name)
            if name.endswith("models/model.json"):
                program = json.loads(raw)
                change(program)
                raw = json.dumps(program).encode()
            new.writestr(name, raw)
    return copy


def nodes(program):
    return program["graph_module"]["graph"]["nodes"]


def sizes(program):
    """All expressions in the program."""
    left = [program]
    while left:
        one = left.pop()
        if isinstance(one, dict) and "expr_str" in one:
            yield one
        left += one.values() if isinstance(one, dict) else one if isinstance(one, list) else []


EVIL = "__import__('pathlib').Path('{}').write_text('x')"


def evil_operation(program, place):
    nodes(program)[0]["target"] = "torch.hub.load"


def evil_file_operation(program, place):
    nodes(program)[0]["target"] = "torch.ops.aten.from_file.default"


def evil_size(program, place):
    for one in sizes(program):
        one["expr_str"] = EVIL.format(place)


def evil_attribute(program, place):
    for one in sizes(program):
        one["expr_str"] = "Symbol('s1').__class__"


def evil_call(program, place):
    for one in sizes(program):
        one["expr_str"] = "preview(Symbol('s1'))"


def evil_tree(program, place):
    spec = json.dumps([1, {"type": "collections.defaultdict", "context": "{}", "children_spec": []}])
    for entry in program["graph_module"]["module_call_graph"]:
        if entry["signature"]:
            entry["signature"]["in_spec"] = spec


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (evil_operation, "torch.hub.load"),
        (evil_file_operation, "from_file"),
        (evil_size, "__import__"),
        (evil_attribute, "__class__"),
        (evil_call, "preview"),
        (evil_tree, "defaultdict"),
    ],
)
def test_a_program_that_could_run_code_is_refused(exported, tmp_path, change, named):
    place = tmp_path / "written"
    with pytest.raises(ModelError, match=rf"could run code from it: it holds .*{named}"):
        read_exported(changed(exported, lambda program: change(program, place)))
    assert not place.exists()


def test_guards_of_a_program_are_not_run(exported, tmp_path):
    place = tmp_path / "written"

    def guard(program):
        program["guards_code"] = [EVIL.format(place)]

    read_exported(changed(exported, guard))(IMAGES)
    assert not place.exists()


class Evil:
    """An object whose unpickling writes a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return (Path.write_text, (self.place, "x"))


def replaced(path: Path, inner: str, raw: bytes) -> Path:
    """A copy of an archive with another entry, or one more."""
    copy = path.with_name("replaced.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        top = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            if name != f"{top}/{inner}":
                new.writestr(name, old.read(name))
        new.writestr(f"{top}/{inner}", raw)
    return copy


def test_pickled_inputs_are_read_as_weights_only(exported, tmp_path):
    place, buffer = tmp_path / "written", io.BytesIO()
    torch.save(Evil(place), buffer)
    with pytest.raises(ModelError, match="cannot be read"):
        read_exported(replaced(exported, "data/sample_inputs/model.pt", buffer.getvalue()))
    assert not place.exists()


def test_pickled_weights_are_read_as_weights_only(exported, tmp_path):
    place, buffer = tmp_path / "written", io.BytesIO()
    torch.save(Evil(place), buffer)
    with zipfile.ZipFile(exported) as archive:
        name = next(one for one in archive.namelist() if one.endswith("weights_config.json"))
        config = json.loads(archive.read(name))
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    other = replaced(exported, name.partition("/")[2], json.dumps(config).encode())
    other = other.rename(tmp_path / "pickled.pt2")
    with pytest.raises(ModelError, match="cannot be read"):
        read_exported(replaced(other, f"data/weights/{first['path_name']}", buffer.getvalue()))
    assert not place.exists()


def test_pickled_constants_and_libraries_are_refused(exported, tmp_path):
    place = tmp_path / "written"
    constants = {
        "config": {"c": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}}
    }
    other = replaced(exported, "data/constants/model_constants_config.json", json.dumps(constants).encode())
    other = other.rename(tmp_path / "object.pt2")
    with pytest.raises(ModelError, match="a pickled object"):
        read_exported(replaced(other, "data/constants/opaque_obj_0", pickle.dumps(Evil(place))))
    with pytest.raises(ModelError, match="a compiled library"):
        read_exported(replaced(exported, "data/aotinductor/model/model.so", b"\x7fELF"))
    assert not place.exists()
