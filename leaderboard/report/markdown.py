"""The leaderboard as a Markdown report with all that is needed to read and repeat it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gauntlet.leaderboard.report import formatting
from gauntlet.leaderboard.report.class_tables import classes_section, gap_text
from gauntlet.leaderboard.report.corruption_tables import corruptions_section
from gauntlet.leaderboard.report.formatting import NOTHING
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.escape import fenced
from gauntlet.leaderboard.results.escape import markdown as safe
from gauntlet.leaderboard.results.record import CellResult
from gauntlet.leaderboard.rows.references import Reference, references_section
from gauntlet.leaderboard.rows.row import AttackEntry, Row

_LONGEST_MESSAGE = 600

READING = (
    "Robust accuracy is the share of all n samples that are classified correctly clean and stay so under every attack "
    "of the suite (the worst case per sample); n counts the samples that every attack covered. Shares are percent.",
    "In brackets: the 95 % Clopper-Pearson interval. The interval covers sampling only; attacked accuracy "
    "is an upper bound of the truth, since a stronger attack can only lower it.",
    "Before an arrow: what the naive attack alone reports, PGD by autograd through whatever is there. Certified: the share "
    "proven robust, so that certified ≤ truth ≤ robust; “open” are samples neither certified nor broken, and ~ marks a "
    "proof that holds with high probability only (randomized smoothing).",
    "Rank: 1 + the number of rows that are significantly better (two-sided exact McNemar test on the same samples, "
    "Holm's correction over all pairs, alpha 0.05); a range ends at the number of ranked rows minus the rows that are "
    "significantly worse. Rows marked – have no rank, for the reasons below.",
    "Passes are forward / backward passes of all attacks together, a mean over the samples; s is the attacks' seconds.",
)


@dataclass(frozen=True)
class RunContext:
    """What a reader needs to know of the run beside its results; shown as given."""

    threat_models: tuple[str, ...]
    data: str
    """A line: name, split, number of samples."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package to version."""
    device: str = ""
    seed: int = 0
    command: str = ""
    """The exact command that repeats the run."""
    run_path: str = ""
    """Where its records lie."""
    started: str = ""
    """ISO 8601 with the offset from UTC."""


def report(
    rows: Sequence[Row], results: Sequence[CellResult], context: RunContext, published: Sequence[Reference] = ()
) -> str:
    """The whole report, `published` figures beside the measured ones. Names and messages are escaped: they show as they are."""
    parts = ["# Leaderboard", *_tables(rows)]
    if not rows:
        parts.append("No cells were run.")
    parts += [
        references_section(published),
        _section("How to read it", READING),
        _section("Without rank", _unranked(rows)),
        classes_section(rows),
        corruptions_section(rows),
        _section("Flags", _flags(rows)),
        _section("Errors", _errors(results)),
        _section("Setup", _setup(results, context)),
    ]
    if context.command:
        parts += ["## Reproduce", fenced(context.command)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(title: str, items: Iterable[str]) -> str:
    lines = [f"- {item}" for item in items]
    return f"## {title}\n\n" + "\n".join(lines) if lines else ""


def _tables(rows: Sequence[Row]) -> list[str]:
    sections: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        sections.setdefault((row.threat, row.data, row.suite), []).append(row)
    parts = []
    for (threat, data, suite), members in sections.items():
        about = f"Data {safe(data)}, suite {safe(suite)}. {safe(formatting.meaning(threat))}".rstrip()
        parts.append(f"## {safe(threat)}\n\n{about}")
        parts.append(_table(members))
        comparisons = len({row.comparison for row in members if row.rank is not None})
        if comparisons > 1:
            parts.append(
                f"The ranks of this table are of {comparisons} separate comparisons: only rows on the same samples and "
                "seeds are ranked against each other."
            )
    return parts


def _table(rows: Sequence[Row]) -> str:
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
    return "\n".join(
        f"| {' | '.join(line)} |" for line in [header, rule, *(_line(row, labels, corrupted) for row in rows)]
    )


def _line(row: Row, labels: Sequence[str], corrupted: bool) -> list[str]:
    weakest = row.worst_class
    return [
        formatting.rank(row),
        safe(row.model),
        safe(row.defense),
        formatting.with_interval(row.clean),
        *([formatting.corrupted(row)] if corrupted else []),
        formatting.certified(row),
        formatting.robust(row) + ("" if row.status == "ok" else " (incomplete)"),
        str(row.robust.n),
        *(_entry(row.attacks.get(label, "–")) for label in labels),
        f"{weakest.label}: {formatting.with_interval(weakest.robust)}, n {weakest.robust.n}{gap_text(row)}"
        if weakest
        else NOTHING,
        formatting.number(row.seconds),
        f"{formatting.number(row.forwards_per_sample)} / {formatting.number(row.backwards_per_sample)}",
        formatting.number(row.peak_memory_mib, 0),
        safe(", ".join(dict.fromkeys(flag.name for flag in row.flags))) or NOTHING,
        row.status,
    ]


def _entry(entry: AttackEntry) -> str:
    return entry if isinstance(entry, str) else formatting.with_interval(entry)


def _where(row: Row) -> str:
    return f"{row.title}, {row.threat}"


def _unranked(rows: Sequence[Row]) -> list[str]:
    return [
        f"**{safe(_where(row))}**: {' '.join(safe(reason, _LONGEST_MESSAGE) for reason in row.unranked)}"
        for row in rows
        if row.rank is None
    ]


def _flags(rows: Sequence[Row]) -> list[str]:
    """Each sentence once, with the rows that it is about."""
    about: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        for flag in row.flags:
            about.setdefault((flag.name, flag.severity, flag.message), []).append(_where(row))
    return [
        f"**{safe(name)}** ({severity}; {safe('; '.join(places))}): {safe(message, _LONGEST_MESSAGE)}"
        for (name, severity, message), places in about.items()
    ]


def _errors(results: Sequence[CellResult]) -> list[str]:
    return [
        f"**{safe(result.cell.title)}**, {safe(result.cell.threat)}, seed {result.cell.seed}: "
        f"{safe(result.error.kind)}: {safe(result.error.message, _LONGEST_MESSAGE)}"
        for result in results
        if result.error is not None
    ]


def _setup(results: Sequence[CellResult], context: RunContext) -> list[str]:
    specs = dict.fromkeys((r.cell.threat, r.cell.attack, r.cell.attack_spec, cells.precision(r)) for r in results)
    devices = ", ".join(dict.fromkeys(name for result in results if (name := cells.device(result))))
    facts = {
        "Threat models": ", ".join(context.threat_models),
        "Data": context.data,
        "Device": context.device or devices,
        "Seed": str(context.seed),
        "Versions": ", ".join(f"{name} {version}" for name, version in context.versions.items()),
        "Started": context.started,
        "Records": context.run_path,
    }
    return [
        *(f"{name}: {safe(text)}" for name, text in facts.items() if text),
        *(
            f"Attack {safe(label)} ({safe(threat)}, {safe(precision)}): {safe(spec, _LONGEST_MESSAGE)}"
            for threat, label, spec, precision in specs
        ),
    ]
