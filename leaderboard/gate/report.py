"""What the gate says: a verdict for each cell, and the report as text and as Markdown (other formats: `gate_formats`)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, Literal

from gauntlet.leaderboard.gate.baseline import Key
from gauntlet.leaderboard.results import escape

Verdict = Literal["regressed", "held", "undecided", "incomparable", "suspicious"]

ORDER: Final[tuple[Verdict, ...]] = ("regressed", "incomparable", "suspicious", "undecided", "held")
"""Verdicts as they are listed, what needs attention first."""

State = Literal["failed", "incomparable", "undecided", "passed"]
"""What a gate comes to. `failed`: robustness was lost, rose without a reason, or a limit was missed."""

STATES: Final[tuple[State, ...]] = ("failed", "incomparable", "undecided", "passed")
"""Of several the first counts."""

MOST_IDS = 10
"""Lost samples that are named; gate.json has all of them."""


def worst(states: Iterable[State]) -> State:
    """What several gates come to together. Raises ValueError where there is none."""
    return min(states, key=STATES.index)


@dataclass(frozen=True)
class CellVerdict:
    """What the gate says of one cell."""

    title: str
    verdict: Verdict
    sentence: str
    """The figures, and what to do; or why nothing can be said."""
    lost: int = 0
    """Samples that were robust and are no more."""
    gained: int = 0
    n: int = 0
    """Samples compared; 0 where the cell is incomparable, whose figures are NaN."""
    p_value: float = math.nan
    """Of a drop, adjusted by Holm's method; where suspicious, of a rise."""
    upper: float = math.nan
    """One-sided upper bound of the drop at confidence 1 - alpha."""
    baseline_robust: float = math.nan
    """Robust accuracy, a share of the samples."""
    robust: float = math.nan
    key: Key | None = None
    """The cell in the current run, where it has one."""
    lost_at: tuple[int, ...] = field(default=(), repr=False)
    """Positions of the lost samples, in the order of the plan."""
    lost_ids: tuple[str, ...] = field(default=(), repr=False)
    """Their ids, where the run could be asked for them."""
    reproduce: str = ""
    """The command that attacks the cell again; empty where it cannot be given."""
    show: str = ""
    """The command that tells what became of the first lost sample."""
    picture: str = ""
    """Path of a picture of a few lost samples; empty where none was drawn."""

    @property
    def line(self) -> str:
        """All of it in one line."""
        return f"{self.verdict.upper()} {self.title}: {self.sentence}"

    @property
    def lost_names(self) -> str:
        """The ids of the first lost samples, and how many more there are."""
        more = len(self.lost_ids) - MOST_IDS
        named = ", ".join(map(escape.visible, self.lost_ids[:MOST_IDS]))
        return f"{named} and {more:,} more" if more > 0 else named

    @property
    def evidence(self) -> dict[str, str]:
        """What to look at where robustness was lost or rose without a reason, by what it is; nothing for other verdicts."""
        found = {"reproduce": self.reproduce} if self.verdict in ("regressed", "suspicious") else {}
        if self.verdict == "regressed":
            found |= {"lost": self.lost_names, "picture": self.picture, "show one": self.show}
        return {name: text for name, text in found.items() if text}


@dataclass(frozen=True)
class GateReport:
    """What the gate says of a run."""

    verdicts: tuple[CellVerdict, ...]
    """In the order of the baseline, then cells that it lacks."""
    problems: tuple[str, ...]
    """Sentences: which limits of cost and which floors were missed."""
    passed: bool
    """Every cell held (or undecided where the policy allows it), and no problem."""
    costs: str = ""
    """A sentence on what both runs cost; time is reported only."""

    @property
    def state(self) -> State:
        """Robustness that was lost counts before what could not be compared, and that before what could not be decided."""
        found = {verdict.verdict for verdict in self.verdicts}
        if self.passed:
            return "passed"
        if self.problems or found & {"regressed", "suspicious"}:
            return "failed"
        return "undecided" if found <= {"held", "undecided"} else "incomparable"

    @property
    def summary(self) -> str:
        """`Gate failed: 1 regressed, 3 held.`"""
        counts = Counter(verdict.verdict for verdict in self.verdicts)
        parts = [f"{counts[name]} {name}" for name in ORDER if counts[name]]
        if self.problems:
            parts.append(f"{len(self.problems)} limit{'s' if len(self.problems) > 1 else ''} missed")
        return f"Gate {'passed' if self.passed else 'failed'}: {', '.join(parts)}."

    @property
    def by_urgency(self) -> list[CellVerdict]:
        """The verdicts, what needs attention first."""
        return sorted(self.verdicts, key=lambda verdict: ORDER.index(verdict.verdict))

    def text(self) -> str:
        """For a terminal: a line a cell and what to look at, the problems, the costs, the summary."""
        lines = []
        for verdict in self.by_urgency:
            lines += [
                escape.visible(verdict.line),
                *(f"  {name}: {_exact(text)}" for name, text in verdict.evidence.items()),
            ]
        lines += [escape.visible(f"LIMIT {problem}") for problem in self.problems]
        return "\n".join([*lines, *filter(None, (self.costs, self.summary))])

    def markdown(self, limit: int | None = None) -> str:
        """The same as Markdown: a table of the cells that were compared, and entries where attention is needed.

        At most `limit` bytes of UTF-8, which must be 2,000 at least: rows and entries are then left out, whole and from the
        end, where what needs attention least stands, and a sentence says how many.
        """
        ranked = self.by_urgency
        rows = [_row(verdict) for verdict in ranked if verdict.n]
        notes = [_entry(verdict) for verdict in ranked if verdict.verdict != "held"]
        notes += [f"- **limit** {escape.markdown(problem, _LONGEST)}" for problem in self.problems]
        left_out = ""
        if limit is not None:
            # The rest are a few sentences of no great length.
            room = limit - 1500
            some = _fitting(rows, room // 2 if notes else room)
            entries = _fitting(notes, room - sum(map(_size, some)))
            if len(some) < len(rows) or len(entries) < len(notes):
                left_out = (
                    f"Left out for its size: {len(rows) - len(some):,} of {len(rows):,} rows and {len(notes) - len(entries):,} "
                    f"of {len(notes):,} entries. The whole report is gate.md in the results folder."
                )
            rows, notes = some, entries
        table = [_HEAD, *rows, ""] if rows else []
        parts = [f"**{self.summary}**", "", *table, *notes, *([""] if notes else [])]
        return "\n\n".join(filter(None, ["\n".join(parts).rstrip(), self.costs, left_out])) + "\n"


def nothing_compared(reason: str) -> GateReport:
    """The report of a gate that could compare nothing: it does not pass."""
    return GateReport((CellVerdict("all cells", "incomparable", reason),), (), False)


_LONGEST = 800
_HEAD = (
    "| verdict | cell | baseline % | now % | n | lost | gained | drop at most (points) | p (Holm) |\n"
    "|---|---|--:|--:|--:|--:|--:|--:|--:|"
)


def _row(v: CellVerdict) -> str:
    return (
        f"| {v.verdict} | {escape.markdown(v.title, _LONGEST)} | {100 * v.baseline_robust:.1f} | {100 * v.robust:.1f} "
        f"| {v.n} | {v.lost} | {v.gained} | {100 * v.upper:.1f} | {v.p_value:.2g} |"
    )


def _entry(verdict: CellVerdict) -> str:
    """A list item; the commands stand in a code block of it, to be copied."""
    found = verdict.evidence
    lines = [f"- **{verdict.verdict}** {escape.markdown(f'{verdict.title}: {verdict.sentence}', _LONGEST)}"]
    lines += [
        f"  - {name}: {escape.markdown(found[name], 4 * _LONGEST)}" for name in ("lost", "picture") if name in found
    ]
    if commands := [found[name] for name in ("reproduce", "show one") if name in found]:
        lines += ["", *(f"  {line}" for line in escape.fenced("\n".join(commands)).splitlines())]
    return "\n".join(lines)


def _exact(text: str) -> str:
    """The text as it is, to be copied, unless some of it would not show."""
    return text if text.isprintable() else escape.visible(text)


def _size(line: str) -> int:
    return len(line.encode("utf-8", "backslashreplace")) + 1


def _fitting(lines: Sequence[str], room: int) -> list[str]:
    """The first lines that take no more than `room` bytes together."""
    return [line for line, end in zip(lines, accumulate(map(_size, lines)), strict=True) if end <= room]
