"""What test files share: paths, networks, attacks run on them, and results with known content."""

from __future__ import annotations

import functools
import hashlib
import itertools
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import gauntlet
from gauntlet.attacks.adapters.library_catalog import ADAPTERS
from gauntlet.attacks.ops.norms import distance
from gauntlet.attacks.registry.catalog import ATTACKS
from gauntlet.attacks.registry.settings import parse_named
from gauntlet.attacks.solving.cascade import Cascade
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.solver import Task, Verification, solve
from gauntlet.bench.executors.library import LibraryExecutable
from gauntlet.bench.executors.native import NativeExecutable
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.leaderboard.gate.baseline import BASELINE_SCHEMA, Baseline, BaselineCell
from gauntlet.leaderboard.results.block_file import to_bytes
from gauntlet.leaderboard.results.record import CellError, CellInfo, CellResult, Record, Samples, Stats

ROOT = Path(__file__).parents[1]
"""The repository."""

# Models


def seeded(build, seed=0):
    """The module that `build` makes from this seed of torch's global generator, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval()


def network(*widths, activation=nn.ReLU, seed=0):
    """Linear layers between these widths with activations between them, in torch's own initialisation."""

    def build():
        pairs = itertools.pairwise(widths)
        layers = [layer for before, after in pairs for layer in (activation(), nn.Linear(before, after))]
        return nn.Sequential(nn.Flatten(), *layers[1:])

    return seeded(build, seed)


def linear(weight, bias=0.0, *, dtype=torch.float64):
    """The classifier with logits `weight @ x + bias`: weight (K, D), bias (K,) or a number. Frozen."""
    layer = nn.Linear(*reversed(weight.shape), dtype=dtype)
    layer.weight.data = weight.to(dtype, copy=True)
    layer.bias.data = torch.as_tensor(bias, dtype=dtype).expand(len(weight)).clone()
    return nn.Sequential(nn.Flatten(), layer).requires_grad_(False).eval()


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Wrapped(nn.Module):
    """A model between two functions, in evaluation mode: a defense that is not declared."""

    def __init__(self, model, before=None, after=None):
        super().__init__()
        self.model = model
        self.before, self.after = (Function(function or (lambda x: x)) for function in (before, after))
        self.eval()

    def forward(self, x):
        return self.after(self.model(self.before(x)))


def task_of(model, shape, count, *, seed=4):
    """The model with random parameters, random images, of which every third has pixels 0 and 1 only, and its own labels.

    All are float64. The model is frozen.
    """
    generator = torch.Generator().manual_seed(seed)
    model = model.double().requires_grad_(False).eval()
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 3)
    images = torch.rand(count, *shape, generator=generator, dtype=torch.float64)
    images[::3] = images[::3].round()
    return model, images, model(images).argmax(1)


def convolution():
    """Two channels of 6 by 6 pixels in, logits of four classes out."""
    return nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4))


def clipped_task(classes=10, count=40):
    """A network of two layers with random weights, images of 8 by 8 pixels, and the network's own labels, all float64.

    A third of the pixels is at exactly 0, and some are at exactly 1. The network is frozen.
    """
    generator, images = (torch.Generator().manual_seed(0) for _ in range(2))
    model = network(64, 32, classes, activation=nn.Tanh).double().requires_grad_(False)
    for layer, gain in ((model[1], 6 / 8), (model[3], 2 / 5.6)):
        layer.weight.copy_(gain * torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64))
        layer.bias.zero_()
    images = (2 * torch.rand(count, 1, 8, 8, generator=images, dtype=torch.float64) - 0.67).clamp(0, 1)
    return model, images, model(images).argmax(1)


def zoo_digits(name="cnn.trades_digits", count=100):
    """A model of the zoo, frozen, and the first `count` test digits that it classifies correctly."""
    model, data = gauntlet.load_model(name).module.requires_grad_(False).eval(), gauntlet.load_data("digits")
    right = (model(data.images).argmax(1) == data.labels).nonzero().squeeze(1)[:count]
    return model, data.images[right], data.labels[right]


@functools.cache
def linear_digits(classes=10, count=150, *, logistic=True):
    """A linear classifier of the first digits in float64, and the first `count` test images that it classifies correctly.

    It is fitted by logistic regression or by least squares. Half of the pixels are 0 or 1.
    """
    train, test = gauntlet.load_data("digits-train"), gauntlet.load_data("digits")
    kept = train.labels < classes
    x, labels = train.images[kept].flatten(1).double(), train.labels[kept]
    if logistic:
        fit = LogisticRegression(C=0.5, max_iter=5000).fit(x.numpy(), labels.numpy())
        weight, bias = torch.from_numpy(fit.coef_), torch.from_numpy(fit.intercept_)
        if classes == 2:
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    else:
        x = nn.functional.pad(x, (0, 1), value=1.0)
        wanted = nn.functional.one_hot(labels, classes).double()
        solution = 10 * torch.linalg.lstsq(x.T @ x + 10 * torch.eye(65), x.T @ wanted).solution
        weight, bias = solution[:64].T, solution[64]
    # To the same numbers on every processor.
    model = linear((weight * 2**16).round() / 2**16, (bias * 2**16).round() / 2**16)
    images, labels = test.images.double(), test.labels
    right = ((model(images).argmax(1) == labels) & (labels < classes)).nonzero().squeeze(1)[:count]
    return model, images[right], labels[right]


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


# Attacks


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


# Results


def cell_info(model="net", attack="pgd", *, threat="Linf:0.15", **changes):
    """A white-box attack on the digits; norm and eps are those of the threat model."""
    norm, eps = threat.split(":")
    given = {
        "model": model,
        "defense": "none",
        "attack": attack,
        "attack_spec": f"{attack}(steps=40)",
        "attack_kind": "white-box",
        "norm": norm,
        "eps": float(eps),
        "threat": threat,
        "suite": "quick",
        "data": "digits",
        "seed": 0,
    }
    return CellInfo(**(given | changes))


def samples(robust, *, correct=None, label=0, first=0, **columns):
    """The samples s0, s1, …, of which these are robust and these correct when clean (all, where `correct` is None).

    `columns` replace those made from the verdicts.
    """
    robust = np.asarray(robust, bool)
    n = len(robust)
    label = np.broadcast_to(np.asarray(label, np.int64), n).copy()
    right = np.ones(n, bool) if correct is None else np.asarray(correct, bool)
    broken = right & ~robust
    made = {
        "label": label,
        "clean_prediction": np.where(right, label, label + 1),
        "prediction": np.where(robust, label, label + 1),
        "robust": robust,
        "distance": np.where(broken, 0.1, np.nan),
        "margin": np.where(robust, 1.0, -1.0),
        "forwards": np.full(n, 4.0),
        "backwards": np.full(n, 3.0),
        "steps": np.where(broken, 2, -1).astype(np.int64),
        "wrong_share": (~robust).astype(float),
        "wrong_share_scored": (~robust).astype(float),
    }
    given = {name: np.asarray(columns.pop(name, column), column.dtype) for name, column in made.items()}
    ids = np.asarray(columns.pop("id", [f"s{first + i}" for i in range(n)]), np.str_)
    return Samples(id=ids, **given, **({"adversarial": [None] * n} | columns))


def taken(whole, places):
    """The samples at these places."""

    def pick(column):
        if column is None or len(column) == 0:
            return column
        return column[places] if isinstance(column, np.ndarray) else [column[place] for place in places]

    return Samples(**{name: pick(getattr(whole, name)) for name in Samples.__dataclass_fields__})


def record(whole, cell=None, *, key=None, stats=None, **fields):
    """A block with these samples. Blocks of the same cell with the same verdicts have the same key, unless it is given."""
    cell = cell or cell_info()
    key = key or hashlib.sha256(f"{cell} {whole.id.tolist()} {whole.robust.tolist()}".encode()).hexdigest()
    return Record(key, cell, whole, stats or Stats(1.0, 10.0), **fields)


def result(
    robust=(),
    cell=None,
    *,
    blocks=1,
    expected=None,
    error=None,
    seconds=2.0,
    flags=(),
    cached=False,
    made=None,
    **columns,
):
    """A finished cell with `samples(robust, **columns)` in `blocks` blocks; with `error` (a message) it failed after them.

    `made` is added to the provenance of each block.
    """
    cell, whole = cell or cell_info(), samples(robust, **columns)
    records = [
        record(
            taken(whole, places),
            cell,
            stats=Stats(seconds / blocks, 10.0 + number, candidates_rejected=1, disagreements=2),
            flags=tuple(flags),
            provenance={"device": "cpu", "weights": "w1", "data": f"block {number}"} | (made or {}),
            cached=cached,
        )
        for number, places in enumerate(np.array_split(np.arange(len(whole)), blocks))
        if len(places)
    ]
    failure = CellError(cell, "RuntimeError", error) if error is not None else None
    return CellResult(cell, tuple(records), failure, len(whole) if expected is None else expected)


def bits(n, robust):
    """The verdicts of n samples, of which the first `robust` are robust."""
    return np.arange(n) < robust


# Baselines


def baseline_cell(robust, **changes):
    """A cell of a baseline with these verdicts, all samples correct when clean."""
    robust = np.asarray(robust, bool)
    n = len(robust)
    given = {
        "model": "net",
        "defense": "none",
        "attack": "pgd",
        "threat": "Linf:0.15",
        "suite": "quick",
        "data": "digits",
        "seed": 0,
        "spec": "spec",
        "data_digest": "data",
        "weights": "before",
        "n": n,
        "robust": robust,
        "correct": np.ones(n, bool),
        "forwards": 4.0 * n,
        "backwards": 3.0 * n,
        "peak_memory_mib": 100.0,
        "seconds": 2.0,
        "device": "cuda",
        "randomised": False,
    }
    return BaselineCell(**(given | changes))


def baseline(*cells, test="fixed", **changes):
    """A baseline of the suite `quick` with these cells."""
    given = {"schema": BASELINE_SCHEMA, "suite": "quick", "commit": "abc", "reason": "first", "created": "2026-11-21"}
    return Baseline(test=test, cells=tuple(cells), **(given | changes))


def reseal(store, key):
    """Write a block that was edited once more, under digests that fit its content."""
    store.path(key).write_bytes(to_bytes(store.read(key, adversarial=True)))
    assert store.intact(key)


# What cells run


def executable(attack):
    """A rule, a cascade or an attack that runs whole, as cells and checks run it."""
    if isinstance(attack, Rule):
        return NativeExecutable.of(attack)
    if isinstance(attack, Cascade):
        return NativeExecutable(repr(attack), attack)

    def remake(threat):
        return replace(attack, threat=threat)

    return LibraryExecutable(repr(attack), attack, remake, "white-box")
