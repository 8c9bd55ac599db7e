"""Which part of a state dict is a model's: below which prefix its keys are, and what else the file holds beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_WRAPPERS = frozenset({"module", "_orig_mod", "model", "net", "attacker"})
"""Names by which wrappers hold the network: DataParallel and moving averages, torch.compile, training classes of Lightning and
timm, and AttackerModel of MadryLab's `robustness`, which holds it twice."""
_COUNTERS = ("n_averaged", "num_batches_tracked")
"""Counters of torch's moving average and of batch norm, which have no effect in eval mode."""


@dataclass(frozen=True)
class Fit:
    """The part of a state dict that is taken for a model's."""

    prefix: str
    """Removed from the keys."""
    state: Mapping[str, Tensor]
    """All below the prefix, without it, but copies of weights elsewhere in the file."""
    left: Mapping[str, Tensor]
    """The rest, by its keys in the file; counters are left out."""
    alike: tuple[str, ...] = ()
    """Other prefixes below which all keys and shapes fit too, with other values."""


def fit_state(state: Mapping[str, Tensor], own: Mapping[str, Tensor], prefix: str | None = None) -> Fit:
    """The part of a state dict that fits a model with the state dict `own` best.

    Without a `prefix` those of the usual wrappers are tried, in any combination; the shortest wins of those below which equally
    many keys are the model's.
    """
    fitting = _prefixes(state, own)
    if prefix is None:
        usual = [name for name in fitting if set(name.split(".")[:-1]) <= _WRAPPERS]
        prefix = min(usual, key=lambda name: (-fitting[name], "attacker" in name, len(name)), default="")
    below = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
    copies = {name for name in below if name not in own and _is_copy(name, below, own)}
    taken = {name: value for name, value in below.items() if name not in copies and (name in own or not _counts(name))}
    left = {
        name: value
        for name, value in state.items()
        if not _counts(name) and (not name.startswith(prefix) or name[len(prefix) :] in copies)
    }
    others = [
        other
        for other in whole_fits(state, own)
        if other != prefix
        and all(name in taken and not torch.equal(taken[name], state[other + name]) for name in _first(own))
    ]
    return Fit(prefix, taken, left, tuple(others))


def whole_fits(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """All prefixes below which every key of a model is, with its shape."""
    needed = [name for name in own if not _counts(name)]
    return [
        prefix
        for prefix in _prefixes(state, own)
        if needed and all(prefix + name in state and state[prefix + name].shape == own[name].shape for name in needed)
    ]


def _first(own: Mapping[str, Tensor]) -> list[str]:
    """The first weight of a model, by which copies are told from other weights."""
    return [name for name in own if not _counts(name)][:1]


def _prefixes(state: Collection[str], own: Collection[str]) -> Counter[str]:
    """How many keys of a model are below each prefix."""
    found: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for place in range(len(parts)):
            if ".".join(parts[place:]) in own:
                found["".join(f"{part}." for part in parts[:place])] += 1
    return found


def _is_copy(name: str, below: Mapping[str, Tensor], own: Collection[str]) -> bool:
    """Whether a key that is not the model's ends as one that is, with the same values."""
    parts = name.split(".")
    for place in range(1, len(parts)):
        shorter = ".".join(parts[place:])
        if shorter in own and shorter in below:
            return below[shorter].shape == below[name].shape and torch.equal(below[shorter], below[name])
    return False


def _counts(name: str) -> bool:
    return name.endswith(_COUNTERS)
