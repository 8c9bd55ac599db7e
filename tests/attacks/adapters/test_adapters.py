"""Attacks of torchattacks and ART: they attack as asked, and leave no trace."""

from __future__ import annotations

import importlib
import random
import subprocess
import sys
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from builders import linear
from gauntlet.attacks.adapters.library_catalog import ADAPTERS
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.views.guard import LogitsModel, guarded

SIDE, CLASSES = 10, 5
LINF, L2 = ThreatModel("Linf", 0.12), ThreatModel("L2", 0.9)
SMALL = {
    "torchattacks.APGD": {"steps": 20},
    "torchattacks.APGDT": {"steps": 15},
    "torchattacks.AutoAttack": {"steps": 8, "queries": 30},
    "torchattacks.CW": {"steps": 30, "search_steps": 6},
    "torchattacks.DeepFool": {"steps": 20},
    "torchattacks.FAB": {"steps": 15},
    "torchattacks.PGD": {"steps": 10},
    "torchattacks.Square": {"queries": 150},
    "art.AutoAttack": {"steps": 8, "queries": 30},
    "art.AutoProjectedGradientDescent": {"steps": 15},
    "art.CarliniL2Method": {"steps": 10, "search_steps": 5},
    "art.DeepFool": {"steps": 20},
    "art.HopSkipJump": {"steps": 3, "max_eval": 100, "init_eval": 20},
    "art.ProjectedGradientDescent": {"steps": 10},
    "art.SquareAttack": {"queries": 150},
    "pyautoattack.APGD": {"steps": 20},
    "pyautoattack.APGDT": {"steps": 15},
    "pyautoattack.AutoAttack": {"steps": 8, "queries": 30},
    "pyautoattack.FAB": {"steps": 15},
    "pyautoattack.Square": {"queries": 150},
    "foolbox.CarliniWagner": {"steps": 30, "search_steps": 6},
    "foolbox.PGD": {"steps": 10},
    "adv_lib.APGD": {"steps": 20},
    "adv_lib.APGDT": {"steps": 15},
    "adv_lib.CarliniWagner": {"steps": 30, "search_steps": 6},
    "adv_lib.FAB": {"steps": 15},
    "adv_lib.PGD": {"steps": 10},
}
LEAVES_THE_BALL = {"adv_lib.FAB"}
"""Minimum-norm points whatever eps is: the verifier refuses those outside."""


def entry(name):
    module, _, attribute = ADAPTERS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def importable(library):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module({"adv_lib": "adv_lib.attacks"}.get(library, library))
        except ImportError:
            return False
    return True


OPTIONAL = {"foolbox", "adv_lib"}
MISSING = {library for library in OPTIONAL if not importable(library)}
CASES = [
    pytest.param(
        name,
        threat,
        id=f"{name}-{threat.norm}",
        marks=pytest.mark.skipif(
            name.partition(".")[0] in MISSING, reason=f"{name.partition('.')[0]} is not installed"
        ),
    )
    for name in sorted(ADAPTERS)
    for threat in (LINF, L2)
    if threat.norm in entry(name).card.norms
]
cases = pytest.mark.parametrize(("name", "threat"), CASES)


@pytest.fixture(scope="module")
def task():
    """A trained model that a test can damage in every way, and images that it classifies correctly."""
    generator = torch.Generator().manual_seed(0)
    centres = 0.4 + 0.2 * torch.rand(CLASSES, 1, SIDE, SIDE, generator=generator)
    labels = torch.arange(CLASSES).repeat(40)
    images = (centres[labels] + 0.1 * torch.randn(200, 1, SIDE, SIDE, generator=generator)).clamp(0, 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(SIDE**2, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.1), nn.Linear(24, CLASSES)
        )
        optimiser = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(30):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimiser.step()
    model.eval()
    right = model(images).argmax(1) == labels
    return model, images[right][:12], labels[right][:12]


def distance(points, images, norm):
    change = (points.double() - images.double()).flatten(1)
    return change.abs().amax(1) if norm == "Linf" else change.norm(dim=1)


@cases
def test_an_adapter_breaks_samples_inside_box_and_ball(name, threat, task, capfd):
    model, images, labels = task
    attack, before = entry(name).make(threat, **SMALL.get(name, {})), images.clone()
    points = attack(model, images, labels, 3)
    assert points.shape == images.shape
    assert points.dtype == images.dtype
    assert torch.equal(images, before)
    assert points.min() >= 0
    assert points.max() <= 1
    if not entry(name).card.minimum_norm and name not in LEAVES_THE_BALL:
        limit = threat.eps + 2**-23 if threat.norm == "Linf" else threat.eps * (1 + 2**-20)
        assert distance(points, images, threat.norm).max() <= limit
    assert (model(points).argmax(1) == labels).float().mean() < 0.8
    assert torch.equal(attack(model, images, labels, 3), points)
    assert capfd.readouterr() == ("", "")


@cases
def test_an_adapter_leaves_no_trace(name, threat, task):
    model, images, labels = task
    for module in model.modules():
        module.train()
    model[1].eval()
    model[5].weight.requires_grad_(False)
    model[1].weight.grad = torch.ones_like(model[1].weight)
    settings = SMALL.get(name, {}) | ({"max_eval": 20, "steps": 1} if "HopSkip" in name else {})
    try:
        before = snapshot(model)
        entry(name).make(threat, **settings)(model, images, labels, 3)
        assert_same(snapshot(model), before)
    finally:
        model.eval().requires_grad_(True).zero_grad()


def snapshot(model):
    tensors = [*model.parameters(), *model.buffers()]
    return {
        "modes": [module.training for module in model.modules()],
        "tensors": [(id(one), one.requires_grad, one.detach().clone()) for one in tensors],
        "grads": [(id(one.grad), None if one.grad is None else one.grad.clone()) for one in model.parameters()],
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].tolist(),
        "python": random.getstate(),
        "flags": (
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.benchmark,
            np.geterr(),
            list(warnings.filters),
            id(sys.stdout),
        ),
    }


def assert_same(after, before):
    assert after.keys() == before.keys()
    assert torch.equal(after["torch"], before["torch"])
    for key in ("modes", "numpy", "python", "flags"):
        assert after[key] == before[key]
    for (i, needed, value), (j, was_needed, old) in zip(after["tensors"], before["tensors"], strict=True):
        assert (i, needed) == (j, was_needed)
        assert torch.equal(value, old)
    for (i, value), (j, old) in zip(after["grads"], before["grads"], strict=True):
        assert i == j
        assert (value is None and old is None) or torch.equal(value, old)


@pytest.mark.parametrize("fails", [False, True])
def test_the_guard_undoes_everything_that_code_inside_did(fails, capsys):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Sequential(nn.Dropout(), nn.Linear(3, 2)))
    model[1].eval()
    model[0].weight.grad = torch.full((3, 3), 2.0)
    model[2][1].bias.requires_grad_(False)
    before = snapshot(model)
    with pytest.raises(ZeroDivisionError) if fails else nullcontext(), guarded(model, 1):
        assert not model.training
        assert not any(one.requires_grad for one in model.parameters())
        sys.stdout.write("noise")
        warnings.warn("noise", stacklevel=1)
        torch.manual_seed(9), np.random.seed(9), random.seed(9)
        model.train()
        model.requires_grad_(True)
        model[0].weight.grad = torch.zeros(3, 3)
        model[1](torch.rand(5, 3)).sum().backward()
        model[1].running_var = torch.zeros(3)
        with torch.no_grad():
            model[0].bias.fill_(7)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = True
        np.seterr(all="raise")
        warnings.simplefilter("error")
        if fails:
            raise ZeroDivisionError
    assert_same(snapshot(model), before)
    assert capsys.readouterr().out == ""


def test_the_guard_seeds_all_generators():
    def draws(seed):
        with guarded(nn.Identity(), seed):
            return torch.rand(1).item(), np.random.rand(), random.random()

    assert draws(5) == draws(5)
    assert all(a != b for a, b in zip(draws(5), draws(6), strict=True))


def test_the_wrapper_takes_float64_and_gives_fresh_float32_logits_in_evaluation_mode():
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5))
    wrapped = LogitsModel(model, torch.float32, torch.device("cpu")).train()
    images = torch.rand(2, 1, 2, 2)
    logits = wrapped(images.double())
    assert logits.dtype == torch.float32
    assert torch.equal(logits, images.flatten(1))
    wrapped(images).fill_(0)
    assert images.sum() > 0
    assert not any(module.training for module in wrapped.modules())
    assert next(wrapped.parameters()).numel() == 0


@pytest.mark.parametrize("name", ["torchattacks.APGDT", "art.AutoAttack"])
def test_a_double_model_is_attacked_in_its_own_precision(name, task):
    model, images, labels = task
    model.double()
    try:
        points = entry(name).make(LINF, **SMALL[name])(model, images.double(), labels, 0)
    finally:
        model.float()
    assert points.dtype == torch.float64
    assert distance(points, images, "Linf").max() <= LINF.eps + 2**-23


def test_an_adapter_works_inside_inference_mode_and_on_no_images_at_all(task):
    model, images, labels = task
    attack = entry("torchattacks.PGD").make(LINF, steps=3)
    with torch.inference_mode():
        points = attack(model, images + 0, labels + 0, 0)
    assert torch.equal(points, attack(model, images, labels, 0))
    assert attack(model, images[:0], labels[:0], 0).shape == images[:0].shape


@pytest.mark.parametrize("name", ["torchattacks.PGD", "art.ProjectedGradientDescent"])
def test_the_step_is_a_share_of_eps(name):
    model = linear(torch.eye(4), dtype=torch.float32)
    images, labels = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    for eps in (0.01, 0.2):
        attack = entry(name).make(ThreatModel("Linf", eps), steps=1, step_size=0.25, random_start=False)
        assert distance(attack(model, images, labels, 0), images, "Linf").item() == pytest.approx(eps / 4, rel=1e-4)
        default = entry(name).make(ThreatModel("Linf", eps), steps=1, random_start=False)
        assert distance(default(model, images, labels, 0), images, "Linf").item() == pytest.approx(eps, rel=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        "torchattacks.CW",
        "torchattacks.DeepFool",
        pytest.param("art.CarliniL2Method", marks=pytest.mark.slow),
        "art.DeepFool",
    ],
)
@pytest.mark.parametrize("offset", [0.0, -50.0])
def test_minimum_norm_attacks_come_close_to_the_exact_distance_of_a_linear_model(name, offset):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(CLASSES, 64, generator=generator)
    model = linear(weight, dtype=torch.float32)
    images = 0.3 + 0.4 * torch.rand(8, 1, 8, 8, generator=generator)
    with torch.no_grad():
        model[1].bias.copy_(offset - (images.mean(0).flatten() @ weight.T))
        logits = model(images)
    labels = logits.argmax(1)
    gaps = logits.gather(1, labels[:, None]) - logits
    steps = (weight[labels][:, None] - weight[None]).norm(dim=2)
    exact = (gaps / steps).masked_fill(nn.functional.one_hot(labels, CLASSES).bool(), torch.inf).amin(1)
    points = entry(name).make(L2)(model, images, labels, 0)
    assert (model(points).argmax(1) != labels).all()
    ratio = distance(points, images, "L2") / exact
    assert ratio.min() > 0.999
    assert ratio.median() < 1.06


def test_carlini_wagner_moves_pixels_at_the_edges_of_the_box():
    model = linear(torch.tensor([[1.0, -1, 0, 0], [-1.0, 1, 0, 0]]), dtype=torch.float32)
    images, labels = torch.tensor([[[[0.6, 0.0], [0.0, 1.0]]]]), torch.tensor([0])
    points = entry("torchattacks.CW").make(L2)(model, images, labels, 0)
    assert model(points).argmax() == 1
    assert points[0, 0, 0, 1] > 0.25
    assert distance(points, images, "L2").item() == pytest.approx(0.3 * 2**0.5, rel=0.05)


def test_deepfool_crosses_the_boundary_where_pixels_are_clipped():
    model = linear(torch.tensor([[1.0, 0, 0, 1], [-1.0, 0, 0, -1]]), dtype=torch.float32)
    images, labels = torch.tensor([[[[0.0, 0.3], [0.3, 1.0]]]]), torch.tensor([0])
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([-0.5, 0.5]))
    points = entry("torchattacks.DeepFool").make(L2)(model, images, labels, 0)
    assert model(points).argmax() == 1


def test_autoattack_of_torchattacks_gets_the_official_budget(task, monkeypatch):
    multiattack = importlib.import_module("torchattacks.wrappers.multiattack")
    stages = []

    def forward(self, images, labels):
        stages.extend(self.attacks)
        return images

    monkeypatch.setattr(multiattack.MultiAttack, "forward", forward)
    model, images, labels = task
    entry("torchattacks.AutoAttack").make(LINF)(model, images, labels, 4)
    assert [type(stage).__name__ for stage in stages] == ["APGD", "APGDT", "FAB", "Square"]
    assert [stage.steps for stage in stages[:3]] == [100, 100, 100]
    assert [stage.n_target_classes for stage in stages[1:3]] == [CLASSES - 1, CLASSES - 1]
    assert (stages[3].n_queries, stages[3].rescale_schedule) == (5000, False)
    assert {(stage.eps, stage.norm, stage.seed) for stage in stages} == {(LINF.eps, "Linf", 4)}


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_an_unknown_setting_is_refused_by_name(name):
    with pytest.raises(ValueError, match="colour"):
        entry(name).make(ThreatModel(entry(name).card.norms[0], 0.1), colour=1)


@pytest.mark.parametrize("name", [name for name in sorted(ADAPTERS) if "L1" not in entry(name).card.norms])
def test_a_norm_that_the_attack_does_not_have_is_refused(name):
    with pytest.raises(ValueError, match="not for L1"):
        entry(name).make(ThreatModel("L1", 0.1))


@pytest.mark.skipif(not MISSING, reason="all optional libraries are installed")
def test_a_library_that_is_not_installed_is_named_with_the_way_out(task):
    model, images, labels = task
    library = sorted(MISSING)[0]
    with pytest.raises(ImportError, match="pip install"):
        entry(f"{library}.PGD").make(LINF)(model, images, labels, 0)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("torchattacks.PGD", {"steps": 0}, "steps=0"),
        ("torchattacks.PGD", {"steps": 2.5}, "steps=2.5"),
        ("art.ProjectedGradientDescent", {"step_size": 1.5}, "step_size=1.5"),
        ("art.ProjectedGradientDescent", {"restarts": 2, "random_start": False}, "random_start=True"),
        ("torchattacks.APGD", {"loss": "hinge"}, "loss='hinge'"),
        ("torchattacks.AutoAttack", {"variant": "fast"}, "variant='fast'"),
        ("torchattacks.CW", {"lr": -1}, "lr=-1"),
        ("art.DeepFool", {"overshoot": -1}, "overshoot=-1"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name_and_value(name, settings, message):
    with pytest.raises(ValueError, match=message):
        entry(name).make(ThreatModel(entry(name).card.norms[0], 0.1), **settings)


@pytest.mark.parametrize(
    ("name", "settings", "classes", "least"),
    [
        ("torchattacks.APGD", {"loss": "dlr"}, 2, 3),
        ("torchattacks.APGDT", {}, 3, 4),
        ("torchattacks.AutoAttack", {}, 3, 4),
        ("art.AutoAttack", {}, 2, 3),
    ],
)
def test_too_few_classes_for_the_loss_are_refused(name, settings, classes, least):
    model = linear(torch.rand(classes, 64), dtype=torch.float32)
    with pytest.raises(ValueError, match=f"at least {least} classes"):
        entry(name).make(LINF, **settings)(model, torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), 0)


@pytest.mark.parametrize(
    ("name", "threat", "side"),
    [
        ("torchattacks.Square", L2, 4),
        ("torchattacks.Square", L2, 12),
        ("torchattacks.AutoAttack", L2, 12),
        ("art.SquareAttack", L2, 8),
        ("art.SquareAttack", LINF, 4),
    ],
)
def test_an_image_size_that_square_attack_cannot_tile_is_refused(name, threat, side):
    model = linear(torch.rand(4, side**2), dtype=torch.float32)
    with pytest.raises(ValueError, match=f"{side}×{side}"):
        entry(name).make(threat)(model, torch.rand(2, 1, side, side), torch.tensor([0, 1]), 0)


@pytest.mark.parametrize("side", [5, 6, 8, 10, 11, 13, 28, 32])
def test_square_attack_of_torchattacks_runs_on_the_sizes_that_are_let_through(side):
    model = linear(torch.rand(4, side**2, generator=torch.Generator().manual_seed(0)), dtype=torch.float32)
    images = torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(1))
    entry("torchattacks.Square").make(L2, queries=5)(model, images, model(images).argmax(1), 0)


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("torchattacks.FGSM", "torchattacks", "torchattacks"),
        ("art.AutoAttack", "multiprocess", "multiprocess"),
        ("art.FastGradientMethod", "art.attacks.evasion", "adversarial-robustness-toolbox"),
    ],
)
def test_a_missing_library_is_answered_with_what_to_install(name, module, package, task, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    model, images, labels = task
    with pytest.raises(ImportError, match=f"pip install '?{package}"):
        entry(name).make(LINF)(model, images, labels, 0)


def test_listing_the_adapters_imports_neither_torch_nor_the_libraries():
    heavy = "{'torch', 'art', 'torchattacks'}"
    code = f"import sys, gauntlet.attacks.adapters.library_catalog; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_entry_bears_the_name_under_which_it_is_listed():
    assert [entry(name).card.name for name in ADAPTERS] == list(ADAPTERS)
