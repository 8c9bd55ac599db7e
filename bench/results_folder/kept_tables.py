"""Each written table, kept with its date and commit below `tables/`, and what changed since the last one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gauntlet.leaderboard.report.leaderboard_csv import read_leaderboard
from gauntlet.leaderboard.results.atomic_files import replace_bytes
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.escape import visible

FOLDER = "tables"
_NAMED = 5
"""Most rows that a line names."""
_KEY = ["model", "defense", "threat", "data", "suite"]


@dataclass(frozen=True)
class TableChange:
    """How the rows of a table differ from those of the one before."""

    since: str
    """Name of the table before."""
    new: tuple[str, ...]
    gone: tuple[str, ...]
    ranked_again: tuple[str, ...]
    """Rows with both ranks."""

    @property
    def lines(self) -> list[str]:
        """A line for each kind of change; one where there is none."""
        kinds = {"new": self.new, "gone": self.gone, "re-ranked": self.ranked_again}
        lines = [f"{kind}: {_listed(rows)}" for kind, rows in kinds.items() if rows]
        return [f"since {self.since}: " + ("; ".join(lines) or "no row is new, gone or re-ranked")]


def keep_table(root: Path, started: str, commit: str) -> TableChange | None:
    """Keep the leaderboard that stands in `root`, unless it is the last one kept; how it differs from that one, if there is one.

    `started`: when its newest run was, ISO 8601. Raises WriteError, and StoreError where the last one cannot be read.
    """
    folder = root / FOLDER
    texts = {name: (root / name).read_bytes() for name in ("leaderboard.md", "leaderboard.csv")}
    last = max(folder.glob("[0-9][0-9][0-9][0-9]-*/leaderboard.csv"), default=None)
    change = None if last is None else _change(last, root / "leaderboard.csv")
    if last is None or last.read_bytes() != texts["leaderboard.csv"]:
        number = 1 if last is None else 1 + int(last.parent.name.partition("-")[0])
        name = f"{number:04d}-{re.sub(r'[^0-9T]', '', started[:19])}-{commit[:12] or 'no-commit'}"
        for file, text in texts.items():
            replace_bytes(folder / name / file, text)
    return change


def _change(before: Path, after: Path) -> TableChange:
    try:
        old, new = _ranks(before), _ranks(after)
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{before.parent} cannot be read ({error}): delete that folder") from error
    return TableChange(
        before.parent.name,
        tuple(row for row in new if row not in old),
        tuple(row for row in old if row not in new),
        tuple(f"{row} {old[row]} → {new[row]}" for row in new if row in old and old[row] != new[row]),
    )


def _ranks(path: Path) -> Mapping[str, str]:
    """The rank of each row, `–` where it has none."""
    table = read_leaderboard(path)
    keys = table[_KEY].agg(" · ".join, axis=1).tolist() if len(table) else []
    ranks = [
        "–" if one != one else str(one) for one in table["rank"].astype("object").where(table["rank"].notna(), "–")
    ]
    return dict(zip(map(visible, keys), ranks, strict=True))


def _listed(rows: tuple[str, ...]) -> str:
    named = ", ".join(rows[:_NAMED])
    return named if len(rows) <= _NAMED else f"{named} and {len(rows) - _NAMED} more"
