"""What test files share: paths, networks, and results with known content."""

from __future__ import annotations

import functools
import hashlib
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import gauntlet
from gauntlet.attacks.solving.cascade import Cascade
from gauntlet.attacks.solving.rule import Rule
from gauntlet.bench.executors.library import LibraryExecutable
from gauntlet.bench.executors.native import NativeExecutable
from gauntlet.leaderboard.gate.baseline import BASELINE_SCHEMA, Baseline, BaselineCell
from gauntlet.leaderboard.results import block_file
from gauntlet.leaderboard.results.block_file import to_bytes
from gauntlet.leaderboard.results.errors import DamagedBlockError
from gauntlet.leaderboard.results.record import CellError, CellInfo, CellResult, Record, Samples, Stats

ROOT = Path(__file__).parents[1]
"""The repository."""


def slow_unless(quick, *values, **options):
    """A case of a parametrised test, marked slow unless it is quick: default runs leave it out."""
    return pytest.param(*values, marks=() if quick else pytest.mark.slow, **options)


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
    """Write a block that was edited once more, under digests that fit its content, as a forger would."""
    table = pq.read_table(store.path(key))
    edited = block_file.record_of(block_file.arrays_of(table), block_file._metadata(table.schema))
    store.path(key).write_bytes(to_bytes(edited))


def intact(store, key):
    """Whether a block is what was written. Raises StoreError for other damage."""
    try:
        store.read(key, adversarial=True)
    except DamagedBlockError as error:
        if "was altered" in str(error):
            return False
        raise
    return True


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
