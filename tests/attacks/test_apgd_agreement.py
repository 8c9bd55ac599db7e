"""Auto-PGD against torchattacks' port of the authors' code: step for step from the same start, and over seeds."""

from __future__ import annotations

import pytest
import torch
import torchattacks
from torch import nn

import gauntlet
from gauntlet.attacks.apgd import APGD
from gauntlet.attacks.ops.dlr import dlr
from gauntlet.attacks.ops.random import Draws, sample_keys
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.parts.apgd_common import checkpoints
from gauntlet.attacks.solving.solver import Task, Verification, solve
from gauntlet.bench.verify.verifier import Verifier

pytestmark = pytest.mark.slow


class Recorder(nn.Module):
    """A model that keeps every batch that it was shown."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.model(x)


def network(classes=10, seed=0):
    """A network of two layers with random weights, in float64."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, classes)).double()
    for layer, gain in ((model[1], 6 / 8), (model[3], 2 / 5.6)):
        layer.weight.data = gain * torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
        layer.bias.data.zero_()
    return model.requires_grad_(False).eval()


def pictures(count, seed=0):
    """Images of which a third of the pixels is at exactly 0 and some at exactly 1."""
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.rand(count, 1, 8, 8, generator=generator, dtype=torch.float64) - 0.67).clamp(0, 1)


def never(points, samples, attempt):
    """A verifier that believes nothing, so that every slot runs to its end."""
    no = torch.zeros(len(points), dtype=torch.bool)
    return Verification(no, no, no)


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def native_path(rule, model, image, label, threat):
    """Every point that the rule evaluates for one sample, (points, C, H, W), in order."""
    recorder = Recorder(model)
    list(solve(rule, recorder, Task(image, label, ["a"], threat, 0, "path"), never))
    return torch.cat(recorder.seen)


def reference_path(monkeypatch, model, image, label, threat, steps, loss, rho):
    """The same of torchattacks, from the same start."""
    draws = Draws.start(sample_keys(0, "path", ["a"]))
    recorder = Recorder(model)
    recorder.register_parameter("device", nn.Parameter(torch.zeros(1)))  # torchattacks asks a parameter for the device
    common = {"norm": threat.norm, "eps": threat.eps, "steps": steps, "rho": rho}
    if loss == "dlr_targeted":
        attack = torchattacks.APGDT(recorder, **common)
        attack.target_class = 2  # the second largest logit
    else:
        attack = torchattacks.APGD(recorder, loss=loss, **common)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "rand", lambda shape: draws.uniform(image.shape[1:], 0, torch.float64))
        patch.setattr(torch, "randn", lambda shape: draws.normal(image.shape[1:], 0, torch.float64))
        attack.attack_single_run(image, label)
    return torch.cat(recorder.seen)


@pytest.mark.parametrize(("steps", "rho"), [(7, 0.75), (40, 0.4), (100, 0.75)])
@pytest.mark.parametrize("threat", [ThreatModel("Linf", 0.03), ThreatModel("L2", 0.15)], ids=str)
@pytest.mark.parametrize("loss", ["ce", "dlr", "dlr_targeted"])
def test_the_path_is_that_of_torchattacks_step_for_step(monkeypatch, double, loss, threat, steps, rho):
    model, images = network(), pictures(4)
    compared = 0
    for image in images.split(1):
        label = model(image).argmax(1)
        ours = native_path(APGD(steps=steps, loss=loss, targets=1, rho=rho), model, image, label, threat)
        theirs = reference_path(monkeypatch, model, image, label, threat, steps, loss, rho)
        assert len(ours) == len(theirs) == steps + 1 + (loss == "dlr_targeted")  # which looks at the clean image first
        # Where the label has fallen to the third place, DLR is constant, and its direction nothing but rounding.
        constant = (dlr(model(theirs), label.expand(len(theirs))) > 1 - 1e-9).nonzero()
        end = int(constant[0]) + 1 if loss == "dlr" and len(constant) else len(theirs)
        torch.testing.assert_close(ours[:end], theirs[:end], rtol=0, atol=1e-9)
        compared += end > steps
    assert compared >= 2, "paths that end early tell little of the checkpoints"


def test_the_checkpoints_of_100_steps_are_those_of_the_paper():
    assert [i for i, period in enumerate(checkpoints(100)) if period] == [22, 41, 57, 70, 80, 87, 93, 99]
    for steps in (1, 2, 10):
        assert sum(checkpoints(steps)) == steps


@pytest.fixture(scope="module")
def trained():
    """A trained network and 200 digits that it classifies correctly."""
    model = gauntlet.load_model("cnn.trades_digits").module.requires_grad_(False).eval()
    data = gauntlet.load_data("digits")
    right = (model(data.images).argmax(1) == data.labels).nonzero().squeeze(1)[:200]
    return model, data.images[right], data.labels[right]


def native(trained, loss, threat, seed):
    """bool (N,), which samples 10 steps break."""
    model, images, labels = trained
    ids = [f"sample {i}" for i in range(len(labels))]
    verify = Verifier(model, images, labels, ids, threat, seed=seed)
    broken = torch.zeros(len(labels), dtype=torch.bool)
    for one in solve(APGD(steps=10, loss=loss), model, Task(images, labels, ids, threat, seed, "path"), verify):
        broken[one.sample] = one.adversarial is not None
    return broken


def foreign(trained, loss, threat, seed):
    """The same by torchattacks."""
    model, images, labels = trained
    common = {"norm": threat.norm, "eps": threat.eps, "steps": 10, "seed": seed}
    attack = torchattacks.APGDT(model, **common) if "_" in loss else torchattacks.APGD(model, loss=loss, **common)
    with torch.random.fork_rng():
        return model(attack(images, labels)).argmax(1) != labels


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("threat", [ThreatModel("Linf", 0.15), ThreatModel("L2", 0.8)], ids=str)
def test_the_same_starts_give_the_same_verdicts(monkeypatch, trained, loss, threat):
    ours = native(trained, loss, threat, 0)
    draws = Draws.start(sample_keys(0, "path", [f"sample {i}" for i in range(200)]))
    monkeypatch.setattr(torch, "rand", lambda shape: draws.uniform(shape[1:]))
    monkeypatch.setattr(torch, "randn", lambda shape: draws.normal(shape[1:]))
    theirs = foreign(trained, loss, threat, 0)
    assert 20 < ours.sum() < 180
    assert (ours != theirs).sum() <= 1  # float32: 200 samples may hold one whose logits tie


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ce", "dlr", "dlr_targeted"])
@pytest.mark.parametrize("threat", [ThreatModel("Linf", 0.15), ThreatModel("L2", 0.8)], ids=str)
def test_robust_accuracy_agrees_over_five_seeds(trained, loss, threat):
    # Of 200 samples the seeds' counts have a standard deviation of 1 to 3.
    ours = [200 - int(native(trained, loss, threat, seed).sum()) for seed in range(5)]
    theirs = [200 - int(foreign(trained, loss, threat, seed).sum()) for seed in range(5)]
    assert 20 < min(ours) <= max(ours) < 180
    assert max(min(ours), min(theirs)) <= min(max(ours), max(theirs)), (ours, theirs)
    assert abs(sum(ours) - sum(theirs)) <= 3 * 5, (ours, theirs)
