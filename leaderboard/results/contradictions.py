"""What cannot be true of a block whatever was attacked: its columns contradict each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from gauntlet.leaderboard.results.record import CellInfo, Record, Samples

_SLACK = 1e-5
"""Absolute and relative: far beyond what the verifier grants for rounding, far below any eps."""


_CHECKED: Final = (
    "id",
    "label",
    "clean_prediction",
    "robust",
    "distance",
    "forwards",
    "backwards",
    "wrong_share",
    "wrong_share_scored",
)
"""The columns that are checked without examples."""


def consistent(blocks: Sequence[Record]) -> bool:
    """Whether no block of a cell contradicts itself, all checked at once, without examples.

    False also where blocks share a sample: then each must be asked for its `contradiction`.
    """
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(block.samples, name) for block in blocks]) for name in _CHECKED
    }
    joint = replace(blocks[0], samples=replace(blocks[0].samples, **columns))
    return not contradiction(joint, adversarial=False)


def contradiction(record: Record, *, adversarial: bool) -> str:
    """What contradicts itself in a block, in words; empty if nothing does. `adversarial`: it was read with its examples."""
    samples = record.samples
    found = _counts(samples) or _verdicts(record.cell, samples)
    return found or (_examples(record.cell, samples) if adversarial else "")


def _counts(samples: Samples) -> str:
    """Names are unique, and counts and shares are possible."""
    if len(set(samples.id.tolist())) != len(samples):
        return "a sample occurs twice"
    for name, column in (("forwards", samples.forwards), ("backwards", samples.backwards)):
        if not (np.isfinite(column) & (column >= 0)).all():
            return f"{name} has a count below 0, or none"
    for name, column in (("wrong_share", samples.wrong_share), ("wrong_share_scored", samples.wrong_share_scored)):
        if not ((column >= 0) & (column <= 1)).all():
            return f"{name} has a share outside of 0 to 1"
    return ""


def _verdicts(cell: CellInfo, samples: Samples) -> str:
    """Robust is what is right when clean and has no example within eps that misleads."""
    wrong_when_clean = samples.robust & ~samples.correct
    for at in _where(wrong_when_clean):
        return f"{samples.id[at]}: robust, but misclassified when clean"
    for at in _where(samples.robust != (samples.correct & (samples.wrong_share_scored < 0.5))):
        return f"{samples.id[at]}: the verdict does not follow from the share of wrong draws"
    if not cell.adversarial or cell.randomised:
        return ""
    broken = samples.correct & ~samples.robust
    for at in _where(broken & ~(samples.distance <= cell.eps * (1 + _SLACK) + _SLACK)):
        return f"{samples.id[at]}: broken, but without an example within eps={cell.eps:g}"
    for at in _where(samples.robust & (samples.distance < cell.eps * (1 - _SLACK) - _SLACK)):
        return f"{samples.id[at]}: robust, but with an example within eps={cell.eps:g}"
    return ""


def _examples(cell: CellInfo, samples: Samples) -> str:
    """A distance stands beside an example, unless no examples were kept at all."""
    kept = np.array([image is not None for image in samples.adversarial], dtype=np.bool_)
    if not cell.adversarial or not kept.any():
        return ""
    for at in _where(kept != ~np.isnan(samples.distance)):
        return f"{samples.id[at]}: " + (
            "an example without a distance" if kept[at] else "a distance without its example"
        )
    return ""


def _where(mask: np.ndarray) -> Iterator[int]:
    return iter(np.flatnonzero(mask).tolist())
