"""A comparison as text for a terminal, and as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from gauntlet.leaderboard.compare.comparison import Comparison, Difference, Group, Line
from gauntlet.leaderboard.report import formatting
from gauntlet.leaderboard.report.columns import aligned
from gauntlet.leaderboard.report.formatting import NOTHING
from gauntlet.leaderboard.results.escape import markdown as safe
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.rows.ranks import ALPHA

WIDTH = 100
"""Columns that the text tries to fit."""
MATRIX = 12
"""Rows up to which every pair is shown."""

_LONGEST_REASON = 600
_HEADER = ("#", "rank", "model × defense", "robust %", "to the best", "p", "to # above", "p")
_NAME = 2
"""Column of the names."""

_FIGURES: Final = (
    "Differences are of robust accuracy in the worst case, in points, on the same samples; in brackets Tango's 95 % interval, "
    "of that pair alone. p: exact McNemar test, two-sided, Holm's correction over all pairs of ranked rows of the group. Rank: "
    "1 + the rows that are significantly better, to the ranked rows minus those significantly worse."
)
_UNRANKED: Final = (
    "A row without rank is not tested: its difference is shown, but what its figure is worth is not known."
)
_PAIRS: Final = (
    f"Every pair: above the diagonal the row's accuracy minus the column's, * where p < {ALPHA}; below it p."
)
_TOO_MANY: Final = f"Of a group of more than {MATRIX} rows, the CSV and JSON formats have every pair."
_BREAKERS: Final = (
    "Broken by: samples that are right when clean and that the attack broke; in brackets those that no other attack of the "
    "row broke. The stages of a cascade face only what those before them left."
)

Table = list[tuple[str, ...]]
"""A header, and lines of as many entries."""


def comparison_text(comparison: Comparison, runs: Sequence[str] = ()) -> str:
    """For a terminal, in 100 columns where names can be cut for it; `runs`: a line about each run, shown first."""
    parts = [_wrapped(runs)]
    for number, group in enumerate(comparison.groups, 1):
        parts.append(_wrapped(_heading(comparison, number)))
        parts.append("\n".join(aligned(_shown(_list(group)), left={_NAME}, names={_NAME}, most=WIDTH)))
        for title, table in _tables(group):
            parts.append("\n".join([f"{title}:", *aligned(_shown(table), left=(), names=(), most=WIDTH)]))
        parts += [_wrapped(_stages(group)), _wrapped(_reasons(group))]
    parts += [_wrapped(_missing(comparison)), _wrapped(_reading(comparison))]
    return "\n\n".join(part for part in parts if part) + "\n"


def comparison_markdown(comparison: Comparison, runs: Sequence[str] = ()) -> str:
    """The same as Markdown. Names and messages are escaped: they render as themselves."""
    parts = ["# Comparison", *_items(runs)]
    for number, group in enumerate(comparison.groups, 1):
        title, *apart = _heading(comparison, number)
        parts += [f"## {safe(title)}", *map(safe, apart), _pipes(_list(group))]
        for name, table in _tables(group):
            parts += [f"### {name}", _pipes(table)]
        parts += [*_items(_stages(group)), *_items(_reasons(group))]
    parts += [*_items(_missing(comparison)), "## How to read it", *_items(_reading(comparison))]
    return "\n\n".join(parts) + "\n"


def _points(share: float) -> str:
    text = f"{100 * share:+.1f}"
    return "0.0" if float(text) == 0 else text


def _p_value(p_value: float | None) -> str:
    if p_value is None:
        return NOTHING
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _heading(comparison: Comparison, number: int) -> list[str]:
    group = comparison.groups[number - 1]
    seeds = f"seed{'s' if len(group.seeds) > 1 else ''} {' '.join(map(str, group.seeds))}"
    title = f"{group.threat} · {group.data} · {group.suite} · {seeds} · n {group.n}"
    lines = [f"Group {number}: {title}" if len(comparison.groups) > 1 else title, formatting.meaning(group.threat)]
    return [line for line in (*lines, f"({group.apart})" if group.apart else "") if line]


def _list(group: Group) -> Table:
    """Each row with its difference to the best, and to the one above."""
    found = {(one.first, one.second): one for one in group.differences}
    table: Table = [_HEADER]
    for number, line in enumerate(group.lines):
        best, above = found.get((0, number)), found.get((number - 1, number))
        figures = (
            _seen_from_second(best) if best else NOTHING,
            _p_value(best.p_value if best else None),
            _points(-above.estimate) if above else NOTHING,
            _p_value(above.p_value if above else None),
        )
        name = formatting.rank(line.row), line.label, formatting.percent(line.row.robust)
        table.append((str(number + 1), *name, *figures))
    return table


def _seen_from_second(one: Difference) -> str:
    """`-5.1 [-7.8, -2.5]`: what the second has more, in points."""
    low, high = one.interval
    return f"{_points(-one.estimate)} [{_points(-high)}, {_points(-low)}]"


def _tables(group: Group) -> Iterator[tuple[str, Table]]:
    if 2 < len(group.lines) <= MATRIX:
        yield "Every pair", _matrix(group)
    yield "Broken by", _broken(group.lines)


def _matrix(group: Group) -> Table:
    count = len(group.lines)
    entries = [[NOTHING] * count for _ in range(count)]
    for one in group.differences:
        star = "*" if one.p_value is not None and one.p_value < ALPHA else ""
        entries[one.first][one.second] = _points(one.estimate) + star
        entries[one.second][one.first] = _p_value(one.p_value)
    numbers = [str(number + 1) for number in range(count)]
    return [("#", *numbers), *((number, *line) for number, line in zip(numbers, entries, strict=True))]


def _broken(lines: Sequence[Line]) -> Table:
    labels = [one.attack for one in lines[0].breakers]
    table: Table = [("#", "wrong when clean", "broken", *labels)]
    for number, line in enumerate(lines, 1):
        figures = {one.attack: f"{one.broke} ({one.alone})" for one in line.breakers}
        table.append((str(number), str(line.wrong_clean), str(line.broken), *(figures[label] for label in labels)))
    return table


def _stages(group: Group) -> list[str]:
    return [
        f"#{number} {one.attack}: {', '.join(f'{stage} {count}' for stage, count in one.stages)}"
        for number, line in enumerate(group.lines, 1)
        for one in line.breakers
        if one.stages
    ]


def _reasons(group: Group) -> list[str]:
    return [
        f"#{number} {line.label} has no rank: {' '.join(line.row.unranked)}"
        for number, line in enumerate(group.lines, 1)
        if line.rank is None
    ]


def _missing(comparison: Comparison) -> list[str]:
    return [f"{label} has no sample that every attack covered: {' '.join(why)}" for label, why in comparison.missing]


def _wrapped(lines: Sequence[str]) -> str:
    return "\n".join(textwrap.fill(visible(line), WIDTH, subsequent_indent="  ") for line in lines)


def _reading(comparison: Comparison) -> list[str]:
    """How to read what is shown."""
    rows = [len(group.lines) for group in comparison.groups]
    unranked = any(line.rank is None for group in comparison.groups for line in group.lines)
    matrix, too_many = any(2 < count <= MATRIX for count in rows), max(rows) > MATRIX
    told = ((_FIGURES, True), (_UNRANKED, unranked), (_PAIRS, matrix), (_TOO_MANY, too_many), (_BREAKERS, True))
    return [sentence for sentence, fits in told if fits]


def _shown(table: Table) -> Table:
    return [tuple(map(visible, line)) for line in table]


def _pipes(table: Table) -> str:
    head = table[0]
    names = {number for number, column in enumerate(head) if column == _HEADER[_NAME]}
    rule = tuple(":--" if number in names else "--:" for number in range(len(head)))
    lines = [
        tuple(safe(entry) if number in names else _figure(entry) for number, entry in enumerate(line))
        for line in table[1:]
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [tuple(map(safe, head)), rule, *lines])


def _figure(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*")


def _items(lines: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {safe(line, _LONGEST_REASON)}" for line in lines)] if lines else []
