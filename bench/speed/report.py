"""The report of a speed comparison as Markdown tables and as CSV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict

import pandas as pd

from gauntlet.bench.speed.comparisons import Comparison
from gauntlet.bench.speed.rounds import OURS, ParticipantSummary, Turn

NOTE = (
    "End to end: clean accuracy, the attack, and accuracy on its result, of all samples, after imports; ours is "
    '`gauntlet.evaluate(…, checks="none")`, with verification and records, and with checks the same with the default checks. '
    "Seconds are otherwise the attack's alone. All are medians over the rounds; every round has another seed. Ratios: to the "
    "fastest peer on the same form of the model, and to the bare passes of the full budget (gradients with respect to the "
    "input, frozen parameters). Passes are a sample's, counted by a wrapper of the model. Robust accuracy is what our verifier "
    "leaves standing of all samples, lowest to highest over the rounds."
)


def ratios(lines: Sequence[ParticipantSummary]) -> dict[str, float]:
    """For each form of the model, our seconds divided by those of the fastest peer on that form."""
    (ours,) = (line for line in lines if line.participant == OURS)
    fastest: dict[str, float] = {}
    for line in lines:
        if line.participant != OURS:
            fastest[line.form] = min(fastest.get(line.form, line.seconds), line.seconds)
    return {form: ours.seconds / seconds for form, seconds in fastest.items()}


def whole_ratios(lines: Sequence[ParticipantSummary]) -> tuple[float | None, float | None]:
    """Our seconds end to end, without and with checks, divided by those of the fastest peer; None where not measured."""
    (ours,) = (line for line in lines if line.participant == OURS)
    peers = [line.whole for line in lines if line.participant != OURS and line.whole is not None]
    if not peers:
        return None, None
    plain, checked = (None if own is None else own / min(peers) for own in (ours.whole, ours.checked))
    return plain, checked


def markdown(row: Comparison, lines: Sequence[ParticipantSummary], title: str) -> str:
    """The table of a comparison; `title` names model, data and threat model."""
    fastest = ratios(lines)
    head = [
        f"### {row.name}: {title}",
        "",
        "| attack | model as | end to end, s | with checks, s | attack alone, s | × fastest peer | × bare budget "
        "| over own passes | forwards | backwards | robust % | median distance |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    (ours,) = (line for line in lines if line.participant == OURS)
    body = [_table_line(line, {form: ours.seconds / value for form, value in fastest.items()}) for line in lines]
    said = "; ".join(f"{value:.2f} × the fastest peer ({form or 'original model'})" for form, value in fastest.items())
    return "\n".join([*head, *body, "", f"Ours: {said}." if said else "No peer could run.", ""])


def _table_line(line: ParticipantSummary, fastest: dict[str, float]) -> str:
    shares = [
        f"{line.seconds / fastest[form]:.2f}" for form in fastest if line.participant == OURS or form == line.form
    ]
    low, high = (f"{100 * value:.1f}" for value in line.robust)
    cells = [
        line.participant,
        line.form or "it is",
        *("–" if seconds is None else f"{seconds:.3g}" for seconds in (line.whole, line.checked)),
        f"{line.seconds:.3g}",
        " / ".join(shares) or "–",
        f"{line.bare:.2f}",
        f"{100 * line.overhead:+.0f} %",
        f"{line.forwards:.1f}",
        f"{line.backwards:.1f}",
        low if low == high else f"{low} to {high}",
        f"{line.median:.4g}",
    ]
    return f"| {' | '.join(cells)} |"


def overview(summaries: Iterable[tuple[Comparison, Sequence[ParticipantSummary]]]) -> str:
    """A table with a line per comparison: our ratios to the fastest peer, and both robust accuracies."""
    out = [
        "| attack | end to end, × fastest peer | with checks | attack alone, × fastest peer | same form "
        "| passes, ours / fastest peer's | robust %, ours | peers |"
    ]
    out.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row, lines in summaries:
        (ours,) = (line for line in lines if line.participant == OURS)
        peers = [line for line in lines if line.participant != OURS]
        by_form = ratios(lines)
        original = [line for line in peers if not line.form]
        quickest = min(original or peers, key=lambda line: line.seconds, default=None)
        passes = (
            "–"
            if quickest is None
            else f"{(ours.forwards + ours.backwards) / (quickest.forwards + quickest.backwards):.3f}"
        )
        best = [line.robust for line in peers]
        cells = [
            row.name,
            *("–" if share is None else f"{share:.2f}" for share in whole_ratios(lines)),
            *(f"{by_form[form]:.2f}" if form in by_form else "–" for form in ("", ours.form)),
            passes,
            _span([ours.robust]),
            _span(best) if best else "–",
        ]
        out.append(f"| {' | '.join(cells)} |")
    return "\n".join(out)


def _span(ranges: Sequence[tuple[float, float]]) -> str:
    low, high = min(pair[0] for pair in ranges), max(pair[1] for pair in ranges)
    return f"{100 * low:.1f}" if low == high else f"{100 * low:.1f} to {100 * high:.1f}"


def table(turns: Iterable[Turn]) -> pd.DataFrame:
    """A data frame with a line per turn."""
    return pd.DataFrame(
        [
            {
                "row": turn.row,
                "participant": turn.participant,
                "form": turn.form,
                "seed": turn.seed,
                **asdict(turn.measured),
                "standing": int(turn.measured.standing.sum()),
                "bare_forward_s": turn.bare.forward,
                "bare_both_s": turn.bare.both,
                "whole_s": turn.whole and turn.whole.seconds,
                "whole_standing": turn.whole and turn.whole.standing,
                "checked_s": turn.checked and turn.checked.seconds,
            }
            for turn in turns
        ]
    )
