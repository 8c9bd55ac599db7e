"""Hugging Face: folders in the layout of the hub, their normalisation, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch

from builders import network
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.parts.classifier import Classifier, ModelError, check_model
from gauntlet.bench.models.sources.hugging_face import ProcessorConfig, read_processor_config

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


PREPARED = {
    "do_normalize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "size": {"shortest_edge": 40},
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32},
}


@pytest.fixture
def folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=10
    )
    model = transformers.ResNetForImageClassification(config).eval()
    model.save_pretrained(tmp_path / "net")
    (tmp_path / "net" / "preprocessor_config.json").write_text(json.dumps(PREPARED))
    (tmp_path / "net" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A network\n")
    return model, tmp_path / "net"


def test_a_folder_of_the_hub_is_loaded_without_a_network_with_its_normalisation(folder):
    model, place = folder
    loaded = load_model(f"hf:{place}")
    mean, std = (torch.tensor(PREPARED[name]).view(1, 3, 1, 1) for name in ("image_mean", "image_std"))
    with torch.no_grad():
        torch.testing.assert_close(loaded.module(IMAGES), model((IMAGES - mean) / std).logits)
    assert check_model(loaded.module, IMAGES, classes=10) == []
    card = loaded.card
    assert (card.architecture, card.licence, card.input_size) == (
        "ResNetForImageClassification",
        "apache-2.0",
        (3, 32, 32),
    )
    assert len(card.sha256) == 64


def test_a_stated_normalisation_wins_and_weights_of_ones_own_take_the_card_away(folder, tmp_path):
    model, place = folder
    stated = load_model(f"hf:{place}", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert stated.module.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    torch.save(model.state_dict(), tmp_path / "own.pt")
    own = load_model(f"hf:{place}", weights=tmp_path / "own.pt")
    assert own.card is None
    assert own.module.mean.flatten().tolist() == pytest.approx(PREPARED["image_mean"])
    with torch.no_grad():
        torch.testing.assert_close(own.module.without_normalisation(IMAGES), model(IMAGES).logits)


def test_a_folder_without_a_classifiers_head_is_refused_since_it_would_be_drawn_at_random(folder, tmp_path):
    transformers = pytest.importorskip("transformers")
    model, _ = folder
    transformers.ResNetModel(model.config).save_pretrained(tmp_path / "headless")
    with pytest.raises(
        ModelError, match=r"has no weights for classifier\.1\.bias, classifier\.1\.weight, which would be drawn"
    ):
        load_model(f"hf:{tmp_path}/headless")


def test_code_of_a_repository_is_not_run(folder):
    _, place = folder
    config = json.loads((place / "config.json").read_text())
    (place / "code.py").write_text(f"open({str(place / 'ran')!r}, 'w')")
    config["auto_map"] = {"AutoModelForImageClassification": "code.Net"}
    (place / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"needs its own code \(auto_map in its config.json\), which is not run"):
        load_model(f"hf:{place}")
    assert not (place / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "configuration file .* is not there"),
        ("config.json", b"<html></html>", "holds a web page"),
        ("config.json", b"{", "is not valid JSON"),
        ("config.json", b"[]", "holds a list"),
        ("config.json", b'{"model_type": "unheard"}', "transformers cannot make an image classifier of hf:"),
        ("model.safetensors", None, r"has no \.safetensors file"),
        ("model.safetensors", b"", "is empty"),
        ("model.safetensors", b"junk junk junk", "transformers cannot make an image classifier of hf:"),
        ("preprocessor_config.json", b'{"image_mean": ["a"], "image_std": [1]}', "is not understood"),
        ("preprocessor_config.json", b"{", "is not valid JSON"),
    ],
)
def test_a_folder_with_a_file_that_is_wrong_is_told_in_a_sentence(folder, name, content, message):
    _, place = folder
    (place / name).unlink() if content is None else (place / name).write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(f"hf:{place}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, ProcessorConfig()),
        (PREPARED, ProcessorConfig((32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
        ({"image_processor": PREPARED}, ProcessorConfig((32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
        ({"do_normalize": False, "size": 64}, ProcessorConfig((64, 64))),
        ({"do_rescale": False, "image_mean": [127.5], "image_std": [127.5]}, ProcessorConfig(None, (0.5,), (0.5,))),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True}, ProcessorConfig(None, (0.5,), (0.5,))),
    ],
)
def test_a_preprocessing_becomes_one_mean_and_one_std_of_images_in_0_to_1(tmp_path, facts, expected):
    name = "processor_config.json" if "image_processor" in facts else "preprocessor_config.json"
    (tmp_path / name).write_text(json.dumps(facts))
    found = read_processor_config(tmp_path)
    assert found.size == expected.size
    for ours, theirs in ((found.mean, expected.mean), (found.std, expected.std)):
        assert ours == (None if theirs is None else pytest.approx(theirs, abs=1e-6))


def test_what_cannot_be_fetched_says_how_to_do_without_a_network(monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "snapshot_download", lambda *given, **named: 1 / 0)
    with pytest.raises(
        ModelError, match=r"cannot be downloaded \(ZeroDivisionError: .*\): without a network, put its files"
    ):
        load_model("hf:owner/net@main")


def test_a_card_of_ones_own_states_the_normalisation(monkeypatch):
    from gauntlet.bench.models.catalog import MODELS
    from gauntlet.bench.models.parts.card import ModelCard
    from gauntlet.bench.registries import register_model

    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
    linear = network(3072, 10)
    register_model(
        "mine", lambda: linear, card=ModelCard(name="mine", summary="mine", mean=(0.5,) * 3, std=(0.25,) * 3)
    )
    with torch.no_grad():
        torch.testing.assert_close(load_model("mine").module(IMAGES), Classifier(linear)((IMAGES - 0.5) / 0.25))
