"""What the gate says: a verdict for each cell, and the report as text and as Markdown."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal

from gauntlet.leaderboard import escape
from gauntlet.leaderboard.baseline import Key

Verdict = Literal["regressed", "held", "undecided", "incomparable", "suspicious"]

ORDER: Final[tuple[Verdict, ...]] = ("regressed", "incomparable", "suspicious", "undecided", "held")
"""Verdicts as they are listed, what needs attention first."""


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

    @property
    def line(self) -> str:
        """All of it in one line."""
        return f"{self.verdict.upper()} {self.title}: {self.sentence}"


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
        """For a terminal: a line a cell, the problems, the costs, the summary."""
        lines = [verdict.line for verdict in self.by_urgency]
        lines += [f"LIMIT {problem}" for problem in self.problems]
        return "\n".join(escape.visible(line) for line in [*lines, self.costs, self.summary] if line)

    def markdown(self) -> str:
        """The same as Markdown: a table of the cells that were compared, and sentences where attention is needed."""
        ranked = self.by_urgency
        rows = [
            f"| {v.verdict} | {escape.markdown(v.title)} | {100 * v.baseline_robust:.1f} | {100 * v.robust:.1f} | {v.n} "
            f"| {v.lost} | {v.gained} | {100 * v.upper:.1f} | {v.p_value:.2g} |"
            for v in ranked
            if v.n
        ]
        head = "| verdict | cell | baseline % | now % | n | lost | gained | drop at most (points) | p (Holm) |"
        table = [head, "|---|---|--:|--:|--:|--:|--:|--:|--:|", *rows, ""] if rows else []
        notes = [f"- **{v.verdict}** {escape.markdown(f'{v.title}: {v.sentence}', 800)}" for v in ranked]
        shown = [note for note, v in zip(notes, ranked, strict=True) if v.verdict != "held"]
        shown += [f"- **limit** {escape.markdown(problem)}" for problem in self.problems]
        parts = [f"**{self.summary}**", "", *table, *shown, *([""] if shown else []), self.costs]
        return "\n".join(parts).rstrip() + "\n"
