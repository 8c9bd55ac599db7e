"""The normaliser that a checkpoint holds beside its network, such as `normalizer.new_mean` and `normalizer.new_std`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from gauntlet.leaderboard.results.record import Flag

_PAIRS = (("mean", "std"), ("new_mean", "new_std"), ("_mean", "_std"), ("means", "stds"), ("mu", "sigma"))
"""Names of the buffers. `new_mean` and `new_std` are those of MadryLab's `robustness`."""
_CHANNELS = (1, 3)
_FLAG = "weights-normalisation"
_SHOWN = 3


@dataclass(frozen=True)
class StoredNormaliser:
    """Mean and standard deviation for each channel, in units of [0, 1], with the keys of the file."""

    keys: tuple[str, str]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def agrees(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> bool:
        """Whether these are its numbers, to four digits; None stands for no shift or no scale."""
        given = (mean or (0.0,), std or (1.0,))
        return all(
            len(one) in (1, len(own)) and all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-4) for a, b in pairs)
            for one, own in zip(given, (self.mean, self.std), strict=True)
            for pairs in [zip(one if len(one) == len(own) else (*one,) * len(own), own, strict=True)]
        )

    def __str__(self) -> str:
        mean, std = (",".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"{self.keys[0]} {mean} and {self.keys[1]} {std}"


def stored_normalisers(state: Mapping[str, Tensor]) -> tuple[StoredNormaliser, ...]:
    """The normalisers among tensors by name. Pairs that cannot be mean and standard deviation of channels in [0, 1] are none."""
    return tuple(_pairs(state))


def chosen_normaliser(
    stored: Sequence[StoredNormaliser], mean: Sequence[float] | None, std: Sequence[float] | None, file: str
) -> tuple[StoredNormaliser | None, tuple[Flag, ...]]:
    """The normaliser of a file to use, and what to say of it. `mean` and `std` were given, and take precedence."""
    distinct = list({(one.mean, one.std): one for one in reversed(stored)}.values())[::-1]
    if not distinct:
        return None, ()
    named = "; ".join(map(str, distinct[:_SHOWN]))
    if mean is not None or std is not None:
        if all(one.agrees(mean, std) for one in distinct):
            return None, ()
        said = f"{file} holds a normaliser, {named}, other than the mean and std that are given, which are used"
    elif len(distinct) > 1:
        said = f"{file} holds several normalisers, {named}, of which none is used: choose one by --mean and --std"
    else:
        said = f"the normaliser that {file} holds is used, {named}; give --mean 0 and --std 1 for none"
        return distinct[0], (Flag(_FLAG, "warn", said),)
    return None, (Flag(_FLAG, "warn", said),)


def _pairs(state: Mapping[str, Tensor]) -> Iterator[StoredNormaliser]:
    for name in state:
        path, dot, last = name.rpartition(".")
        other = next((f"{path}{dot}{std}" for mean, std in _PAIRS if mean == last), "")
        if other not in state:
            continue
        mean, std = state[name].detach().flatten(), state[other].detach().flatten()
        if mean.shape != std.shape or mean.numel() not in _CHANNELS or not mean.is_floating_point():
            continue
        if bool(((mean >= -1) & (mean <= 1)).all()) and bool(((std > 0) & (std <= 2)).all()):
            yield StoredNormaliser((name, other), _numbers(mean), _numbers(std))


def _numbers(values: Tensor) -> tuple[float, ...]:
    # As short as float32 allows: 0.485 and not 0.48500001430511475.
    return tuple(float(f"{value:.7g}") for value in values.detach().flatten().tolist())
