"""Models: importing what users name, the checks of a model, weights, and the embedded zoo."""

from __future__ import annotations

import collections
import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from builders import network
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.models import zoo
from gauntlet.bench.models.catalog import MODELS
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.parts.classifier import Classifier, ModelError, check_model
from gauntlet.bench.models.parts.model_digest import model_digest
from gauntlet.bench.registries import register_model
from gauntlet.bench.registry.import_file import ImportSpecError, import_object, source_digest

IMAGES = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def imports_are_undone(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        if not name.startswith(("torch", "gauntlet.")):
            del sys.modules[name]
    sys.modules.update({name: module for name, module in before.items() if name not in sys.modules})


@pytest.fixture
def linear():
    return network(48, 5)


class Returning(nn.Module):
    """Gives its logits in a shape of the caller's choosing."""

    def __init__(self, wrap):
        super().__init__()
        self.linear = nn.Linear(48, 5)
        self.wrap = wrap
        self.eval()

    def forward(self, x):
        return self.wrap(self.linear(x.flatten(1)))


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


# --- importing ---


def test_a_user_gets_the_attacks_and_utils_beside_their_own_model_file(tmp_path):
    repo = write(tmp_path / "repo", model="import attacks, utils\nvalue = attacks.WHO + utils.WHO", attacks="WHO = 'a'")
    write(repo, utils="WHO = 'u'")
    assert import_object(f"{repo}/model.py:value") == "au"


def test_two_repositories_with_the_same_names_each_get_their_own(tmp_path):
    text = "import utils\nfrom models.net import WHO\nvalue = utils.WHO + WHO\nclass Box:\n    inner = value"
    for who in "ab":
        write(tmp_path / who, model=text, utils=f"WHO = '{who}'", models__net=f"WHO = '{who}'")
    # The first has a whole package, the second a folder without __init__.py, which Python would rank behind it.
    (tmp_path / "a/models/__init__.py").write_text("")
    assert [import_object(f"{tmp_path}/{who}/model.py:Box.inner") for who in "aba"] == ["aa", "bb", "aa"]


def test_a_repository_inside_another_gets_its_own_utils(tmp_path):
    inner = write(tmp_path / "outer/inner", model_in="import utils\nvalue = utils.WHO", utils="WHO = 'inner'")
    outer = write(tmp_path / "outer", model_out="import utils\nvalue = utils.WHO", utils="WHO = 'outer'")
    assert import_object(f"{inner}/model_in.py:value") == "inner"
    assert import_object(f"{outer}/model_out.py:value") == "outer"


def test_an_import_inside_a_function_still_works_after_loading(tmp_path):
    repo = write(tmp_path, model="def late():\n    import helper_of_mine\n    return helper_of_mine.WHO")
    late = import_object(f"{repo}/model.py:late")
    write(tmp_path, helper_of_mine="WHO = 'late'")
    assert late() == "late"


def test_a_file_named_like_a_library_does_not_take_its_place(tmp_path):
    repo = write(tmp_path, torch="WHO = 'mine'", types="WHO = 'mine too'")
    assert import_object(f"{repo}/torch.py:WHO") == "mine"
    assert import_object(f"{repo}/types.py:WHO") == "mine too"
    assert sys.modules["torch"] is torch
    assert sys.modules["types"].SimpleNamespace is SimpleNamespace


def test_a_file_that_was_edited_is_imported_again_with_the_files_beside_it(tmp_path):
    repo = write(tmp_path, model="import part\nvalue = part.WHO, 1", part="WHO = 'old'")
    spec = f"{repo}/model.py:value"
    first = import_object(spec), source_digest(spec)
    write(repo, model="import part\nvalue = part.WHO, 22", part="WHO = 'newer'")
    assert import_object(spec) == ("newer", 22)
    assert source_digest(spec) != first[1]


def test_a_module_beside_the_shell_is_found_as_by_python_m(tmp_path, monkeypatch):
    write(tmp_path / "attic", __init__="", nets="WHO = 'module'")
    (tmp_path / "attic" / "nets.py").write_text("WHO = 'module'")
    monkeypatch.chdir(tmp_path)
    assert import_object("attic.nets:WHO") == "module"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("model.py", "write package.module:name or path/to/file.py:name"),
        ("absent.py:build", "does not exist"),
        ("no_such_module_xyz.sub:build", "module 'no_such_module_xyz.sub' does not exist"),
        ("math:sqroot", "math has no 'sqroot'; did you mean sqrt"),
        ("model.py:biuld", "did you mean build"),
        ("broken.py:build", "ZeroDivisionError"),
        ("needs.py:build", r"No module named 'far_away' \(searched in"),
        ("script.py:build", "SystemExit"),
    ],
)
def test_a_spec_that_cannot_be_imported_says_why(tmp_path, monkeypatch, spec, message):
    write(tmp_path, model="def build(): ...", broken="1 / 0", needs="import far_away", script="raise SystemExit(2)")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImportSpecError, match=message):
        import_object(spec)


def test_the_cause_of_a_failed_import_is_chained(tmp_path):
    repo = write(tmp_path, broken="1 / 0")
    with pytest.raises(ImportSpecError) as caught:
        import_object(f"{repo}/broken.py:build")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_the_source_digest_is_the_files_and_follows_a_definition_elsewhere(tmp_path):
    text = "def build(): ...\n"
    repo = write(tmp_path, one=text, two="from far import build", far="def build(): return 1\n")
    assert source_digest(f"{repo}/one.py:build") == hashlib.sha256(text.encode()).hexdigest()
    before = source_digest(f"{repo}/two.py:build")
    (repo / "far.py").write_text("def build(): return 2\n")
    assert source_digest(f"{repo}/two.py:build") != before


# --- the classifier and its checks ---


@pytest.mark.parametrize(
    "wrap",
    [
        lambda z: z,
        lambda z: (z, "features"),
        lambda z: [z, z * 2],
        lambda z: {"features": z * 2, "logits": z},
        lambda z: {"out": z, "name": "x"},
        lambda z: SimpleNamespace(logits=z),
        lambda z: collections.namedtuple("Output", ["aux", "logits"])(z * 2, z),
    ],
)
def test_logits_are_found_in_every_common_output(wrap):
    model = Returning(wrap)
    assert torch.equal(Classifier(model)(IMAGES), model.linear(IMAGES.flatten(1)))


@pytest.mark.parametrize("wrap", [lambda z: {"a": z, "b": z}, lambda z: None, lambda z: ()])
def test_an_output_without_recognisable_logits_is_refused(wrap):
    with pytest.raises(ModelError, match="no logits are found"):
        Classifier(Returning(wrap))(IMAGES)


def test_normalisation_is_per_channel_and_in_the_digest(linear):
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    normalised = (IMAGES - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    assert torch.equal(Classifier(linear, mean, std)(IMAGES), linear(normalised))
    assert model_digest(Classifier(linear, mean, std)) != model_digest(Classifier(linear))


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (None, (0.5, 0.0, 0.5), "std=.* must be positive"),
        ((0.1, float("nan"), 0.1), None, "mean=.* must be finite"),
        ((0.1,) * 3, (0.5,), "differ in length"),
    ],
)
def test_a_normalisation_that_cannot_be_one_is_refused(linear, mean, std, message):
    with pytest.raises(ModelError, match=message):
        Classifier(linear, mean, std)


def test_a_normalisation_for_other_channels_is_refused_with_the_numbers(linear):
    with pytest.raises(ModelError, match="mean has 2 values, but the images have 3 channels"):
        Classifier(linear, (0.1, 0.2), (0.5, 0.5))(IMAGES)


def test_images_are_cast_to_the_models_own_precision(linear):
    assert Classifier(linear)(IMAGES.double()).dtype == torch.float32
    assert Classifier(linear.double())(IMAGES).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused_with_the_way_out(linear, dtype):
    with pytest.raises(ModelError, match=r"call model\.float\(\)"):
        Classifier(linear.to(dtype))


def test_a_sound_model_passes_without_flags(linear):
    assert check_model(Classifier(linear), IMAGES, torch.arange(5), classes=5) == []


def test_a_model_in_training_mode_is_refused(linear):
    with pytest.raises(ModelError, match=r"training mode: call model\.eval\(\)"):
        check_model(Classifier(linear.train()), IMAGES)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(5)])
def test_a_single_layer_in_training_mode_is_refused_by_name(linear, layer):
    model = nn.Sequential(linear, layer).eval()
    layer.train()
    with pytest.raises(ModelError, match=r"^1 is in training mode"):
        check_model(Classifier(model), IMAGES)


def test_nan_logits_are_refused_with_their_sample():
    def plant(logits):
        return logits.masked_fill((torch.arange(6) == 4)[:, None], float("nan"))

    with pytest.raises(ModelError, match="image 4 of 6 with NaN or infinite"):
        check_model(Classifier(Returning(plant)), IMAGES)


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda z: z[:, :, None], r"returns shape \(6, 5, 1\)"),
        (lambda z: z.mean(0), r"returns shape \(5,\)"),
        (lambda z: z[:3], r"shape \(3, 5\) for 6 images"),
        (lambda z: z[:, :4], "4 outputs, but the data need 5 classes"),
        (lambda z: z.argsort(1), "not the predicted classes"),
    ],
)
def test_outputs_that_are_not_logits_of_the_data_are_refused(wrap, message):
    with pytest.raises(ModelError, match=message):
        check_model(Classifier(Returning(wrap)), IMAGES, torch.arange(5))


def test_too_few_outputs_for_the_classes_are_refused(linear):
    with pytest.raises(ModelError, match="5 outputs, but the data need 7"):
        check_model(Classifier(linear), IMAGES, torch.zeros(6, dtype=torch.int64), classes=7)


def test_a_model_that_fails_on_the_images_is_refused_with_their_shape(linear):
    with pytest.raises(ModelError, match=r"fails on images of shape \(6, 3, 5, 5\)"):
        check_model(Classifier(linear), torch.rand(6, 3, 5, 5))


def test_probabilities_are_flagged_and_block_the_rank():
    (flag,) = check_model(Classifier(Returning(lambda z: z.softmax(1))), IMAGES)
    assert (flag.name, flag.severity) == ("probabilities", "block")
    assert check_model(Classifier(Returning(lambda z: z.log_softmax(1))), IMAGES) == []


def test_the_digest_sees_one_changed_weight_and_a_buffer(linear):
    before = model_digest(linear)
    assert model_digest(linear) == before
    with torch.no_grad():
        linear[1].weight[0, 0] += 1e-6
    changed = model_digest(linear)
    linear.register_buffer("scale", torch.ones(1), persistent=False)
    assert len({before, changed, model_digest(linear)}) == 3


# --- weights ---

FACTORY = """
from torch import nn
def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.BatchNorm1d(5))
made = build()
number = 3
def with_argument(depth): ...
def text(): return 'net'
"""


@pytest.fixture
def factory(tmp_path):
    return f"{write(tmp_path / 'user', net=FACTORY)}/net.py:build"


@pytest.fixture
def trained(factory):
    model = import_object(factory)()
    with torch.no_grad():
        model[1].weight.fill_(0.25)
    return model.eval()


@pytest.mark.parametrize("nest", [None, "state_dict", "model", "model_state_dict", "net"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_nested_and_prefixed_state_dicts_are_unwrapped(tmp_path, factory, trained, nest, prefix):
    state = {prefix + name: value for name, value in trained.state_dict().items()}
    torch.save({nest: state, "epoch": 3} if nest else state, tmp_path / "w.pt")
    loaded = load_model(factory, weights=tmp_path / "w.pt")
    assert torch.equal(loaded.module(IMAGES), trained(IMAGES))
    assert check_model(loaded.module, IMAGES) == []


def test_a_prefix_that_the_model_has_itself_is_kept(tmp_path):
    text = "import torch\nclass Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    repo = write(tmp_path, wrapped=f"{text}        self.module = torch.nn.Linear(2, 2)\n")
    state = import_object(f"{repo}/wrapped.py:Net")().state_dict()
    torch.save(state, tmp_path / "w.pt")
    loaded = load_model(f"{repo}/wrapped.py:Net", weights=tmp_path / "w.pt")
    assert torch.equal(loaded.module.state_dict()["model.module.weight"], state["module.weight"])


def test_safetensors_and_files_without_batch_counters_are_loaded(tmp_path, factory, trained):
    state = {name: value for name, value in trained.state_dict().items() if "num_batches" not in name}
    save_file(state, tmp_path / "w.safetensors")
    assert torch.equal(load_model(factory, weights=tmp_path / "w.safetensors").module(IMAGES), trained(IMAGES))


class Trap:
    """Unpickling it would write a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_pickled_checkpoint_is_refused_without_running_its_code(tmp_path, factory):
    torch.save({"state_dict": {}, "trap": Trap(tmp_path / "ran")}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="could run code from it: convert it once") as caught:
        load_model(factory, weights=tmp_path / "w.pt")
    assert "safetensors.torch.save_file" in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_whole_pickled_model_is_refused_and_its_recipe_works(tmp_path, factory, trained, monkeypatch):
    torch.save(trained, tmp_path / "w.pt")
    with pytest.raises(ModelError) as caught:
        load_model(factory, weights=tmp_path / "w.pt")
    recipe = "\n".join(line.strip() for line in str(caught.value).splitlines()[1:])
    monkeypatch.chdir(tmp_path)
    import safetensors.torch

    exec(recipe, {"torch": torch, "safetensors": safetensors, "FILE": "w.pt"})
    assert torch.equal(load_model(factory, weights="weights.safetensors").module(IMAGES), trained(IMAGES))


def test_keys_that_do_not_fit_are_listed_five_at_most(tmp_path, factory, trained):
    state = dict(trained.state_dict())
    del state["1.bias"]
    state |= {f"extra{number}": torch.ones(1) for number in range(7)}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ModelError) as caught:
        load_model(factory, weights=tmp_path / "w.safetensors")
    assert (
        "missing 1.bias (5,); unexpected extra0 (1,), extra1 (1,), extra2 (1,), extra3 (1,), extra4 (1,) and 2 more"
        in str(caught.value)
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"1.weight": torch.ones(2, 2)}, "missing 1.bias"),
        ([torch.ones(1)], "holds a list, not a state dict"),
        ({"1.weight": 3.0}, "beside tensors"),
    ],
)
def test_files_that_hold_something_else_are_refused(tmp_path, factory, content, message):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=message):
        load_model(factory, weights=tmp_path / "w.pt")


def test_a_shape_that_does_not_fit_is_named(tmp_path, factory, trained):
    state = {**trained.state_dict(), "1.weight": torch.ones(5, 47)}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"1\.weight has shape \(5, 47\), the model needs \(5, 48\)"):
        load_model(factory, weights=tmp_path / "w.pt")


def test_absent_and_damaged_files_are_refused(tmp_path, factory):
    for name, content in (("w.pt", b"not a checkpoint"), ("w.safetensors", b"junk"), ("empty.pt", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=r"cannot be read|damaged"):
            load_model(factory, weights=tmp_path / name)
    with pytest.raises(ModelError, match="is not there"):
        load_model(factory, weights=tmp_path / "none.pt")


# --- loading ---


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
    assert loaded.source_digest == hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    assert torch.equal(loaded.module(IMAGES), linear(IMAGES))
    with pytest.raises(ValueError, match="registered already"):
        register_model("mine.linear", lambda: linear)


# --- the zoo ---

RECIPES = ("awp", "fast", "gauss", "ibp", "mart", "pgd", "pgd_l2", "standard", "trades")
ZOO = [f"cnn.{recipe}_digits" for recipe in RECIPES]


def test_listing_names_and_cards_imports_no_torch():
    code = (
        "import sys; from gauntlet.bench.models.catalog import MODELS; "
        "print(*[MODELS.get(n).card.name for n in MODELS.names()]); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ZOO


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


# --- published networks, where their files are at hand ---

SHARED = os.environ.get("GAUNTLET_SHARED_DATA")
PUBLISHED = """
import torch
from torch import nn
from torch.nn import functional

def wong_kolter():
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10))

class Block(nn.Module):
    def __init__(self, inside, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.grows = stride == 2

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.grows:
            quarter = y.shape[1] // 4
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))
        return (x + y).relu()

class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16, 1), Block(16, 16, 1), Block(16, 16, 1))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))
"""


@pytest.mark.skipif(not SHARED, reason="GAUNTLET_SHARED_DATA does not name a folder with the published networks")
@pytest.mark.parametrize(
    ("factory_name", "weights", "images", "normalisation", "correct"),
    [
        ("wong_kolter", "wong_kolter_mnist.pth", "mnist_test_1000.npz", {}, 982),
        (
            "ResNet20",
            "resnet20_cifar10.th",
            "cifar10_test_1000.npz",
            {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
            915,
        ),
    ],
)
def test_published_networks_have_their_published_accuracy(
    tmp_path, factory_name, weights, images, normalisation, correct
):
    repo = write(tmp_path, published=PUBLISHED)
    loaded = load_model(f"{repo}/published.py:{factory_name}", weights=Path(SHARED) / weights, **normalisation)
    with np.load(Path(SHARED) / images) as arrays:
        pixels, labels = torch.from_numpy(arrays["images"]) / 255, torch.from_numpy(arrays["labels"])
    x = pixels.view(len(labels), -1, *pixels.shape[-2:])
    assert check_model(loaded.module, x[:64], labels, classes=10) == []
    with torch.no_grad():
        assert int((loaded.module(x).argmax(1) == labels).sum()) == correct
