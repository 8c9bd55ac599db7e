"""HopSkipJump: Chen, Jordan, Wainwright, "HopSkipJumpAttack: a query-efficient decision-based attack", IEEE S&P 2020."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from gauntlet.attacks.ops.losses import misclassified
from gauntlet.attacks.ops.norms import distance, per_image, steepest
from gauntlet.attacks.ops.random import Draws
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.ops.validators import boolean, positive, whole_number
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule

_START, _SEARCH, _PROBE, _STRIDE = range(4)
"""Phases, by what the next query seeks: a misclassified image, the boundary, its direction, the length of a step."""
_LENGTHS = 10
"""Number of lengths at which the directions to the ends of earlier stages are tried."""
_MOST_PROBES = 10_000
_MOST_STRIDES = 20
"""Number of halvings after which a step is given up, at a millionth of its first length."""


class State(NamedTuple):
    """The search of each slot; leading dimension: the slot. Real numbers are float64."""

    x: Tensor
    """The misclassified point nearest to the boundary; the clean image before the first misclassified point."""
    far: Tensor
    """The misclassified point from which the search for the boundary started."""
    total: Tensor
    """Sum of the probes' directions."""
    voted: Tensor
    """Sum of the directions, each with the sign of its answer; after the probes, the direction of the step."""
    votes: Tensor
    """Sum of the answers: +1 if misclassified, else −1."""
    phase: Tensor
    """int64, one of the four phases."""
    made: Tensor
    """int64, number of queries in this phase."""
    iteration: Tensor
    """int64, from 1."""
    low: Tensor
    high: Tensor
    """Bounds of the binary search: share of the way to `far` (L2), radius (Linf)."""
    length: Tensor
    """Length of a probe or of the step."""
    gap: Tensor
    """Logarithm of the distance of `x` in units of eps; infinite before the first misclassified point."""


@dataclass(frozen=True, kw_only=True)
class HopSkipJump(Rule[State]):
    """From a misclassified image to the boundary by bisection, along it by steps whose direction is estimated from labels.

    `queries`: number of forward passes for each restart of a sample; `stop_inside`: stop at the first point inside eps;
    `restarts`: number of starts, including the first, which may lead to other classes; `probes`: number of directions in the
    first iteration, √t times as many in the t-th, at most 10,000; `gamma`: scale of the search's tolerance,
    gamma · d^(−3/2) for L2 and gamma · d^(−2) for Linf, and of the probes' length (d: number of pixels). It uses only the
    predicted label.

    Algorithm 2 of the paper, untargeted, with the step by geometric progression. Departures from it and the authors' code:
    - The budget is the number of queries, not of iterations, including the queries that seek the first misclassified image.
    - That image is uniform noise, in turn of single pixels and of blocks, grey and black-and-white, since on many models all
      uniform noise belongs to one class. It is not blended before the first bisection, as in the paper.
    - In a cascade the directions in which earlier stages ended are tried first, a little further at each attempt until they reach
      across the box: a view's gradients often lead to a nearer boundary than noise, although they stopped short of it.
    - The bisection ends at the resolution of the images' dtype. A step that never succeeds is given up.
    - The result is the closest point of all queries, not the last iterate.
    """

    version: ClassVar[int] = 3
    leaves_ball: ClassVar[bool] = True
    uses_ends: ClassVar[bool] = True

    queries: int = 5000
    restarts: int = 1
    probes: int = 100
    gamma: float = 1.0
    stop_inside: bool = False

    def __post_init__(self) -> None:
        whole_number("queries", self.queries, 1)
        whole_number("restarts", self.restarts, 1)
        whole_number("probes", self.probes, 1)
        positive("gamma", self.gamma)
        boolean("stop_inside", self.stop_inside)

    @property
    def budget(self) -> int:
        """`queries`."""
        return self.queries

    @property
    def minimum_norm(self) -> bool:
        """Unless `stop_inside`."""
        return not self.stop_inside

    def start(self, oracle: Oracle) -> State:
        """At the clean image, before any query."""
        x = oracle.clean
        count, zero = torch.zeros_like(oracle.labels), torch.zeros_like(x)
        real = torch.zeros(count.shape, dtype=torch.float64, device=x.device)
        return State(
            x=x,
            far=x,
            total=zero,
            voted=zero,
            votes=real,
            phase=count + _START,
            made=count,
            iteration=count + 1,
            low=real,
            high=real,
            length=real,
            gap=torch.full_like(real, torch.inf),
        )

    def step(self, state: State, oracle: Oracle) -> State:
        """One query of each slot, in whichever phase it is."""
        direction = self._directions(state, oracle)
        point = self._query(state, direction, oracle)
        wrong = misclassified(oracle.logits(point), oracle.labels)
        # The box cuts probes short: the direction that was evaluated counts.
        asked = (point - state.x) / per_image(state.length.clamp_min(1e-30), point).to(point.dtype)
        return self._answered(state, point, asked, wrong, oracle)

    def last(self, state: State) -> None:
        """Every point is evaluated in its step."""
        return

    def gap(self, state: State) -> Tensor:
        """The logarithm of the distance in units of eps."""
        return state.gap

    def _directions(self, state: State, oracle: Oracle) -> Tensor:
        """Images that may be misclassified for slots that start, unit vectors for slots that probe, 0 for the others."""
        shape, dtype, draws = oracle.clean.shape[1:], oracle.clean.dtype, oracle.draws
        found = torch.zeros_like(oracle.clean)
        for phase in (_START, _PROBE):
            rows = (state.phase == phase).nonzero().squeeze(1)
            if not len(rows):
                continue
            mine = Draws(draws.keys[rows], draws.restart[rows], draws.step[rows])
            if phase == _START:
                value = _started(
                    mine.uniform(shape, dtype=dtype), state.made[rows], oracle.clean[rows], oracle.ends[rows]
                )
            elif oracle.threat.norm == "L2":
                value = steepest(mine.normal(shape, dtype=dtype), "L2")
            else:
                value = steepest(2 * mine.uniform(shape, dtype=dtype) - 1, "L2")
            found = found.index_copy(0, rows, value)
        return found

    def _query(self, state: State, direction: Tensor, oracle: Oracle) -> Tensor:
        clean, phase = oracle.clean, per_image(state.phase, oracle.clean)
        middle = per_image((state.low + state.high) / 2, clean).to(clean.dtype)
        if oracle.threat.norm == "L2":
            between = clean + middle * (state.far - clean)
        else:
            between = torch.minimum(torch.maximum(state.far, clean - middle), clean + middle)
        along = torch.where(phase == _PROBE, direction, state.voted)
        moved = state.x + per_image(state.length, clean).to(clean.dtype) * along
        return torch.where(phase == _START, direction, torch.where(phase == _SEARCH, between, moved)).clamp(0, 1)

    def _answered(self, state: State, point: Tensor, asked: Tensor, wrong: Tensor, oracle: Oracle) -> State:
        """The state after a query of each slot."""
        phase, clean, norm = state.phase, oracle.clean, oracle.threat.norm
        pixels, count, middle = clean[0].numel(), state.made + 1, (state.low + state.high) / 2
        answer = 2 * wrong.to(torch.float64) - 1

        searching, probing, striding = phase == _SEARCH, phase == _PROBE, phase == _STRIDE
        x = torch.where(per_image(searching & wrong, point), point, state.x)
        low = torch.where(searching & ~wrong, middle, state.low)
        high = torch.where(searching & wrong, middle, state.high)
        probe = torch.where(per_image(probing, asked), asked, 0)
        total, voted = state.total + probe, state.voted + probe * per_image(answer, probe).to(probe.dtype)
        votes = state.votes + torch.where(probing, answer, 0)
        length = torch.where(striding & ~wrong, state.length / 2, state.length)

        # A misclassified image was found, or no step leads to another: search for the boundary.
        stuck = striding & ~wrong & (count >= _MOST_STRIDES)
        search = ((phase == _START) | striding) & wrong | stuck
        x = torch.where(per_image(search & wrong, point), point, x)
        far = torch.where(per_image(search, x), x, state.far)
        low = torch.where(search, 0, low)
        high = torch.where(search, 1 if norm == "L2" else distance(far, clean, norm), high)
        iteration = state.iteration + (search & striding)

        # The boundary was reached: probe around it.
        tolerance = self.gamma * pixels ** (-1.5 if norm == "L2" else -2)
        halvings = max(1, math.ceil(-math.log2(max(tolerance, 4 * torch.finfo(clean.dtype).eps))))
        probe_now = searching & (count >= halvings)
        first = iteration == 1
        reach = tolerance * (math.sqrt(pixels) if norm == "L2" else pixels) * distance(far, clean, norm)
        length = torch.where(probe_now, torch.where(first, 0.1, reach), length)
        total = torch.where(per_image(probe_now, total), 0, total)
        voted = torch.where(per_image(probe_now, voted), 0, voted)
        votes = torch.where(probe_now, 0, votes)

        # All probes were evaluated: make the step.
        wanted = (self.probes * iteration.to(torch.float64).sqrt()).floor().clamp_max(_MOST_PROBES)
        stride = probing & (count >= wanted)
        mean = per_image(votes / count, total).to(total.dtype)
        # If all answers are the same, the estimate is the mean of the directions.
        estimate = torch.where(mean.abs() == 1, mean * total, voted - mean * total)
        voted = torch.where(per_image(stride, voted), steepest(estimate, norm), voted)
        size = distance(x, clean, norm)
        length = torch.where(stride, size / iteration.sqrt(), length)
        gap = torch.where((phase == _START) & ~wrong, state.gap, (size / oracle.threat.eps).log())

        phase = torch.where(search, _SEARCH, torch.where(probe_now, _PROBE, torch.where(stride, _STRIDE, phase)))
        count = torch.where(search | probe_now | stride, 0, count)
        return State(
            x=x,
            far=far,
            total=total,
            voted=voted,
            votes=votes,
            phase=phase,
            made=count,
            iteration=iteration,
            low=low,
            high=high,
            length=length,
            gap=gap,
        )


def _started(noise: Tensor, attempt: Tensor, clean: Tensor, ends: Tensor) -> Tensor:
    """The images of the attempts (N,) to find a misclassified one: beyond the ends (N, k, C, H, W) of earlier stages, then noise.

    Each end is tried in turn, at lengths that grow by a constant factor until a pixel of mean change reaches across the box.
    """
    if not ends.shape[1]:
        return _blocks(noise, attempt)
    count = (ends != clean[:, None]).flatten(2).any(2).sum(1)
    which = ends[torch.arange(len(ends), device=ends.device), attempt % count.clamp_min(1)]
    change = which - clean
    across = 1 / change.abs().flatten(1).mean(1).to(torch.float64).clamp_min(1e-6)
    length = across ** ((1 + attempt // count.clamp_min(1)) / _LENGTHS)
    further = clean + per_image(length, clean).to(clean.dtype) * change
    later = attempt - _LENGTHS * count
    return torch.where(per_image(later < 0, clean), further, _blocks(noise, later.clamp_min(0)))


def _blocks(noise: Tensor, attempt: Tensor) -> Tensor:
    """Noise (N, C, H, W) in blocks of 1, 2, 4, 8 pixels in turn, by the attempt (N,); every second round is black and white."""
    side = 2 ** (attempt % 4)
    rows, columns = (
        torch.arange(size, device=noise.device) // side[:, None] * side[:, None] for size in noise.shape[2:]
    )
    slot = torch.arange(len(noise), device=noise.device)[:, None, None]
    blocks = noise.movedim(1, 3)[slot, rows[:, :, None], columns[:, None, :]].movedim(3, 1)
    return torch.where(per_image(attempt // 4 % 2 == 1, blocks), blocks.round(), blocks)


def build(threat: ThreatModel, **settings: int | float | bool) -> HopSkipJump:
    """HopSkipJump with those settings; eps plays no part unless `stop_inside`."""
    return HopSkipJump(**settings)  # type: ignore[arg-type]


ENTRY = AttackEntry(
    AttackCard(
        name="hop_skip_jump",
        summary="smallest perturbation from predicted labels alone, along the boundary",
        source="Chen et al. 2020, arXiv 1904.02144",
        norms=("Linf", "L2"),
        kind="decision-based",
        minimum_norm=True,
    ),
    build,
)
