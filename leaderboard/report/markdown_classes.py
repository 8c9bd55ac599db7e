"""The section of the Markdown report on accuracies per class."""

from __future__ import annotations

from collections.abc import Sequence

from gauntlet.leaderboard.report.formatting import NOTHING
from gauntlet.leaderboard.results.escape import markdown as safe
from gauntlet.leaderboard.rows.per_class import ClassAccuracy, class_gap, per_class
from gauntlet.leaderboard.rows.row import LeaderboardRow

_MOST_COLUMNS = 20
"""With more classes than this, only the weakest and strongest classes of each row are shown."""
_NAMED = 5
"""Number of weakest and of strongest classes shown then."""

READING = (
    "Robust accuracy of each class under every attack of the suite, in percent, and clean accuracy in brackets; the worst "
    "class is bold. The gap is the best class minus the worst, in points; p is the chance of a gap at least as large if all "
    "classes were equally robust (labels shuffled 2,000 times). `classes.csv` has the 95 % interval of every figure."
)


def classes_section(rows: Sequence[LeaderboardRow]) -> str:
    """A table of rows × classes for each threat model, data set and suite; empty if no row has two classes."""
    sections: dict[tuple[str, str, str], list[LeaderboardRow]] = {}
    for row in rows:
        if class_gap(per_class(row.worst_case, row.class_names)) is not None:
            sections.setdefault((row.threat, row.data, row.suite), []).append(row)
    if not sections:
        return ""
    parts = ["## Classes", READING]
    for (threat, data, suite), members in sections.items():
        parts += [f"{safe(threat)}, data {safe(data)}, suite {safe(suite)}:", _table(members)]
    return "\n\n".join(parts)


def gap_text(row: LeaderboardRow) -> str:
    """`, 45 points below class 0`: the distance of the worst class from the best; empty if there is only one class."""
    gap = class_gap(per_class(row.worst_case, row.class_names))
    return f", {100 * gap.difference:.0f} points below class {safe(gap.best.title)}" if gap else ""


def _table(rows: Sequence[LeaderboardRow]) -> str:
    accuracies = [per_class(row.worst_case, row.class_names) for row in rows]
    labels = sorted({accuracy.label for classes in accuracies for accuracy in classes})
    wide = len(labels) <= _MOST_COLUMNS
    titles = {accuracy.label: safe(accuracy.title) for classes in accuracies for accuracy in classes}
    class_columns = [titles[label] for label in labels] if wide else ["weakest classes", "strongest classes"]
    header = ["model", "defense", *class_columns, "gap", "n a class"]
    names = 2 if wide else 4
    rule = [":--" if column < names else "--:" for column in range(len(header))]
    lines = [_line(row, classes, labels if wide else None) for row, classes in zip(rows, accuracies, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *lines])


def _line(row: LeaderboardRow, classes: Sequence[ClassAccuracy], labels: Sequence[int] | None) -> list[str]:
    gap = class_gap(classes)
    assert gap is not None, "only rows with two classes are shown"
    sizes = [accuracy.robust.n for accuracy in classes]
    if labels is None:
        ascending = sorted(classes, key=lambda accuracy: accuracy.robust.estimate)
        entries = [
            ", ".join(f"{safe(accuracy.title)}: {_entry(accuracy)}" for accuracy in named)
            for named in (ascending[:_NAMED], ascending[::-1][:_NAMED])
        ]
    else:
        by_label = {accuracy.label: _entry(accuracy) for accuracy in classes}
        by_label[gap.worst.label] = f"**{by_label[gap.worst.label]}**"
        entries = [by_label.get(label, NOTHING) for label in labels]
    p_value = "p < 0.001" if gap.p_value < 0.001 else f"p = {gap.p_value:.3f}"
    n = str(sizes[0]) if min(sizes) == max(sizes) else f"{min(sizes)}–{max(sizes)}"
    return [safe(row.model), safe(row.defense), *entries, f"{100 * gap.difference:.0f}, {p_value}", n]


def _entry(accuracy: ClassAccuracy) -> str:
    return f"{100 * accuracy.robust.estimate:.0f} ({100 * accuracy.clean.estimate:.0f})"
