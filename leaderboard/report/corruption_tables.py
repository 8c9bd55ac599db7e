"""Corruptions in the report: a section with a table of rows × corruptions, and one of rows × severities."""

from __future__ import annotations

from collections.abc import Sequence

from gauntlet.leaderboard.report import formatting
from gauntlet.leaderboard.report.formatting import NOTHING
from gauntlet.leaderboard.results.escape import markdown as safe
from gauntlet.leaderboard.rows.corruptions import CorruptionAccuracy
from gauntlet.leaderboard.rows.row import Row

READING = (
    "Accuracy (percent) on images that were corrupted, all samples, right when clean or not; no adversary is at work, and no "
    "rank, worst case or gate knows of it. In the mean each corruption counts the same, and each of its severities. In brackets: "
    "95 % of bootstrap samples, drawn from the samples with all their corrupted images; other images of the same corruptions "
    "are not in it. mCE, the mean corruption error, is 100 minus the mean, not normalised{relative}."
)
_RELATIVE = "; “to AlexNet” is the mean of the errors in proportion to AlexNet's on ImageNet-C (100: as bad)"


def corruptions_section(rows: Sequence[Row]) -> str:
    """Two tables for each threat model, data and suite; empty where no row has corruptions."""
    sections: dict[tuple[str, str, str], list[tuple[Row, CorruptionAccuracy]]] = {}
    for row in rows:
        if row.corruption is not None:
            sections.setdefault((row.threat, row.data, row.suite), []).append((row, row.corruption))
    if not sections:
        return ""
    relative = any(found.alexnet is not None for pairs in sections.values() for _, found in pairs)
    parts = ["## Corruptions", READING.format(relative=_RELATIVE if relative else "")]
    for (threat, data, suite), pairs in sections.items():
        parts += [
            f"Beside {safe(threat)}, data {safe(data)}, suite {safe(suite)}:",
            _by_corruption(pairs, relative),
            _by_severity(pairs),
        ]
    return "\n\n".join(parts)


def _by_corruption(pairs: Sequence[tuple[Row, CorruptionAccuracy]], relative: bool) -> str:
    labels = list(dict.fromkeys(label for _, found in pairs for label in found.by_label))
    header = ["mean", "mCE", *(["to AlexNet"] if relative else []), *map(safe, labels), "n", "s"]
    lines = []
    for row, found in pairs:
        against = [NOTHING if found.alexnet is None else f"{100 * found.alexnet:.1f}"] if relative else []
        entries = [_share(found.by_label.get(label, NOTHING)) for label in labels]
        lines.append(
            [
                *(safe(row.model), safe(row.defense), formatting.corrupted(row), _share(found.error)),
                *(*against, *entries, str(found.mean.n), formatting.number(found.seconds)),
            ]
        )
    return _table(header, lines)


def _by_severity(pairs: Sequence[tuple[Row, CorruptionAccuracy]]) -> str:
    severities = sorted({severity for _, found in pairs for severity in found.by_severity})
    lines = [
        [safe(row.model), safe(row.defense), *(_share(found.by_severity.get(one, NOTHING)) for one in severities)]
        for row, found in pairs
    ]
    return _table([f"severity {one}" for one in severities], lines)


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = [":--", ":--", *("--:" for _ in header)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [["model", "defense", *header], rule, *lines])


def _share(value: float | str) -> str:
    return value if isinstance(value, str) else formatting.number(100 * value)
