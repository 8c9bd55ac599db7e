"""Attacks run on small problems, and what they find against what is exact."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import nn

from gauntlet.attacks.adapters.library_catalog import ADAPTERS
from gauntlet.attacks.ops.norms import distance
from gauntlet.attacks.registry.catalog import ATTACKS
from gauntlet.attacks.registry.settings import parse_named
from gauntlet.attacks.solving.solver import Task, Verification, solve
from gauntlet.bench.verify.verifier import Verifier


def exact_distance(model, images, labels, norm, *, lead=0.0, box=True):
    """Distance of each image to the nearest point that another class of a linear model wins, infinite where there is none.

    `lead`: by how much that class's logit exceeds the label's there. `box`: the point lies in [0, 1].
    """
    weight, x = model[1].weight, images.flatten(1)[:, None]
    logits = model(images)
    direction = weight[None] - weight[labels][:, None]
    needed = logits.gather(1, labels[:, None]) - logits + lead
    room = torch.where(direction > 0, 1 - x, x) if box else torch.full_like(direction, torch.inf)
    # The best move goes along `sign` (Linf) or `direction` (L2) as far as the box allows. For L1, it uses up the pixels of
    # the largest weight first.
    if norm == "L1":
        order = direction.abs().argsort(dim=2, descending=True)
        slope, room = direction.abs().gather(2, order), room.gather(2, order)
        before = (slope * room).cumsum(2) - slope * room
        size = ((needed[..., None] - before) / slope).clamp_min(0).minimum(room).nan_to_num(0).sum(2)
        reached = (slope * room).sum(2) >= needed
    else:
        step = direction.sign() if norm == "Linf" else direction
        low, high = torch.zeros_like(needed), torch.full_like(needed, 1e9)
        for _ in range(120):
            middle = (low + high) / 2
            gain = ((middle[..., None] * step).abs().minimum(room) * direction.abs()).sum(2)
            low, high = torch.where(gain >= needed, low, middle), torch.where(gain >= needed, middle, high)
        move = (high[..., None] * step).abs().minimum(room)
        size = move.amax(2) if norm == "Linf" else move.square().sum(2).sqrt()
        reached = (move * direction.abs()).sum(2) >= needed
    return size.masked_fill(~reached, torch.inf).scatter(1, labels[:, None], torch.inf).amin(1)


class Recorder(nn.Module):
    """A model that keeps every batch of images that it sees, and its logits."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen, self.logits = model, [], []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        self.logits.append(self.model(x))
        return self.logits[-1].clone()


def never(points, samples, attempt):
    """A verifier that refuses everything, so that every attack spends its whole budget."""
    no = torch.zeros(len(points), dtype=torch.bool)
    return Verification(no, no, no)


def path(attack, model, images, labels, threat, *, seed=0):
    """The batches of points that the attack evaluates where no success counts, in order."""
    recorder = Recorder(model)
    outcomes(attack, recorder, images, labels, threat, verify=never, seed=seed, batch_size=len(labels))
    return recorder.seen


def built(text, threat):
    """The attack with this name and settings."""
    named = parse_named(text)
    module, name = (ATTACKS | ADAPTERS)[named.name].split(":")
    return getattr(import_module(module), name).make(threat, **named.keywords)


def outcomes(
    attack,
    model,
    images,
    labels,
    threat,
    *,
    ids=None,
    verify=None,
    seed=0,
    targets=None,
    purpose="test",
    clean_logits=None,
    **options,
):
    """The outcome of each sample, in their order. `attack` is a rule, a cascade, its stages, or a name with settings."""
    attack = built(attack, threat) if isinstance(attack, str) else attack
    ids = ids or [f"sample {i}" for i in range(len(labels))]
    minimum_norm = getattr(attack, "minimum_norm", False)
    verify = verify or Verifier(model, images, labels, ids, threat, seed=seed, minimum_norm=minimum_norm)
    task = Task(images, labels, ids, threat, seed, purpose, targets, clean_logits)
    found = sorted(solve(getattr(attack, "stages", attack), model, task, verify, **options), key=lambda one: one.sample)
    assert [one.sample for one in found] == list(range(len(ids)))
    return found


def distances(found, model, images, labels, norm, targets=None):
    """Distance of the example of each outcome, infinite where there is none.

    Examples lie in the box and are misclassified, with `targets` as those.
    """
    sizes = torch.full((len(labels),), torch.inf, dtype=torch.float64)
    for one in found:
        assert one.rejected == 0
        if one.adversarial is not None:
            assert 0 <= one.adversarial.min() <= one.adversarial.max() <= 1
            prediction = int(model(one.adversarial[None]).argmax())
            assert prediction != labels[one.sample] if targets is None else prediction == targets[one.sample]
            sizes[one.sample] = distance(one.adversarial[None], images[one.sample][None], norm)
    return sizes


def attacked(attack, model, images, labels, threat, **options):
    """Distance of the example that the attack finds for each sample, infinite where there is none."""
    return distances(outcomes(attack, model, images, labels, threat, **options), model, images, labels, threat.norm)


def assert_same(one, other):
    """Two runs give each sample the same verdict, example and counts."""
    for first, second in zip(one, other, strict=True):
        assert (first.forwards, first.backwards, first.steps) == (second.forwards, second.backwards, second.steps)
        assert (first.adversarial is None) == (second.adversarial is None)
        if first.adversarial is not None:
            torch.testing.assert_close(first.adversarial, second.adversarial, rtol=0, atol=1e-9)


def broken(found):
    """bool (N,): which samples have an example."""
    return torch.tensor([one.adversarial is not None for one in found])
