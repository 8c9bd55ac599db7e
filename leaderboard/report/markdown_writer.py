"""The leaderboard as a Markdown report: tables, how to read them, flags, errors, and how to reproduce the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gauntlet.leaderboard.report import formatting
from gauntlet.leaderboard.report.cell_text import attack_settings
from gauntlet.leaderboard.report.comparisons import describe_comparisons, rank, separate
from gauntlet.leaderboard.report.formatting import NOTHING
from gauntlet.leaderboard.report.markdown_classes import classes_section, gap_text
from gauntlet.leaderboard.report.markdown_corruptions import corruptions_section
from gauntlet.leaderboard.report.markdown_published import published_section
from gauntlet.leaderboard.report.notes import checks_off, verdict
from gauntlet.leaderboard.results.escape import fenced
from gauntlet.leaderboard.results.escape import markdown as safe
from gauntlet.leaderboard.results.record import DRAWS
from gauntlet.leaderboard.results.summary import AnyResult, CellSummary, summaries
from gauntlet.leaderboard.rows.evidence import describe_lifted
from gauntlet.leaderboard.rows.references import Reference
from gauntlet.leaderboard.rows.row import AttackEntry, LeaderboardRow

_LONGEST_MESSAGE = 600

READING = (
    "Robust accuracy is the share of all n samples that are classified correctly clean and under every attack of the suite "
    "(the worst case per sample); n counts the samples that every attack covered. Shares are in percent.",
    "In brackets: the 95 % Clopper-Pearson interval. The interval covers sampling only; attacked accuracy is an upper bound "
    "of the truth, since a stronger attack can only lower it.",
    "Before an arrow: robust accuracy under the naive attack alone, which is PGD by autograd through the pipeline as it is. "
    "Certified: the share proven robust, so that certified ≤ truth ≤ robust; “open” are samples neither certified nor broken, "
    "and ~ marks a certificate that holds with high probability only (randomized smoothing).",
    "Rank: 1 + the number of rows that are significantly better (two-sided exact McNemar test on the same samples, Holm's "
    "correction over all pairs, alpha 0.05); a range ends at the number of ranked rows minus the number of rows that are "
    "significantly worse. Only rows are compared that faced the same attacks, as they were asked for, with the same seeds; black "
    "boxes are compared among themselves. Rows marked – have no rank, for the reasons stated.",
    "Passes are the forward / backward passes of all attacks together, a mean over the samples; s is the attacks' time in "
    "seconds.",
)

READING_RANDOMISED = (
    f"Randomised models: clean counts the samples whose label is the most frequent of {DRAWS} predictions (a plurality), robust "
    f"those whose label is more than half of {DRAWS} other predictions of the worst example, or of the clean image without one "
    "(a majority). A sample can therefore be correct when clean and not robust although no attack changed it."
)


@dataclass(frozen=True)
class RunContext:
    """Facts about the run that the report shows as given."""

    threat_models: tuple[str, ...]
    data: str
    """A line: name, split, number of samples."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions by package."""
    device: str = ""
    seed: int = 0
    command: str = ""
    """The exact command that repeats the run."""
    run_path: str = ""
    """Path of the run's records."""
    started: str = ""
    """ISO 8601 with the offset from UTC."""
    checks: str = ""
    """The gradient-masking checks that were run: `default`, `all` or `none`; empty in runs of older versions."""
    by_hand: tuple[str, ...] | None = None
    """What options of the command line chose: `cells`, `seed`, `checks`; None: not recorded."""


def markdown_report(
    rows: Sequence[LeaderboardRow],
    results: Sequence[AnyResult],
    context: RunContext,
    references: Sequence[Reference] = (),
    sections: Sequence[str] = (),
) -> str:
    """The whole report, with published figures beside the measured ones. Names and messages are escaped.

    `sections`: more sections, Markdown already, before the errors.
    """
    cells = summaries(results)
    parts = ["# Leaderboard", *_tables(rows)]
    if not rows:
        parts.append("No cells were run.")
    parts += [
        "\n".join(f"- {safe(line)}" for line in verdict(rows)),
        safe(checks_off("command line")) if context.checks == "none" else "",
        published_section(references),
        _section("How to read it", [*READING, *([READING_RANDOMISED] if any(row.randomised for row in rows) else [])]),
        _section("Without rank", _unranked(rows)),
        classes_section(rows),
        corruptions_section(rows),
        _section("Flags", _flags(rows)),
        *(section.rstrip() for section in sections),
        _section("Errors", _errors(cells)),
        _section("Setup", _setup(cells, context)),
    ]
    if context.command:
        parts += ["## Reproduce", fenced(context.command)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(title: str, items: Iterable[str]) -> str:
    lines = [f"- {item}" for item in items]
    return f"## {title}\n\n" + "\n".join(lines) if lines else ""


def _tables(rows: Sequence[LeaderboardRow]) -> list[str]:
    sections: dict[tuple[str, str, str], list[LeaderboardRow]] = {}
    for row in rows:
        sections.setdefault((row.threat, row.data, row.suite), []).append(row)
    parts = []
    for (threat, data, suite), members in sections.items():
        about = f"Data {safe(data)}, suite {safe(suite)}. {safe(formatting.target_meaning(threat))}".rstrip()
        parts += [f"## {safe(threat)}\n\n{about}", _table(members)]
        parts.append(safe(describe_comparisons(members), 2 * _LONGEST_MESSAGE))
    return parts


def _table(rows: Sequence[LeaderboardRow]) -> str:
    labels = list(dict.fromkeys(label for row in rows for label in row.attacks))
    corrupted = any(row.corruption is not None for row in rows)
    header = [
        *("rank", "model", "defense", "clean", *(["corruptions"] if corrupted else [])),
        *("certified", "robust (worst case)", "n"),
        *map(safe, labels),
        *("worst class", "s", "passes a sample", "peak MiB", "flags", "status"),
    ]
    left = {1, 2, len(header) - 2, len(header) - 1}
    rule = [":--" if column in left else "--:" for column in range(len(header))]
    several = separate(rows)
    lines = [header, rule, *([rank(row, named=several), *_line(row, labels, corrupted)] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _line(row: LeaderboardRow, labels: Sequence[str], corrupted: bool) -> list[str]:
    return [
        safe(row.model),
        safe(row.defense),
        formatting.with_interval(row.clean),
        *([formatting.corrupted(row)] if corrupted else []),
        formatting.certified(row),
        formatting.robust(row) + ("" if row.status == "ok" else " (incomplete)"),
        str(row.robust.n),
        *(_attack_entry(row.attacks.get(label, "–")) for label in labels),
        _worst_class(row),
        formatting.number(row.seconds),
        f"{formatting.number(row.forwards_per_sample)} / {formatting.number(row.backwards_per_sample)}",
        formatting.number(row.peak_memory_mib, 0),
        safe(", ".join(dict.fromkeys(flag.name for flag in row.flags if not flag.lifted_by))) or NOTHING,
        row.status,
    ]


def _attack_entry(entry: AttackEntry) -> str:
    return entry if isinstance(entry, str) else formatting.with_interval(entry)


def _worst_class(row: LeaderboardRow) -> str:
    worst = row.worst_class
    if worst is None:
        return NOTHING
    return f"{safe(worst.title)}: {formatting.with_interval(worst.robust)}, n {worst.robust.n}{gap_text(row)}"


def _row_name(row: LeaderboardRow) -> str:
    return f"{row.title}, {row.threat}"


def _unranked(rows: Sequence[LeaderboardRow]) -> list[str]:
    return [
        f"**{safe(_row_name(row))}**: {' '.join(safe(reason, _LONGEST_MESSAGE) for reason in row.unranked)}"
        for row in rows
        if row.rank is None
    ]


def _flags(rows: Sequence[LeaderboardRow]) -> list[str]:
    """Each message once, with the rows that have it; of a flag that attacks answered, these attacks in place of its advice."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        for flag in row.flags:
            state: str = flag.severity
            text = flag.message
            if flag.lifted_by:
                state, text = "answered", describe_lifted(flag)
            places.setdefault((flag.name, state, text), []).append(_row_name(row))
    return [
        f"**{safe(name)}** ({state}; {safe('; '.join(names))}): {safe(text, _LONGEST_MESSAGE)}"
        for (name, state, text), names in places.items()
    ]


def _errors(results: Sequence[CellSummary]) -> list[str]:
    return [
        f"**{safe(result.cell.title)}**, {safe(result.cell.threat)}, seed {result.cell.seed}: "
        f"{safe(result.error.kind)}: {safe(result.error.message, _LONGEST_MESSAGE)}"
        for result in results
        if result.error is not None
    ]


def _setup(results: Sequence[CellSummary], context: RunContext) -> list[str]:
    attacks = dict.fromkeys(
        (r.cell.threat, r.cell.attack, r.cell.attack_spec, r.precision, r.report_as) for r in results
    )
    devices = ", ".join(dict.fromkeys(name for result in results if (name := result.device)))
    facts = {
        "Threat models": ", ".join(context.threat_models),
        "Data": context.data,
        "Device": context.device or devices,
        "Seed": str(context.seed),
        "Checks": context.checks,
        "Versions": ", ".join(f"{name} {version}" for name, version in context.versions.items()),
        "Started": context.started,
        "Records": context.run_path,
    }
    return [
        *(f"{name}: {safe(text)}" for name, text in facts.items() if text),
        *(
            f"Attack {safe(label)} ({safe(threat)}, {safe(precision)}): {safe(attack_settings(spec))}"
            + (f"; report as: {safe(reported)}" if reported else "")
            for threat, label, spec, precision, reported in attacks
        ),
        *([safe("Settings of an attack in full: gauntlet show RUN --attack NAME")] if attacks else []),
    ]
