"""Models by where they come from: names, cards, published figures, folders in the real layouts, and what cannot be had."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gauntlet.bench.config.schema import Config, ConfigError, DataRef, Group, ModelRef
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.parts.classifier import Classifier, ModelError, check_model
from gauntlet.bench.models.sources import robustbench_figures, robustbench_zoo
from gauntlet.bench.models.sources.hugging_face import ProcessorConfig, read_processor_config
from gauntlet.bench.models.sources.parse_source import complete_robustbench_name, parse_source
from gauntlet.bench.models.sources.robustbench_figures import robustbench_card
from gauntlet.bench.models.sources.robustbench_zoo import checkpoints, models_folder
from gauntlet.bench.models.sources.timm_models import timm_card
from gauntlet.bench.models.sources.torchvision_models import torchvision_card
from gauntlet.bench.planning.plan import make_plan, model_name

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
CARMON = "robustbench:cifar10/Linf/Carmon2019Unlabeled"


def importable(name):
    """Why a library cannot be imported here; empty where it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name)
    except Exception as error:
        return f"{name} cannot be imported here: {type(error).__name__}: {str(error).splitlines()[0]}"
    return ""


# --- names ---


@pytest.mark.parametrize(
    ("spec", "title", "access"),
    [
        (CARMON, "robustbench:Carmon2019Unlabeled", "white-box"),
        ("robustbench:Carmon2019Unlabeled", "robustbench:Carmon2019Unlabeled", "white-box"),
        ("timm:resnet50.a1_in1k", "timm:resnet50.a1_in1k", "white-box"),
        ("torchvision:resnet18.IMAGENET1K_V1", "torchvision:resnet18.IMAGENET1K_V1", "white-box"),
        ("hf:microsoft/resnet-18", "hf:microsoft/resnet-18", "white-box"),
        ("hf:./nets/mine", "hf:mine", "white-box"),
        ("onnx:nets/small.onnx", "onnx:small", "white-box"),
        ("nets/small.onnx", "onnx:small", "white-box"),
        ("onnx-blackbox:nets/small.onnx", "onnx-blackbox:small", "scores"),
        ("blackbox:nets/service.py:ask(classes=10)", "blackbox:service.ask", "labels"),
        ("blackbox:package.service:ask", "blackbox:package.service.ask", "scores"),
    ],
)
def test_a_name_says_where_a_model_comes_from_and_what_may_be_seen_of_it(spec, title, access):
    source = parse_source(spec)
    assert (source.title, source.access) == (title, access)
    assert model_name(ModelRef(spec)) == title
    assert model_name(ModelRef(spec, "deep/best.pt")) == f"{title}@best"


def test_limits_and_folders_are_no_part_of_what_decides_outcomes():
    pairs = [
        ("blackbox:a/service.py:ask(classes=10, max_queries=9)", "blackbox:b/service.py:ask(batch_size=3, classes=10)"),
        ("onnx:a/net.onnx", "b/other.onnx"),
        ("hf:./net", "hf:/somewhere/net"),
    ]
    for one, other in pairs:
        assert parse_source(one).identity == parse_source(other).identity
    others = [
        "blackbox:s.py:ask",
        "blackbox:s.py:ask(classes=10)",
        "blackbox:s.py:tell",
        "onnx:a.onnx",
        "timm:resnet18",
    ]
    names = [
        *others,
        "onnx-blackbox:a.onnx",
        "timm:resnet18(num_classes=10)",
        "hf:owner/net",
        "hf:owner/net@v1",
        CARMON,
    ]
    assert len({parse_source(name).identity for name in names}) == len(names)


@pytest.mark.parametrize("spec", ["cnn.pgd_digits", "model.py:build", "package.module:build", "./timm/net.py:make"])
def test_other_names_are_not_taken_for_sources(spec):
    assert parse_source(spec) is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("robustbench:", "robustbench:DATASET/NORM/NAME"),
        ("robustbench:mnist/Linf/Some", "robustbench:DATASET/NORM/NAME"),
        ("robustbench:cifar10/Carmon2019Unlabeled", "robustbench:DATASET/NORM/NAME"),
        ("hf:resnet", "hf:OWNER/REPOSITORY"),
        ("hf:owner/", "hf:OWNER/REPOSITORY"),
        ("timm:resnet18(pretrained=False)", "has no setting 'pretrained': it has num_classes"),
        ("onnx:net.onnx(batch=3)", "has no setting 'batch': it has no settings"),
        ("blackbox:service.py", "blackbox:FILE.py:FUNCTION"),
    ],
)
def test_a_name_that_is_written_wrongly_is_answered_with_the_form(spec, message):
    with pytest.raises(ModelError, match=message):
        load_model(spec)


def test_reading_names_and_figures_imports_no_torch():
    code = (
        "import sys; from gauntlet.bench.models.sources.parse_source import parse_source; "
        "from gauntlet.bench.models.sources.robustbench_figures import robustbench_card; "
        f"robustbench_card({CARMON.partition(':')[2]!r}); assert parse_source({CARMON!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# --- the plan ---


def planned(models, data, threats):
    group = Group(tuple(map(ModelRef, models)), ("none",), ("fgsm",), tuple(threats), DataRef(data))
    return make_plan(Config(groups=(group,)))


def test_a_robustbench_name_is_completed_by_the_data_set_and_the_norm_in_use():
    plan = planned(["robustbench:Some2020Thing"], "cifar10/robustbench-1000", ["Linf:8/255", "L2:0.5"])
    assert [one.model.spec for one in plan.cells] == [
        "robustbench:cifar10/Linf/Some2020Thing",
        "robustbench:cifar10/L2/Some2020Thing",
    ]
    # One name for two networks would join their rows.
    assert len({one.info.model for one in plan.cells}) == 2
    for data in ("imagenet", "imagenet/robustbench-5000", "imagenet@folder", "imagenet(split=train)"):
        assert complete_robustbench_name("robustbench:X", data, "Linf") == "robustbench:imagenet/Linf/X"
    assert complete_robustbench_name(CARMON, "digits", "L1") == CARMON
    assert complete_robustbench_name("timm:resnet18", "digits", "L1") == "timm:resnet18"


def test_where_data_or_norm_do_not_say_it_the_full_name_is_asked_for():
    for data, threat in (("digits", "Linf:0.1"), ("cifar10", "L1:2")):
        with pytest.raises(ModelError, match=r"is not complete on data .* write robustbench:DATASET/NORM/X"):
            planned(["robustbench:X"], data, [threat])


def test_a_source_is_planned_under_its_short_name_and_a_file_without_a_factory_still_is_not():
    (cell,) = planned(["timm:resnet18.a1_in1k"], "digits", ["Linf:0.1"]).cells
    assert (cell.model.spec, cell.info.model) == ("timm:resnet18.a1_in1k", "timm:resnet18.a1_in1k")
    with pytest.raises(ConfigError, match="names a file only"):
        planned(["nets/model.py"], "digits", ["Linf:0.1"])


# --- what RobustBench publishes ---


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


# --- RobustBench's models ---


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


# --- libraries that are not here ---


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
        (CARMON, "robustbench", "robustbench"),
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
        load_model(CARMON)


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


# --- Hugging Face ---

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
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)).eval()
    register_model(
        "mine", lambda: linear, card=ModelCard(name="mine", summary="mine", mean=(0.5,) * 3, std=(0.25,) * 3)
    )
    with torch.no_grad():
        torch.testing.assert_close(load_model("mine").module(IMAGES), Classifier(linear)((IMAGES - 0.5) / 0.25))
