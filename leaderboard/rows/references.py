"""Published figures beside measured ones: what others state of a model, the difference, and whether the interval covers it.

They are shown apart, and take part in nothing: no rank, no test, no worst case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import pandas as pd

from gauntlet.leaderboard.results.escape import markdown as safe
from gauntlet.leaderboard.results.published import CORRUPTIONS, Published
from gauntlet.leaderboard.rows.frames import read_frame, typed_frame
from gauntlet.leaderboard.rows.row import Row

REFERENCE_DTYPES: Final[Mapping[str, str]] = {
    "model": "string",
    "figure": "string",
    "threat": "string",
    "published": "float64",
    "published_as": "string",
    "published_data": "string",
    "published_attack": "string",
    "published_n": "Int64",
    "source": "string",
    "note": "string",
    "data": "string",
    "suite": "string",
    "measured": "float64",
    "low": "float64",
    "high": "float64",
    "n": "Int64",
    "difference": "float64",
    "covered": "bool",
}
"""Columns of `published.csv` in order. `figure` is `clean`, `robust` or `corruptions`; accuracies are shares in 0..1."""

READING = (
    "Published figures are others', under their attacks and on their samples; they take no part in ranks. The difference is "
    "measured minus published, in points. Covered: the published figure lies in the measured one's 95 % interval, which is about "
    "the choice of samples alone. A robust accuracy measured below the published one is a stronger attack, or another model."
)


class Measured(Protocol):
    """A share of `n` samples with its 95 % interval."""

    @property
    def estimate(self) -> float: ...  # noqa: D102
    @property
    def interval(self) -> tuple[float, float]: ...  # noqa: D102
    @property
    def n(self) -> int: ...  # noqa: D102


@dataclass(frozen=True)
class Reference:
    """One published figure, and the measured one that it is held against."""

    row: Row
    published: Published
    figure: Literal["clean", "robust", "corruptions"]
    stated: float
    measured: Measured

    @property
    def difference(self) -> float:
        """Measured minus published."""
        return self.measured.estimate - self.stated

    @property
    def covered(self) -> bool:
        """Whether the published figure lies in the measured one's interval."""
        low, high = self.measured.interval
        return low <= self.stated <= high


def references(rows: Sequence[Row], published: Sequence[tuple[str, Published]]) -> list[Reference]:
    """Published figures, each with the name of its model in the tables, beside the finished rows that measure the same.

    A robust accuracy is held against rows of its model and threat model without a defense, a clean one against the first row of
    its model on each data. Sources do not name data as we do: that they are the same is the reader's to judge, both are shown.
    """
    found: list[Reference] = []
    stated: set[tuple[str, str, float]] = set()
    for name, one in published:
        mine = [row for row in rows if row.model == name and row.defense == "none" and row.status == "ok"]
        for row in mine:
            # A source states the clean accuracy again beside each robust one.
            if one.clean is not None and row.clean.n and (name, row.data, one.clean) not in stated:
                stated.add((name, row.data, one.clean))
                found.append(Reference(row, one, "clean", one.clean, row.clean))
        if one.robust is not None and one.threat == CORRUPTIONS:
            tried = {row.data: row for row in reversed(mine) if row.corruption is not None and row.corruption.mean.n}
            found += [
                Reference(row, one, "corruptions", one.robust, row.corruption.mean)
                for row in reversed(tried.values())
                if row.corruption is not None
            ]
        elif one.robust is not None:
            same = [row for row in mine if row.threat == one.threat and row.robust.n]
            found += [Reference(row, one, "robust", one.robust, row.robust) for row in same]
    return found


def references_frame(found: Sequence[Reference]) -> pd.DataFrame:
    """One line for each, with the columns and types of `REFERENCE_DTYPES`."""
    return typed_frame([_fields(one) for one in found], REFERENCE_DTYPES)


def with_published(frame: pd.DataFrame, rows: Sequence[Row], found: Sequence[Reference]) -> pd.DataFrame:
    """The leaderboard's table of these rows with its `published_…` columns filled: of several published robust accuracies of
    one row, the lowest. `published_difference` is measured minus published, `published_covered` is `yes` or `no`."""
    strongest: dict[int, Reference] = {}
    for one in sorted((one for one in found if one.figure == "robust"), key=lambda one: one.stated, reverse=True):
        strongest[next(number for number, row in enumerate(rows) if row is one.row)] = one
    for number, one in strongest.items():
        frame.loc[number, ["published_robust", "published_difference"]] = one.stated, one.difference
        frame.loc[number, "published_covered"] = "yes" if one.covered else "no"
    return frame


def read_references(path: Path) -> pd.DataFrame:
    """`published.csv` with the types that it was written with."""
    return read_frame(path, REFERENCE_DTYPES)


def _fields(one: Reference) -> dict[str, Any]:
    low, high = one.measured.interval
    said = one.published
    return {
        "model": one.row.model,
        "figure": one.figure,
        "threat": one.row.threat if one.figure == "robust" else "",
        "published": one.stated,
        "published_as": said.model,
        "published_data": said.data,
        "published_attack": "" if one.figure == "clean" else said.attack,
        "published_n": said.n or pd.NA,
        "source": said.source,
        "note": said.note,
        "data": one.row.data,
        "suite": one.row.suite if one.figure == "robust" else "",
        "measured": one.measured.estimate,
        "low": low,
        "high": high,
        "n": one.measured.n,
        "difference": one.difference,
        "covered": one.covered,
    }


def references_section(found: Sequence[Reference]) -> str:
    """A table of the published figures beside the measured ones, for the report; empty where there are none."""
    if not found:
        return ""
    head = "| published: model | figure | by | n | published % | measured % [95 %] | on | n | difference | covered |"
    lines = [head, "|:--|:--|:--|--:|--:|--:|:--|--:|--:|:--|", *map(_line, found)]
    sources = dict.fromkeys(f"{one.published.model}: {one.published.source}" for one in found if one.published.source)
    return "\n\n".join(
        ["## Published and measured", "\n".join(lines), READING, "\n".join(f"- {safe(one)}" for one in sources)]
    )


def _line(one: Reference) -> str:
    said, (low, high) = one.published, one.measured.interval
    what = f"robust, {one.row.threat}" if one.figure == "robust" else one.figure
    cells = [
        safe(f"{one.row.model} ({said.model})" if said.model != one.row.model else said.model),
        what,
        safe("" if one.figure == "clean" else said.attack),
        f"{said.n:,}" if said.n else "–",
        f"{100 * one.stated:.1f}",
        f"{100 * one.measured.estimate:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
        safe(one.row.data),
        f"{one.measured.n:,}",
        f"{100 * one.difference:+.1f}",
        "yes" if one.covered else "**no**",
    ]
    return f"| {' | '.join(cells)} |"


def told(found: Sequence[Reference]) -> Iterator[str]:
    """A line for each, for a terminal."""
    for one in found:
        low, high = one.measured.interval
        by = ", ".join(filter(None, ["" if one.figure == "clean" else one.published.attack, _count(one.published.n)]))
        what = f"{one.figure} {one.row.threat}" if one.figure == "robust" else one.figure
        verdict = "covered by the interval" if one.covered else "not covered"
        yield (
            f"published {one.row.model} {what}: {100 * one.stated:.1f} %{f' ({by})' if by else ''}; measured "
            f"{100 * one.measured.estimate:.1f} % [{100 * low:.1f}, {100 * high:.1f}] (n={one.measured.n}): "
            f"{100 * one.difference:+.1f} points, {verdict}"
        )


def _count(n: int) -> str:
    return f"n={n:,}" if n else ""
