"""timm and torchvision: cards from their configurations, and the sentence where a library is absent."""

from __future__ import annotations

import importlib
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch

from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.parts.classifier import ModelError
from gauntlet.bench.models.sources import robustbench_zoo
from gauntlet.bench.models.sources.timm_models import timm_card
from gauntlet.bench.models.sources.torchvision_models import torchvision_card

MMA = "robustbench:cifar10/Linf/Ding2020MMA"
"""Gauntlet has no network of its own for it."""


def importable(name):
    """Why a library cannot be imported here; empty where it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name)
    except Exception as error:
        return f"{name} cannot be imported here: {type(error).__name__}: {str(error).splitlines()[0]}"
    return ""


class Absent:
    """An import system in which a library fails in a way of the caller's choosing."""

    def __init__(self, name, error):
        self.name, self.error = name, error

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == self.name:
            raise self.error


@pytest.mark.parametrize(
    ("spec", "root", "extra"),
    [
        ("timm:resnet18", "timm", "timm"),
        ("torchvision:resnet18", "torchvision", "torchvision"),
        (MMA, "robustbench", "robustbench"),
        ("hf:owner/net", "huggingface_hub", "huggingface"),
    ],
)
def test_a_library_that_is_absent_or_does_not_fit_is_told_with_the_way_out(monkeypatch, spec, root, extra):
    for name in [name for name in sys.modules if name.partition(".")[0] == root]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(robustbench_zoo, "package_version", lambda name: "1.1.1")
    for name in ("autoattack", "autoattack.state"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    absent = ModuleNotFoundError(f"No module named {root!r}", name=root)
    monkeypatch.setattr(sys, "meta_path", [Absent(root, absent), *sys.meta_path])
    with pytest.raises(ModelError, match=rf"^{root} is not installed: pip install 'robust-gauntlet\[{extra}\]'$"):
        load_model(spec)
    needs = ModuleNotFoundError("No module named 'gdown'", name="gdown")
    monkeypatch.setattr(sys, "meta_path", [Absent(root, needs), *sys.meta_path])
    with pytest.raises(ModelError, match=rf"^{root} needs gdown, which is not installed: pip install"):
        load_model(spec)
    if root != "huggingface_hub":
        broken = RuntimeError("operator torchvision::nms does not exist\nmore")
        monkeypatch.setattr(sys, "meta_path", [Absent(root, broken), *sys.meta_path])
        with pytest.raises(ModelError) as caught:
            load_model(spec)
        text = str(caught.value)
        assert text.startswith(
            f"{root} cannot be imported here (RuntimeError: operator torchvision::nms does not exist):"
        )
        assert f"torchvision must be of the same build as torch ({torch.__version__})" in text


def test_a_copy_of_robustbench_that_another_package_brought_is_not_taken_for_it(monkeypatch):
    monkeypatch.setattr(robustbench_zoo, "package_version", lambda name: "absent")
    monkeypatch.setitem(sys.modules, "robustbench.utils", SimpleNamespace())
    with pytest.raises(
        ModelError, match=r"^robustbench is not installed: pip install 'robust-gauntlet\[robustbench\]'$"
    ):
        load_model(MMA)


def test_timms_configuration_becomes_a_card():
    facts = {
        "input_size": (3, 224, 224),
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "license": "apache-2.0",
        "hf_hub_id": "timm/resnet18.a1_in1k",
        "architecture": "resnet18",
        "tag": "a1_in1k",
        "paper_ids": "arXiv:2110.00476",
    }
    card = timm_card("resnet18.a1_in1k", facts, parameters=11_689_512)
    assert card.architecture == "resnet18, 11,689,512 parameters"
    assert (card.licence, card.weights, card.source) == ("apache-2.0", "timm/resnet18.a1_in1k", "arXiv:2110.00476")
    assert (card.input_size, card.mean, card.std) == ((3, 224, 224), facts["mean"], facts["std"])
    assert timm_card("bare", {}).input_size is None


def test_torchvisions_transforms_and_metadata_become_a_card_with_the_published_accuracy():
    transforms = SimpleNamespace(crop_size=[224], mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    meta = {"num_params": 11_689_512, "recipe": "page", "_metrics": {"ImageNet-1K": {"acc@1": 69.758}}}
    weights = SimpleNamespace(
        name="IMAGENET1K_V1", url="https://example.org/w.pth", transforms=lambda: transforms, meta=meta
    )
    card = torchvision_card("resnet18", weights)
    assert card.name == "torchvision:resnet18.IMAGENET1K_V1"
    assert (card.input_size, card.mean) == ((3, 224, 224), (0.485, 0.456, 0.406))
    (stated,) = card.published
    assert (stated.clean, stated.robust, stated.n) == (0.69758, None, 50_000)


@pytest.mark.filterwarnings("default")
def test_timm_and_torchvision_make_the_networks_that_are_named(tmp_path):
    for name in ("timm", "torchvision.models"):
        if reason := importable(name):
            pytest.skip(reason)
    import timm

    torch.manual_seed(0)
    torch.save(timm.create_model("resnet10t", num_classes=10).state_dict(), tmp_path / "w.pt")
    loaded = load_model("timm:resnet10t(num_classes=10)", weights=tmp_path / "w.pt")
    assert loaded.module(torch.rand(1, 3, 64, 64)).shape == (1, 10)
    assert loaded.module.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    with pytest.raises(ModelError, match="has a fresh last layer"):
        load_model("timm:resnet10t(num_classes=10)")
    with pytest.raises(ModelError, match="timm cannot make 'resnet10x'"):
        load_model("timm:resnet10x")
    with pytest.raises(ModelError, match="has no weights 'V9': use one of IMAGENET1K_V1"):
        load_model("torchvision:resnet18.V9")
    with pytest.raises(ModelError, match="has no model 'resnet17'; near names: "):
        load_model("torchvision:resnet17")
