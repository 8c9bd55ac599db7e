"""Auto-PGD on linear models, whose smallest perturbations are known exactly, on few classes, and at its edges."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gauntlet
from gauntlet.attacks.apgd import APGD, ENTRY, ENTRY_TARGETED, random_surface_point
from gauntlet.attacks.ops.dlr import TARGETED, UNTARGETED
from gauntlet.attacks.ops.norms import distance
from gauntlet.attacks.ops.random import Draws, active_draws, sample_keys
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.solver import Task, Verification, solve
from gauntlet.bench.verify.verifier import Verifier

LINF, L2 = ThreatModel("Linf", 0.12), ThreatModel("L2", 0.7)
LOSSES = [*UNTARGETED, *TARGETED]


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
    return Verification(*[torch.zeros(len(points), dtype=torch.bool)] * 3)


def outcomes(rule, model, images, labels, threat, seed=0, batch_size=256):
    """Verified outcomes in the order of the samples."""
    ids = [f"sample {i}" for i in range(len(labels))]
    verify = Verifier(model, images, labels, ids, threat, seed=seed)
    found = solve(rule, model, Task(images, labels, ids, threat, seed, "test"), verify, batch_size=batch_size)
    return sorted(found, key=lambda outcome: outcome.sample)


def broken(rule, model, images, labels, threat, seed=0):
    """bool (N,), which samples the attack breaks."""
    return torch.tensor([one.adversarial is not None for one in outcomes(rule, model, images, labels, threat, seed)])


def native_path(rule, model, image, label, threat):
    """Every point that the rule evaluates for one sample, (points, C, H, W), in order."""
    recorder = Recorder(model)
    list(solve(rule, recorder, Task(image, label, ["a"], threat, 0, "path"), never))
    return torch.cat(recorder.seen)


def linear(weight, bias):
    model = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], weight.shape[0]).double())
    model[1].weight.data, model[1].bias.data = weight.double(), bias.double()
    return model.requires_grad_(False).eval()


def exact_distance(model, images, labels, norm):
    """Distance of each sample, box included, to the nearest point that another class of a linear model wins."""
    weight, x = model[1].weight, images.flatten(1)[:, None]
    logits = model(images)
    direction = weight[None] - weight[labels][:, None]
    needed = logits.gather(1, labels[:, None]) - logits
    low, high = torch.zeros_like(needed), torch.full_like(needed, 1e6)
    for _ in range(90):
        middle = (low + high) / 2
        delta = (x + middle[..., None] * (direction.sign() if norm == "Linf" else direction)).clamp(0, 1) - x
        enough = (delta * direction).sum(2) >= needed
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    size = delta.abs().amax(2) if norm == "Linf" else delta.square().sum(2).sqrt()
    return size.masked_fill(high > 1e5, torch.inf).scatter(1, labels[:, None], torch.inf).amin(1)


@pytest.fixture(scope="module")
def digits():
    """A linear model fitted to digits, and 150 images, half of whose pixels are 0 or 1, that it classifies correctly."""
    train, test = gauntlet.load_data("digits-train"), gauntlet.load_data("digits")
    x = nn.functional.pad(train.images.double().flatten(1), (0, 1), value=1.0)
    solution = torch.linalg.lstsq(x.T @ x + 10 * torch.eye(65), x.T @ nn.functional.one_hot(train.labels, 10).double())
    model = linear(10 * solution.solution[:64].T, 10 * solution.solution[64])
    images, labels = test.images.double(), test.labels
    right = (model(images).argmax(1) == labels).nonzero().squeeze(1)[:150]
    return model, images[right], labels[right]


@pytest.mark.parametrize("threat", [ThreatModel("Linf", 0.07), ThreatModel("L2", 0.4)], ids=str)
def test_on_a_linear_model_it_breaks_what_can_be_broken_and_nothing_else(digits, threat):
    exact = exact_distance(*digits, threat.norm)
    reachable = exact <= threat.eps
    assert 0.2 < reachable.double().mean() < 0.8
    found = {loss: broken(APGD(steps=25, loss=loss), *digits, threat) for loss in LOSSES}
    for loss, hit in found.items():
        assert (exact[hit] <= threat.eps * (1 + 2e-6)).all(), loss
        assert hit.sum() >= (0.97 if loss in TARGETED else 0.8) * reachable.sum(), loss
    clear = (exact / threat.eps - 1).abs() > 0.01
    assert torch.equal(found["dlr_targeted"][clear], reachable[clear])


@pytest.mark.parametrize("loss", ["ce", "dlr_targeted"])
@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
def test_the_result_does_not_hang_on_the_batch_size(digits, threat, loss):
    model, images, labels = digits
    rule = APGD(steps=7, restarts=2, targets=3, loss=loss)
    small = ThreatModel(threat.norm, threat.eps / 2.4)
    runs = [outcomes(rule, model, images[:12], labels[:12], small, batch_size=size) for size in (1, 3, 12)]
    verdicts = [one.adversarial is not None for one in runs[0]]
    assert 0 < sum(verdicts) < 12
    for run in runs[1:]:
        for a, b in zip(runs[0], run, strict=True):
            assert (a.steps, a.forwards, a.backwards) == (b.steps, b.forwards, b.backwards)
            if a.adversarial is not None:
                torch.testing.assert_close(a.adversarial, b.adversarial, rtol=0, atol=1e-9)


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("loss", LOSSES)
def test_few_classes_are_attacked_with_every_loss(loss, classes):
    model, images = network(classes), pictures(40)
    labels = model(images).argmax(1)
    reference = broken(APGD(steps=20, loss="cw"), model, images, labels, ThreatModel("Linf", 0.05))
    hit = broken(APGD(steps=20, loss=loss).for_classes(classes), model, images, labels, ThreatModel("Linf", 0.05))
    assert 5 < reference.sum() < 35
    assert hit.sum() >= reference.sum() - 2


@pytest.mark.parametrize("threat", [ThreatModel("Linf", 0.02), ThreatModel("L2", 0.1)], ids=str)
def test_log_odds_makes_the_steps_of_cross_entropy(threat):
    model, images = network(), pictures(20)
    image = images[model(images).softmax(1).amax(1).argmax()][None]  # so sure that its log odds stay below 0
    label = model(image).argmax(1)
    paths = [native_path(APGD(steps=9, loss=loss), model, image, label, threat) for loss in ("ce", "log_odds")]
    torch.testing.assert_close(*paths, rtol=0, atol=1e-9)


def test_scaled_logits_blind_cross_entropy_in_float32_but_no_other_loss(digits):
    model, images, labels = digits
    threat = ThreatModel("Linf", 0.05)
    plain = broken(APGD(steps=20), model, images, labels, threat).sum()
    scaled = linear(1e4 * model[1].weight, 1e4 * model[1].bias).float()
    hits = {loss: broken(APGD(steps=20, loss=loss), scaled, images.float(), labels, threat).sum() for loss in LOSSES}
    assert hits.pop("ce") < 0.7 * plain
    assert min(hits.values()) >= 0.9 * plain, hits


def test_each_try_takes_the_next_likely_class_as_its_target():
    # Only the fourth class can be reached, through the lower pixels; the targeted ratio towards others lowers it.
    halves = torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.4, 0.0], [0.0, 41.0], [0.3, -5.0]])
    model = linear(halves.repeat_interleave(20, 1) / 20, torch.tensor([6.0, 4.0, 3.0, -18.5, 3.0]))
    images, labels = torch.full((6, 1, 4, 10), 0.5, dtype=torch.float64), torch.zeros(6, dtype=torch.int64)
    threat = ThreatModel("Linf", 0.0999)
    assert model(images).argsort(1, descending=True)[0].tolist() == [0, 1, 2, 3, 4]
    few, enough = (
        outcomes(APGD(steps=9, loss="dlr_targeted", targets=n), model, images, labels, threat) for n in (2, 4)
    )
    assert [one.steps for one in few] == [-1] * 6
    assert all(2 * 9 < one.steps <= 3 * 9 for one in enough)


@pytest.mark.parametrize(
    ("settings", "forwards", "backwards"),
    [
        ({"steps": 10}, 11, 10),
        ({"steps": 10, "restarts": 3}, 33, 30),
        ({"steps": 10, "eot": 4}, 41, 40),
        ({"steps": 10, "loss": "dlr_targeted", "targets": 2, "restarts": 2}, 4 * 12, 4 * 10),
    ],
)
def test_a_sample_that_withstands_costs_these_passes(settings, forwards, backwards):
    model, images = network(), pictures(5)
    threat = ThreatModel("Linf", 1e-4)
    for one in outcomes(APGD(**settings), model, images, model(images).argmax(1), threat):
        assert (one.forwards, one.backwards, one.steps, one.rejected) == (forwards, backwards, -1, 0)


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
def test_the_start_lies_on_the_surface_of_the_ball(threat):
    clean = torch.full((50, 1, 8, 8), 0.5, dtype=torch.float64)
    points = random_surface_point(clean, threat, Draws.start(sample_keys(0, "start", [str(i) for i in range(50)])))
    torch.testing.assert_close(distance(points, clean, threat.norm), torch.full((50,), threat.eps).double())


def test_the_average_over_passes_finds_the_direction_that_one_noisy_pass_hides():
    class Noisy(nn.Module):
        def forward(self, x):
            draws = active_draws()
            noise = 8 * draws.normal(x.shape[1:], dtype=x.dtype)
            rise = ((1 + noise) * x).flatten(1).sum(1)
            return torch.stack([torch.zeros_like(rise), rise], 1)

    clean, label = torch.full((1, 1, 16, 16), 0.5, dtype=torch.float64), torch.tensor([0])
    share = {}
    for eot in (1, 400):
        path = native_path(APGD(steps=1, eot=eot, loss="cw"), Noisy(), clean, label, ThreatModel("Linf", 0.1))
        share[eot] = (path[-1] > clean[0]).double().mean()
    assert share[1] < 0.7
    assert share[400] > 0.95


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"steps": 0}, "steps=0"),
        ({"restarts": 1.5}, "restarts=1.5"),
        ({"eot": True}, "eot=True"),
        ({"rho": 1.5}, "rho=1.5"),
        ({"loss": "dlr-target"}, "dlr_targeted"),
        ({"loss": 3}, "dlr_targeted"),
        ({"step_size": 0.1}, "step_size"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(settings, named):
    for entry in (ENTRY, ENTRY_TARGETED):
        with pytest.raises(ValueError, match=named):
            entry.make(LINF, **settings)


def test_the_targeted_entry_tries_nine_targets_and_no_more_than_there_are_wrong_classes():
    rule = ENTRY_TARGETED.make(LINF, restarts=2)
    assert (
        rule.total_restarts,
        rule.for_classes(10).total_restarts,
        rule.for_classes(4).total_restarts,
        rule.for_classes(2).total_restarts,
    ) == (
        18,
        18,
        6,
        2,
    )
    assert ENTRY_TARGETED.make(LINF, loss="dlr-targeted") == ENTRY_TARGETED.make(LINF) == APGD(loss="dlr_targeted")
    assert ENTRY.make(LINF).for_classes(2) == APGD()
