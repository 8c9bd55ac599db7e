"""A training's course: held-out samples, the safeguard, checkpoints, low precision."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from builders import linear, seeded
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.models.cnn import cnn
from gauntlet.bench.models.load_model import load_model
from gauntlet.defenses.training import awp, fast, loop, trades
from gauntlet.defenses.training.catalog import RECIPES
from gauntlet.defenses.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from gauntlet.defenses.training.holdout import Accuracy, hold_out, measure
from gauntlet.defenses.training.loop import fit
from gauntlet.leaderboard.results.atomic_files import replace_file
from gauntlet.leaderboard.results.errors import WriteError

THREAT = ThreatModel("Linf", 0.15)


@pytest.fixture
def data():
    found = load_data("digits-train")
    return found.images[:100], found.labels[:100]


def fresh():
    return seeded(cnn).train()


def stochastic():
    """A network with what a checkpoint easily forgets: running statistics, and dropout from the global generator."""

    def build():
        layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(144, 10))
        return nn.Sequential(*layers)

    return seeded(build).train()


def kept(path):
    return Checkpoint(path, replace_file)


def same(one, other):
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


# --- holding out ---


def test_a_share_of_every_class_is_held_out_and_the_rest_is_trained_on():
    labels = torch.tensor([0] * 30 + [1] * 10 + [2] * 20)
    kept, out = hold_out(labels, 0.1, seed=3)
    assert labels[out].bincount().tolist() == [3, 1, 2]
    assert sorted([*kept.tolist(), *out.tolist()]) == list(range(60))
    assert torch.equal(hold_out(labels, 0.1, seed=3)[1], out)
    assert not torch.equal(hold_out(labels, 0.1, seed=4)[1], out)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 0.01, 0.99])
def test_a_share_that_leaves_nothing_on_one_side_is_refused(share):
    with pytest.raises(ValueError, match=f"hold-out {share}"):
        hold_out(torch.zeros(10, dtype=torch.int64), share, seed=0)


def test_accuracies_on_a_linear_model_are_those_at_the_worst_corner():
    model = linear(torch.eye(2), dtype=torch.float32)
    # Margins 0.4, 0.2, -0.2: a pixel each may change by 0.15, which moves the margin by 0.3.
    images = torch.tensor([[0.7, 0.3], [0.6, 0.4], [0.4, 0.6]]).view(3, 1, 1, 2)
    labels = torch.tensor([0, 0, 0])
    model.train()
    for batch_size in (1, 2, 3):
        found = measure(model, images, labels, THREAT, seed=0, batch_size=batch_size)
        assert found == Accuracy(clean=2, robust=1, n=3)
    assert model.training


def test_the_epoch_that_is_most_robust_on_held_out_samples_is_kept(data, monkeypatch):
    scores = iter([3, 7, 7, 5])
    monkeypatch.setattr(loop, "measure", lambda *_, **__: Accuracy(10, next(scores), 10))
    model, seen, weights = fresh(), [], []

    def tell(epoch):
        seen.append(epoch.robust)
        weights.append({name: value.clone() for name, value in model.state_dict().items()})

    recipe = replace(RECIPES["trades"], epochs=4)
    fitted = fit(model, *data, recipe, threat=THREAT, seed=0, held_out=data, progress=tell)
    assert seen == [0.3, 0.7, 0.7, 0.5]
    assert (fitted.epoch, fitted.stopped) == (2, "")
    assert all(torch.equal(value, weights[1][name]) for name, value in model.state_dict().items())
    assert not torch.equal(weights[1]["0.weight"], weights[3]["0.weight"])


def test_a_recipe_that_is_not_adversarial_keeps_the_most_accurate_epoch(data, monkeypatch):
    scores = iter([(6, 3), (9, 1), (8, 2)])
    monkeypatch.setattr(loop, "measure", lambda *_, **__: Accuracy(*next(scores), 10))
    recipe = replace(RECIPES["gauss"], epochs=3)
    assert fit(fresh(), *data, recipe, threat=THREAT, seed=0, held_out=data).epoch == 2


def test_looking_at_held_out_samples_does_not_change_the_weights(data):
    one, other, states = stochastic(), stochastic(), []
    recipe = replace(RECIPES["fast"], epochs=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fit(one, *data, replace(recipe, safeguard=False), threat=THREAT, seed=0)
        torch.manual_seed(0)
        fit(
            other,
            *data,
            recipe,
            threat=THREAT,
            seed=0,
            held_out=data,
            progress=lambda _: states.append({name: value.clone() for name, value in other.state_dict().items()}),
        )
    last = one.state_dict()
    assert all(torch.equal(value, last[name]) for name, value in states[-1].items())


# --- the safeguard ---


def test_a_collapse_on_a_training_batch_ends_fast_training_with_the_weights_of_before(data, monkeypatch):
    scores = iter([50, 60, 41, 20])
    monkeypatch.setattr(loop, "measure", lambda *_, **__: Accuracy(100, next(scores), 100))
    model, weights = fresh(), []
    fitted = fit(
        model,
        *data,
        replace(RECIPES["fast"], epochs=9),
        threat=THREAT,
        seed=0,
        progress=lambda _: weights.append(model[0].weight.detach().clone()),
    )
    assert len(weights) == 4
    assert fitted.epoch == 3
    assert "catastrophic overfitting in epoch 4" in fitted.stopped
    assert "from 41% to 20%" in fitted.stopped
    assert torch.equal(model[0].weight, weights[2])
    assert not torch.equal(weights[2], weights[3])


def test_steps_that_are_too_long_overfit_catastrophically_and_are_stopped():
    """What Wong et al. 2020 describe, planted: FGSM of 3 eps from the clean image, after a while of fast."""
    found = load_data("digits-train")
    images, labels = found.images[:500], found.labels[:500]

    def too_long(model, x, y, threat, generator, done=1.0):
        if done < 0.3:
            return fast.loss(model, x, y, threat, generator)
        point = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(point), y), point)
        return nn.functional.cross_entropy(model((x + 3 * threat.eps * gradient.sign()).clamp(0, 1)), y)

    recipe = replace(RECIPES["fast"], loss=too_long, epochs=10, peak_rate=1e-2)
    guarded, unguarded = (load_model("cnn.pgd_digits").module.model for _ in range(2))
    fitted = fit(guarded, images, labels, recipe, threat=THREAT, seed=0)
    fit(unguarded, images, labels, replace(recipe, safeguard=False), threat=THREAT, seed=0)
    assert "catastrophic overfitting" in fitted.stopped
    assert 3 <= fitted.epoch < 10
    kept, lost = (measure(model, images, labels, THREAT, seed=0) for model in (guarded, unguarded))
    assert kept.robust > 250
    assert lost.robust < 100


# --- checkpoints ---


@pytest.mark.parametrize("name", ["fast", pytest.param("awp", marks=pytest.mark.slow)])
def test_a_training_gone_on_with_ends_with_the_weights_of_one_without_a_break(tmp_path, data, name):
    """A batch norm's statistics, dropout's generator, the best epoch and the schedule all come back."""
    recipe = replace(RECIPES[name], epochs=6, batch_size=30)

    def trained(path, stop_after, model):
        def tell(epoch):
            if epoch.done == stop_after:
                raise KeyboardInterrupt

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            return fit(model, *data, recipe, threat=THREAT, seed=0, held_out=data, checkpoint=kept(path), progress=tell)

    whole, broken, resumed = stochastic(), stochastic(), stochastic()
    expected = trained(tmp_path / "whole", 0, whole)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "broken", 3, broken)
    torch.rand(7)
    found = trained(tmp_path / "broken", 0, resumed)
    assert found == expected
    assert same(resumed, whole)
    assert not same(broken, whole)
    # A finished one is finished: nothing is trained any more.
    again = stochastic()
    assert trained(tmp_path / "broken", 6, again) == expected
    assert same(again, whole)


def test_a_checkpoint_of_another_training_is_refused_with_what_differs(tmp_path, data):
    path = tmp_path / "c"
    recipe = replace(RECIPES["standard"], epochs=1)
    fit(fresh(), *data, recipe, threat=THREAT, seed=0, checkpoint=kept(path))
    for changed, message in (
        ({"model": stochastic()}, "model "),
        ({"seed": 1}, "seed 0, not 1"),
        ({"threat": ThreatModel("L2", 0.5)}, "threat Linf:0.15, not L2:0.5"),
        ({"precision": "bfloat16"}, "precision float32, not bfloat16"),
        ({"recipe": replace(recipe, epochs=2)}, "epochs 1, not 2"),
        ({"images": data[0] / 2}, "data "),
    ):
        settings = {"model": fresh(), "images": data[0], "recipe": recipe, "threat": THREAT, "seed": 0, **changed}
        with pytest.raises(ValueError, match=f"is of a training with {message}"):
            fit(labels=data[1], checkpoint=kept(path), **settings)


def test_a_damaged_checkpoint_is_refused_and_one_that_cannot_be_written_keeps_the_older(tmp_path, monkeypatch):
    path = tmp_path / "c"
    for content in (b"", b"junk", b"PK\x03\x04junk"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read"):
            read_checkpoint(path, {})
    write_checkpoint(kept(path), {"epoch": 1}, {"seed": "0"})

    def full(*_):
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("gauntlet.leaderboard.results.atomic_files.os.fsync", full)
    with pytest.raises(WriteError, match="no space"):
        write_checkpoint(kept(path), {"epoch": 2}, {"seed": "0"})
    assert read_checkpoint(path, {"seed": "0"}) == {"epoch": 1}


# --- low precision ---


def test_training_in_bfloat16_gives_float32_weights_near_those_of_float32(data):
    precise, rough = fresh(), fresh()
    recipe = replace(RECIPES["trades"], epochs=10)
    start = fresh()
    fit(precise, *data, recipe, threat=THREAT, seed=0)
    fit(rough, *data, recipe, threat=THREAT, seed=0, precision="bfloat16")
    assert not same(precise, rough)
    for begin, one, other in zip(start.parameters(), precise.parameters(), rough.parameters(), strict=True):
        assert other.dtype == torch.float32
        assert (one - other).norm() < 0.5 * (one - begin).norm()
    assert not rough._forward_hooks


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipes_loss_has_a_finite_gradient_of_every_weight_in_bfloat16(data, name, monkeypatch):
    model = load_model("cnn.standard_digits").module.model
    threat = ThreatModel("L2", 0.5) if name == "pgd_l2" else THREAT
    x, y = data
    # TRADES starts its inner attack where the divergence is nearly 0: in bfloat16 the first gradient is rounding error, and the
    # attack ends at another point. The gradients are compared at one point.
    point = trades.farthest(model, x, threat, torch.Generator().manual_seed(0))
    for module in (trades, awp):
        monkeypatch.setattr(module, "farthest", lambda *_: point)
    gradients = []
    for precision in ("float32", "bfloat16"):
        model.zero_grad()
        model.train()
        with loop._computing(model, torch.device("cpu"), precision):
            value = RECIPES[name].loss(model, x, y, threat, torch.Generator().manual_seed(0), 0.5)
        value.backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert value.dtype == torch.float32
    assert torch.isfinite(gradients[1]).all()
    assert torch.cosine_similarity(*gradients, dim=0) > 0.98
