"""The details of a row on disk: derived from its blocks as summaries are, and believed as they are.

A file says which block files it was made of, and is used only where all of these are as they were.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from gauntlet.leaderboard.page.confusions import Confusion
from gauntlet.leaderboard.page.details import RowDetails
from gauntlet.leaderboard.pictures.eps_curve import EpsCurve
from gauntlet.leaderboard.results.summary_file import State, read_derived, write_derived

_VERSION: Final = 1
"""To be raised where confusions or curves of the same blocks come out otherwise."""


def details_path(root: Path, cells: Sequence[str], states: Sequence[State]) -> Path:
    """The file of the details of a row of a results folder: of cells with these names, made of these files."""
    keys = [[one[0] for one in state] for state in states]
    digest = hashlib.sha256(repr([*zip(cells, keys, strict=True)]).encode()).hexdigest()
    return root / "summaries" / "rows" / digest


def write_details(path: Path, details: RowDetails, states: Sequence[State]) -> None:
    """Write the details of a row, without pictures. Where they cannot be written, nothing is: they will be made again."""
    curve = details.curve
    fields = {
        "version": _VERSION,
        "states": states,
        "confusion": None if details.confusion is None else dataclasses.asdict(details.confusion),
        "curve": None if curve is None else [list(curve.attacks), curve.eps.tolist(), curve.standing.tolist(), curve.n],
    }
    write_derived(path, zlib.compress(json.dumps(fields).encode(), 1))


def read_details(path: Path, states: Sequence[State]) -> RowDetails | None:
    """The details of a row; None where there are none that were made of these files here."""
    try:
        content = read_derived(path)
        fields = {} if content is None else json.loads(zlib.decompress(content))
        if fields.get("version") != _VERSION or fields["states"] != json.loads(json.dumps(states)):
            return None
        return RowDetails(_confusion(fields["confusion"]), _curve(fields["curve"]))
    except (OSError, ValueError, KeyError, TypeError, zlib.error):
        return None


def _confusion(fields: Any) -> Confusion | None:
    if fields is None:
        return None
    return Confusion(
        tuple(fields["names"]),
        tuple(map(tuple, fields["counts"])),
        tuple(map(tuple, fields["largest"])),
        fields["rejects"],
    )


def _curve(fields: Any) -> EpsCurve | None:
    if fields is None:
        return None
    attacks, eps, standing, n = fields
    return EpsCurve(tuple(attacks), np.array(eps, np.float64), np.array(standing, np.int64), n)
