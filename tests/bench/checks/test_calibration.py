"""No honest network is accused: the default checks on 15 networks, at three radii each in Linf and L2.

    pytest -m slow -s tests/bench/checks/test_calibration.py

prints the table of docs/checks.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import gauntlet
import published
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.checks.catalog import flags, run_checks
from gauntlet.bench.checks.subject import FEW, Subject
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.parts.classifier import Classifier
from gauntlet.defenses.pipeline.batch_dependence import batch_dependence
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.defenses.pipeline.profile import pipeline_profile
from published import CIFAR_NORMALISATION, NEEDS_SHARED, SHARED, shared_images

pytestmark = pytest.mark.slow

ZOO = gauntlet.list_models("cnn.*_digits")
PUBLISHED = {
    "wong_kolter": "mnist",
    "ResNet20": "cifar10",
    "Convnet_maxpool": "mnist",
    "mnist_relu_9_200": "mnist",
    "cifar10_small": "cifar10",
    "cifar10_large": "cifar10",
}
"""Networks, and the data that they were trained on."""
RADII = {
    "digits": (("Linf", (0.03, 0.15, 0.3)), ("L2", (0.2, 0.8, 2))),
    "mnist": (("Linf", (0.03, 0.1, 0.3)), ("L2", (0.3, 1.5, 3))),
    "cifar10": (("Linf", (1 / 255, 8 / 255, 16 / 255)), ("L2", (0.1, 0.5, 2))),
}
"""A small radius, the usual one, and a large one, in two norms."""


def loaded(name):
    """A network with the first images of its data."""
    if name in ZOO:
        data = gauntlet.load_data("digits", samples=str(FEW))
        return gauntlet.load_model(name).module, data.images, data.labels
    images, labels = shared_images(PUBLISHED[name], FEW)
    if not hasattr(published, name):
        return load_model(f"onnx:{SHARED}/vnncomp2021/{name}.onnx").module, images, labels
    model = getattr(published, name)()
    weights = {"wong_kolter": "wong_kolter_mnist.pth", "ResNet20": "resnet20_cifar10.th"}[name]
    state = torch.load(Path(SHARED) / weights, map_location="cpu", weights_only=True)
    state = {key.removeprefix("module."): value for key, value in state.get("state_dict", state).items()}
    model.load_state_dict(state)
    normalisation = CIFAR_NORMALISATION if PUBLISHED[name] == "cifar10" else {}
    return Classifier(model.eval(), **normalisation).eval(), images, labels


@pytest.mark.parametrize(
    "name",
    [*ZOO, *(pytest.param(one, marks=pytest.mark.skipif(not SHARED, reason=NEEDS_SHARED)) for one in PUBLISHED)],
)
def test_no_honest_network_is_blocked_at_any_radius(name):
    model, images, labels = loaded(name)
    pipeline = DefendedModel(model, differentiable=True, randomised=False).eval()
    assert pipeline_profile(pipeline, images, labels).gradients == "useful"
    assert not batch_dependence(pipeline, images).changed
    entries, blocks = [], []
    for norm, radii in RADII[PUBLISHED.get(name, "digits")]:
        for eps in radii:
            threat = ThreatModel(norm, eps)
            findings = run_checks(Subject(pipeline, images, labels, [str(row) for row in range(FEW)], threat))
            blocks += [(threat, flag.name) for flag in flags(findings)]
            figures = next(dict(one.evidence) for one in findings if one.check == "finite-differences")
            assert figures["wrong"] == 0
            entries.append(f"{figures['mean_disagreement']:.2f}; {figures['curved']:.0f}, {figures['lost']:.0f}")
    with torch.no_grad():
        right = int((model(images).argmax(1) == labels).sum())
    sys.stdout.write(f"\n| {name} | {right} | {' | '.join(entries)} |\n")
    assert blocks == []
