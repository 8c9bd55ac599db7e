"""RobustBench: its published figures, its checkpoints on disk, and what is refused."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch

from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.parts.classifier import ModelError, check_model
from gauntlet.bench.models.sources import robustbench_figures
from gauntlet.bench.models.sources.robustbench_figures import robustbench_card
from gauntlet.bench.models.sources.robustbench_zoo import checkpoints, models_folder

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


CARMON = "robustbench:cifar10/Linf/Carmon2019Unlabeled"


# what RobustBench publishes


def test_published_figures_come_with_threat_model_attack_samples_and_source():
    card = robustbench_card("cifar10/Linf/Carmon2019Unlabeled")
    assert (card.architecture, card.data, card.threat) == ("WideResNet-28-10", "cifar10", "Linf:8/255")
    assert (card.licence, card.input_size) == ("MIT", (3, 32, 32))
    assert card.source == "NeurIPS 2019 https://arxiv.org/abs/1905.13736"
    autoattack, reported = card.published
    assert dataclasses.asdict(autoattack) == {
        "model": "Carmon2019Unlabeled",
        "data": "cifar10",
        "clean": 0.8969,
        "robust": 0.5953,
        "threat": "Linf:8/255",
        "attack": "AutoAttack (standard)",
        "n": 10_000,
        "source": "RobustBench (https://robustbench.github.io)",
        "note": "",
    }
    assert (reported.robust, reported.n, reported.source) == (0.625, 0, "https://arxiv.org/abs/1905.13736")


def test_a_stronger_attack_and_doubts_stand_beside_autoattacks_figure():
    figures = robustbench_card("cifar10/L2/Amini2024MeanSparse_S-WRN-70-16").published
    assert [one.robust for one in figures[:2]] == [0.8728, 0.8433]
    with robustbench_figures.TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    doubted = [row for row in rows if row["unreliable"]]
    assert doubted
    for row in doubted:
        first = robustbench_card(f"{row['data']}/{row['norm']}/{row['name']}").published[0]
        assert "unreliable" in first.note


def test_every_row_of_the_table_gives_a_card_whose_figures_are_shares():
    with robustbench_figures.TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 236
    for row in rows:
        card = robustbench_card(f"{row['data']}/{row['norm']}/{row['name']}")
        assert card.published
        for one in card.published:
            assert 0 <= one.robust < 1
            assert one.clean is None or 0 < one.clean < 1
            assert one.threat


def test_figures_are_read_from_robustbenchs_own_files_where_they_are_there(tmp_path, monkeypatch):
    monkeypatch.setenv("GAUNTLET_MODELS", str(tmp_path))
    place = tmp_path / "model_info" / "cifar10" / "Linf"
    place.mkdir(parents=True)
    content = {
        "link": "https://example.org",
        "venue": "New 2026",
        "eps": "8/255",
        "architecture": "Net",
        "clean_acc": "90.1",
    }
    more = {"autoattack_acc": "70.25", "reported": "71", "external": None, "unreliable": True}
    (place / "New2026Model.json").write_text(json.dumps({**content, **more}))
    card = robustbench_card("cifar10/Linf/New2026Model")
    assert (card.architecture, card.source) == ("Net", "New 2026 https://example.org")
    assert [(one.robust, one.clean) for one in card.published] == [(0.7025, 0.901), (0.71, None)]
    assert "unreliable" in card.published[0].note
    (place / "Broken.json").write_text("<html>")
    with pytest.raises(ModelError, match=r"Broken\.json' cannot be read"):
        robustbench_card("cifar10/Linf/Broken")
    assert robustbench_card("cifar10/Linf/Unknown").published == ()


# RobustBench's models


def test_checkpoints_are_looked_for_in_robustbenchs_layout(tmp_path, monkeypatch):
    monkeypatch.delenv("GAUNTLET_MODELS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert models_folder() == tmp_path / "cache" / "gauntlet" / "models"
    (tmp_path / "models" / "cifar10").mkdir(parents=True)
    assert models_folder() == Path("models")
    monkeypatch.setenv("GAUNTLET_MODELS", str(tmp_path / "mine"))
    assert models_folder() == tmp_path / "mine"
    place = tmp_path / "mine" / "cifar10" / "Linf"
    place.mkdir(parents=True)
    for name in ("One.pt", "Two.pt_m0.pt", "Two.pt_m1.pt", "Onerous.pt"):
        (place / name).write_bytes(b"")
    assert [one.name for one in checkpoints("cifar10/Linf/One")] == ["One.pt"]
    assert [one.name for one in checkpoints("cifar10/Linf/Two")] == ["Two.pt_m0.pt", "Two.pt_m1.pt"]


def test_a_checkpoint_that_is_a_web_page_is_told_before_anything_is_imported(tmp_path, monkeypatch):
    monkeypatch.setenv("GAUNTLET_MODELS", str(tmp_path))
    (tmp_path / "cifar10" / "Linf").mkdir(parents=True)
    (tmp_path / "cifar10" / "Linf" / "Carmon2019Unlabeled.pt").write_text("<!DOCTYPE html><html>Quota exceeded</html>")
    with pytest.raises(ModelError, match="holds a web page"):
        load_model(CARMON)


def without_robustbench():
    """Why RobustBench's models cannot be made here; empty where they can."""
    try:
        load_model("robustbench:cifar10/Linf/NoSuchModel")
    except ModelError as error:
        return "" if "has no model" in str(error) else str(error)
    return ""


NO_ROBUSTBENCH = without_robustbench()


@pytest.fixture
def wong(tmp_path, monkeypatch):
    """A checkpoint of RobustBench's smallest architecture, a PreAct ResNet-18, under one of its names."""
    import robustbench.model_zoo
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    monkeypatch.setenv("GAUNTLET_MODELS", str(tmp_path))
    torch.manual_seed(0)
    zoo = robustbench.model_zoo.model_dicts[BenchmarkDataset.cifar_10][ThreatModel.Linf]
    model = zoo["Wong2020Fast"]["model"]().eval()
    place = tmp_path / "cifar10" / "Linf" / "Wong2020Fast.pt"
    place.parent.mkdir(parents=True)
    return model, place


@pytest.mark.skipif(bool(NO_ROBUSTBENCH), reason=NO_ROBUSTBENCH or "-")
@pytest.mark.filterwarnings("default")
def test_a_checkpoint_on_disk_is_loaded_by_robustbench_without_a_network(wong):
    model, place = wong
    torch.save(model.state_dict(), place)
    loaded = load_model("robustbench:Wong2020Fast")
    with torch.no_grad():
        torch.testing.assert_close(loaded.module(IMAGES), model(IMAGES))
    assert loaded.card.published[0].attack == "AutoAttack (standard)"
    assert loaded.card.weights == str(place)
    assert check_model(loaded.module, IMAGES, classes=10) == []
    other = load_model("robustbench:cifar10/Linf/Wong2020Fast", weights=place)
    assert other.card is None
    assert other.digest == loaded.digest


@pytest.mark.skipif(bool(NO_ROBUSTBENCH), reason=NO_ROBUSTBENCH or "-")
@pytest.mark.filterwarnings("default")
def test_robustbench_does_not_run_a_checkpoints_code_and_names_what_it_does_not_know(wong, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    _, place = wong
    torch.save(Trap(), place)
    with pytest.raises(ModelError, match="could run code from it"):
        load_model("robustbench:cifar10/Linf/Wong2020Fast")
    assert not (tmp_path / "ran").exists()
    with pytest.raises(ModelError, match=r"has no model 'Wong2020Fats' for cifar10 in Linf; did you mean Wong2020Fast"):
        load_model("robustbench:cifar10/Linf/Wong2020Fats")
