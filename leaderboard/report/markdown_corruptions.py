"""The section of the Markdown report on corruptions: a table of rows × corruptions, and one of rows × severities."""

from __future__ import annotations

from collections.abc import Sequence

from gauntlet.leaderboard.report import formatting
from gauntlet.leaderboard.report.formatting import NOTHING
from gauntlet.leaderboard.results.escape import markdown as safe
from gauntlet.leaderboard.rows.corruptions import CorruptionAccuracy
from gauntlet.leaderboard.rows.row import LeaderboardRow

READING = (
    "Accuracy on corrupted images, in percent of all samples, including those that are misclassified when clean. Corruptions "
    "are not attacks: they take no part in ranks, the worst case or gates. The mean weights each corruption equally, and each "
    "of its severities. In brackets: the 95 % bootstrap interval over samples, each with all its corrupted images; it does not "
    "cover other images of the same corruptions. mCE, the mean corruption error, is 100 minus the mean, not "
    "normalised{relative}."
)
_RELATIVE = "; “to AlexNet” is the mean of the errors in proportion to AlexNet's on ImageNet-C (100: as bad)"

_Corrupted = tuple[LeaderboardRow, CorruptionAccuracy]


def corruptions_section(rows: Sequence[LeaderboardRow]) -> str:
    """Two tables for each threat model, data set and suite; empty if no row has corruptions."""
    sections: dict[tuple[str, str, str], list[_Corrupted]] = {}
    for row in rows:
        if row.corruption is not None:
            sections.setdefault((row.threat, row.data, row.suite), []).append((row, row.corruption))
    if not sections:
        return ""
    relative = any(corruption.alexnet is not None for members in sections.values() for _, corruption in members)
    parts = ["## Corruptions", READING.format(relative=_RELATIVE if relative else "")]
    for (threat, data, suite), members in sections.items():
        parts += [
            f"Beside {safe(threat)}, data {safe(data)}, suite {safe(suite)}:",
            _by_corruption(members, relative),
            _by_severity(members),
        ]
    return "\n\n".join(parts)


def _by_corruption(members: Sequence[_Corrupted], relative: bool) -> str:
    labels = list(dict.fromkeys(label for _, corruption in members for label in corruption.by_label))
    header = ["mean", "mCE", *(["to AlexNet"] if relative else []), *map(safe, labels), "n", "s"]
    lines = []
    for row, corruption in members:
        alexnet = [NOTHING if corruption.alexnet is None else f"{100 * corruption.alexnet:.1f}"] if relative else []
        lines.append(
            [
                *(safe(row.model), safe(row.defense), formatting.corrupted(row), _percent(corruption.error)),
                *(*alexnet, *(_percent(corruption.by_label.get(label, NOTHING)) for label in labels)),
                *(str(corruption.mean.n), formatting.number(corruption.seconds)),
            ]
        )
    return _table(header, lines)


def _by_severity(members: Sequence[_Corrupted]) -> str:
    severities = sorted({severity for _, corruption in members for severity in corruption.by_severity})
    lines = [
        [
            *(safe(row.model), safe(row.defense)),
            *(_percent(corruption.by_severity.get(severity, NOTHING)) for severity in severities),
        ]
        for row, corruption in members
    ]
    return _table([f"severity {severity}" for severity in severities], lines)


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = [":--", ":--", *("--:" for _ in header)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [["model", "defense", *header], rule, *lines])


def _percent(share: float | str) -> str:
    return share if isinstance(share, str) else formatting.number(100 * share)
