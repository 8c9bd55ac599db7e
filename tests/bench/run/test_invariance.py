"""What cannot change a prediction changes no figure: a constant on all logits, a factor, absent classes, and order."""

from __future__ import annotations

import sys
from functools import cache

import pytest
import torch

import gauntlet
from builders import Wrapped, clipped_task, slow_unless
from gauntlet.attacks.ops.rounding import difference
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.registry.catalog import ATTACKS
from gauntlet.attacks.views import fast_model
from gauntlet.attacks.views.fast_model import choose_form
from gauntlet.bench.data.samples.in_memory import from_arrays
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.defenses.pipeline.profile import pipeline_profile

COUNT = 16
SHUFFLED = torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))
CLASSES = torch.randperm(10, generator=torch.Generator().manual_seed(2))


def absent(value):
    """Twenty more classes with this logit."""
    return lambda z: torch.cat([z, z.new_full((len(z), 20), value)], 1)


CONSTANTS = {"+1e3": lambda z: z + 1e3, "+1e5": lambda z: z + 1e5}
FACTORS = {"*1e-3": lambda z: z * 1e-3, "*1e3": lambda z: z * 1e3}
ABSENT = {"-1e4": absent(-1e4), "-1e9": absent(-1e9), "-inf": absent(-torch.inf)}
CHANGES = {**CONSTANTS, **FACTORS, **ABSENT}
SHORT = {
    "pgd": "pgd(steps=8)",
    "mi-fgsm": "mi-fgsm(steps=5)",
    "di-fgsm": "di-fgsm(steps=5)",
    "ti-fgsm": "ti-fgsm(steps=5)",
    "smoothed-pgd": "smoothed-pgd(steps=8)",
    "apgd": "apgd(steps=10)",
    "apgd-t": "apgd-t(steps=5)",
    "cw": "cw(search_steps=3, steps=15)",
    "fab": "fab(steps=5)",
    "fab-t": "fab-t(steps=5)",
    "fmn": "fmn(steps=20)",
    "deepfool": "deepfool(steps=10)",
    "hop_skip_jump": "hop_skip_jump(queries=200)",
    "square": "square(queries=400)",
    "autoattack": "autoattack(steps=20, queries=200)",
}
"""Smaller budgets, by the attack's name."""
CASCADES = ("autoattack", "gauntlet:fast", "gauntlet", "gauntlet:thorough", "adaptive")
SINGLE = [name for name in ATTACKS if name not in CASCADES]
FAMILIES = ("fgsm", "pgd", "apgd-t", "fmn", "square")
"""One attack of each kind, which is tested by default."""
L2 = ("cw", "ddn", "fmn", "fab")
MILDER = ("+1e3", "-1e4")
"""Changes that a larger one of their kind covers."""
QUICK = {
    "gauntlet:fast": [*FACTORS, "+1e5", "-1e9", "-inf"],
    "gauntlet": ["*1e-3", "+1e5", "-inf"],
    "autoattack": ["*1e3", "-inf"],
}
"""The changes of each cascade that are tested by default: `gauntlet:thorough` has the conditions and rules of `gauntlet`, and
`adaptive` is `gauntlet` where there is no defense."""


@cache
def task():
    """A network, images, and the labels it gives them, but for the last one, which is misclassified."""
    model, images, labels = clipped_task(count=COUNT)
    labels = labels.clone()
    labels[-1] = (labels[-1] + 1) % 10
    return model.float(), images.float(), labels


def evaluated(name, after=None, *, order=None, labels=None, **settings):
    """The evaluation of the network with its logits changed, on the images in this order."""
    model, images, own = task()
    order = torch.arange(COUNT) if order is None else order
    ids = [f"image {row}" for row in order.tolist()]
    data = from_arrays(images[order], (own if labels is None else labels)[order], ids=ids, classes=10)
    given = {
        "threat": "L2:0.2" if name in L2 else "Linf:0.03",
        "attacks": SHORT.get(name, name),
        "checks": "none",
        **settings,
    }
    return gauntlet.evaluate(Wrapped(model, after=after), data, **given)


@cache
def plain(name):
    """Which samples stand when nothing is changed."""
    found = evaluated(name)
    assert not found.robust[-1]
    assert 0 < found.robust.sum() < COUNT - 1, "the comparison would say nothing"
    return found


@cache
def changed(name, text):
    """The evaluation under a change of the logits."""
    return evaluated(name, CHANGES[text])


def clear(name, after):
    """Samples whose verdict the change may not touch: the margin of their example is beyond the rounding of changed logits."""
    model, _, labels = task()
    with torch.no_grad():
        logits = model(plain(name).adversarials)
        changed = after(logits)
    own = labels[:, None]
    gap = logits.gather(1, own).squeeze(1) - logits.scatter(1, own, -torch.inf).amax(1)
    scale = (changed.amax(1) - changed.topk(2).values[:, 1]) / (logits.amax(1) - logits.topk(2).values[:, 1])
    ulp = torch.finfo(torch.float32).eps * changed.amax(1).abs() / scale.clamp_min(1e-12)
    return plain(name).robust | (gap.abs() > 4 * ulp) | (gap > 0)


@pytest.mark.parametrize("changes", [slow_unless(False, MILDER), ("+1e5", "-1e9", "-inf")])
@pytest.mark.parametrize("name", [slow_unless(name in FAMILIES, name) for name in SINGLE])
def test_a_constant_and_absent_classes_change_no_verdict_of_an_attack(name, changes):
    for text in changes:
        found = evaluated(name, CHANGES[text])
        differ = (found.robust != plain(name).robust) & clear(name, CHANGES[text])
        assert not differ.any(), (text, differ.nonzero().flatten().tolist())


@pytest.mark.parametrize("name", [slow_unless(name in FAMILIES, name) for name in SINGLE])
def test_a_factor_changes_no_verdict_of_an_attack_unless_a_flag_says_why(name):
    for text, after in FACTORS.items():
        found = evaluated(name, after, checks="default")
        said = {flag.name for flag in found.flags} & {"zero-gradient", "flat-logits"}
        assert torch.equal(found.robust, plain(name).robust) or said, (text, found.flags)


@pytest.mark.parametrize(
    ("name", "text"),
    [slow_unless(text in QUICK.get(name, ()), name, text) for name in CASCADES for text in CHANGES],
)
def test_no_change_of_the_logits_changes_a_verdict_of_a_cascade(name, text):
    found = changed(name, text)
    differ = (found.robust != plain(name).robust) & clear(name, CHANGES[text])
    assert not differ.any(), differ.nonzero().flatten().tolist()


@pytest.mark.parametrize("name", [slow_unless(name in SINGLE or name in QUICK, name) for name in ATTACKS])
def test_the_order_of_samples_changes_no_verdict_and_no_count(name):
    found, before = evaluated(name, order=SHUFFLED), plain(name)
    assert torch.equal(found.robust, before.robust[SHUFFLED])
    passes = ["forwards_per_sample", "backwards_per_sample"]
    assert found.per_attack[passes].to_numpy() == pytest.approx(before.per_attack[passes].to_numpy())


@pytest.mark.parametrize("name", [slow_unless(name in SINGLE or name in QUICK, name) for name in ATTACKS])
def test_the_order_of_classes_changes_at_most_one_verdict(name):
    # Sums over classes round otherwise, and ties go to the first class.
    found = evaluated(name, lambda z: z[:, CLASSES], labels=CLASSES.argsort()[task()[2]])
    assert (found.robust != plain(name).robust).sum() <= 1


@pytest.mark.parametrize("text", [slow_unless(text not in MILDER, text) for text in CHANGES])
def test_the_faster_form_of_a_changed_network_gives_the_same_verdicts(text):
    found = evaluated("gauntlet:fast", CHANGES[text], precision="float32")
    assert torch.equal(found.robust, changed("gauntlet:fast", text).robust)


# --- the verifier -----------------------------------------------------------------------------------------------------


def rejecting(logits):
    """With a rejection as the last output, which wins on part of the points."""
    return torch.cat([logits, logits.logsumexp(1, keepdim=True) - 0.7], 1)


@pytest.mark.parametrize("text", CHANGES)
@pytest.mark.parametrize("rejects", [False, True])
@pytest.mark.parametrize("target", ["", ":target=3"])
def test_the_verifier_judges_the_points_of_any_attack_as_before(text, rejects, target):
    model, images, labels = task()
    rows = torch.arange(COUNT).repeat(20)
    noise = 2 * torch.rand(images[rows].shape, generator=torch.Generator().manual_seed(0)) - 1
    points = (images[rows] + 0.3 * noise).clamp(0, 1)

    def after(logits, change):
        if not rejects:
            return change(logits)
        outputs = rejecting(logits)
        # Absent classes come before the rejection.
        changed = change(outputs)
        order = [*range(10), *range(11, changed.shape[1]), 10]
        return changed[:, order]

    def judged(change):
        module = Wrapped(model, after=lambda z: after(z, change))
        threat, ids = ThreatModel.parse(f"Linf:0.3{target}"), [str(row) for row in range(COUNT)]
        verify = Verifier(module, images, labels, ids, threat, seed=0, rejects=rejects)
        return verify(points, rows, rows).success, verify.measure(points, rows).prediction

    before, now = judged(lambda z: z), judged(CHANGES[text])
    assert 0 < before[0].sum() < len(rows)
    assert bool((before[1] == -1).any()) == rejects
    assert torch.equal(now[0], before[0])
    assert torch.equal(now[1], before[1])


# --- what compares logits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", CHANGES)
def test_a_form_that_answers_otherwise_is_refused_and_one_that_does_not_is_taken(text, monkeypatch):
    model, images, _ = task()
    convolution = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), model).requires_grad_(False).eval()
    convolution[0].weight.fill_(1.0)
    convolution[0].bias.zero_()
    network = Wrapped(convolution, after=CHANGES[text])
    assert choose_form(network, images, layout=True).form == "channels_last"

    class Wrong(fast_model.ChannelsLast):
        def forward(self, x):
            return super().forward((x + 0.05).clamp(0, 1))

    monkeypatch.setattr(fast_model, "ChannelsLast", Wrong)
    assert not choose_form(network, images, layout=True).form


@pytest.mark.parametrize("text", ["+0", *CHANGES])
def test_hidden_randomness_is_measured_behind_any_change(text):
    model, images, labels = task()
    change = CHANGES.get(text, lambda z: z)
    # Beside a constant of 1e5 the smallest differences round away.
    noisy = Wrapped(model, after=lambda z: change(z + 0.2 * torch.randn_like(z)))
    assert pipeline_profile(defended(noisy), images, labels).randomised
    assert not pipeline_profile(defended(Wrapped(model, after=change)), images, labels).randomised


def defended(module):
    return DefendedModel(module, differentiable=True, randomised=False).eval()


def test_a_difference_is_a_share_of_what_decides():
    logits = torch.tensor([[3.0, 1.0, -7.0], [0.0, 1.0, -9.0]])
    # The largest lead is 2: a class at the top may move by that, one that lies 10 lower by 12.
    assert difference(logits + torch.tensor([1.0, 0, 0]), logits) == pytest.approx(0.5, abs=1e-5)
    assert difference(logits + torch.tensor([0, 0, 6.0]), logits) == pytest.approx(0.5, abs=1e-5)
    assert difference(logits * (1 + 2**-23), logits) == 0
    gone = torch.cat([logits, torch.full((2, 1), -torch.inf)], 1)
    assert difference(gone, gone) == 0
    assert difference(torch.cat([logits, torch.full((2, 1), -1e9)], 1), gone) == torch.inf
    assert not difference(logits * torch.nan, logits) <= 1


CHANGED = """
from pathlib import Path

import torch
from unchanged import build as unchanged
from torch import nn

# A computed name, which no key sees.
BONUS = float(Path(".".join(["bonus", "txt"])).read_text())


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = unchanged()

    def forward(self, x):
        z = self.net(x)
        z = z + BONUS * nn.functional.one_hot(torch.zeros(len(z), dtype=torch.int64), 10)
        return {}


def build():
    return Net().eval()
"""


@pytest.mark.parametrize(
    "returned",
    [
        "z + 1e5",
        "z * 1e-3",
        "nn.functional.pad(z, (0, 20), value=-1e9)",
        "nn.functional.pad(z, (0, 20), value=-torch.inf)",
    ],
)
def test_a_model_that_changed_is_caught_by_the_store_and_by_verify(project, call, imports_are_undone, returned):
    (project / "model.py").rename(project / "unchanged.py")
    (project / "model.py").write_text(CHANGED.format(returned))
    (project / "bonus.txt").write_text("0.0")
    run = ("run", "--model=model.py:build", "--data=data.npz", "--threat=Linf:0.1", "--attacks=fgsm")
    assert call(*run).returncode == 0
    assert call("verify", "gauntlet-results", "--trust").returncode == 0
    (project / "bonus.txt").write_text("3.0")
    forget("model", "unchanged")
    assert "does not reproduce its stored clean logits" in (failed := call(*run)).stdout + failed.stderr
    forget("model", "unchanged")
    assert call("verify", "gauntlet-results", "--trust").returncode == 1


def forget(*modules):
    """Another process would import them afresh."""
    for name in modules:
        sys.modules.pop(name, None)
