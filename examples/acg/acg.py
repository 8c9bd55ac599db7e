"""ACG: Yamamura et al., "Diversified adversarial attacks based on conjugate gradient method", ICML 2022, arXiv 2206.09628."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

import gauntlet
from gauntlet import ops


class State(NamedTuple):
    x: Tensor  # the iterate, not evaluated yet
    before: Tensor  # (N, 3, C, H, W): the iterate before, its gradient, and the direction of the step from it
    best: Tensor  # the same for the iterate with the highest loss
    loss: Tensor  # of the iterate before
    highest: Tensor  # loss so far
    checked: Tensor  # highest loss at the last checkpoint
    size: Tensor  # of a step
    halved: Tensor  # bool, whether the size was halved at the last checkpoint
    rises: Tensor  # number of steps since then that raised the loss


@dataclass(frozen=True, kw_only=True)
class ACG(gauntlet.Rule[State]):
    """Ascent of the margin along conjugate directions, with the step sizes and checkpoints of Auto-PGD."""

    steps: int = 100
    restarts: int = 1

    def start(self, oracle):
        clean, threat = oracle.clean, oracle.threat
        centre = (ops.project(clean - threat.eps, clean, threat) + ops.project(clean + threat.eps, clean, threat)) / 2
        first = ops.per_image(oracle.restart == 0, clean)
        x = torch.where(first, centre, ops.random_point(clean, threat, oracle.draws))
        none = torch.stack([x, 0 * x, 0 * x], dim=1)
        count = torch.zeros_like(oracle.labels)
        size = torch.full_like(x[:, 0, 0, 0], 2 * threat.eps)
        losses = {"loss": size + torch.inf, "highest": size - torch.inf, "checked": size - torch.inf}
        return State(x=x, before=none, best=none, size=size, halved=count == 0, rises=count, **losses)

    def step(self, state, oracle):
        _, loss, gradient = oracle.gradient(state.x, ops.cw)
        _, gradient_before, direction_before = state.before.unbind(1)
        change = gradient_before - gradient
        beta = ops.inner(gradient, change) / ops.inner(direction_before, change)
        beta = ops.per_image(beta.clamp_min(0).nan_to_num(0, 0), gradient).to(gradient.dtype)
        here = torch.stack([state.x, gradient, gradient + beta * direction_before], dim=1)
        best = torch.where(ops.per_image(loss > state.highest, here), here, state.best)
        highest = torch.maximum(loss, state.highest)
        rises = state.rises + (loss > state.loss)

        period = ops.checkpoint_period(oracle.step, self.steps)
        due = period > 0
        halve = due & ((rises <= 0.75 * period) | (~state.halved & (highest <= state.checked)))
        here = torch.where(ops.per_image(halve, here), best, here)
        size = torch.where(halve, state.size / 2, state.size)
        x, _, direction = here.unbind(1)
        x = ops.project(x + ops.per_image(size, x) * direction.sign(), oracle.clean, oracle.threat)
        halved = torch.where(due, halve, state.halved)
        losses = {"loss": loss, "highest": highest, "checked": torch.where(due, highest, state.checked)}
        return State(x=x, before=here, best=best, size=size, halved=halved, rises=rises * ~due, **losses)


CARD = gauntlet.AttackCard("acg", "ascent along conjugate directions", "arXiv 2206.09628", ("Linf",))
gauntlet.register_attack("acg", gauntlet.AttackEntry(CARD, lambda threat, **settings: ACG(**settings)))
