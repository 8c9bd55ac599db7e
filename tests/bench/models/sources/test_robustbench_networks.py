"""Networks of RobustBench from checkpoints in its format and layout, which the tests make, and `gauntlet reproduce` of them."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from builders import seeded
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.parts.classifier import Classifier
from gauntlet.bench.models.parts.errors import ModelError
from gauntlet.bench.models.sources.robustbench_figures import PAGE, robustbench_card
from gauntlet.bench.models.sources.robustbench_networks import TABLE, has_network, own_network
from gauntlet.leaderboard.report.published_csv import read_published

IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
CARMON = "cifar10/Linf/Carmon2019Unlabeled"


# Networks as their papers describe them, in plain operations, with the names of RobustBench's checkpoints


class Made(nn.Module):
    """A network of random weights: `shapes` are those of its tensors by name, `answer(weights, images)` its forward pass."""

    def __init__(self, shapes, answer, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weights, self.answer = {}, answer
        for name, shape in shapes.items():
            drawn = torch.rand(shape, generator=generator)
            if name.endswith(("running_var", "norm")):
                self.weights[name] = 0.5 + drawn
            elif len(shape) > 1:
                self.weights[name] = (drawn - 0.5) / (shape[1:].numel() ** 0.5) * 4
            else:
                self.weights[name] = drawn
        self.kernel = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return self.answer(self.weights, images)


def shapes_of(convolutions, norms, linear):
    """The shapes of convolutions (outside, inside, size), of norms, and of the linear layer (name, inside, outside)."""
    found = {f"{name}.weight": torch.Size((one[0], one[1], one[2], one[2])) for name, one in convolutions.items()}
    for name, width in norms.items():
        found |= {f"{name}.{part}": torch.Size((width,)) for part in ("weight", "bias", "running_mean", "running_var")}
    name, inside, outside = linear
    return found | {f"{name}.weight": torch.Size((outside, inside)), f"{name}.bias": torch.Size((outside,))}


def norm(weights, name, x):
    mean, var, gain, bias = (weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return functional.batch_norm(x, mean, var, gain, bias)


def conv(weights, name, x, stride=1, *, pad=None):
    kernel = weights[f"{name}.weight"]
    side = kernel.shape[-1] // 2
    return functional.conv2d(functional.pad(x, pad or (side,) * 4), kernel, stride=stride)


def linear(weights, name, x):
    return functional.linear(x.mean((2, 3)), weights[f"{name}.weight"], weights[f"{name}.bias"])


WIDTHS = (4, 8, 12, 16)


def wide(seed=0):
    """A wide residual network of TRADES, of one block in each group, with the sub-block that no pass uses."""
    convolutions, norms = {"conv1": (4, 3, 3)}, {"bn1": 16}
    for group in (1, 2, 3):
        inside, outside = WIDTHS[group - 1 : group + 1]
        for block in (f"block{group}", *(["sub_block1"] if group == 1 else [])):
            place = f"{block}.layer.0"
            convolutions |= {f"{place}.conv1": (outside, inside, 3), f"{place}.conv2": (outside, outside, 3)}
            convolutions[f"{place}.convShortcut"] = (outside, inside, 1)
            norms |= {f"{place}.bn1": inside, f"{place}.bn2": outside}

    def answer(weights, x):
        x = conv(weights, "conv1", x)
        for group, stride in ((1, 1), (2, 2), (3, 2)):
            place = f"block{group}.layer.0"
            a = norm(weights, f"{place}.bn1", x).relu()
            out = norm(weights, f"{place}.bn2", conv(weights, f"{place}.conv1", a, stride)).relu()
            x = conv(weights, f"{place}.conv2", out) + conv(weights, f"{place}.convShortcut", a, stride)
        return linear(weights, "fc", norm(weights, "bn1", x).relu())

    return Made(shapes_of(convolutions, norms, ("fc", 16, 10)), answer, seed)


def wide_deepmind():
    """The same kind with swish and one-sided padding, of two blocks in each group; images are normalised before."""
    convolutions, norms = {"init_conv": (4, 3, 3)}, {"batchnorm": 16}
    for group in range(3):
        for block in range(2):
            outside = WIDTHS[group + 1]
            inside, place = WIDTHS[group] if block == 0 else outside, f"layer.{group}.block.{block}"
            convolutions |= {f"{place}.conv_0": (outside, inside, 3), f"{place}.conv_1": (outside, outside, 3)}
            norms |= {f"{place}.batchnorm_0": inside, f"{place}.batchnorm_1": outside}
            if block == 0:
                convolutions[f"{place}.shortcut"] = (outside, inside, 1)

    def answer(weights, x):
        mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2471, 0.2435, 0.2616])
        x = conv(weights, "init_conv", (x - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        for group in range(3):
            for block in range(2):
                place, stride = f"layer.{group}.block.{block}", 2 if group and not block else 1
                a = functional.silu(norm(weights, f"{place}.batchnorm_0", x))
                out = conv(weights, f"{place}.conv_0", a, stride, pad=(0, 1, 0, 1) if stride == 2 else None)
                out = conv(weights, f"{place}.conv_1", functional.silu(norm(weights, f"{place}.batchnorm_1", out)))
                x = out + (x if block else conv(weights, f"{place}.shortcut", a, stride))
        return linear(weights, "logits", functional.silu(norm(weights, "batchnorm", x)))

    return Made(shapes_of(convolutions, norms, ("logits", 16, 10)), answer)


def preact(*, activated, last):
    """A pre-activation ResNet of four groups; `last`: with a norm before the linear layer, else without an activation there."""
    widths = (4, 4, 6, 8, 10)
    convolutions, norms = {"conv1": (4, 3, 3)}, {"bn": 10} if last else {}
    for group in (1, 2, 3, 4):
        inside, outside = widths[group - 1 : group + 1]
        place = f"layer{group}.0"
        convolutions |= {f"{place}.conv1": (outside, inside, 3), f"{place}.conv2": (outside, outside, 3)}
        norms |= {f"{place}.bn1": inside, f"{place}.bn2": outside}
        if group > 1:
            convolutions[f"{place}.shortcut.0"] = (outside, inside, 1)

    def answer(weights, x):
        mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2471, 0.2435, 0.2616])
        x = conv(weights, "conv1", (x - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        for group in (1, 2, 3, 4):
            place, stride = f"layer{group}.0", 2 if group > 1 else 1
            a = norm(weights, f"{place}.bn1", x).relu()
            out = norm(weights, f"{place}.bn2", conv(weights, f"{place}.conv1", a, stride)).relu()
            x = conv(weights, f"{place}.conv2", out) + (
                conv(weights, f"{place}.shortcut.0", a if activated else x, stride) if group > 1 else x
            )
        return linear(weights, "linear", norm(weights, "bn", x).relu() if last else x)

    return Made(shapes_of(convolutions, norms, ("linear", 10, 10)), answer)


def resnet():
    """A ResNet of two groups of bottlenecks, with activations after the sums."""
    convolutions, norms = {"conv1": (4, 3, 3)}, {"bn1": 4}
    for group, inside in ((1, 4), (2, 8)):
        place = f"layer{group}.0"
        sizes = {"conv1": (4, inside, 1), "conv2": (4, 4, 3), "conv3": (8, 4, 1), "shortcut.0": (8, inside, 1)}
        convolutions |= {f"{place}.{name}": size for name, size in sizes.items()}
        norms |= {f"{place}.bn1": 4, f"{place}.bn2": 4, f"{place}.bn3": 8, f"{place}.shortcut.1": 8}

    def answer(weights, x):
        x = norm(weights, "bn1", conv(weights, "conv1", x)).relu()
        for group in (1, 2):
            place, stride = f"layer{group}.0", group
            out = norm(weights, f"{place}.bn1", conv(weights, f"{place}.conv1", x)).relu()
            out = norm(weights, f"{place}.bn2", conv(weights, f"{place}.conv2", out, stride)).relu()
            out = norm(weights, f"{place}.bn3", conv(weights, f"{place}.conv3", out))
            x = (out + norm(weights, f"{place}.shortcut.1", conv(weights, f"{place}.shortcut.0", x, stride))).relu()
        return linear(weights, "linear", x)

    return Made(shapes_of(convolutions, norms, ("linear", 8, 10)), answer)


NETWORKS = {
    CARMON: wide,
    "cifar10/Linf/Gowal2020Uncovering_28_10_extra": wide_deepmind,
    "cifar10/Linf/Wong2020Fast": lambda: preact(activated=False, last=False),
    "cifar10/L2/Rice2020Overfitting": lambda: preact(activated=True, last=True),
    "cifar10/Linf/Sehwag2021Proxy_R18": resnet,
}
FORMS = {
    "bare": lambda weights: weights,
    "parallel": lambda weights: {f"module.{name}": value for name, value in weights.items()},
    "state_dict": lambda weights: {"state_dict": weights, "epoch": 3, "best_acc": 61.2},
    "model, parallel": lambda weights: {"model": {f"module.model.{name}": value for name, value in weights.items()}},
}


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setenv("GAUNTLET_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def save(models, name, content):
    place = models / f"{name}.pt"
    place.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, place)
    return place


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_checkpoint_in_robustbenchs_format_answers_as_the_network_of_its_paper(models, name, form):
    made = NETWORKS[name]()
    place = save(models, name, FORMS[form](made.weights))
    assert has_network(name)
    network, mean, std = own_network(name, place)
    shape = (1, 3, 1, 1)
    images = IMAGES if mean is None else (IMAGES - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    with torch.no_grad():
        torch.testing.assert_close(network(images), made(IMAGES), rtol=1e-4, atol=1e-4)
    assert not network.training


def without_package():
    """Whether RobustBench's package cannot be used here, so that its models are loaded into networks of our own."""
    try:
        load_model("robustbench:cifar10/Linf/NoSuchModel")
    except ModelError as error:
        return "has no model" not in str(error)
    return False


own_networks = pytest.mark.skipif(
    not (WITHOUT_PACKAGE := without_package()), reason="robustbench is installed and loads its models itself"
)


@own_networks
def test_it_is_loaded_by_its_name_with_the_published_figures_and_its_normalisation(models):
    name = "cifar10/Linf/Wong2020Fast"
    made = NETWORKS[name]()
    place = save(models, name, FORMS["parallel"](made.weights))
    loaded = load_model(f"robustbench:{name}")
    with torch.no_grad():
        torch.testing.assert_close(loaded.module(IMAGES), made(IMAGES), rtol=1e-4, atol=1e-4)
    assert loaded.card.published == robustbench_card(name).published
    assert (loaded.card.weights, loaded.card.mean) == (str(place), (0.4914, 0.4822, 0.4465))


def test_a_normaliser_in_the_file_is_that_of_the_network(models):
    buffers = {"mu": torch.full((1, 3, 1, 1), 0.25), "sigma": torch.full((1, 3, 1, 1), 0.5)}
    place = save(
        models,
        "cifar10/Linf/Wong2020Fast",
        FORMS["parallel"]({**preact(activated=False, last=False).weights, **buffers}),
    )
    _, mean, std = own_network("cifar10/Linf/Wong2020Fast", place)
    assert (mean, std) == ((0.25,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: weights | {"extra.weight": torch.zeros(2)}, "extra.weight"),
        (lambda weights: {name: value for name, value in weights.items() if "block2" not in name}, "does not fit"),
        (
            lambda weights: (
                {name: value for name, value in weights.items() if name != "fc.bias"} | {"fc.bias": torch.zeros(7)}
            ),
            "does not fit",
        ),
        (
            lambda weights: {name.replace("conv1", "first"): value for name, value in weights.items()},
            "has no conv1.weight",
        ),
        (lambda weights: {"epoch": 3}, "epoch"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_in_a_sentence(models, change, words):
    place = save(models, CARMON, change(wide().weights))
    with pytest.raises(ModelError, match=words):
        own_network(CARMON, place)


@own_networks
def test_a_missing_checkpoint_is_named_with_its_place(models):
    with pytest.raises(ModelError, match=r"Carmon2019Unlabeled\.pt', which needs no package"):
        load_model(f"robustbench:{CARMON}")
    with pytest.raises(ModelError) as told:
        load_model("robustbench:cifar10/Linf/Ding2020MMA")
    assert "needs no package" not in str(told.value)


def test_every_row_of_the_table_is_a_model_whose_figures_are_known():
    names = [line.partition(",")[0] for line in TABLE.read_text(encoding="utf-8").splitlines()[1:]]
    assert len(names) == len(set(names)) == 109
    assert all(robustbench_card(name).architecture for name in names)


@pytest.mark.skipif(WITHOUT_PACKAGE, reason="robustbench is not installed: tox run -e robustbench")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "name", ["cifar10/Linf/Rebuffi2021Fixing_R18_ddpm", "cifar10/Linf/Engstrom2019Robustness", *NETWORKS]
)
def test_a_network_of_the_package_answers_as_ours_with_its_weights(models, name):
    from robustbench.model_zoo import model_dicts

    data, threat, model = name.split("/")
    by_name = {kind.value: entries for kind, entries in model_dicts.items()}[data]
    theirs = seeded({kind.value: entries for kind, entries in by_name.items()}[threat][model]["model"]).eval()
    weights = {key: value for key, value in theirs.state_dict().items() if key not in ("mu", "sigma")}
    network, mean, std = own_network(name, save(models, name, FORMS["state_dict"](weights)))
    with torch.no_grad():
        torch.testing.assert_close(Classifier(network, mean, std)(IMAGES), theirs(IMAGES), rtol=1e-4, atol=1e-4)


# gauntlet reproduce


def cifar(root, network, count=6):
    """CIFAR-10's test batch of random images, which the network classifies as their labels say, but for the last."""
    values = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    with torch.no_grad():
        labels = network(torch.from_numpy(values).float() / 255).argmax(1).tolist()
    labels[-1] = (labels[-1] + 1) % 10
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    batch = {"data": values.reshape(count, -1), "labels": labels, "batch_label": "testing batch 1 of 1"}
    (folder / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))


@own_networks
@pytest.mark.parametrize("form", ["state_dict", pytest.param("model, parallel", marks=pytest.mark.slow)])
def test_a_published_figure_is_reproduced_end_to_end(models, tmp_path, monkeypatch, call, form):
    monkeypatch.chdir(tmp_path)
    network = wide(seed=1)
    save(models, CARMON, FORMS[form](network.weights))
    cifar(tmp_path / "data", network)
    info = models / "model_info" / f"{CARMON}.json"
    info.parent.mkdir(parents=True)
    published = {"link": "https://example.org", "eps": "64/255", "clean_acc": "83.33", "autoattack_acc": "0.0"}
    # Every sample is broken at once, so that the published protocol is over soon.
    for robust, code, words in (("0.0", 0, "reproduced"), ("90.0", 1, "differs by -90.00 points")):
        info.write_text(json.dumps(published | {"autoattack_acc": robust}), encoding="utf-8")
        done = call("reproduce", "robustbench:Carmon2019Unlabeled", "--data=cifar10@data", "--samples=6")
        assert done.returncode == code, done.stdout + done.stderr
        assert f"under AutoAttack (standard) at Linf:64/255 on cifar10, n=10,000: {PAGE}" in done.stdout
        assert words in done.stdout
    table = read_published(tmp_path / "gauntlet-results" / "published.csv").set_index("figure")
    assert table["measured"].to_dict() == pytest.approx({"clean": 5 / 6, "robust": 0.0})
    assert table["covered"].to_dict() == {"clean": True, "robust": False}
