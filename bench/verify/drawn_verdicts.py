"""Verdicts on randomised models: a success wins the majority of fresh draws, which are independent of the attack's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.random import Draws, model_randomness, sample_keys
from gauntlet.attacks.views.keyed_draws import draws_by_key
from gauntlet.bench.verify.verdicts import Verdicts
from gauntlet.leaderboard.results.record import DRAWS

CONFIRMATIONS = (1, 4, 10)
"""Numbers of sets of 20 draws after each of which a success on a randomised model must have won the majority of all draws so far.
Of an example that wins 45 % of all draws this accepts 5 % (one that wins 40 %: 0.2 %); an attack may propose a hundred."""
SUFFICIENT = (18, 54, 100)
"""Numbers of draws won at these looks that end them: an example that wins half of all draws gets so many of 20, or of 80, in less
than one of 500 cases."""
_TOGETHER = 64
"""Images in one pass of a randomised model, at most: all of the data at once may not fit into memory."""


class DrawnVerdicts:
    """Judges points of the samples of `verdicts` on `model`, by draws that are keyed by `seed`, purpose, sample and attempt."""

    def __init__(self, model: nn.Module, verdicts: Verdicts, seed: int, device: torch.device) -> None:
        self.model = model
        self.verdicts = verdicts
        self.seed = seed
        self.device = device
        self._keys: dict[str, Tensor] = {}

    def hold(self, points: Tensor, samples: Tensor, attempt: Tensor) -> Tensor:
        """Whether a point wins the majority of draws at each look of `CONFIRMATIONS`, bool (N,).

        An attack proposes point after point: one that won a single set by luck would lose the draws that score it.
        """
        left = torch.arange(len(points), device=points.device)
        holds = torch.zeros(len(points), dtype=torch.bool, device=points.device)
        won = torch.zeros(len(points), dtype=torch.float64, device=points.device)
        for number in range(CONFIRMATIONS[-1]):
            share, _, _ = self.shares(points[left], samples[left], f"judge {number}", attempt[left])
            won[left] += (share * DRAWS).round()
            # What no draw up to the next look can change is decided now.
            look = next(place for place, sets in enumerate(CONFIRMATIONS) if number < sets)
            sets = CONFIRMATIONS[look]
            holds |= won >= SUFFICIENT[look]
            left = left[(2 * (won[left] + DRAWS * (sets - 1 - number)) >= DRAWS * sets) & ~holds[left]]
            if not len(left):
                break
        return holds

    def shares(self, points: Tensor, samples: Tensor, purpose: str, attempt: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The share of draws that the attack wins, the commonest prediction, and the mean margin, each (N,)."""
        votes, gaps, wrong = [], [], torch.zeros(len(points), dtype=torch.float64, device=points.device)
        for number in torch.arange(DRAWS, device=points.device).split(self._together(points, samples)):
            many = len(number)
            where = samples.repeat(many)
            draws = Draws(self._keys_for(purpose)[where], attempt.repeat(many), number.repeat_interleave(len(points)))
            logits = self._logits(points.repeat(many, *[1] * (points.dim() - 1)), draws)
            self.verdicts.check(logits)
            votes.append(self.verdicts.predictions(logits).view(many, -1))
            won, gap = self.verdicts.won(logits, where)
            gaps.append(gap.view(many, -1))
            wrong += won.view(many, -1).sum(0)
        return wrong / DRAWS, torch.cat(votes).mode(0).values, torch.cat(gaps).mean(0)

    def _together(self, points: Tensor, samples: Tensor) -> int:
        """Draws that are made in one pass: of a model that draws by key, as many as `_TOGETHER` allows."""
        most = min(DRAWS, _TOGETHER // len(points))
        if most < 2 or not draws_by_key(self.model, points, self._keys_for("by key")[samples]):
            return 1
        return most

    def _logits(self, points: Tensor, draws: Draws) -> Tensor:
        parts = []
        for rows in torch.arange(len(points), device=points.device).split(_TOGETHER):
            some = Draws(draws.keys[rows], draws.restart[rows], draws.step[rows])
            with model_randomness(some), torch.no_grad(), torch.autocast(points.device.type, enabled=False):
                parts.append(self.model(points[rows]))
        return torch.cat(parts)

    def _keys_for(self, purpose: str) -> Tensor:
        """The keys of all samples for a purpose, int64 (N,)."""
        if purpose not in self._keys:
            self._keys[purpose] = sample_keys(self.seed, purpose, self.verdicts.ids, self.device)
        return self._keys[purpose]
