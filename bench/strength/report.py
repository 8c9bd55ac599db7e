"""Strength beside AutoAttack as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from gauntlet.bench.strength.compare import Line, Total, compare, missing, totals
from gauntlet.bench.strength.conditions import CONDITIONS, Condition
from gauntlet.bench.strength.measurements import Measurement

NOTE = (
    "Samples that stand, of {samples}, by seed; misclassified ones do not stand. AutoAttack is the authors' code, `standard`, "
    "seed 0. Excess: samples that stand beyond its number, with the worst seed. Missed: samples that stand though it broke them. "
    "Union: samples that nothing measured here breaks. Passes: forward and backward passes for a sample, misclassified ones "
    "included; share: of AutoAttack's. Stages are chosen without the networks that are held out."
)


def report(
    measurements: Sequence[Measurement],
    reference: Sequence[Measurement],
    conditions: Sequence[Condition] = CONDITIONS,
) -> str:
    """The sums, then a table of these conditions for each attack; those that the reference lacks are named."""
    lines = compare(measurements, reference, conditions)
    parts = [NOTE.format(samples=", ".join(sorted({str(line.reference.samples) for line in lines})) or "0"), ""]
    parts += _totals(totals(lines)) if lines else ["Nothing is measured that the reference has.", ""]
    for attack in dict.fromkeys(line.attack for line in lines):
        parts += _table(attack, [line for line in lines if line.attack == attack])
    absent = missing(reference, conditions)
    if absent:
        parts += [f"Not in the reference: {', '.join(str(condition) for condition in absent)}.", ""]
    return "\n".join(parts)


def _totals(sums: Sequence[Total]) -> list[str]:
    head = (
        "| attack | norm | networks | conditions | AutoAttack | standing | largest excess | largest above union "
        "| mean share of passes | largest |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    )
    body = [
        f"| `{one.attack}` | {one.norm} | {one.half} | {len(one.lines)} | {one.reference} "
        f"| {_numbers(one.standing)} | {one.excess:+d} | {one.above_union} | {one.share:.3f} | {one.largest_share:.3f} |"
        for one in sums
    ]
    return [*head, *body, ""]


def _table(attack: str, lines: Sequence[Line]) -> list[str]:
    head = (
        f"### `{attack}`",
        "",
        "| network | half | threat model | correct | AutoAttack | passes | standing | missed | union | passes | share |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    )
    body = [
        f"| `{line.condition.network}` | {line.condition.half} | {line.condition.threat} "
        f"| {line.reference.correct} | {line.reference.standing} | {line.reference.passes:.0f} | {_numbers(line.standing)} "
        f"| {_numbers(line.missed)} | {line.union} | {line.share * line.reference.passes:.0f} | {line.share:.3f} |"
        for line in lines
    ]
    return [*head, *body, ""]


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)
