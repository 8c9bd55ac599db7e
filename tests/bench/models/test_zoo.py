"""The embedded zoo: cards, accuracy, and weights that were tampered with."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.models import zoo
from gauntlet.bench.models.catalog import MODELS
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.parts.classifier import ModelError, check_model
from gauntlet.bench.models.train import zoo_job

RECIPES = ("awp", "fast", "gauss", "ibp", "mart", "pgd", "pgd_l2", "standard", "trades")


ZOO = [f"cnn.{recipe}_digits" for recipe in RECIPES]
PAIRS = ["cnn.pgd_pairs", "cnn.standard_pairs"]


def test_listing_names_and_cards_imports_no_torch():
    code = (
        "import sys; from gauntlet.bench.models.catalog import MODELS; "
        "print(*[MODELS.get(n).card.name for n in MODELS.names()]); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == sorted(ZOO + PAIRS)


@pytest.mark.parametrize("name", ZOO)
def test_the_zoos_clean_accuracy_is_the_cards(name):
    data, loaded = load_data("digits"), load_model(name)
    assert loaded.card is not None
    with torch.no_grad():
        correct = int((loaded.module(data.images).argmax(1) == data.labels).sum())
    # One image may stand so near a boundary that another machine's rounding decides.
    assert len(data.labels) == loaded.card.n
    assert abs(correct - loaded.card.clean * loaded.card.n) <= 1
    assert sum(one.numel() for one in loaded.module.parameters()) == 66_358
    assert check_model(loaded.module, data.images[:64], data.labels, classes=10) == []


@pytest.mark.parametrize("name", PAIRS)
def test_the_clean_accuracy_on_pairs_is_the_cards(name):
    data, loaded = load_data("pairs"), load_model(name)
    with torch.no_grad():
        correct = int((loaded.module(data.images).argmax(1) == data.labels).sum())
    assert len(data.labels) == loaded.card.n
    assert abs(correct - loaded.card.clean * loaded.card.n) <= 1
    assert loaded.card.clean > loaded.card.robust > 0
    assert check_model(loaded.module, data.images[:64], data.labels, classes=100) == []


@pytest.mark.parametrize("name", PAIRS)
def test_networks_on_pairs_are_trained_on_the_pairs_of_training_digits(name, tmp_path):
    job = zoo_job(name, seed=0, out=tmp_path / "w.safetensors", epochs=1)
    assert (job.data, job.test, str(job.threat)) == ("pairs-train", "pairs", "Linf:0.1")
    assert job.recipe.name == name.removeprefix("cnn.").removesuffix("_pairs")


def test_weights_that_were_tampered_with_are_refused(tmp_path):
    card = MODELS.get("cnn.fast_digits").card
    raw = bytearray((zoo.WEIGHTS / card.weights).read_bytes())
    raw[-1] ^= 1
    (tmp_path / card.weights).write_bytes(raw)
    with pytest.raises(ModelError, match=r"is not the included file.*install the package again"):
        zoo.build_zoo_model(card.weights, card.sha256, tmp_path)
    with pytest.raises(ModelError, match=r"is not there.*install the package again"):
        zoo.build_zoo_model("absent.safetensors", card.sha256, tmp_path)


def test_other_weights_for_a_model_of_the_zoo_take_its_card_away():
    other = zoo.WEIGHTS / MODELS.get("cnn.fast_digits").card.weights
    loaded = load_model("cnn.standard_digits", weights=other)
    assert loaded.card is None
    assert loaded.digest == load_model("cnn.fast_digits").digest


def test_the_zoo_is_small_and_every_card_is_filled():
    assert sum(path.stat().st_size for path in zoo.WEIGHTS.iterdir()) < 3 * 2**20
    for name in ZOO:
        card = MODELS.get(name).card
        assert card == replace(card, name=name, weights=f"{name}.safetensors")
        assert card.clean > card.robust > 0
        assert card.tolerance > 0
        assert card.claim_attack
        assert card.licence
        assert abs(card.clean - card.clean_over_seeds.mean) <= card.clean_tolerance
        assert abs(card.robust - card.robust_over_seeds.mean) <= card.tolerance
        assert min(card.clean_over_seeds.n, card.robust_over_seeds.n) >= 3
