"""Where memory runs out the batch is halved and nobody is lost or treated otherwise; and the batch is kept full."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import solving
from builders import network, slow_unless, task_of
from gauntlet.attacks.apgd import APGD
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.solving.solver import Meter, Stage
from gauntlet.attacks.solving.stage_conditions import Near
from gauntlet.attacks.square import Square
from gauntlet.bench.verify.verifier import Verifier
from solving import broken, outcomes

N, CLASSES = 40, 5
LINF = ThreatModel("Linf", 0.06)


def exhaust():
    """Ask the CPU for more than any address space has: torch says so by a RuntimeError whose text alone tells it apart."""
    torch.empty(2**50, dtype=torch.uint8)


def refuse():
    """What a GPU answers."""
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def fail():
    """Any other error."""
    raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


OUT_OF_MEMORY = {"GPU": refuse, "CPU": exhaust}
CASCADE = (
    Stage("pgd", PGD(steps=1, restarts=2, step_size=0.3)),
    Stage("square", Square(queries=60), Near(0.6)),
    Stage("targets", APGD(steps=4, loss="dlr_targeted", targets=2)),
)


@pytest.fixture(scope="module")
def task():
    return task_of(network(36, 20, CLASSES, activation=nn.Tanh), (1, 6, 6), N, seed=6)


class Scarce(nn.Module):
    """Runs out of memory for more than `most` images: of all passes, or of those with or without gradients."""

    def __init__(self, model, most, fails, passes="all"):
        super().__init__()
        self.model, self.most, self.fails, self.passes = model, most, fails, passes
        self.refused = 0

    def forward(self, x):
        kind = "gradient" if x.requires_grad else "forward"
        if len(x) > self.most and self.passes in ("all", kind):
            self.refused += 1
            self.fails()
        return self.model(x)


def run(attack, model, task, *, verify=None, **options):
    """Outcomes in the order of the samples; the verifier has as much memory as it needs."""
    inner, images, labels = task
    verify = verify or Verifier(inner, images, labels, [f"sample {i}" for i in range(N)], LINF, seed=0)
    return outcomes(attack, model, images, labels, LINF, verify=verify, classes=CLASSES, **options)


def assert_same(one, other):
    """The same outcomes by the same stages."""
    assert [(first.stage, first.taken) for first in one] == [(second.stage, second.taken) for second in other]
    solving.assert_same(one, other)


@pytest.fixture(scope="module")
def expected(task):
    """What the cascade gives with a batch that fits from the start."""
    found = run(CASCADE, task[0], task, batch_size=4)
    assert {one.stage for one in found} == {"pgd", "targets", "square", ""}
    return found


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
@pytest.mark.parametrize("passes", ["all", "gradient", "forward"])
def test_a_batch_that_does_not_fit_is_halved_until_it_does_and_nothing_else_changes(task, expected, kind, passes):
    model, meter = Scarce(task[0], 7, OUT_OF_MEMORY[kind], passes), Meter()
    assert_same(run(CASCADE, model, task, batch_size=32, meter=meter), expected)
    # 32, 16, 8: each is tried once, and 4 fits.
    assert meter.halved == model.refused == 3


def test_memory_that_runs_out_half_way_costs_nobody_his_place(task, expected):
    class Filling(Scarce):
        """What fits gets less and less: as if others took the memory."""

        def forward(self, x):
            self.most = max(3, self.most - 1)
            return super().forward(x)

    model, meter = Filling(task[0], 60, OUT_OF_MEMORY["GPU"]), Meter()
    assert_same(run(CASCADE, model, task, batch_size=N, meter=meter), expected)
    assert meter.halved == model.refused > 2


@dataclass(frozen=True, kw_only=True)
class Greedy(PGD):
    """Runs out of memory in one of the rule's methods."""

    method: str
    most: int = 5

    def _claim(self, method, count):
        if method == self.method and count > self.most:
            raise torch.cuda.OutOfMemoryError(f"in {method}")

    def start(self, oracle):
        self._claim("start", len(oracle.labels))
        return super().start(oracle)

    def step(self, state, oracle):
        state = super().step(state, oracle)
        self._claim("step", len(state.x))
        return state

    def last(self, state):
        self._claim("last", len(state.x))
        return super().last(state)


@pytest.mark.parametrize("method", ["start", "step", "last"])
def test_memory_may_run_out_in_any_method_of_a_rule(task, method):
    plain, greedy = PGD(steps=3, restarts=3), Greedy(steps=3, restarts=3, method=method)
    meter = Meter()
    found = run(greedy, task[0], task, batch_size=N, meter=meter)
    assert_same(found, run(plain, task[0], task, batch_size=3))
    assert meter.halved >= 2
    assert 0 < sum(one.adversarial is None for one in found) < N


def test_memory_may_run_out_while_candidates_are_verified(task, expected):
    inner, images, labels = task
    judge = Verifier(inner, images, labels, [f"sample {i}" for i in range(N)], LINF, seed=0)

    def verify(points, samples, attempt):
        if len(points) > 2:
            raise torch.cuda.OutOfMemoryError("in the verifier")
        return judge(points, samples, attempt)

    meter = Meter()
    assert_same(run(CASCADE, inner, task, verify=verify, batch_size=N, meter=meter), expected)
    assert meter.halved > 0


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_a_single_image_that_does_not_fit_is_an_error(task, kind):
    meter = Meter()
    with pytest.raises(RuntimeError, match="memory"):
        run(CASCADE, Scarce(task[0], 0, OUT_OF_MEMORY[kind]), task, batch_size=8, meter=meter)
    assert meter.halved == 3


def test_another_error_is_passed_on_at_once(task):
    model, meter = Scarce(task[0], 7, fail), Meter()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run(CASCADE, model, task, batch_size=32, meter=meter)
    assert (meter.halved, model.refused) == (0, 1)


def test_a_batch_that_fits_is_never_halved(task):
    meter = Meter()
    run(CASCADE, task[0], task, meter=meter)
    assert meter.halved == 0


class Uneven(nn.Module):
    """Of two classes: images whose first pixel is bright are broken at once, dark ones never."""

    def forward(self, x):
        gap = torch.where(x[:, 0, 0, 0] > 0.5, x[:, 0, 1, 1] - 0.5, 1 + x[:, 0, 1, 1])
        return torch.stack([gap, -gap], dim=1)


@pytest.mark.parametrize("batch_size", [8, slow_unless(False, 50)])
@pytest.mark.parametrize("hard", [0.1, 0.7])
@pytest.mark.parametrize("attack", ["one rule", "with restarts", "cascade"])
def test_with_many_more_samples_than_slots_the_batch_stays_full_whatever_the_mix(attack, hard, batch_size):
    generator = torch.Generator().manual_seed(8)
    count = 30 * batch_size
    images = 0.51 + 0.01 * torch.rand(count, 1, 2, 2, generator=generator)
    images[:, 0, 0, 0] = torch.where(torch.rand(count, generator=generator) < hard, 0.2, 0.8)
    labels, ids = torch.zeros(count, dtype=torch.int64), [str(i) for i in range(count)]
    stages = {
        "one rule": [Stage("pgd", PGD(steps=15))],
        "with restarts": [Stage("pgd", PGD(steps=5, restarts=4))],
        "cascade": [
            Stage("few", PGD(steps=2)),
            Stage("more", PGD(steps=10, loss="cw")),
            Stage("search", Square(queries=20)),
        ],
    }[attack]
    model, meter = Uneven().eval(), Meter()
    found = outcomes(stages, model, images, labels, LINF, ids=ids, batch_size=batch_size, classes=2, meter=meter)
    assert torch.equal(broken(found), images[:, 0, 0, 0] > 0.5)
    assert 0.8 < meter.occupancy <= 1
    # No step of the model is spent on empty slots beyond what is counted.
    assert meter.slots == sum(one.taken for one in found)
