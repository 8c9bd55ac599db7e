"""Square Attack: what it asks, what it finds, and that it finds no less than another library's."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import nn

from builders import linear, network, slow_unless, task_of, zoo_digits
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.parts.square_shapes import bump
from gauntlet.attacks.square import ENTRY, Square
from solving import Recorder, assert_same, attacked, broken, exact_distance, never, outcomes

ALL = [ThreatModel("Linf", 0.1), ThreatModel("L2", 0.6), ThreatModel("L1", 2.0)]


class Difference(nn.Module):
    """Class 0 wins where the last pixel exceeds the first by more than a half; further classes never win."""

    def __init__(self, classes=2):
        super().__init__()
        self.classes = classes

    def forward(self, x):
        flat = x.flatten(1)
        gap = flat[:, -1] - flat[:, 0] - 0.5
        return torch.stack([gap, *(-gap - 0.1 * k for k in range(self.classes - 1))], dim=1)


def robust(attack, model, images, labels, threat, **options):
    """Number of samples without an example; all examples lie in the ball."""
    sizes = attacked(attack, model, images, labels, threat, **options)
    assert (sizes[sizes.isfinite()] <= threat.eps + 2e-6).all()
    return int(sizes.isinf().sum())


@pytest.fixture(
    scope="module", params=[slow_unless(False, (2, 6, 6), id="(2, 6, 6)"), pytest.param((3, 5, 3), id="(3, 5, 3)")]
)
def task(request):
    return task_of(network(math.prod(request.param), 20, 3, activation=nn.Tanh), request.param, 13)


@pytest.mark.parametrize("threat", [ThreatModel("Linf", 0.06), ThreatModel("L2", 0.3), ThreatModel("L1", 1.2)], ids=str)
def test_verdicts_counts_and_examples_do_not_depend_on_the_batch(threat, task):
    model, images, labels = task
    rule = Square(queries=45, restarts=2)
    whole = outcomes(rule, *task, threat)
    assert 0 < broken(whole).sum() < len(labels)
    for size in (1, 3):
        assert_same(outcomes(rule, *task, threat, batch_size=size), whole)
    order = [9, 2, 11, 0, 5, 7, 3]
    ids = [f"sample {i}" for i in order]
    part = outcomes(rule, model, images[order], labels[order], threat, ids=ids, batch_size=4)
    assert_same(part, [whole[i] for i in order])


@pytest.mark.parametrize("threat", ALL, ids=str)
def test_a_sample_that_nothing_breaks_costs_exactly_the_queries(threat, task):
    for one in outcomes(Square(queries=7, restarts=3), *task, threat, verify=never):
        assert (one.forwards, one.backwards, one.steps) == (21, 0, -1)


def followed(images, threat, queries, rescale=False):
    """Of one sample at a time: the best point so far and the query, for all queries."""
    pixels = images[0].numel()
    model = linear(torch.sin(torch.arange(3 * pixels)).view(3, pixels), dtype=images.dtype)
    spy, labels = Recorder(model), model(images).argmax(1)
    outcomes(Square(queries=queries, rescale=rescale), spy, images, labels, threat, verify=never)
    for i in range(len(images)):
        best, least = spy.seen[0][i], math.inf
        for points, logits in zip(spy.seen, spy.logits, strict=True):
            yield best, points[i]
            gap = logits[i, labels[i]] - logits[i].index_fill(0, labels[i], -math.inf).max()
            if gap < least:
                best, least = points[i], gap


def box_of(changed):
    """First and last row and column of what changed, (H, W) bool."""
    rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
    return int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 12)])
def test_every_linf_query_sets_one_square_of_the_best_point_to_plus_or_minus_eps(shape, rescale):
    images = 0.3 + 0.4 * torch.rand(4, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    queries, sides, corners = 250, set(), set()
    for i, (best, query) in enumerate(followed(images, ThreatModel("Linf", 0.1), queries, rescale)):
        delta = query - images[i // queries]
        assert torch.allclose(delta.abs(), torch.full_like(delta, 0.1))
        update = i % queries - 1
        if update < 0:
            assert torch.equal(delta.sign(), delta.sign()[:, :1].expand_as(delta))
            continue
        changed = (query != best).any(0)
        assert changed.any(), "a query that asks nothing new is wasted"
        top, bottom, left, right = box_of(changed)
        progress = int(update / queries * 10_000) if rescale else update
        halvings = sum(progress > at for at in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))
        side = max(round(math.sqrt(0.8 / 2**halvings * shape[1] * shape[2])), 1)
        assert max(bottom - top, right - left) < min(side, *shape[1:])
        sides.add(side)
        corners |= {("row", bottom), ("column", right)}
    assert len(sides) >= (5 if rescale else 4)
    assert {("row", shape[1] - 1), ("column", shape[2] - 1)} <= corners


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 12)])
def test_every_l2_query_has_length_eps_and_changes_two_windows_only(shape):
    images = 0.3 + 0.4 * torch.rand(3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    queries, eps = 120, 0.2
    for i, (best, query) in enumerate(followed(images, ThreatModel("L2", eps), queries)):
        old, new = (point - images[i // queries] for point in (best, query))
        assert new.square().sum().sqrt() == pytest.approx(eps, abs=1e-9)
        update = i % queries - 1
        if update > 50:
            side = max(round(math.sqrt(0.2 * shape[1] * shape[2])), 3) | 1
            changed = ((new - old).abs() > 1e-7).any(0)
            assert changed.sum() <= 2 * side**2
            assert changed.any()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 12)])
@pytest.mark.parametrize("eps", [0.5, 6.0])
def test_every_l1_query_lies_in_the_ball_and_the_box_and_uses_most_of_eps(shape, eps):
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images[0] = images[0].round()
    queries, sizes, seen = 120, [], set()
    for i, (_, query) in enumerate(followed(images, ThreatModel("L1", eps), queries)):
        assert 0 <= query.min() <= query.max() <= 1
        sizes.append(float((query - images[i // queries]).abs().sum()))
        seen.add(tuple(query.flatten().tolist()))
    assert max(sizes) <= eps * (1 + 1e-12)
    # With one channel, what the box takes away of a bump is missing; with three, there is mostly enough.
    assert sum(size > 0.95 * eps for size in sizes) > (0.9 if shape[0] == 3 else 0) * len(sizes)
    assert min(sizes) > 0.3 * eps
    assert len(seen) > 0.7 * len(sizes)


@pytest.mark.parametrize("norm", ["L2", "L1"])
@pytest.mark.parametrize("side", [1, 2, 3, 5, 8])
def test_a_bump_has_norm_one_and_its_lower_part_the_opposite_sign(norm, side):
    shape = bump(side, norm)
    assert float(torch.linalg.vector_norm(shape, ord=1 if norm == "L1" else 2)) == pytest.approx(1)
    assert (shape[: side // 2] > 0).all()
    assert (shape[side // 2 :] < 0).all()


@pytest.mark.parametrize(
    ("classes", "dtype"),
    [
        (2, torch.float64),
        (3, torch.float32),
        slow_unless(False, 2, torch.float32),
        slow_unless(False, 3, torch.float64),
    ],
)
def test_saturated_pixels_move_and_the_exact_distance_is_kept(classes, dtype):
    images = torch.full((6, 1, 5, 6), 0.5, dtype=dtype)
    images[:, 0, 0, 0], images[:, 0, -1, -1] = 0.0, 1.0
    model, labels = Difference(classes), torch.zeros(6, dtype=torch.int64)
    # Each of two pixels must move by a quarter (L2: 0.354, but bumps of 3×3 pixels do not come close), L1: both by a half.
    for near, far in (("Linf:0.26", "Linf:0.24"), ("L2:1", "L2:0.35"), ("L1:3", "L1:0.49")):
        assert robust(Square(queries=400), model, images, labels, ThreatModel.parse(near)) == 0, near
        assert robust(Square(queries=400), model, images, labels, ThreatModel.parse(far)) == 6, far


@pytest.mark.parametrize("norm", ["Linf", slow_unless(False, "L2"), slow_unless(False, "L1")])
def test_a_two_class_linear_sample_breaks_where_its_exact_distance_allows(norm):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(2, 36, generator=generator, dtype=torch.float64)
    images = 0.4 + 0.2 * torch.rand(40, 1, 6, 6, generator=generator, dtype=torch.float64)
    model = linear(weight, -(weight @ images.flatten(1).mean(0)))
    labels = model(images).argmax(1)
    exact = exact_distance(model, images, labels, norm)
    eps = float(exact.median())
    found = attacked(Square(queries=1500), model, images, labels, ThreatModel(norm, eps)).isfinite()
    assert not found[exact > eps * (1 + 1e-5)].any()
    reach = {"Linf": 0.98, "L2": 0.75, "L1": 0.5}[norm]
    assert found[exact < reach * eps].all(), norm


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 7), (1, 2, 2), (1, 4, 3), (40, 3, 3)], ids=str)
@pytest.mark.parametrize("threat", ALL, ids=str)
def test_images_of_any_shape_are_searched(shape, threat):
    images = torch.full((3, *shape), 0.5)
    points = [query for _, query in followed(images, threat, 20)]
    assert all(point.isfinite().all() for point in points)
    assert len({tuple(point.flatten().tolist()) for point in points}) > 1


@pytest.mark.parametrize(("threat", "name"), [("Linf:0.15", "cnn.standard_digits"), ("L2:0.5", "cnn.trades_digits")])
@pytest.mark.slow
def test_it_leaves_no_more_samples_than_torchattacks_over_five_seeds(threat, name):
    from torchattacks import Square as Foreign

    threat = ThreatModel.parse(threat)
    model, images, labels = zoo_digits(name)
    native, foreign = [], []
    for seed in range(5):
        native.append(robust(Square(queries=250), model, images, labels, threat, seed=seed))
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            other = Foreign(model, threat.norm, threat.eps, n_queries=250, seed=seed, resc_schedule=False)
            foreign.append(int((model(other(images, labels)).argmax(1) == labels).sum()))
    assert 10 < min(native) < max(foreign) < len(labels)
    assert max(native) <= max(foreign), (native, foreign)
    assert sum(native) <= sum(foreign), (native, foreign)


@pytest.mark.slow
def test_in_l1_it_leaves_no_more_samples_than_the_authors_code_over_three_seeds():
    threat = ThreatModel("L1", 2.0)
    model, images, labels = zoo_digits("cnn.pgd_digits")
    native, foreign = [], []
    for seed in range(3):
        native.append(robust(Square(queries=200), model, images, labels, threat, seed=seed))
        with torch.random.fork_rng():
            other = SquareAttack(model, norm="L1", eps=2.0, n_queries=200, seed=seed, resc_schedule=False)
            foreign.append(int((model(other.perturb(images, labels)).argmax(1) == labels).sum()))
    assert 10 < min(native) < max(foreign) < len(labels)
    assert max(native) <= min(foreign), (native, foreign)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 0}, "queries=0"),
        ({"restarts": 1.5}, "restarts=1.5"),
        ({"p_init": 0.0}, "p_init=0.0"),
        ({"p_init": 1.2}, "p_init=1.2"),
        ({"rescale": 1}, "rescale=1"),
        ({"steps": 5}, "steps"),
    ],
)
def test_a_bad_setting_is_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        ENTRY.make(ThreatModel("Linf", 0.1), **settings)
