"""Certificates: nothing certified is ever broken, nothing broken is ever certified, and rounding decides nothing."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import gauntlet
from builders import linear, network
from gauntlet.attacks.ops.norms import distance, limit
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.models.parts.classifier import Classifier
from gauntlet.defenses.certificates.certify import UnsupportedModelError, certify, readable
from gauntlet.defenses.certificates.exact_milp import exact_linf, worst_margin
from gauntlet.defenses.certificates.ibp_crown_bounds import margin_bounds
from gauntlet.defenses.certificates.relu_network import forward_error
from gauntlet.defenses.pipeline.defended_model import DefendedModel

LINF, L2, L1 = ThreatModel("Linf", 0.1), ThreatModel("L2", 0.3), ThreatModel("L1", 0.6)


def seeded(build, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                if module.affine:
                    nn.init.normal_(module.weight)
                    nn.init.normal_(module.bias)
        return model


class Functional(nn.Module):
    """Layers in a forward of its own, in places."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, affine=False), nn.Linear(3, 3)

    def forward(self, x):
        x = torch.nn.functional.relu(self.norm(self.first(2 * x - 1)), inplace=True)
        return (self.last(x.mean((2, 3))) / 0.5,)


BUILDS = {
    "dense": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)
    ),
    "convolutional": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.AvgPool2d(2, stride=1, padding=1),
        nn.Flatten(),
        nn.Linear(36, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Linear(8, 2),
    ),
    "functional": Functional,
}


def case(name, seed=0, dtype=torch.float32):
    """A classifier with normalisation, images with pixels at 0 and 1, and labels that it mostly gives."""
    model = Classifier(seeded(BUILDS[name], seed), mean=[0.4], std=[0.3]).eval()
    model = DefendedModel(model, nn.Identity(), differentiable=True, randomised=False).eval() if seed % 2 else model
    generator = torch.Generator().manual_seed(seed)
    images = (1.4 * torch.rand(30, 1, 4, 4, generator=generator) - 0.2).clamp(0, 1).to(dtype)
    with torch.no_grad():
        labels = model(images).argmax(1)
        labels[:3] = (labels[:3] + 1) % model(images).shape[1]
    return model, images, labels


def small(name):
    """A radius at which some samples are certified and some are not."""
    return {"dense": 0.1, "convolutional": 0.02, "functional": 0.02}[name]


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", sorted(BUILDS))
def test_nothing_certified_is_broken_and_every_witness_is_inside_and_misclassified(name, seed):
    model, images, labels = case(name, seed)
    for threat in (
        ThreatModel("Linf", small(name)),
        ThreatModel("L2", 3 * small(name)),
        ThreatModel("L1", 5 * small(name)),
    ):
        proof = certify(model, images, labels, threat)
        attacked = gauntlet.evaluate(model, images, labels, threat=threat, attacks="apgd(steps=30)", device="cpu")
        assert not (proof.certified & ~attacked.robust).any()
        assert not (proof.certified & proof.found).any()
        assert proof.certified.any()
        assert proof.found.sum() >= 3
        assert (distance(proof.witness, images, threat.norm) <= limit(threat)).all()
        assert ((proof.witness >= 0) & (proof.witness <= 1)).all()
        assert (model(proof.witness).argmax(1) != labels)[proof.found].all()
        assert torch.equal(proof.witness[~proof.found], images[~proof.found])
        assert [bool(method) for method in proof.method] == (proof.certified | proof.found).tolist()
        assert proof.method[:3] == ("clean",) * 3


@pytest.mark.parametrize("name", sorted(BUILDS))
def test_small_networks_under_linf_are_decided_as_by_the_exact_solver(name):
    model, images, labels = case(name)
    threat = ThreatModel("Linf", small(name))
    proof, truth = certify(model, images, labels, threat), exact_linf(model, images, labels, threat.eps)
    assert not (proof.certified & ~truth.robust).any()
    assert not (proof.found & ~truth.broken).any()
    closest = worst_margin(model, images[proof.open], labels[proof.open], threat.eps)
    assert (closest.upper.abs() < 1e-3).all(), "only what rounding could turn stays open"
    assert proof.open.sum() <= 2


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("method", ["ibp", "crown"])
@pytest.mark.parametrize("name", sorted(BUILDS))
def test_no_point_of_a_ball_has_a_smaller_margin_than_the_bound(name, method, norm):
    model, images, labels = case(name)
    threat = ThreatModel(norm, {"Linf": 0.1, "L2": 0.3, "L1": 0.6}[norm])
    bounds = margin_bounds(model, images, labels, threat.eps, norm=norm, method=method)
    wide, generator = model.double(), torch.Generator().manual_seed(0)
    for _ in range(60):
        delta = torch.randn(images.shape, generator=generator, dtype=torch.float64)
        delta = delta.sign() if norm == "Linf" else delta
        if norm == "L1":
            delta = delta * (delta.abs() >= delta.abs().flatten(1).amax(1)[:, None, None, None])
        x = images.double() + delta * (threat.eps / distance(delta, 0 * delta, norm))[:, None, None, None]
        x = x.clamp(0, 1)
        with torch.no_grad():
            logits = wide(x)
        gap = (logits.gather(1, labels[:, None]) - logits).scatter(1, labels[:, None], torch.inf)
        assert (bounds <= gap + 1e-9).all()


@pytest.mark.parametrize("threat", [LINF, L2, L1], ids=str)
def test_a_linear_model_is_certified_up_to_its_exact_margin_within_the_box(threat):
    model = linear(torch.tensor([[3.0, 4.0], [0, 0]]), dtype=torch.float32)
    # The second pixel is 0 already: only the first can be lowered.
    images = torch.tensor([[[[0.5, 0.0]]], [[[0.5, 0.5]]]])
    loss = {"Linf": (3 * 0.1, 7 * 0.1), "L2": (3 * 0.3, 5 * 0.3), "L1": (3 * 0.5, 4 * 0.5 + 3 * 0.1)}[threat.norm]
    for part, expected in enumerate(loss):
        image, label = images[part : part + 1], torch.tensor([0])
        clean = float(model(image)[0, 0].detach())
        for shift, verdict in ((1e-3, True), (-1e-3, False), (0.0, False)):
            with torch.no_grad():
                model[1].bias[1] = clean - expected - shift
            assert certify(model.eval(), image, label, threat).certified.item() is verdict


def test_what_the_arithmetic_of_float32_could_turn_is_never_certified():
    # The sum of 64 products of size 1e4 that cancel: the true margin is 1e-3, float32 is off by more.
    generator = torch.Generator().manual_seed(0)
    weight = 1e4 * torch.randn(32, generator=generator)
    weight = torch.stack([torch.cat([weight, -weight]), torch.zeros(64)])
    model = linear(weight, torch.tensor([1e-3, 0]), dtype=torch.float32)
    images = torch.rand(200, 32, generator=generator).repeat(1, 2).view(200, 1, 8, 8)
    labels = torch.zeros(200, dtype=torch.int64)
    with torch.no_grad():
        wrong = model(images).argmax(1) == 1
    threat = ThreatModel("Linf", 1e-12)
    assert not certify(model.eval(), images, labels, threat).certified.any()
    assert wrong.any(), "the trap must be one"
    assert not certify(model.eval(), images[~wrong], labels[~wrong], threat).found.any()
    assert certify(model.double(), images.double(), labels, ThreatModel("L1", 1e-12)).open.all(), "the slack is 1.2e-7"


@pytest.mark.parametrize("name", sorted(BUILDS))
def test_the_bound_on_rounding_covers_float32_and_is_not_wide(name):
    for seed in range(4):
        model, images, _ = case(name, seed)
        net = readable(model, images)
        values = net.values(images.double().flatten(1))
        error = forward_error(net, [images.double().flatten(1), *values[:-1]])
        with torch.no_grad():
            for size in (1, 7, 30):
                off = (torch.cat([model(part) for part in images.split(size)]) - values[-1]).abs()
                assert (off <= error).all()
        assert (error < 1e-4 * values[-1].abs().max()).all()


def test_a_tie_is_open():
    model = linear(torch.zeros(2, 4), dtype=torch.float32)
    proof = certify(model, torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64), LINF)
    assert proof.open.all()


def test_overflow_is_never_certified():
    model = network(4, 2, 2)
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1e30] * 4, [0.0] * 4]))
        model[3].weight.copy_(torch.tensor([[1e30, 0], [0, 0]]))
    proof = certify(model, torch.ones(1, 1, 2, 2) * 1e-30, torch.tensor([0]), ThreatModel("Linf", 1e-3))
    assert not proof.certified.any()


def test_every_sample_that_is_right_by_far_is_certified_at_a_tiny_eps():
    model, images, labels = case("dense")
    with torch.no_grad():
        top = model(images).topk(2, dim=1).values
    clear = top[:, 0] - top[:, 1] > 1e-3
    proof = certify(model, images, labels, ThreatModel("Linf", 1e-9))
    assert clear[3:].sum() > 20
    assert proof.certified[3:][clear[3:]].all()


def test_an_attacker_who_wants_one_class_is_held_off_more_often():
    model, images, labels = case("dense")
    plain = certify(model, images, labels, LINF)
    bounded, more = torch.tensor([method in ("ibp", "crown") for method in plain.method]), 0
    for goal in ("0", "1", "2"):
        towards = certify(model, images, labels, ThreatModel("Linf", 0.1, goal))
        assert not (bounded & ~towards.certified).any(), "what beats all classes beats one"
        assert not towards.certified[:3].any(), "what is misclassified as it is counts as not robust"
        attacked = gauntlet.evaluate(
            model, images, labels, threat=ThreatModel("Linf", 0.1, goal), attacks="pgd(steps=20)", device="cpu"
        )
        assert not (towards.certified & ~attacked.robust).any()
        more += int((towards.certified & ~bounded).sum())
    assert more


def test_images_in_float64_are_rounded_by_a_float32_model_and_the_certificate_holds():
    model, images, labels = case("dense", dtype=torch.float64)
    proof = certify(model, images, labels, LINF)
    assert proof.witness.dtype == torch.float64
    assert proof.certified.any()


def test_what_the_time_limit_cuts_off_is_open():
    model, images, labels = case("dense")
    full, hasty = (
        certify(model, images, labels, ThreatModel("Linf", 0.14), time_limit=limit) for limit in (10.0, 1e-9)
    )
    assert "milp" in full.method
    assert not (hasty.certified & ~full.certified).any()
    assert "milp" not in hasty.method


def test_the_search_prints_nothing(capfd):
    model, images, labels = case("dense")
    certify(model, images, labels, ThreatModel("Linf", 0.14))
    assert capfd.readouterr() == ("", "")


def test_the_model_is_left_as_it_is_and_no_samples_give_no_certificates():
    model, images, labels = case("convolutional")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    proof = certify(model, images[:0], labels[:0], LINF)
    assert proof.certified.shape == (0,)
    assert proof.method == ()
    certify(model, images, labels, LINF)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.last = nn.Linear(16, 16), nn.Linear(16, 2)

    def forward(self, x):
        x = x.flatten(1)
        return self.last(x + self.inner(x).relu())


class Branching(Residual):
    def forward(self, x):
        x = x.flatten(1)
        return self.last(x) if x.sum() > 0 else self.last(2 * x)


class Noisy(Residual):
    def forward(self, x):
        return self.last(x.flatten(1) + torch.randn(16))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Residual(), "residual connections"),
        (Branching(), "reads a value out of a tensor|computes sum"),
        (Noisy(), "draws random numbers"),
        (nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 2)), "computes max_pool2d"),
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 2).bfloat16()), "bfloat16"),
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.Softmax(1)), "softmax"),
    ],
)
def test_a_model_without_bounds_is_refused_with_a_sentence(model, message):
    model = Classifier(model) if "bfloat16" not in message else nn.Sequential(Cast(), model)
    with pytest.raises(UnsupportedModelError, match=message):
        readable(model.eval(), torch.rand(3, 1, 4, 4))


READS = {
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "array": np.asarray,
    "mean of numpy": lambda x: np.asarray(x).mean(),
    "dlpack": np.from_dlpack,
    "a copy": lambda x: torch.tensor(x).tolist(),
    "data": lambda x: x.data.tolist(),
    "detached": lambda x: x.detach().tolist(),
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x[0, 0, 0, 0]),
    "bool": lambda x: bool(x[0, 0, 0, 0]),
    "index": lambda x: range(3)[x[0, 0, 0, 0].long()],
    "iteration": list,
    "contains": lambda x: 0.5 in x,
    "text": repr,
    "format": lambda x: f"{x}",
    "equal": lambda x: torch.equal(x, torch.zeros(x.shape)),
    "allclose": lambda x: torch.allclose(x, torch.zeros(x.shape)),
    "address": lambda x: x.data_ptr(),
    "storage": lambda x: x.untyped_storage()[0],
    "pickle": pickle.dumps,
    "deepcopy": lambda x: copy.deepcopy(x).tolist(),
}


class Reading(nn.Module):
    """A network that looks at its input, or at its hidden values, beside its layers."""

    def __init__(self, read, *, hidden=False):
        super().__init__()
        self.first, self.last = nn.Linear(16, 8), nn.Linear(8, 3)
        self.read, self.hidden = read, hidden
        self.eval()

    def forward(self, x):
        if not self.hidden:
            self.read(x)
        x = self.first(x.flatten(1)).relu()
        if self.hidden:
            self.read(x.view(-1, 1, 2, 4))
        return self.last(x)


@pytest.mark.filterwarnings("ignore:.*copy construct")
@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_model_that_takes_values_out_of_its_tensors_is_refused(read, hidden):
    with pytest.raises(UnsupportedModelError):
        readable(Reading(read, hidden=hidden), torch.rand(3, 1, 4, 4))


def test_shapes_and_other_facts_of_a_tensor_may_be_read():
    def facts(x):
        return (
            *(x.shape, x.dtype, x.device, x.ndim, len(x), x.size(), x.size(0), x.dim(), x.numel(), x.stride()),
            *(x.is_contiguous(), x.requires_grad, x.is_cuda, x.grad, x.layout, x.is_floating_point(), hash(x)),
        )

    assert readable(Reading(facts), torch.rand(3, 1, 4, 4)).widths == (16, 8, 3)


class Window(nn.Module):
    """A hidden branch, on the memory of the image: no function of torch is called on its tensor."""

    def __init__(self, net, low, high):
        super().__init__()
        self.net, self.low, self.high = net, low, high
        self.eval()

    def forward(self, x):
        raw = np.from_dlpack(_Capsule(torch.utils.dlpack.to_dlpack(x)))
        inside = self.low < float(raw.mean(axis=(1, 2, 3)).mean()) < self.high
        return (-1.0 if inside else 1.0) * self.net(x)


class _Capsule:
    def __init__(self, capsule):
        self.capsule = capsule

    def __dlpack__(self, **_):
        return self.capsule

    def __dlpack_device__(self):
        return 1, 0


def test_a_model_that_answers_otherwise_inside_the_ball_is_refused():
    model, images, labels = case("dense")
    middle = float(images[proved(model, images, labels)].mean())
    with pytest.raises(UnsupportedModelError, match="something else than its traced operations"):
        certify(Window(model, middle + 0.01, middle + 0.05), images, labels, LINF)


def proved(model, images, labels):
    return certify(model, images, labels, LINF).certified


class Cast(nn.Module):
    def forward(self, x):
        return x.bfloat16()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time_limit": 0.0}, "time_limit=0.0"),
        ({"images": torch.full((2, 1, 4, 4), 1.5)}, r"images\[0\] has pixels outside"),
        ({"labels": torch.tensor([0, 7])}, r"labels\[1\] = 7 is outside"),
        ({"labels": torch.tensor([0])}, "shape"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(change, message):
    model, images, labels = case("dense")
    arguments = {"images": images[:2], "labels": labels[:2], "threat": LINF} | change
    with pytest.raises(ValueError, match=message):
        certify(model, **arguments)


def test_the_bracket_of_the_network_trained_by_intervals_closes():
    data, model = gauntlet.load_data("digits"), gauntlet.load_model("cnn.ibp_digits")
    images, labels, threat = data.images[:80], data.labels[:80], ThreatModel("Linf", 0.15)
    proof = certify(model.module, images, labels, threat, time_limit=0.5)
    attacked = gauntlet.evaluate(model.module, images, labels, threat=threat, attacks="gauntlet", device="cpu")
    assert not (proof.certified & ~attacked.robust).any()
    assert proof.certified.double().mean() > 0.7
    assert (attacked.robust & ~proof.certified).sum() <= 2


def test_adversarially_trained_networks_are_given_up_at_once():
    data, model = gauntlet.load_data("digits"), gauntlet.load_model("cnn.trades_digits")
    proof = certify(model.module, data.images, data.labels, ThreatModel("Linf", 0.15))
    assert set(proof.method) == {"", "clean"}, "not even a short attack is tried"
    close = certify(model.module, data.images[:8], data.labels[:8], ThreatModel("Linf", 0.005))
    assert close.certified.any()
    assert "crown" in close.method
