"""Models as they are named: weights and settings within the name, shared ones beside it, and their plain form."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from gauntlet.bench.config.model_ref import MODEL_SETTINGS, ModelRef, model_fields, parse_model, read_model
from gauntlet.bench.config.options import OPTIONS
from gauntlet.bench.config.schema import ConfigError, load_config
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.planning.plan import make_plan


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("cnn.pgd_digits", ModelRef("cnn.pgd_digits")),
        ("net.py:build", ModelRef("net.py:build")),
        ("net.py:build@a.safetensors", ModelRef("net.py:build", "a.safetensors")),
        ("a@b/net.py:Nets.build@c@d.pt#model:net.", ModelRef("a@b/net.py:Nets.build", "c@d.pt#model:net.")),
        ("package.module:build@w.pt", ModelRef("package.module:build", "w.pt")),
        ("net.py:build(mean=0.5, std=(0.25,))", ModelRef("net.py:build", None, (0.5,), (0.25,))),
        (
            "net.py:build@a.pt(mean=(0.5, 0.4, 0.3), std='0.2,0.2,0.1')",
            ModelRef("net.py:build", "a.pt", (0.5, 0.4, 0.3), (0.2, 0.2, 0.1)),
        ),
        ("dir (1)/net.py:build(weights='w (2).pt')", ModelRef("dir (1)/net.py:build", "w (2).pt")),
        ("dir(1)/net.py:build", ModelRef("dir(1)/net.py:build")),
        ("cnn.pgd_digits@w.pt", ModelRef("cnn.pgd_digits", "w.pt")),
        ("a@b/net.pt2", ModelRef("a@b/net.pt2")),
        ("torchscript:a@b/net.pt(binary=True)", ModelRef("torchscript:a@b/net.pt", binary=True)),
        ("net.py:build(logits='scores', binary=True)", ModelRef("net.py:build", logits="scores", binary=True)),
        ("net.py:build(logits=1, binary=False)", ModelRef("net.py:build", logits="1")),
        ("cnn.[ft]*", ModelRef("cnn.[ft]*")),
        (
            "timm:resnet18.a1_in1k@w.pt(num_classes=10, mean=0.5)",
            ModelRef("timm:resnet18.a1_in1k(num_classes=10)", "w.pt", (0.5,)),
        ),
        ("hf:owner/net@v1.2", ModelRef("hf:owner/net@v1.2")),
        ("hf:owner/net@v1.2(mean=0.5)", ModelRef("hf:owner/net@v1.2", None, (0.5,))),
        ("onnx:net@2.onnx", ModelRef("onnx:net@2.onnx")),
        ("net@2.onnx(std=0.5)", ModelRef("net@2.onnx", None, None, (0.5,))),
        ("blackbox:a.py:ask(classes=10)", ModelRef("blackbox:a.py:ask(classes=10)")),
    ],
)
def test_a_name_holds_weights_and_settings(text, ref):
    assert parse_model(text) == ref


def test_settings_of_a_name_win_over_shared_ones():
    shared = {"mean": (0.1,), "std": (0.2,)}
    assert parse_model("net.py:build(mean=0.5)", shared) == ModelRef("net.py:build", None, (0.5,), (0.2,))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("net.py:build(mean)", ["net.py:build(mean)", "key=value"]),
        ("net.py:build(mean=high)", ["mean='high'", "numbers"]),
        ("net.py:build@a.pt(weights='b.pt')", ["b.pt", "a.pt", "one of them"]),
    ],
)
def test_what_is_not_understood_is_named(text, words):
    with pytest.raises(ConfigError) as error:
        parse_model(text)
    assert all(word in str(error.value) for word in words)


def test_an_unknown_setting_is_answered_with_those_that_there_are(tmp_path):
    config = load_config({"model": ["net.py:build(men=0.5)"]}, folder=tmp_path)
    with pytest.raises(ConfigError, match=r"no setting men: use weights, mean, std"):
        make_plan(config)


def test_two_checkpoints_of_one_network_stand_in_one_plan_each_with_its_settings(tmp_path):
    options = {"model": ["net.py:build@a.pt(mean=0.5),net.py:build@b.pt"], "mean": "0.1", "attacks": ["fgsm"]}
    (group,) = load_config(options, folder=tmp_path).groups
    assert group.models == (ModelRef("net.py:build", "a.pt", (0.5,)), ModelRef("net.py:build", "b.pt", (0.1,)))
    plan = make_plan(load_config(options, folder=tmp_path))
    assert [cell.info.model for cell in plan.cells] == ["net.build@a", "net.build@b"]


def test_shared_weights_are_for_the_one_model_without_its_own(tmp_path):
    options = {"model": ["net.py:build@a.pt", "net.py:build"], "weights": "w.pt"}
    (group,) = load_config(options, folder=tmp_path).groups
    assert [ref.weights for ref in group.models] == ["a.pt", "w.pt"]
    with pytest.raises(ConfigError, match=r"w\.pt.*fit one model, but 2 are named.*NAME@FILE"):
        load_config({**options, "model": ["net.py:build", "net.py:other"]}, folder=tmp_path)


def test_each_setting_is_an_option_and_a_field():
    names = {option.key for option in OPTIONS}
    assert set(MODEL_SETTINGS) <= names
    assert {"spec", *MODEL_SETTINGS} == set(ModelRef.__dataclass_fields__)


@pytest.mark.parametrize("text", ["net.py:build", "net.py:build@a.pt(mean=(0.5, 0.4), std=0.25)"])
def test_the_plain_form_holds_everything(text):
    ref = parse_model(text)
    assert read_model(json.loads(json.dumps(model_fields(ref)))) == ref


def test_names_of_cells_stay_those_of_versions_with_fewer_settings():
    assert repr(ModelRef("m.py:f", None, (0.5,))) == "ModelRef(spec='m.py:f', weights=None, mean=(0.5,), std=None)"


@pytest.mark.usefixtures("imports_are_undone")
def test_a_model_is_loaded_by_the_same_text(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, 2))\n"
    )
    state = {"1.weight": torch.ones(2, 12), "1.bias": torch.tensor([0.0, 1.0])}
    save_file(state, tmp_path / "w.safetensors")
    model = load_model(f"{tmp_path}/net.py:build@{tmp_path}/w.safetensors(mean=0.5, std=0.25)")
    image = torch.full((1, 3, 2, 2), 0.75)
    assert model.module(image).tolist() == [[12.0, 13.0]]
