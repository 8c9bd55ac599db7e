"""The host runs ahead of a GPU: how often a turn of the loop would wait for it, counted on the CPU.

A turn without candidates waits once at most. One that verifies candidates waits twice at most, and as often as the verifier does.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from builders import clipped_task, slow_unless
from gauntlet.attacks.apgd import APGD
from gauntlet.attacks.ops.certainty import Certainty
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.solving import solver, work_done
from gauntlet.attacks.solving.stage import Stage
from gauntlet.attacks.solving.stage_queue import Shared, fill, next_action, stage_queue, step
from gauntlet.attacks.solving.stage_state import size
from gauntlet.attacks.solving.task import Task, Verification
from gauntlet.attacks.square import Square
from gauntlet.bench.speed.synchronisations import counted_synchronisations
from gauntlet.bench.verify.verifier import Verifier
from solving import outcomes


@dataclass
class Turn:
    """A turn of the loop: a step of a batch, or the evaluation of last iterates."""

    stage: str
    closes: bool
    waits: int = 0
    """Of rule, solver and oracle, without the verifier's."""
    verified: int = 0
    """Number of candidates."""
    verifying: int = 0
    """The verifier's waits."""
    ended: bool = False
    """Whether a slot left the batch, or a sample the stage."""
    lines: tuple[str, ...] = ()


def turns(attack, monkeypatch, *, threat, count=64, **options):
    """The turns of an attack on a network from 64 pixels to 10 classes, of which most samples stand."""
    model, images, labels = clipped_task(count=count)
    judge = Verifier(model, images, labels, [str(row) for row in range(count)], threat, seed=0)
    seen: list[Turn] = []
    advance, following = solver._advance, solver._next
    with counted_synchronisations() as counter:

        def settle():
            if seen:
                seen[-1].waits = counter.total - seen[-1].verifying
                seen[-1].lines = tuple(counter.by_line.elements())
            counter.by_line.clear()

        def verify(points, samples, attempt):
            before = counter.total
            verdict = judge(points, samples, attempt)
            seen[-1].verifying += counter.total - before
            seen[-1].verified += len(points)
            return verdict

        def watched(queue, shared, batch_size, meter):
            seen.append(Turn(queue.stage.label, next_action(queue, batch_size) == "close"))
            counter.by_line.clear()
            before = size(queue.closing and queue.closing.slots)
            departures = advance(queue, shared, batch_size, meter)
            gone = departures is not None and len(departures[1]) > 0
            seen[-1].ended = seen[-1].closes or gone or size(queue.closing and queue.closing.slots) > before
            return departures

        def chosen(queues, batch_size):
            settle()
            return following(queues, batch_size)

        monkeypatch.setattr(solver, "_advance", watched)
        monkeypatch.setattr(solver, "_next", chosen)
        found = outcomes(attack, model, images, labels, threat, verify=verify, classes=10, **options)
    return seen, found


LINF = ThreatModel("Linf", 0.01)
X, POSITIVE, PLACES = torch.arange(12.0).view(4, 3), torch.tensor([False, True, False, True]), torch.tensor([0, 2])
WAITS = {
    "item": lambda: X[0, 0].item(),
    "bool": lambda: bool(POSITIVE.any()),
    "condition": lambda: 1 if POSITIVE.any() else 0,
    "float": lambda: float(X.sum()),
    "int": lambda: int(PLACES[1]),
    "index of a list": lambda: [1, 2, 3][PLACES[1]],
    "number in text": lambda: f"{X[0, 0]:.2f}",
    "tolist": lambda: X.tolist(),
    "cpu": lambda: X.cpu(),
    "to the host": lambda: X.to("cpu"),
    "numpy": lambda: X.numpy(),
    "array": lambda: np.asarray(X),
    "reads of one copy": lambda: (copy := X.cpu(), copy.numpy(), copy[0, 0].item(), copy.tolist(), bool(copy.any())),
    "nonzero": lambda: POSITIVE.nonzero(),
    "where alone": lambda: torch.where(POSITIVE),
    "mask": lambda: X[POSITIVE],
    "mask written": lambda: X.clone().__setitem__(POSITIVE, X[:2]),
    "masked_select": lambda: X.masked_select(X > 3),
    "equal": lambda: torch.equal(X, X),
    "allclose": lambda: torch.allclose(X, X),
    "unique": lambda: PLACES.unique(),
    "repeats on the device": lambda: PLACES.repeat_interleave(PLACES),
    "numbers to the device": lambda: torch.tensor([1, 2], device=X.device),
    "a number to the device": lambda: torch.as_tensor(True, device=X.device),
    "copy to the device": lambda: torch.tensor([1, 2]).to(X.device),
    "index of numbers": lambda: X[[0, 2]],
}
FREE = {
    "index": lambda: X[PLACES],
    "row": lambda: X[1],
    "where": lambda: torch.where(POSITIVE[:, None], X, 0.0),
    "number written to a mask": lambda: X.clone().__setitem__(POSITIVE, 0.0),
    "scatter and sort": lambda: X.scatter(1, PLACES[:, None], 1.0).topk(2, dim=1),
    "repeats": lambda: PLACES.repeat_interleave(3),
    "made on the device": lambda: torch.zeros(3, device=X.device) + torch.arange(3, device=X.device),
    "copy that is not waited for": lambda: torch.tensor([1, 2]).to(X.device, non_blocking=True),
    "array that is not waited for": lambda: torch.from_numpy(np.arange(3)).to(X.device, non_blocking=True),
    "the host's own": lambda: bool(torch.tensor([1, 2]).unique().any()),
    "shape": lambda: len(X) + X.shape[1] + X.numel(),
}


@pytest.mark.parametrize("operation", WAITS.values(), ids=WAITS)
def test_an_operation_that_waits_counts_once(operation):
    with counted_synchronisations() as counter:
        operation()
    assert counter.total == 1


@pytest.mark.parametrize("operation", FREE.values(), ids=FREE)
def test_an_operation_that_is_queued_does_not_count(operation):
    with counted_synchronisations() as counter:
        operation()
    assert counter.total == 0


def test_gradients_are_queued_and_results_unchanged():
    x = X.clone().requires_grad_()
    with counted_synchronisations() as counter:
        (gradient,) = torch.autograd.grad(x.square().sum(), x)
    assert counter.total == 0
    assert torch.equal(gradient, 2 * X)


def test_waits_are_counted_by_line():
    with counted_synchronisations() as counter:
        for _ in range(3):
            bool(POSITIVE.any())
        X.tolist()
    assert sorted(counter.by_line.values()) == [1, 3]
    assert all(line.rpartition(":")[0] == __file__ for line in counter.by_line)
    assert counter.total == 4


def assert_ahead(seen):
    """No turn waits more than once, or twice where candidates are verified, beside the verifier."""
    for turn in seen:
        assert turn.waits <= (2 if turn.verified else 1), turn
    # The cases are there: steps in which nothing happens, and ends of slots with and without candidates.
    assert sum(not turn.ended and not turn.verified for turn in seen) >= 5
    assert any(turn.ended and not turn.verified for turn in seen)
    assert any(turn.verified for turn in seen)


ATTACKS = ["pgd", "pgd(steps=20, restarts=3)", "apgd", "apgd-t(steps=20)", "square(queries=100)", "gauntlet"]


@pytest.mark.parametrize(
    ("attack", "side_by_side"),
    [
        slow_unless(attack != "gauntlet" or side, attack, side, id=f"{attack}-{text}")
        for attack in ATTACKS
        for side, text in ((False, "one after another"), (True, "side by side"))
    ],
)
def test_a_step_waits_once_and_one_with_candidates_twice(attack, side_by_side, monkeypatch):
    seen, found = turns(attack, monkeypatch, threat=LINF, useful=(lambda: 150) if side_by_side else None)
    assert_ahead(seen)
    assert sum(one.adversarial is None for one in found) > len(found) / 2
    if attack == "gauntlet":
        assert {"margin", "targets", "probe", "leaky", "close"} <= {turn.stage for turn in seen}


@pytest.mark.parametrize(("norm", "eps"), [("L2", 0.08), ("L1", 0.3)])
@pytest.mark.parametrize(
    "attack",
    ["pgd", "apgd(steps=30)", slow_unless(False, "apgd-t(steps=10)"), slow_unless(False, "square(queries=100)")],
)
def test_so_it_is_in_other_norms(attack, norm, eps, monkeypatch):
    seen, _ = turns(attack, monkeypatch, threat=ThreatModel(norm, eps))
    assert_ahead(seen)


def test_so_it_is_where_batches_are_small_and_progress_is_shown(monkeypatch):
    monkeypatch.setattr(work_done, "EVERY", 0.0)
    shares: list[float] = []
    stages = [Stage("one", PGD(steps=6, restarts=2)), Stage("two", PGD(steps=6, loss="cw"))]
    seen, _ = turns(stages, monkeypatch, threat=LINF, batch_size=10, progress=shares.append)
    assert all(turn.waits <= (2 if turn.verified else 1) for turn in seen)
    assert shares[-1] == 1


def test_the_host_waits_for_no_verdict_on_sure_candidates(monkeypatch):
    seen, _ = turns("pgd(steps=20, restarts=3)", monkeypatch, threat=LINF, certainty=Certainty(1e-6))
    assert all(turn.waits <= 2 for turn in seen)
    assert sum(turn.waits == 2 for turn in seen) >= 3
    assert sum(turn.verifying for turn in seen) == 0


def test_where_candidates_are_not_due_the_host_does_not_wait(monkeypatch):
    seen, _ = turns("pgd(steps=20)", monkeypatch, threat=LINF, verify_every=5)
    assert [turn.waits for turn in seen if not turn.closes][:4] == [0, 0, 0, 0]


def refused(points, samples, attempt):
    """On the device of the points."""
    no = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    return Verification(no, no, no)


@contextmanager
def gpu_waits():
    """The warnings of torch about operations that wait for a GPU."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            yield seen
    finally:
        torch.cuda.set_sync_debug_mode("default")


RULES = [PGD(steps=10), APGD(steps=10), APGD(steps=10, loss="dlr_targeted", targets=3), Square(queries=20)]


@pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))],
)
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_step_without_candidates_waits_once_on_the_device_itself(rule, device):
    model, images, labels = (one.to(device) for one in clipped_task(count=64))
    task = Task(images, labels, [str(row) for row in range(64)], ThreatModel("Linf", 1e-6), 0, "test")
    shared = Shared(model, task, refused, 1, watch=False)
    queue = stage_queue(Stage("", rule), task, 10)
    queue.waiting.extend(range(64))
    fill(queue, shared, 64)
    # The first one fills caches and loads kernels.
    step(queue, shared)
    for _ in range(8):
        with counted_synchronisations() if device == "cpu" else gpu_waits() as waits:
            step(queue, shared)
        number = waits.total if device == "cpu" else sum("synchroniz" in str(one.message) for one in waits)
        assert number == 1
