"""The filters of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gauntlet.leaderboard.page.table import FACETS, TableRow


@dataclass(frozen=True)
class Facet:
    """A filter: rows are marked with the places of their values."""

    key: str
    heading: str
    options: tuple[str, ...]
    missing: str
    """The option for rows without a value; empty where all rows have one."""


def facets_of(rows: Sequence[TableRow]) -> list[Facet]:
    """The filters that tell rows apart."""
    made = []
    for key, heading in FACETS.items():
        options = tuple(dict.fromkeys(value for one in rows for value in one.facets[key]))
        lacking = any(not one.facets[key] for one in rows)
        missing = ("no flag" if key == "flag" else "not described") if lacking and options else ""
        made.append(Facet(key, heading, options, missing))
    return [facet for facet in made if facet.key == "threat" or len(facet.options) + bool(facet.missing) > 1]


def marks(one: TableRow, facets: Sequence[Facet]) -> str:
    """For each filter the places of the row's values, by `;`."""
    return ";".join(
        " ".join(str(facet.options.index(value)) for value in one.facets[facet.key]) or str(len(facet.options))
        for facet in facets
    )
