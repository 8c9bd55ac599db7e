"""The agreement of libraries as text for a terminal, as Markdown and as CSV."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pandas as pd

from gauntlet.leaderboard.compare.library_agreement import (
    AgreementResults,
    LibraryAgreement,
    MemberLine,
)
from gauntlet.leaderboard.report.csv_writer import COUNT, NUMBER, TEXT, typed_frame
from gauntlet.leaderboard.report.formatting import NOTHING, number, percent
from gauntlet.leaderboard.results.escape import fenced, visible
from gauntlet.leaderboard.results.escape import markdown as safe

READING: Final = (
    "A sample is broken if it is correct when clean and the verifier confirms the attack's example: finite, in the box, within "
    "eps, and misclassified by the model. The first attack of a comparison is the reference; +a −b: a samples that this attack "
    "broke and the reference did not, and b the other way round.",
    "Random starts differ between libraries, so that a few samples differ by chance. The column itself says on how many samples "
    "an attack differs from itself with the next seed.",
    "Distance: median over the broken samples of the distance divided by that of the reference's example of the same sample, 1 "
    "where both are equal. Attacks of a fixed radius use it up and are not meant to come closer.",
    "Passes: forward / backward for each sample that was correct when clean. Gauntlet's own attacks stop a sample once it is "
    "broken; most libraries spend the whole budget. Seconds are the attack's alone.",
    "Invalid points: returned outside the ball / outside the box or not finite / claimed as successes though the model is right. "
    "They count as failures of the attack. Gauntlet's own attacks return only what the verifier confirmed; – also where results "
    "stored by an older version do not say. A last iterate that some libraries return claims nothing.",
)
LINE_COLUMNS: Final = {
    "comparison": TEXT,
    "threat": TEXT,
    "pipeline": TEXT,
    "library": TEXT,
    "attack": TEXT,
    "n": COUNT,
    "robust_accuracy": NUMBER,
    "broken": COUNT,
    "only_this": COUNT,
    "only_reference": COUNT,
    "itself": COUNT,
    "median_distance": NUMBER,
    "distance_ratio": NUMBER,
    "forwards_per_sample": NUMBER,
    "backwards_per_sample": NUMBER,
    "seconds": NUMBER,
    "outside_ball": COUNT,
    "outside_box": COUNT,
    "false_claims": COUNT,
    "failures": COUNT,
}
SAMPLE_COLUMNS: Final = dict.fromkeys(
    ("comparison", "threat", "model", "defense", "data", "sample", "broken_by", "left_by"), TEXT
)
OVERVIEW: Final = (
    "The samples that the reference broke; for each other library +a −b: a samples that it broke and the reference did not, "
    "and b the other way round. The last column has the samples on which any two differ."
)
HEADER: Final = (
    "attack",
    "robust %",
    "broke",
    "beside the reference",
    "itself",
    "distance",
    "passes",
    "s",
    "invalid points",
)


def differences(line: MemberLine) -> str:
    """`+3 −1`: samples that this attack alone broke, and that the reference alone broke."""
    return f"+{line.only_this} −{line.only_reference}"


def invalid(line: MemberLine) -> str:
    """`0 / 2 / 1`: outside the ball, outside the box, claimed wrongly; `–` where it is not known."""
    found = line.invalid
    return NOTHING if found is None else f"{found.outside_ball} / {found.outside_box} / {found.false_claims}"


def entries(one: LibraryAgreement) -> list[tuple[str, ...]]:
    """The lines of a comparison, with the entries of `HEADER`."""
    return [_entries(line, place) for place, line in enumerate(one.lines)]


def _entries(line: MemberLine, place: int) -> tuple[str, ...]:
    if not line.robust.n:
        return line.attack, "error", *[NOTHING] * (len(HEADER) - 2)
    return (
        line.attack,
        percent(line.robust),
        str(line.broken),
        "reference" if place == 0 else differences(line),
        NOTHING if line.itself is None else str(line.itself),
        number(line.distance_ratio, 3),
        f"{number(line.forwards)} / {number(line.backwards)}",
        number(line.seconds, 2),
        invalid(line),
    )


def sentence(one: LibraryAgreement) -> str:
    """The comparison in a sentence."""
    n = max(line.robust.n for line in one.lines)
    wrong = [(line.attack, line.invalid.total) for line in one.lines if line.invalid is not None and line.invalid.total]
    claims = ", ".join(f"{attack} {count}" for attack, count in wrong)
    return (
        f"{one.title}: {len(one.lines)} attacks differ on {one.apart} of {n} samples"
        f"{f'; invalid points: {claims}' if claims else ''}"
    )


def overview(results: AgreementResults) -> list[tuple[str, ...]]:
    """A header, and a line for each comparison: the reference's broken samples, and how each library differs from it."""
    libraries = list(dict.fromkeys(line.library for one in results.together for line in one.lines))
    header = ("comparison", "samples", *libraries, "differ")
    rows = []
    for one in results.together:
        found: dict[str, list[str]] = {library: [] for library in libraries}
        for place, line in enumerate(one.lines):
            found[line.library].append(_beside(line, place))
        samples = max(line.robust.n for line in one.lines)
        texts = ("; ".join(found[library]) or NOTHING for library in libraries)
        rows.append((one.title, str(samples), *texts, str(one.apart)))
    return [header, *rows]


def _beside(line: MemberLine, place: int) -> str:
    if not line.robust.n:
        return "error"
    wrong = f", {line.invalid.total} invalid" if line.invalid is not None and line.invalid.total else ""
    return (f"broke {line.broken}" if place == 0 else differences(line)) + wrong


def agreement_text(results: AgreementResults) -> Iterator[str]:
    """Lines for a terminal: a sentence for each comparison, and a line for each attack."""
    for one in results.together:
        yield visible(sentence(one))
        table = entries(one)
        width = max(len(visible(line[0])) for line in table)
        for attack, robust, _, beside, _, _, passes, seconds, wrong in table:
            name = f"  {visible(attack):<{width}}"
            if robust == "error":
                yield f"{name}  error"
            else:
                yield f"{name}  robust {robust} %  {beside}  {passes} passes  {seconds} s  invalid {wrong}"


def agreement_markdown(results: AgreementResults, data: str, command: str) -> str:
    """The report: for each comparison its attacks, the pairs, and the pipelines one by one."""
    parts = ["# Agreement of libraries", safe(data)]
    head, *rows = overview(results)
    parts += [OVERVIEW, _table(head, [(safe(row[0]), *row[1:]) for row in rows])]
    for one in results.together:
        parts += [f"## {safe(one.title)}", agreement_table(one)]
        if len(one.lines) > 2:
            parts.append(_pairs(one))
        if several := results.pipelines_of(one):
            parts.append(_pipelines(several))
    if results.left_out:
        parts.append("## Left out\n\n" + "\n".join(f"- {safe(line)}" for line in results.left_out))
    if results.failures:
        parts.append("## Errors\n\n" + "\n".join(f"- {safe(line, 600)}" for line in results.failures))
    parts += ["\n".join(f"- {line}" for line in READING), "## Reproduce", fenced(command)]
    return "\n\n".join(part for part in parts if part) + "\n"


def agreement_table(one: LibraryAgreement) -> str:
    """The attacks of a comparison as a Markdown table."""
    return _table(HEADER, [(safe(line[0]), *line[1:]) for line in entries(one)])


def _pairs(one: LibraryAgreement) -> str:
    note = "Samples that the attack of the row broke and the attack of the column did not:"
    names = [safe(line.attack) for line in one.lines]
    rows = [
        (name, *(NOTHING if a == b or count is None else str(count) for b, count in enumerate(counts)))
        for a, (name, counts) in enumerate(zip(names, one.differ, strict=True))
    ]
    return f"{note}\n\n{_table(('', *names), rows)}"


def _pipelines(several: Sequence[LibraryAgreement]) -> str:
    attacks = [line.attack for line in several[0].lines]
    rows = [
        (safe(one.pipelines[0]), *(pipeline_entry(line, place) for place, line in enumerate(one.lines)))
        for one in several
    ]
    note = "Samples broken, by model:"
    return f"{note}\n\n{_table(('model', *map(safe, attacks)), rows)}"


def pipeline_entry(line: MemberLine, place: int) -> str:
    """`41 (+1 −0)`: the samples that an attack broke, beside those of the reference, which has place 0."""
    if line.failures:
        return "error"
    return str(line.broken) if place == 0 else f"{line.broken} ({differences(line)})"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = [":--", *["--:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *rows])


def agreement_frame(results: AgreementResults) -> pd.DataFrame:
    """A row for each attack of each comparison, over all pipelines (`pipeline` is then empty) and for each alone."""
    several = {(one.name, one.threat) for one in results.single}
    lines = []
    for one in (*results.together, *results.single):
        whole = one in results.together and (one.name, one.threat) in several
        lines += [_figures(one, line, "" if whole else "; ".join(one.pipelines)) for line in one.lines]
    return typed_frame(lines, LINE_COLUMNS)


def samples_frame(results: AgreementResults) -> pd.DataFrame:
    """A row for each sample on which attacks of a comparison differ; attacks are separated by semicolons."""
    lines = [
        dict(
            zip(
                SAMPLE_COLUMNS,
                (one.name, one.threat, *key, "; ".join(broken), "; ".join(left)),
                strict=True,
            )
        )
        for one in results.together
        for key, broken, left in one.samples
    ]
    return typed_frame(lines, SAMPLE_COLUMNS)


def _figures(one: LibraryAgreement, line: MemberLine, pipeline: str) -> dict[str, Any]:
    known: dict[str, Any] = {
        "comparison": one.name,
        "threat": one.threat,
        "pipeline": pipeline,
        "library": line.library,
        "attack": line.attack,
        "n": line.robust.n,
        "robust_accuracy": line.robust.estimate if line.robust.n else math.nan,
        "broken": line.broken,
        "only_this": line.only_this,
        "only_reference": line.only_reference,
        "median_distance": line.distance,
        "distance_ratio": line.distance_ratio,
        "forwards_per_sample": line.forwards,
        "backwards_per_sample": line.backwards,
        "seconds": line.seconds,
        "failures": len(line.failures),
    }
    if line.itself is not None:
        known["itself"] = line.itself
    if line.invalid is not None:
        known |= {name: getattr(line.invalid, name) for name in ("outside_ball", "outside_box", "false_claims")}
    return known
