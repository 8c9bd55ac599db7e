"""`gauntlet.evaluate` on models that people have, and that autograd or certificates cannot handle: a figure, or one sentence."""

from __future__ import annotations

import copy
import io
import warnings

import pytest
import torch
from torch import nn

import gauntlet
from builders import network
from gauntlet.bench.models.parts.errors import ModelError
from gauntlet.bench.models.parts.model_digest import model_digest
from gauntlet.bench.run.evaluation import CellFailedError

CLASSES = 3
THREAT = "Linf:0.2"


@pytest.fixture(scope="module")
def images():
    return torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def net():
    return nn.Sequential(nn.Flatten(), *network(16, 12, CLASSES)).float().eval()


class FrozenFeatures(nn.Module):
    """Features under `no_grad`, as of a backbone that is not trained."""

    def __init__(self, net):
        super().__init__()
        self.body, self.head = net[:-1], net[-1]
        self.eval()

    def forward(self, x):
        with torch.no_grad():
            features = self.body(x)
        return self.head(features)


def quantised(net):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(copy.deepcopy(net), {nn.Linear}, dtype=torch.qint8).eval()


def evaluate(model, images, attacks, **settings):
    return gauntlet.evaluate(model, images, model(images).argmax(1), threat=THREAT, attacks=attacks, **settings)


# Models without a gradient

quiet = pytest.mark.filterwarnings("ignore:.*an autograd kernel was not registered")
"""torch's own sentence on int8 layers."""


@quiet
@pytest.mark.parametrize("make", [FrozenFeatures, quantised])
@pytest.mark.parametrize("attacks", [pytest.param("adaptive", marks=pytest.mark.slow), "gauntlet:fast"])
def test_a_model_without_a_gradient_is_broken_by_search(net, images, make, attacks):
    found = evaluate(make(net), images, attacks, checks="none")
    assert found.robust_accuracy < 1
    reference = evaluate(net, images, "gauntlet:fast", checks="none")
    assert int((found.robust & ~reference.robust).sum()) <= 2, "search finds most of what gradients find"


@quiet
@pytest.mark.parametrize("make", [FrozenFeatures, quantised])
def test_an_attack_by_gradients_takes_those_of_bpda_or_says_that_there_is_none(net, images, make):
    model = make(net)
    found = evaluate(model, images, "pgd(steps=20)")
    reference = evaluate(net, images, "pgd(steps=20)")
    assert int((found.robust & ~reference.robust).sum()) <= 1, "BPDA finds what the gradients behind it find"
    assert "unavailable-gradients" in {flag.name for flag in found.flags}
    # Measured, since a check is; without checks and by libraries gradients are taken as they are.
    for attack, checks in (("pgd(steps=2)", "none"), ("torchattacks.PGD(steps=2)", "default")):
        with pytest.raises(
            CellFailedError, match=r"AttackError: no gradient reaches the input.* adaptive, or a black-box"
        ):
            evaluate(model, images, attack, checks=checks)


# Certificates


def test_a_certificate_that_fails_leaves_the_figures_of_the_attacks(net, images, monkeypatch):
    alone = evaluate(net, images, "pgd(steps=3)")

    def fails(*_, **__):
        raise RuntimeError("the device is lost")

    monkeypatch.setattr("gauntlet.bench.executors.certificate.certify", fails)
    for attacks in (["pgd(steps=3)", "certificate"], ["certificate", "pgd(steps=3)"]):
        found = evaluate(net, images, attacks)
        assert torch.equal(found.robust, alone.robust)
        assert torch.equal(found.correct, alone.correct)
        (flag,) = [flag for flag in found.flags if flag.name == "certificate-failed"]
        assert "RuntimeError: the device is lost" in flag.message
        assert f"note (certificate-failed): {flag.message.removesuffix(' --attacks')} attacks." in repr(found)
        assert list(found.per_attack["attack"]) == ["pgd(steps=3)"]
    with pytest.raises(CellFailedError, match="'certificate' failed: RuntimeError: the device is lost"):
        evaluate(net, images, "certificate")


# TorchScript


class Holding(nn.Module):
    """A user's module around a TorchScript module."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.eval()

    def forward(self, x):
        return self.inner(x)


SCRIPTS = {
    "traced": lambda net, x: torch.jit.trace(net, x),
    "scripted": lambda net, x: torch.jit.script(net),
    "frozen": lambda net, x: torch.jit.freeze(torch.jit.script(net)),
    "loaded": lambda net, x: torch.jit.load(io.BytesIO(torch.jit.trace(net, x).save_to_buffer())),
    "inside": lambda net, x: Holding(torch.jit.freeze(torch.jit.trace(net, x))),
}
deprecated = pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:.*mutating it")


@deprecated
@pytest.mark.parametrize(
    ("kind", "attacks", "checks"),
    [
        *((kind, "pgd(steps=3)", "none") for kind in SCRIPTS),
        ("frozen", "pgd(steps=3)", "default"),
        ("frozen", "square(queries=20)", "none"),
        ("traced", "torchattacks.PGD(steps=3)", "none"),
        ("traced", "gauntlet:fast", "none"),
        ("inside", "adaptive", "none"),
    ],
)
def test_a_torchscript_module_gives_what_its_network_gives(net, images, kind, attacks, checks):
    model = SCRIPTS[kind](net, images)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    found, wanted = (evaluate(one, images, attacks, checks=checks) for one in (model, net))
    assert torch.equal(found.robust, wanted.robust)
    assert {flag.name for flag in found.flags} == {flag.name for flag in wanted.flags}
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@deprecated
@pytest.mark.parametrize("make", SCRIPTS.values(), ids=SCRIPTS)
def test_the_digest_of_a_torchscript_module_knows_weights_and_operations(net, images, make):
    digest = model_digest(make(net, images))
    other, sharper = copy.deepcopy(net), nn.Sequential(*net, nn.Tanh()).eval()
    with torch.no_grad():
        other[-1].bias += 1
    assert model_digest(make(net, images)) == digest
    assert len({digest, *(model_digest(make(one, images)) for one in (other, sharper))}) == 3


@deprecated
def test_a_scripted_module_in_training_mode_is_refused(net, images):
    model = torch.jit.script(copy.deepcopy(net).train())
    with pytest.raises(ModelError, match=r"in training mode: call model\.eval\(\)"):
        evaluate(model, images, "fgsm")
