"""Andriushchenko et al., "Square Attack: a query-efficient black-box adversarial attack via random search", ECCV 2020."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gauntlet.attacks.ops.losses import margin
from gauntlet.attacks.ops.norms import per_image, project
from gauntlet.attacks.ops.random import Draws
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.ops.validators import boolean, share, whole_number
from gauntlet.attacks.parts.square_shapes import Schedule, bump, schedule
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.attacks.solving.known import to_device
from gauntlet.attacks.solving.look_ahead import taken, widened
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.rule import Rule

_AHEAD = 32
"""Steps whose random words are drawn together: the generator takes nearly as long for the words of one step."""
_START, _STEPS = 0, 1
"""Tags of the draws."""
_TINY = 1e-12


class State(NamedTuple):
    """The best point so far, and the moves of the next steps. Leading dimensions: the slot, and for moves the step ahead.

    A move has one window (Linf) or two windows (L2, L1).
    """

    x: Tensor
    margin: Tensor
    """float64, of `x`; infinite before the first query."""
    own: Tensor
    total: Tensor
    """float64, the label's output at `x`, and the sum of all outputs."""
    drawn: Tensor
    """int64, the step of the first of the moves."""
    level: Tensor
    """int64, of the schedule; 0: evaluate `x` itself."""
    corner: Tensor
    """int64 (…, 2 · windows), row and column of each window."""
    rows: Tensor
    """bool (…, windows, H), the rows of each window."""
    columns: Tensor
    """bool (…, windows, W)."""
    signs: Tensor
    """±1 (…, C + 1): a sign for each channel, and the orientation of a bump."""


@dataclass(frozen=True, kw_only=True)
class Square(Rule[State]):
    """Random search: a square at a random place is changed as far as eps allows, and the change is kept if the margin falls.

    `queries`: number of forward passes, including that of the starting point; `restarts`: number of starts, including the first;
    `p_init`: the share of an image's pixels in the first squares, in (0, 1]; `rescale`: whether the halvings of this share,
    which are defined for 10,000 queries, are compressed to `queries` (as in the paper; not in AutoAttack, with 5,000 queries).
    Linf starts from vertical stripes of ±eps and sets squares to ±eps, a sign for each channel (Algorithm 2). L2 starts
    from a grid of small bumps and moves the mass of a second window into a bump in the first (Algorithm 3). L1 does the same
    with other bumps and the exact projection in place of scaling and clipping (Croce and Hein, ICML 2021, section 4).

    Departures from the paper (section 3) and from the authors' and AutoAttack's code:
    - Corners are drawn from all places where the square fits, as in the paper; both codes omit the last row and column. Each
      sample has its own squares, signs and orientations; AutoAttack's code shares them in a batch.
    - An Linf square that would change nothing takes the opposite signs (the authors' code draws until something changes).
    - The L2 mass of the windows is counted for each channel, as in the paper; AutoAttack's code adds the channels up.
    - Squares never exceed the image, and the tiles of the L2 start are centred, for any height and width.
    """

    looks_ahead: ClassVar[bool] = True

    queries: int = 5000
    restarts: int = 1
    p_init: float = 0.8
    rescale: bool = False

    def __post_init__(self) -> None:
        whole_number("queries", self.queries, 1)
        whole_number("restarts", self.restarts, 1)
        share("p_init", self.p_init)
        boolean("rescale", self.rescale)

    @property
    def budget(self) -> int:
        """`queries`."""
        return self.queries

    def start(self, oracle: Oracle) -> State:
        """Stripes or tiles; the first step evaluates them."""
        x = _stripes(oracle) if oracle.threat.norm == "Linf" else _tiles(oracle)
        unknown = torch.full(oracle.labels.shape, math.inf, dtype=torch.float64, device=x.device)
        return State(
            x=x, margin=unknown, own=unknown, total=unknown, drawn=oracle.step, **_moves(self._schedule(oracle), oracle)
        )

    def step(self, state: State, oracle: Oracle) -> State:
        """One query; the new point is kept if its margin is smaller. Where few slots run, several at once (`look_ahead`)."""
        many = oracle.ahead
        # The mark is `drawn`, on the host.
        if (oracle.made - oracle.mark > _AHEAD - many).any():
            # Moves depend on the step, not on when they are drawn: they are drawn for all slots at once.
            state = state._replace(drawn=oracle.step, **_moves(self._schedule(oracle), oracle))
            oracle.set_mark(oracle.made)
        wide, x, before = oracle, state.x, state.margin
        slot, ahead = torch.arange(len(x), device=x.device), oracle.step - state.drawn
        if many > 1:
            later = torch.arange(many, device=x.device).repeat(len(x))
            slot = slot.repeat_interleave(many)
            wide, x, before, ahead = widened(oracle), x[slot], before[slot], ahead[slot] + later
        rows, columns, signs = (moves[slot, ahead] for moves in (state.rows, state.columns, state.signs))
        windows = rows[..., None] & columns[:, :, None]
        if oracle.threat.norm == "Linf":
            new = _flat_square(x, windows, signs, wide)
        else:
            level, corner = state.level[slot, ahead], state.corner[slot, ahead]
            pattern = _pattern(self._schedule(oracle).bumps, level, corner, signs[:, -1] > 0, wide.clean)
            new = _bumped(x, windows, signs, pattern, wide)
            new = torch.where(per_image(level == 0, new), x, new)
        logits = wide.logits(new)
        reached = margin(logits, wide.labels).to(torch.float64)
        better = reached < before
        if many > 1:
            at = taken(oracle, wide, better, new)
            new, logits, reached, better = new[at], logits[at], reached[at], better[at]
        own = logits.gather(1, oracle.labels[:, None])[:, 0].to(torch.float64)
        return state._replace(
            x=torch.where(per_image(better, new), new, state.x),
            margin=torch.where(better, reached, state.margin),
            own=torch.where(better, own, state.own),
            total=torch.where(better, logits.sum(1, dtype=torch.float64), state.total),
        )

    def last(self, state: State) -> None:
        """Every point is evaluated in its step."""
        return

    def gap(self, state: State) -> Tensor:
        """The margin; in logarithms where the model answers with probabilities, of which the first doublings gain hardly any."""
        other = state.own - state.margin
        probable = ((state.total - 1).abs() < 1e-5) & (state.own <= 1) & (other >= 0)
        return torch.where(probable, state.own.log() - other.log(), state.margin)

    def _schedule(self, oracle: Oracle) -> Schedule:
        clean, norm = oracle.clean, oracle.threat.norm
        pace = 10_000 / self.queries if self.rescale else 1.0
        return schedule(self.queries, self.p_init, pace, tuple(clean.shape[2:]), norm, clean.dtype, clean.device)


def _moves(squares: Schedule, oracle: Oracle) -> dict[str, Tensor]:
    """Level, corner, rows, columns and signs of each slot's next steps."""
    draws, (n, channels, height, width) = oracle.draws, oracle.clean.shape
    steps = draws.step[:, None] + torch.arange(_AHEAD, device=draws.step.device)
    corners = 2 if oracle.threat.norm == "Linf" else 4
    count = corners + -(-(channels + 1) // 32)
    many = Draws(draws.keys.repeat_interleave(_AHEAD), draws.restart.repeat_interleave(_AHEAD), steps.flatten())
    words = many.bits(count, _STEPS).view(n, _AHEAD, count)
    # Steps beyond the last are drawn and not used.
    level = squares.level[steps.clamp_max(len(squares.level) - 1)]
    side = squares.sides[level][..., None]
    length = _lengths(height, width, corners // 2, words.device)
    corner = words[..., :corners] * (length - side + 1) >> 32

    def covered(first: Tensor, size: int) -> Tensor:
        offset = torch.arange(size, device=first.device) - first[..., None]
        return (offset >= 0) & (offset < side[..., None])

    rows, columns = covered(corner[..., 0::2], height), covered(corner[..., 1::2], width)
    signs = _signs(words[..., corners:], channels + 1, oracle.clean.dtype)
    return {"level": level, "corner": corner, "rows": rows, "columns": columns, "signs": signs}


@lru_cache(maxsize=32)
def _lengths(height: int, width: int, windows: int, device: torch.device) -> Tensor:
    """Height and width for each window, int64 (2 · windows,)."""
    return to_device(np.array([height, width] * windows), device)


def _signs(words: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """±1 from the bits of `words` (…, k), (…, count)."""
    bit = torch.arange(count, device=words.device)
    return (2 * (words[..., bit // 32] >> bit % 32 & 1) - 1).to(dtype)


def _stripes(oracle: Oracle) -> Tensor:
    clean = oracle.clean
    count = clean.shape[1] * clean.shape[3]
    signs = _signs(oracle.draws.bits(-(-count // 32), _START), count, clean.dtype)
    return (clean + oracle.threat.eps * signs.view(len(clean), clean.shape[1], 1, -1)).clamp(0, 1)


def _flat_square(x: Tensor, windows: Tensor, signs: Tensor, oracle: Oracle) -> Tensor:
    change = oracle.threat.eps * signs[:, :-1, None, None]
    new = torch.where(windows, (oracle.clean + change).clamp_(0, 1), x)
    still = (new - x).abs().flatten(1).amax(1) == 0
    change = torch.where(per_image(still, x), -change, change)
    return torch.where(windows, (oracle.clean + change).clamp_(0, 1), x)


def _tiles(oracle: Oracle) -> Tensor:
    clean = oracle.clean
    n, channels, height, width = clean.shape
    side = max(min(height // 5, width), 1)
    rows, columns = height // side, width // side
    count = rows * columns * (channels + 1)
    bits = _signs(oracle.draws.bits(-(-count // 32), _START), count, clean.dtype)
    bits = bits.view(n, channels + 1, rows, columns, 1, 1)
    tile = bump(side, oracle.threat.norm).to(clean)
    tiles = bits[:, 1:] * torch.where(bits[:, :1] > 0, tile.T, tile)
    grid = tiles.transpose(3, 4).reshape(n, channels, rows * side, columns * side)
    top, left = (height - rows * side) // 2, (width - columns * side) // 2
    delta = torch.zeros_like(clean)
    delta[:, :, top : top + rows * side, left : left + columns * side] = grid
    return _within(delta, oracle)


def _bumped(x: Tensor, windows: Tensor, signs: Tensor, pattern: Tensor, oracle: Oracle) -> Tensor:
    """Algorithm 3: the norm of both windows, and the unused part of eps, move into the first window."""
    delta, first, either = x - oracle.clean, windows[:, :1].to(x.dtype), windows[:, :1] | windows[:, 1:]
    power = 1 if oracle.threat.norm == "L1" else 2
    # Sums of `mass` are norms to that power.
    mass = delta.abs() if power == 1 else delta.square()
    unused = (oracle.threat.eps**power - mass.sum((1, 2, 3), keepdim=True)).clamp_min(0)
    available = _root((mass * either).sum((2, 3), keepdim=True) + unused / x.shape[1], power)
    old = delta / (_root((mass * first).sum((2, 3), keepdim=True), power) + _TINY)
    new = (pattern * signs[:, :-1, None, None] + old) * first
    size = _root((new.abs() if power == 1 else new.square()).sum((2, 3), keepdim=True), power) + _TINY
    if power == 1:
        # As in AutoAttack's code: each channel gets as much as all channels together may have, and the projection cuts it.
        available = available * x.shape[1]
    return _within(torch.where(either, new * (available / size), delta), oracle)


def _root(mass: Tensor, power: int) -> Tensor:
    return mass if power == 1 else mass.sqrt()


def _pattern(bumps: Tensor, level: Tensor, corner: Tensor, turned: Tensor, like: Tensor) -> Tensor:
    """The bump of each slot's size at its place, (N, 1, H, W); arbitrary outside the square."""
    side = bumps.shape[-1]
    grid = torch.arange(max(like.shape[2:]), device=like.device)
    row, column = ((grid[: like.shape[2 + i]] - corner[:, i, None]).clamp(0, side - 1) for i in (0, 1))
    row = (row + (2 * level + turned)[:, None] * side) * side
    return torch.take(bumps, row[:, :, None] + column[:, None, :])[:, None]


def _within(delta: Tensor, oracle: Oracle) -> Tensor:
    """The image with the perturbation: for L2 scaled to length eps and clipped to the box, for L1 the nearest allowed one."""
    if oracle.threat.norm == "L2":
        delta = delta * (oracle.threat.eps / (delta.square().sum((1, 2, 3), keepdim=True).sqrt() + _TINY))
    return project(oracle.clean + delta, oracle.clean, oracle.threat)


def build(threat: ThreatModel, **settings: int | float | bool) -> Square:
    """Square Attack with those settings."""
    return Square(**settings)  # type: ignore[arg-type]


ENTRY = AttackEntry(
    AttackCard(
        name="square",
        summary="random search over square patches, by logits alone",
        source="Andriushchenko et al. 2020, arXiv 1912.00049; L1: Croce and Hein 2021, arXiv 2103.01208",
        norms=("Linf", "L2", "L1"),
        kind="black-box",
    ),
    build,
)
