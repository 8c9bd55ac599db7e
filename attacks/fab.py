"""FAB, FAB-T: Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from gauntlet.attacks.ops.box_projection import inner, move_to_hyperplane
from gauntlet.attacks.ops.losses import misclassified
from gauntlet.attacks.ops.norms import distance, per_image
from gauntlet.attacks.ops.threat import Norm, ThreatModel
from gauntlet.attacks.ops.validators import boolean, number, share, whole_number
from gauntlet.attacks.parts.nearest_class import begin, look, nearest_of
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.slots import put, select

_FIRST_CUT = 0.995
"""Where the final search starts, as a share of the closest perturbation: iterates are seldom further beyond the boundary."""
_SHORT = 0.05
"""Distance that the final search keeps from the computed boundary, where rounding decides, as a share of the remaining way."""


class State(NamedTuple):
    """One restart, and the fields of `Nearest`; leading dimension: the slot."""

    x: Tensor
    iteration: Tensor
    """int64, number of moves, then of passes of the final search."""
    closer: Tensor
    """bool, whether this restart has found a closer misclassified point than the restarts before."""
    pulled: Tensor
    """bool, whether x was misclassified and is pulled back, but not evaluated yet (untargeted only)."""
    order: Tensor
    place: Tensor
    away: Tensor
    gap: Tensor
    normal: Tensor
    least: Tensor
    """float64, the gap of this restart (`FAB.gap`); infinite before a misclassified iterate, and without `stop_inside`."""


@dataclass(frozen=True, kw_only=True)
class FAB(Rule[State]):
    """Project onto the boundary of the linearised model, within the box, with a bias towards the clean image.

    With d and d₀ the smallest moves of x and of the clean image onto the boundary's hyperplane, and
    α = min(‖d‖ / (‖d‖ + ‖d₀‖), alpha_max), x ← clip((1 − α)(x + eta · d) + α(clean + eta · d₀)); a misclassified iterate is
    then pulled back to clean + beta · (x − clean).

    `targeted`: FAB-T, whose n-th restart goes to the boundary of the n-th most likely wrong class, with one pass for each
    iteration; otherwise the nearest boundary, with one pass for each class in each iteration. `classes`: number of most likely
    wrong classes, ranked at the first point of the restart. `steps`: number of iterations of a restart. `restarts`: number of
    rounds over all targets; rounds after the first start at half the smaller of eps and the distance so far. `search_steps`:
    passes of the final search. `stop_inside`: stop at the first success inside eps instead of seeking the smallest perturbation.

    Departures from the paper (section 3, algorithm 1) and the authors' code:
    - FAB-T makes one forward and one backward pass in each iteration, where the authors make two forward and one backward: if an
      iterate is misclassified, the model is linearised there, and not at the point to which it is pulled back.
    - The final search on the line to the clean image (in the paper's first code, not in AutoAttack's) uses the zero of the
      linearised margin in place of the secant's, stays slightly on the misclassified side of it, and takes place only after a
      restart that found a closer point.
    - Random starts rank their target classes at the start, not at the clean image.
    - With more than `classes` + 1 classes, the untargeted attack examines the most likely classes only.
    """

    version: ClassVar[int] = 2
    leaves_ball: ClassVar[bool] = True

    targeted: bool = True
    classes: int = 9
    steps: int = 100
    restarts: int = 1
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    search_steps: int = 3
    stop_inside: bool = False

    def __post_init__(self) -> None:
        for name, least in (("classes", 1), ("steps", 1), ("restarts", 1), ("search_steps", 0)):
            whole_number(name, getattr(self, name), least)
        number("alpha_max", self.alpha_max, least=0, most=1)
        number("eta", self.eta, least=1)
        share("beta", self.beta)
        boolean("targeted", self.targeted)
        boolean("stop_inside", self.stop_inside)

    @property
    def minimum_norm(self) -> bool:
        """Unless `stop_inside`."""
        return not self.stop_inside

    @property
    def budget(self) -> int:
        """Largest number of passes: those of all iterations, and without `stop_inside` those of the final search."""
        return self.steps * (1 if self.targeted else self.classes + 1) + self._search_steps

    @property
    def total_restarts(self) -> int:
        """`restarts`, times the number of targets."""
        return self.restarts * self._targets

    @property
    def _search_steps(self) -> int:
        return 0 if self.stop_inside else self.search_steps

    @property
    def _targets(self) -> int:
        return self.classes if self.targeted else 1

    @property
    def _looked_at(self) -> int:
        return 1 if self.targeted else self.classes

    def for_classes(self, classes: int) -> FAB:
        """With at most as many targets as there are wrong classes."""
        return replace(self, classes=min(self.classes, classes - 1))

    def start(self, oracle: Oracle) -> State:
        """At the clean image in the first round, then at a random point."""
        x = torch.where(per_image(oracle.restart >= self._targets, oracle.clean), _random(oracle), oracle.clean)
        nearest = begin(x, self._looked_at)
        count = nearest.place
        least = torch.full(count.shape, torch.inf, dtype=torch.float64, device=x.device)
        return State(x=x, iteration=count, closer=count.bool(), pulled=count.bool(), **nearest._asdict(), least=least)

    def step(self, state: State, oracle: Oracle) -> State:
        """One pass; after the pass for the last class, the move, or the next point of the final search."""
        before = oracle.slots.distance
        searching = state.iteration >= self.steps
        rank = oracle.restart % self._targets
        logits, nearest = look(nearest_of(state), state.x, oracle, rank, None if self.stop_inside else searching)
        closer = state.closer | (oracle.slots.distance < before)
        wrong = misclassified(logits, oracle.labels)
        back = oracle.clean + self.beta * (state.x - oracle.clean)
        # Evaluating the point to which it is pulled back costs one pass in ten, if all classes are examined anyway.
        pull = wrong & (nearest.place == 1) & ~state.pulled & ~searching & (not self.targeted)
        nearest = nearest._replace(place=torch.where(pull, self._looked_at, nearest.place))
        complete = (searching | (nearest.place >= self._looked_at)) & ~pull
        x = torch.where(per_image(pull, back), back, state.x)
        looked = State(
            x=x,
            iteration=state.iteration + complete,
            closer=closer,
            pulled=pull | (state.pulled & ~complete),
            **nearest._asdict(),
            least=self._least(state, wrong, nearest.away, oracle),
        )
        moves = complete & ~searching
        rows = moves.nonzero().squeeze(1)
        if len(rows) == len(moves):
            # The usual case of FAB-T, which needs no second copy of the state.
            base = torch.where(per_image(wrong & self.targeted, back), back, state.x)
            looked = looked._replace(x=self._move(looked, base, oracle.clean, oracle.threat.norm))
        elif len(rows):
            base = torch.where(per_image(wrong & self.targeted, back), back, state.x)[rows]
            there, clean = select(looked, rows), oracle.clean[rows]
            looked = put(looked, rows, there._replace(x=self._move(there, base, clean, oracle.threat.norm)))
        if self.stop_inside:
            return looked
        point = _next_cut(looked, state.iteration == self.steps, oracle)
        return looked._replace(x=torch.where(per_image(searching & closer, x), point, looked.x))

    def _move(self, state: State, x: Tensor, clean: Tensor, norm: Norm) -> Tensor:
        """The move from `x`, with the model linearised at `state.x`."""
        # The gap of the same hyperplane at both points.
        level = inner(state.normal, state.x) - state.gap
        # Both in one batch: on small images the calls take most of the time.
        ends, normals = torch.cat([x, clean]), torch.cat([state.normal, state.normal])
        gain = torch.cat([level, level]) - inner(normals, ends)
        moves = move_to_hyperplane(ends, normals, gain, norm)
        own, first = moves[: len(x)], moves[len(x) :]
        near, far = (distance(x + move, x, norm).clamp_min(1e-8) for move in (own, first))
        alpha = per_image((near / (near + far)).clamp_max(self.alpha_max).to(x.dtype), x)
        return ((1 - alpha) * (x + self.eta * own) + alpha * (clean + self.eta * first)).clamp(0, 1)

    def _least(self, state: State, wrong: Tensor, away: Tensor, oracle: Oracle) -> Tensor:
        if not self.stop_inside:
            return state.least
        beyond = (distance(state.x, oracle.clean, oracle.threat.norm) / oracle.threat.eps - 1).clamp_min(0)
        least = torch.where(wrong, torch.minimum(state.least, beyond), state.least)
        return torch.where(away.isfinite(), least, 0.0)

    def gap(self, state: State) -> Tensor | None:
        """How far the restart's closest misclassified iterate is beyond eps, in units of eps, (N,); infinite before the first.

        0 once a gradient has vanished: how near a boundary is says nothing there, so that the restart has its whole budget.
        None without `stop_inside`.
        """
        return state.least if self.stop_inside else None

    def finished(self, state: State) -> Tensor:
        """Slots whose restart is over, or has nothing to refine."""
        return (state.iteration >= self.steps + self._search_steps) | ((state.iteration >= self.steps) & ~state.closer)


def _next_cut(state: State, first: Tensor, oracle: Oracle) -> Tensor:
    """The next point of the final search, on the line from the clean image to the closest misclassified point so far.

    `first`: slots whose `state.x` is not on that line yet. For the others the point is the zero of the linearised margin.
    """
    clean = oracle.clean
    delta = state.x - clean
    # Position of the closest point on the line, on which state.x is at 1.
    end = oracle.slots.distance / distance(state.x, clean, oracle.threat.norm)
    slope = inner(state.normal, delta)
    zero = 1 - state.gap.to(torch.float64) / slope
    # Without a usable slope, the closest point again.
    zero = torch.where((zero > 0.5) & (zero < end), zero, end)
    cut = torch.where(first, _FIRST_CUT, (zero + _SHORT * (end - zero)) / end).nan_to_num(1.0)
    return (clean + per_image(cut.to(clean.dtype), clean) * (oracle.slots.point - clean)).clamp(0, 1)


def _random(oracle: Oracle) -> Tensor:
    """A point at half the smaller of eps and the distance so far from the clean image, clipped to the box."""
    clean, norm = oracle.clean, oracle.threat.norm
    if norm == "Linf":
        direction = 2 * oracle.draws.uniform(clean.shape[1:], 0, clean.dtype) - 1
    else:
        direction = oracle.draws.normal(clean.shape[1:], 0, clean.dtype)
    size = distance(clean + direction, clean, norm)
    radius = oracle.slots.distance.clamp_max(oracle.threat.eps) / 2
    return (clean + per_image((radius / size).to(clean.dtype), clean) * direction).clamp(0, 1)


def build(threat: ThreatModel, **settings: int | float | bool) -> FAB:
    """The untargeted FAB with those settings; eps plays a part in random starts, and with `stop_inside`."""
    return FAB(targeted=False, **settings)  # type: ignore[arg-type]


def build_targeted(threat: ThreatModel, **settings: int | float | bool) -> FAB:
    """FAB-T with those settings; eps plays a part in random starts, and with `stop_inside`."""
    return FAB(targeted=True, **settings)  # type: ignore[arg-type]


_NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
_SOURCE = "Croce and Hein 2020, arXiv 1907.02044"
ENTRY = AttackEntry(
    AttackCard(
        name="fab",
        summary="smallest perturbation by projections onto the nearest boundary of the linearised model, within the box",
        source=_SOURCE,
        norms=_NORMS,
        minimum_norm=True,
    ),
    build,
)
TARGETED = AttackEntry(
    AttackCard(
        name="fab-t",
        summary="FAB towards one likely wrong class after another",
        source=_SOURCE,
        norms=_NORMS,
        minimum_norm=True,
    ),
    build_targeted,
)
