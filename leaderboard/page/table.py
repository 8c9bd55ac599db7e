"""The table of the page: its columns, and the entries of each row as text with what they are sorted by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from gauntlet.leaderboard.page.content import PageContent, anchor
from gauntlet.leaderboard.report import formatting
from gauntlet.leaderboard.report.comparisons import rank as rank_text
from gauntlet.leaderboard.report.comparisons import separate
from gauntlet.leaderboard.report.model_table import ModelDescription
from gauntlet.leaderboard.rows.references import Reference
from gauntlet.leaderboard.rows.row import LeaderboardRow
from gauntlet.leaderboard.stats.proportions import Proportion

_MOST_ATTACKS: Final = 30
"""Number of attacks with a column of their own."""


@dataclass(frozen=True)
class Column:
    """A column of the table."""

    key: str
    title: str
    numeric: bool = False
    shown: bool = False
    """Whether a reader sees it at first; the others are shown on demand."""
    hint: str = ""
    narrow: bool = False
    """Whether it is shown at first on a narrow screen, too."""


@dataclass(frozen=True)
class Entry:
    """An entry of the table."""

    text: str
    order: float | str | None = None
    """What it is sorted by, if not by its text; None of a numeric column: there is no figure, which is sorted last."""


@dataclass(frozen=True)
class Bar:
    """The bar of a row, in percent: proven to be robust, then unknown, then broken by an attack, then wrong when clean."""

    certified: float
    robust: float
    low: float
    high: float
    clean: float
    has_certificate: bool

    @property
    def words(self) -> str:
        """The bar as text."""
        proven = f"proven {self.certified:.1f} %, " if self.has_certificate else ""
        return (
            f"{proven}attacked {self.robust:.1f} % (95 %: {self.low:.1f} to {self.high:.1f}), clean {self.clean:.1f} %"
        )


@dataclass(frozen=True)
class TableRow:
    """A row with everything that its line and its page show of it."""

    row: LeaderboardRow
    anchor: str
    name: str
    """As it is described, else the model's name in the tables."""
    entries: Mapping[str, Entry]
    bar: Bar | None
    shaded: bool
    """Rows that share a rank have the same shade; the next group has the other one."""
    flags: tuple[tuple[str, str], ...]
    """Names, each with `block`, `warn` or `answered`."""
    references: tuple[Reference, ...]
    description: ModelDescription | None
    facets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The values of each filter."""

    @property
    def title(self) -> str:
        """Name and defense."""
        return self.name if self.row.defense == "none" else f"{self.name} × {self.row.defense}"


FACETS: Final[Mapping[str, str]] = {
    "threat": "Threat model",
    "data": "Data",
    "architecture": "Architecture",
    "defense": "Defense",
    "flag": "Flag",
}
"""The filters and their headings."""


def columns(rows: Sequence[TableRow]) -> list[Column]:
    """The columns of these rows: those that tell them apart are shown at first."""

    def several(name: str) -> bool:
        return len({getattr(one.row, name) for one in rows}) > 1

    def described(name: str) -> bool:
        return any(one.entries[name].text != formatting.NOTHING for one in rows)

    labels = attack_labels([one.row for one in rows])
    listed = [
        Column(
            "rank", "Rank", True, True, "1 + the number of rows that are significantly better, with its interval", True
        ),
        Column("model", "Model", False, True, "", True),
        Column("defense", "Defense", False, several("defense")),
        Column("threat", "Threat model"),
        Column("data", "Data", False, several("data")),
        Column("suite", "Suite", False, several("suite")),
        Column("clean", "Clean %", True, True, "Accuracy on clean images"),
        Column(
            "robust", "Robust %", True, True, "Naive attack → worst case over all attacks, with the 95 % interval", True
        ),
        Column("bar", "Proven · truth · attacked", True, True, "The true robust accuracy lies in the hatched part"),
        Column("naive", "Naive %", True, False, "Robust accuracy under the naive attack alone"),
        Column("certified", "Proven %", True, False, "Share of the samples that are proven robust"),
        Column(
            "published",
            "Published → measured",
            True,
            described("published"),
            "Published accuracy, and the measured one",
        ),
        Column("flags", "Flags", False, any(one.flags for one in rows), "Reasons not to trust the figure"),
        Column("status", "Status", False, any(one.row.status != "ok" for one in rows)),
        Column("n", "n", True, False, "Number of samples that every attack covered"),
        Column("worst_attack", "Worst attack", False, False),
        Column("worst_class", "Worst class", True, False, "Class with the lowest robust accuracy"),
        Column(
            "corruptions", "Corruptions %", True, described("corruptions"), "Mean accuracy under common corruptions"
        ),
        Column("seconds", "Seconds", True, False, "Time of all attacks"),
        Column("passes", "Passes", True, False, "Forward and backward passes of all attacks, a mean over the samples"),
        Column("memory", "Peak MiB", True, False),
        Column("architecture", "Architecture", False, described("architecture")),
        Column("extra_data", "Extra data", False, False),
        Column("licence", "Licence", False, False),
        Column("paper", "Paper", False, False),
    ]
    return [*listed, *(Column(f"attack-{place}", f"{label} %", True) for place, label in enumerate(labels))]


def attack_labels(rows: Sequence[LeaderboardRow]) -> list[str]:
    """The labels of the attacks that have a column, in order of first appearance."""
    return list(dict.fromkeys(label for row in rows for label in row.attacks))[:_MOST_ATTACKS]


def table_rows(rows: Sequence[LeaderboardRow], content: PageContent, references: Sequence[Reference]) -> list[TableRow]:
    """The rows in the order given."""
    labels = attack_labels(rows)
    by_section: dict[tuple[str, str, str], list[LeaderboardRow]] = {}
    for row in rows:
        by_section.setdefault((row.threat, row.data, row.suite), []).append(row)
    named = {section: separate(members) for section, members in by_section.items()}
    compared: dict[tuple[str, ...], list[Reference]] = {}
    for reference in references:
        compared.setdefault(reference.row.key, []).append(reference)
    made, shaded, before = [], False, None
    for row in rows:
        group = (row.threat, row.data, row.suite, row.comparison, row.rank if row.rank is not None else "unranked")
        shaded = shaded if before in (None, group) else not shaded
        before = group
        made.append(
            _table_row(
                row, content, tuple(compared.get(row.key, ())), labels, shaded, named[row.threat, row.data, row.suite]
            )
        )
    return made


def _table_row(
    row: LeaderboardRow,
    content: PageContent,
    references: tuple[Reference, ...],
    labels: Sequence[str],
    shaded: bool,
    named: bool,
) -> TableRow:
    described = content.models.get(row.model)
    states = {flag.name: "answered" if flag.lifted_by else flag.severity for flag in row.flags}
    states |= {flag.name: flag.severity for flag in row.flags if not flag.lifted_by}
    architecture = described.architecture if described is not None else ""
    return TableRow(
        row=row,
        anchor=anchor(row.key),
        name=(described.name if described is not None else "") or row.model,
        entries=_entries(row, described, references, labels, named),
        bar=_bar(row),
        shaded=shaded,
        flags=tuple(states.items()),
        references=references,
        description=described,
        facets={
            "threat": (row.threat,),
            "data": (row.data,),
            "architecture": (architecture,) if architecture else (),
            "defense": (row.defense,),
            "flag": tuple(states),
        },
    )


def _bar(row: LeaderboardRow) -> Bar | None:
    if not row.robust.n:
        return None
    low, high = row.robust.interval
    certified = row.bracket.certified if row.bracket is not None and row.bracket.certified.n else None
    return Bar(
        certified=100 * certified.estimate if certified is not None else 0.0,
        robust=100 * row.robust.estimate,
        low=100 * low,
        high=100 * high,
        clean=100 * row.clean.estimate,
        has_certificate=certified is not None,
    )


def _entries(
    row: LeaderboardRow,
    described: ModelDescription | None,
    references: Sequence[Reference],
    labels: Sequence[str],
    named: bool,
) -> dict[str, Entry]:
    worst = row.worst_class
    corruption = row.corruption.mean.estimate if row.corruption is not None else math.nan
    passes = f"{formatting.number(row.forwards_per_sample)} / {formatting.number(row.backwards_per_sample)}"
    about = described or ModelDescription(row.model)
    entries = {
        "rank": Entry(rank_text(row, named=named), _rank_order(row)),
        "model": Entry(row.model),
        "defense": Entry(row.defense),
        "threat": Entry(row.threat),
        "data": Entry(row.data),
        "suite": Entry(row.suite),
        "clean": _share(row.clean, formatting.percent),
        "bar": Entry("", _figure(row.robust.estimate)),
        "robust": Entry(formatting.robust(row), _figure(row.robust.estimate)),
        "naive": _share(row.naive, formatting.with_interval),
        "certified": Entry(
            formatting.certified(row), _figure(row.bracket.certified.estimate) if row.bracket is not None else None
        ),
        "published": _published(references),
        "flags": Entry(", ".join(dict.fromkeys(flag.name for flag in row.flags))),
        "status": Entry(row.status),
        "n": Entry(str(row.robust.n), float(row.robust.n)),
        "worst_attack": Entry(row.worst_attack or formatting.NOTHING),
        "worst_class": Entry(
            f"{worst.title}: {formatting.with_interval(worst.robust)}" if worst is not None else formatting.NOTHING,
            _figure(worst.robust.estimate) if worst is not None else None,
        ),
        "corruptions": Entry(formatting.corrupted(row), _figure(corruption)),
        "seconds": _number(row.seconds, 1),
        "passes": Entry(passes, _figure(row.forwards_per_sample + row.backwards_per_sample)),
        "memory": _number(row.peak_memory_mib, 0),
    }
    for name in ("architecture", "extra_data", "licence", "paper"):
        entries[name] = Entry(getattr(about, name) or formatting.NOTHING)
    for place, label in enumerate(labels):
        entry = row.attacks.get(label, formatting.NOTHING)
        entries[f"attack-{place}"] = Entry(entry) if isinstance(entry, str) else _share(entry, formatting.with_interval)
    return entries


def _rank_order(row: LeaderboardRow) -> float | None:
    return None if row.rank_interval is None else row.rank_interval[0] + row.rank_interval[1] / 1e6


def _share(share: Proportion | None, text: Callable[[Proportion], str]) -> Entry:
    return Entry(formatting.NOTHING) if share is None else Entry(text(share), _figure(share.estimate))


def _number(value: float, decimals: int) -> Entry:
    return Entry(formatting.number(value, decimals), _figure(value))


def _figure(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _published(references: Sequence[Reference]) -> Entry:
    """The first published robust accuracy, else the first of any kind."""
    chosen = next((one for one in references if one.figure == "robust"), references[0] if references else None)
    if chosen is None:
        return Entry(formatting.NOTHING)
    text = f"{100 * chosen.stated:.1f} → {100 * chosen.measured.estimate:.1f}"
    kind = "" if chosen.figure == "robust" else f" ({chosen.figure})"
    return Entry(text + kind, _figure(chosen.difference))
