"""Models by their names: factories, weights of one's own, and near matches."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from builders import network
from gauntlet.bench.models.catalog import MODELS
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.parts.classifier import ModelError, check_model
from gauntlet.bench.models.parts.model_digest import model_digest
from gauntlet.bench.registries import register_model

pytestmark = pytest.mark.usefixtures("imports_are_undone")


IMAGES = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def linear():
    return network(48, 5)


def test_a_fresh_model_without_weights_is_left_in_training_mode_and_refused(factory):
    with pytest.raises(ModelError, match="training mode"):
        check_model(load_model(factory).module, IMAGES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("number", "is a int: name a function"),
        ("text", "returned a str: return a torch.nn.Module"),
        ("with_argument", "missing 1 required positional argument"),
    ],
)
def test_a_factory_that_is_none_is_refused(factory, name, message):
    with pytest.raises(ModelError, match=message):
        load_model(factory.replace("build", name))


def test_weights_for_a_model_made_on_import_do_not_change_the_users_own(tmp_path, factory, trained):
    spec = factory.replace("build", "made")
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    before = load_model(spec)
    after = load_model(spec, weights=tmp_path / "w.safetensors")
    assert load_model(spec).digest == before.digest == model_digest(before.module)
    assert after.digest != before.digest


def test_a_file_without_the_name_of_a_factory_is_answered_with_the_form():
    with pytest.raises(ModelError, match=r"model\.py:NAME"):
        load_model("some/model.py")


def test_an_unknown_name_is_answered_with_near_matches():
    with pytest.raises(LookupError, match=r"cnn\.trades_digits"):
        load_model("cnn.trade_digits")


def test_a_registered_model_is_loaded_by_name(linear, monkeypatch):
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
    register_model("mine.linear", lambda: linear)
    loaded = load_model("mine.linear")
    assert loaded.source_digest
    assert torch.equal(loaded.module(IMAGES), linear(IMAGES))
    with pytest.raises(ValueError, match="registered already"):
        register_model("mine.linear", lambda: linear)
