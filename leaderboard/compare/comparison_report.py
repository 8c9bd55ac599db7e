"""A comparison as text for a terminal, and as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from gauntlet.leaderboard.compare.comparison import ComparedRow, Comparison, ComparisonGroup, PairedDifference
from gauntlet.leaderboard.report import formatting
from gauntlet.leaderboard.report.formatting import NOTHING
from gauntlet.leaderboard.report.terminal import WIDTH
from gauntlet.leaderboard.report.text_columns import aligned
from gauntlet.leaderboard.results.escape import markdown as safe
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.rows.ranks import ALPHA

MOST_ROWS = 12
"""The matrix of all pairs is shown for groups up to this size."""

_LONGEST_REASON = 600
_HEADER = ("#", "rank", "model × defense", "robust %", "to the best", "p", "to # above", "p")
_NAME = 2
"""Index of the column of names."""

_FIGURES: Final = (
    "Differences are of robust accuracy in the worst case, in points, on the same samples; in brackets Tango's 95 % interval "
    "of that pair alone. p: exact McNemar test, two-sided, with Holm's correction over all pairs of ranked rows of the group. "
    "Rank: from 1 + the number of rows that are significantly better to the number of ranked rows minus the rows that are "
    "significantly worse."
)
_UNRANKED: Final = "A row without rank is not tested: its difference is shown, but its accuracy may not be trustworthy."
_MATRIX: Final = (
    f"Every pair: above the diagonal the row's accuracy minus the column's, * if p < {ALPHA}; below the diagonal p."
)
_TOO_MANY: Final = f"For groups of more than {MOST_ROWS} rows, see the CSV and JSON formats for every pair."
_BROKEN_BY: Final = (
    "Broken by: samples that are correct when clean and that the attack broke; in brackets those that no other attack of the "
    "row broke. A stage of a cascade attacks only samples that the stages before it left standing."
)

Table = list[tuple[str, ...]]
"""A header, and lines with as many entries."""


def comparison_text(comparison: Comparison, runs: Sequence[str] = (), width: int = WIDTH) -> str:
    """The comparison for a terminal, `width` columns wide if names can be shortened enough.

    `runs`: a line per run, shown first.
    """
    parts = [_wrapped(runs, width)]
    for number, group in enumerate(comparison.groups, 1):
        parts.append(_wrapped(_heading(comparison, number), width))
        parts.append("\n".join(aligned(_visible(_row_table(group)), left={_NAME}, names={_NAME}, width=width)))
        for title, table in _tables(group):
            parts.append("\n".join([f"{title}:", *aligned(_visible(table), left=(), names=(), width=width)]))
        parts += [_wrapped(_stages(group), width), _wrapped(_reasons(group), width)]
    parts += [_wrapped(_missing(comparison), width), _wrapped(_reading(comparison), width)]
    return "\n\n".join(part for part in parts if part) + "\n"


def comparison_markdown(comparison: Comparison, runs: Sequence[str] = ()) -> str:
    """The comparison as Markdown, with names and messages escaped."""
    parts = ["# Comparison", *_items(runs)]
    for number, group in enumerate(comparison.groups, 1):
        title, *notes = _heading(comparison, number)
        parts += [f"## {safe(title)}", *map(safe, notes), _markdown_table(_row_table(group))]
        for name, table in _tables(group):
            parts += [f"### {name}", _markdown_table(table)]
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
    lines = [f"Group {number}: {title}" if len(comparison.groups) > 1 else title]
    lines += [formatting.target_meaning(group.threat), f"({group.separation})" if group.separation else ""]
    return [line for line in lines if line]


def _row_table(group: ComparisonGroup) -> Table:
    """Each row with its difference to the best row, and to the row above."""
    differences = {(one.first, one.second): one for one in group.differences}
    table: Table = [_HEADER]
    for number, compared in enumerate(group.rows):
        best, above = differences.get((0, number)), differences.get((number - 1, number))
        row = formatting.rank(compared.row), compared.label, formatting.percent(compared.row.robust)
        to_others = (
            _second_minus_first(best) if best else NOTHING,
            _p_value(best.p_value if best else None),
            _points(-above.estimate) if above else NOTHING,
            _p_value(above.p_value if above else None),
        )
        table.append((str(number + 1), *row, *to_others))
    return table


def _second_minus_first(difference: PairedDifference) -> str:
    """`-5.1 [-7.8, -2.5]`, in points."""
    low, high = difference.interval
    return f"{_points(-difference.estimate)} [{_points(-high)}, {_points(-low)}]"


def _tables(group: ComparisonGroup) -> Iterator[tuple[str, Table]]:
    if 2 < len(group.rows) <= MOST_ROWS:
        yield "Every pair", _matrix(group)
    yield "Broken by", _broken_by_table(group.rows)


def _matrix(group: ComparisonGroup) -> Table:
    count = len(group.rows)
    entries = [[NOTHING] * count for _ in range(count)]
    for difference in group.differences:
        star = "*" if difference.p_value is not None and difference.p_value < ALPHA else ""
        entries[difference.first][difference.second] = _points(difference.estimate) + star
        entries[difference.second][difference.first] = _p_value(difference.p_value)
    numbers = [str(number + 1) for number in range(count)]
    return [("#", *numbers), *((number, *line) for number, line in zip(numbers, entries, strict=True))]


def _broken_by_table(rows: Sequence[ComparedRow]) -> Table:
    labels = [attack.attack for attack in rows[0].broken_by]
    table: Table = [("#", "wrong when clean", "broken", *labels)]
    for number, compared in enumerate(rows, 1):
        entries = {attack.attack: f"{attack.broke} ({attack.alone})" for attack in compared.broken_by}
        counts = str(number), str(compared.wrong_clean), str(compared.broken)
        table.append((*counts, *(entries[label] for label in labels)))
    return table


def _stages(group: ComparisonGroup) -> list[str]:
    return [
        f"#{number} {attack.attack}: {', '.join(f'{stage} {count}' for stage, count in attack.stages)}"
        for number, compared in enumerate(group.rows, 1)
        for attack in compared.broken_by
        if attack.stages
    ]


def _reasons(group: ComparisonGroup) -> list[str]:
    return [
        f"#{number} {compared.label} has no rank: {' '.join(compared.row.unranked)}"
        for number, compared in enumerate(group.rows, 1)
        if compared.rank is None
    ]


def _missing(comparison: Comparison) -> list[str]:
    return [
        f"{label} has no sample that every attack covered: {' '.join(reasons)}" for label, reasons in comparison.missing
    ]


def _wrapped(lines: Sequence[str], width: int) -> str:
    return "\n".join(textwrap.fill(visible(line), width, subsequent_indent="  ") for line in lines)


def _reading(comparison: Comparison) -> list[str]:
    """Explanations of the tables that are shown."""
    sizes = [len(group.rows) for group in comparison.groups]
    unranked = any(compared.rank is None for group in comparison.groups for compared in group.rows)
    matrix, too_many = any(2 < size <= MOST_ROWS for size in sizes), max(sizes) > MOST_ROWS
    explanations = (
        (_FIGURES, True),
        (_UNRANKED, unranked),
        (_MATRIX, matrix),
        (_TOO_MANY, too_many),
        (_BROKEN_BY, True),
    )
    return [text for text, applies in explanations if applies]


def _visible(table: Table) -> Table:
    return [tuple(map(visible, line)) for line in table]


def _markdown_table(table: Table) -> str:
    head = table[0]
    names = {number for number, column in enumerate(head) if column == _HEADER[_NAME]}
    rule = tuple(":--" if number in names else "--:" for number in range(len(head)))
    lines = [
        tuple(safe(entry) if number in names else _escaped_figure(entry) for number, entry in enumerate(line))
        for line in table[1:]
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [tuple(map(safe, head)), rule, *lines])


def _escaped_figure(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*")


def _items(lines: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {safe(line, _LONGEST_REASON)}" for line in lines)] if lines else []
