"""Where the stages of a sample ended, handed to a later stage of the cascade."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from builders import linear
from gauntlet.attacks.hop_skip_jump import HopSkipJump
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.solving.ends import KEPT, Ends
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.solver import Stage
from gauntlet.attacks.square import Square
from solving import assert_same, exact_distance, outcomes


class State(NamedTuple):
    kept: Tensor


SEEN: dict[int, Tensor] = {}


@dataclass(frozen=True)
class Noting(Rule[State]):
    """Notes the ends of each sample, by the sum of its clean image."""

    uses_ends: ClassVar[bool] = True
    steps: int = 1

    def start(self, oracle):
        for clean, ends in zip(oracle.clean, oracle.ends, strict=True):
            SEEN[round(float(clean.sum()) * 1000)] = ends
        return State(oracle.labels)

    def step(self, state, oracle):
        oracle.logits(oracle.clean)
        return state

    def last(self, state):
        return None


def problem(n=10, turned=0.0):
    """A linear model with two classes, images at one distance from its boundary in the middle of the box, and a view of it with
    weights that differ by `turned`."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(2, 36, generator=generator)
    images = 0.4 + 0.2 * torch.rand(n, 1, 6, 6, generator=generator)
    normal, flat = weight[0] - weight[1], images.flatten(1) - images.flatten(1).mean(0)
    images -= ((flat @ normal - 1)[:, None] * normal / normal.square().sum()).view_as(images)
    other = weight + turned * torch.randn(2, 36, generator=generator)
    model, view = (
        linear(one, -(one @ (images.flatten(1).mean(0) - normal / normal.square().sum())), dtype=torch.float32)
        for one in (weight, other)
    )
    return model, view, images, model(images).argmax(1)


class LabelsOnly(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        logits = self.model(x)
        return one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)


def ends_of(stages, model, view, images, labels, eps, **options):
    """The ends of each sample that a last stage sees."""
    SEEN.clear()
    row = [*stages, Stage("noting", Noting())]
    outcomes(row, model, images, labels, ThreatModel("Linf", eps), views={"view": view}, **options)
    return torch.stack([SEEN[round(float(image.sum()) * 1000)] for image in images])


PGD_ON_VIEW = Stage("view", PGD(steps=8, loss="cw"), view="view", technique="transfer")


@pytest.mark.parametrize("size", [1, 3, 10])
def test_a_stage_on_a_view_ends_at_the_worst_corner_of_a_linear_view(size):
    model, view, images, labels = problem(turned=0.5)
    eps = 0.3 * float(exact_distance(model, images, labels, "Linf").min())
    ends = ends_of([PGD_ON_VIEW], LabelsOnly(model), view, images, labels, eps, batch_size=size)
    weight = view[1].weight
    corner = images + eps * (weight[1 - labels] - weight[labels]).sign().view_as(images)
    torch.testing.assert_close(ends[:, 0], corner)
    assert torch.equal(ends[:, 1:], images[:, None].expand(-1, KEPT - 1, -1, -1, -1))


def test_stages_without_gradients_and_those_whose_gradients_vanish_leave_no_end():
    model, _, images, labels = problem()
    blind = LabelsOnly(nn.Sequential(model, nn.Threshold(1e9, 0.0)))
    stages = [Stage("search", Square(queries=5)), Stage("flat", PGD(steps=3), view="view")]
    ends = ends_of(stages, LabelsOnly(model), blind.model, images, labels, 1e-4)
    assert torch.equal(ends, images[:, None].expand(-1, KEPT, -1, -1, -1))


def test_the_latest_stages_are_kept_the_latest_first_and_forgotten_when_the_attack_is_over():
    ends, clean = Ends(), torch.zeros(2, 1, 1, 1)
    for number in range(1, KEPT + 3):
        ends.add(7, torch.full((1, 1, 1), float(number)))
    assert ends.of([7, 8], clean).flatten(1).tolist() == [[KEPT + 2 - i for i in range(KEPT)], [0.0] * KEPT]
    ends.forget(7)
    assert not ends.of([7], clean[:1]).any()


class FromNoise(HopSkipJump):
    uses_ends = False


@pytest.mark.parametrize(
    ("norm", "turned", "radius", "share"), [("Linf", 0.8, 1.25, 0.85), ("L2", 1.2, 1.45, 0.5)], ids=["Linf", "L2"]
)
def test_search_by_labels_comes_near_from_the_end_of_a_view_in_fewer_queries_than_from_noise(
    norm, turned, radius, share
):
    model, view, images, labels = problem(16, turned=turned)
    exact = exact_distance(model, images, labels, norm)
    assert float(exact.max()) < 1.01 * float(exact.min())
    counts = {}
    for rule in (HopSkipJump, FromNoise):
        stages = [PGD_ON_VIEW, Stage("labels", rule(queries=400, probes=40, stop_inside=True))]
        threat = ThreatModel(norm, radius * float(exact[0]))
        found = outcomes(stages, LabelsOnly(model), images, labels, threat, views={"view": view})
        # The steps of the view, each judged by the model, come before.
        counts[rule] = torch.tensor([one.forwards - 18 for one in found if one.stage != "view"]).double()
        assert len(counts[rule]) >= 8
    assert counts[HopSkipJump].median() < share * counts[FromNoise].median()


@pytest.mark.parametrize(("size", "order"), [(1, 1), (3, 1), (4, -1)])
def test_verdicts_counts_and_examples_do_not_depend_on_batch_and_order(size, order):
    model, view, images, labels = problem(6, turned=1.2)
    threat = ThreatModel("L2", 1.3 * float(exact_distance(model, images, labels, "L2").median()))
    stages = [PGD_ON_VIEW, Stage("labels", HopSkipJump(queries=140, probes=20, stop_inside=True), patience=35)]
    ids = [f"image {row}" for row in range(len(images))]

    def run(rows, **options):
        return outcomes(
            stages,
            LabelsOnly(model),
            images[rows],
            labels[rows],
            threat,
            ids=[ids[row] for row in rows],
            views={"view": view},
            **options,
        )

    rows = list(range(len(images)))
    whole = run(rows)
    assert {one.stage for one in whole} >= {"", "labels"}
    assert_same(run(rows[::order], batch_size=size)[::order], whole)
    assert_same(run(rows[2:4]), whole[2:4])
