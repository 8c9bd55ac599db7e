"""Randomised models that draw by key: several draws of an image may then be made in one pass."""

from __future__ import annotations

import random
import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.random import Draws, model_randomness
from gauntlet.attacks.ops.rounding import difference
from gauntlet.attacks.views.guard import generators_from

_IMAGES, _DRAWS = 4, 8
_SAME = 1e-4
"""Largest `gauntlet.attacks.ops.rounding.difference` of logits that differ by rounding alone."""
_known: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def draws_by_key(model: nn.Module, images: Tensor, keys: Tensor) -> bool:
    """Whether equal draws give an image the same logits, whatever other images and draws are in the batch.

    Such a model takes all of its random numbers from `gauntlet.attacks.ops.random.active_draws`, image by image. A model that
    does not ask for them costs a single pass, others nine passes over at most four of `images` (N, C, H, W), with keys int64
    (N,): eight draws one by one, and many in one pass. It is asked once for a model. Models that use a global generator do not
    draw by key.
    """
    if model not in _known:
        with generators_from(0), torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            _known[model] = _measured(model, images[:_IMAGES], keys[:_IMAGES])
    return _known[model]


@dataclass(frozen=True)
class _Watched(Draws):
    """Draws that note whether random numbers were taken from them."""

    taken: list[int] = field(default_factory=list)

    def bits(self, count: int, tag: int) -> Tensor:
        self.taken.append(count)
        return super().bits(count, tag)


def _measured(model: nn.Module, images: Tensor, keys: Tensor) -> bool:
    before = _global_states()
    count, taken = len(images), list[int]()
    single = []
    for number in range(_DRAWS):
        with model_randomness(_Watched(keys, torch.zeros_like(keys), torch.full_like(keys, number), taken)):
            single.append(model(images))
        if not taken:
            return False
    # Of later images fewer draws, so that the batch is another one.
    pairs = [(draw, row) for draw in range(_DRAWS) for row in range(count) if draw % (row + 1) == 0]
    step, rows = torch.tensor(pairs, device=keys.device).T
    try:
        with model_randomness(Draws(keys[rows], torch.zeros_like(step), step)):
            together = model(images[rows])
    except Exception:  # Foreign code, which may refuse the batch, and memory, which may run out.
        return False
    apart = torch.stack(single)[step, rows]
    same = together.shape == apart.shape and difference(together, apart) <= _SAME
    return same and before == _global_states()


def _global_states() -> tuple[object, ...]:
    """The states of all global generators, to be compared."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    legacy: Any = np.random.get_state()
    name, words, *rest = legacy
    states = [torch.get_rng_state(), *cuda]
    return random.getstate(), name, bytes(words), *rest, *(bytes(state.numpy()) for state in states)
