"""The report of a gate: a verdict for each cell, as text and as Markdown (other formats: `formats`)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, Literal

from gauntlet.leaderboard.gate.baseline import Key
from gauntlet.leaderboard.results import escape

GateVerdict = Literal["policy", "regressed", "masked", "held", "undecided", "incomparable", "suspicious"]

ORDER: Final[tuple[GateVerdict, ...]] = (
    "policy",
    "regressed",
    "masked",
    "incomparable",
    "suspicious",
    "undecided",
    "held",
)
"""Order of the verdicts in reports: those that need attention first."""

GateState = Literal["failed", "incomparable", "undecided", "passed"]
"""The outcome of a gate. `failed`: robustness was lost, rose without a reason or is flagged anew, or a limit was missed."""

STATES: Final[tuple[GateState, ...]] = ("failed", "incomparable", "undecided", "passed")
"""In order of precedence."""

MOST_IDS = 10
"""Number of lost samples that are named; gate.json has all of them."""


def worst(states: Iterable[GateState]) -> GateState:
    """The combined outcome of several gates. Raises ValueError for no gate."""
    return min(states, key=STATES.index)


@dataclass(frozen=True)
class CellVerdict:
    """The verdict on one cell."""

    title: str
    verdict: GateVerdict
    sentence: str
    """The figures and what to do, or the reason why the cell is incomparable."""
    lost: int = 0
    """Number of samples that were robust before and are not now."""
    gained: int = 0
    n: int = 0
    """Number of samples compared, on which all figures are; 0 if the cell is incomparable, whose figures are NaN."""
    p_value: float = math.nan
    """Of a drop, adjusted by Holm's method; of a rise if that is suspicious."""
    upper: float = math.nan
    """One-sided upper bound of the drop at confidence 1 - alpha."""
    baseline_robust: float = math.nan
    """Robust accuracy, a share of the samples."""
    robust: float = math.nan
    accepted_robust: float = math.nan
    """Robust accuracy of the baseline on all of its samples, whether or not they were compared."""
    accepted_n: int = 0
    """The number of these samples."""
    flags: tuple[str, ...] = ()
    """Names of the flags that block the row now and did not in the baseline."""
    key: Key | None = None
    """Key of the cell in the current run; None if the run lacks it."""
    lost_at: tuple[int, ...] = field(default=(), repr=False)
    """Positions of the lost samples, in the order of the plan."""
    lost_ids: tuple[str, ...] = field(default=(), repr=False)
    """Ids of the lost samples, if the run is at hand."""
    reproduce: str = ""
    """The command that attacks the cell again; empty if there is none."""
    show: str = ""
    """The command that shows the results of the first lost sample."""
    picture: str = ""
    """Path of a picture of a few lost samples; empty if none was drawn."""

    @property
    def line(self) -> str:
        """Verdict, title and sentence in one line."""
        return f"{self.verdict.upper()} {self.title}: {self.sentence}"

    @property
    def partial(self) -> bool:
        """Whether the figures are not on all samples as they were accepted, so that the accepted figure stands beside them."""
        return self.accepted_n > 0 and self.baseline_robust != self.accepted_robust

    @property
    def lost_names(self) -> str:
        """The ids of the first lost samples, and the number of the others."""
        more = len(self.lost_ids) - MOST_IDS
        named = ", ".join(map(escape.visible, self.lost_ids[:MOST_IDS]))
        return f"{named} and {more:,} more" if more > 0 else named

    @property
    def evidence(self) -> dict[str, str]:
        """Commands, lost samples and picture by name, for a verdict of lost or unexplained robustness; empty for others."""
        evidence = {"reproduce": self.reproduce} if self.verdict in ("regressed", "masked", "suspicious") else {}
        if self.verdict in ("regressed", "masked"):
            evidence |= {"lost": self.lost_names, "picture": self.picture, "show one": self.show}
        return {name: text for name, text in evidence.items() if text}


@dataclass(frozen=True)
class GateReport:
    """The verdicts on the cells of a run, and the outcome of the gate."""

    verdicts: tuple[CellVerdict, ...]
    """In the order of the baseline, then cells that the baseline lacks."""
    problems: tuple[str, ...]
    """A sentence for each limit or floor that was missed."""
    passed: bool
    """Every cell held (or is undecided, if the policy allows it), and there is no problem."""
    costs: str = ""
    """A sentence on the costs of both runs."""
    rule: str = ""
    """A sentence on margin and alpha."""
    notes: tuple[str, ...] = ()
    """Sentences on the gate itself."""

    @property
    def state(self) -> GateState:
        """Lost robustness takes precedence over incomparable cells, and these over undecided ones."""
        verdicts = {verdict.verdict for verdict in self.verdicts}
        if self.passed:
            return "passed"
        if self.problems or verdicts & {"policy", "regressed", "masked", "suspicious"}:
            return "failed"
        return "undecided" if verdicts <= {"held", "undecided"} else "incomparable"

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
        """The verdicts, those that need attention first."""
        return sorted(self.verdicts, key=lambda verdict: ORDER.index(verdict.verdict))

    def text(self) -> str:
        """The report for a terminal: a line per cell with its evidence, the problems, the costs, the summary."""
        lines = []
        for verdict in self.by_urgency:
            lines += [
                escape.visible(verdict.line),
                *(f"  {name}: {_copyable(text)}" for name, text in verdict.evidence.items()),
            ]
        lines += [escape.visible(f"LIMIT {problem}") for problem in self.problems]
        return "\n".join(
            [*lines, *filter(None, (self.costs, self.rule, *map(escape.visible, self.notes), self.summary))]
        )

    def markdown(self, limit: int | None = None, pictures: str = "") -> str:
        """The report as Markdown: a table of the cells that were compared, what its columns mean, and an entry for each cell that
        needs attention.

        `pictures`: the address of the artifact with the pictures, which then are links. `limit`: the largest size in bytes of
        UTF-8, at least 3,000; whole rows and entries are left out from the end, where those that need least attention are, and a
        sentence says how many.
        """
        ranked = self.by_urgency
        partial = any(verdict.partial for verdict in ranked)
        rows = [_row(verdict, partial=partial) for verdict in ranked if verdict.n]
        entries = [_entry(verdict, pictures) for verdict in ranked if verdict.verdict != "held"]
        entries += [f"- **limit** {escape.markdown(problem, _LONGEST)}" for problem in self.problems]
        left_out = ""
        if limit is not None:
            # The other parts are a few sentences of limited length.
            room = limit - 2500
            some_rows = _fitting(rows, room // 2 if entries else room)
            some_entries = _fitting(entries, room - sum(map(_size, some_rows)))
            if len(some_rows) < len(rows) or len(some_entries) < len(entries):
                left_out = (
                    f"Left out to limit the size: {len(rows) - len(some_rows):,} of {len(rows):,} rows and "
                    f"{len(entries) - len(some_entries):,} of {len(entries):,} entries. The whole report is gate.md in the "
                    "results folder."
                )
            rows, entries = some_rows, some_entries
        notes = [escape.markdown(note, _LONGEST) for note in self.notes]
        table = [_head(partial=partial), *rows, "", _COLUMNS + (_ACCEPTED if partial else ""), ""] if rows else []
        parts = [f"**{self.summary}**", "", *table, *entries, *([""] if entries else [])]
        return "\n\n".join(filter(None, ["\n".join(parts).rstrip(), self.costs, self.rule, *notes, left_out])) + "\n"


def loosened(deviations: Sequence[str], renew: str) -> GateReport:
    """The report of a gate whose configuration or plan is looser than its baseline, or different; nothing is compared.

    `renew`: the commands that renew the baseline.
    """
    remedy = f"take back the change, or renew the baseline on the base branch: {renew}"
    verdicts = tuple(CellVerdict("all cells", "policy", f"{deviation}: {remedy}") for deviation in deviations)
    return GateReport(verdicts, (), False)


def nothing_compared(reason: str) -> GateReport:
    """The report of a gate that could compare nothing; it does not pass."""
    return GateReport((CellVerdict("all cells", "incomparable", reason),), (), False)


_LONGEST = 800
_COLUMNS = (
    "Columns. baseline % and now %: robust accuracy on the n samples that were compared. lost: samples that were robust and are "
    "not now; gained: the reverse. drop at most: the upper bound of the drop, which is below the margin where the cell held. p "
    "(Holm): how likely so large a drop is if no robustness was lost, corrected for the number of cells; below alpha, the cell "
    "regressed (where robustness rose without a reason: of the rise)."
)
_ACCEPTED = " accepted %: robust accuracy of the baseline on all of its samples."


def _head(*, partial: bool) -> str:
    names = ["verdict", "cell", "baseline %", "now %", "n", "lost", "gained", "drop at most (points)", "p (Holm)"]
    names += ["accepted %, all samples"] if partial else []
    return f"| {' | '.join(names)} |\n|---|---{'|--:' * (len(names) - 2)}|"


def _row(v: CellVerdict, *, partial: bool) -> str:
    """`partial`: with the accepted figure on all samples, because some cells were compared on a part of them."""
    return (
        f"| {v.verdict} | {escape.markdown(v.title, _LONGEST)} | {100 * v.baseline_robust:.1f} | {100 * v.robust:.1f} "
        f"| {v.n} | {v.lost} | {v.gained} | {100 * v.upper:.1f} | {v.p_value:.2g} |"
        + (f" {100 * v.accepted_robust:.1f} (n={v.accepted_n}) |" if partial else "")
    )


def _entry(verdict: CellVerdict, pictures: str) -> str:
    """A list item, with the commands in a code block."""
    evidence = verdict.evidence
    link = {"picture": ("[", f"]({pictures})")} if pictures else {}
    lines = [f"- **{verdict.verdict}** {escape.markdown(f'{verdict.title}: {verdict.sentence}', _LONGEST)}"]
    lines += [
        f"  - {name}: {escape.markdown(evidence[name], 4 * _LONGEST).join(link.get(name, ('', '')))}"
        for name in ("lost", "picture")
        if name in evidence
    ]
    if commands := [evidence[name] for name in ("reproduce", "show one") if name in evidence]:
        lines += ["", *(f"  {line}" for line in escape.fenced("\n".join(commands)).splitlines())]
    return "\n".join(lines)


def _copyable(text: str) -> str:
    """The text unchanged, so that it can be copied, unless it has invisible characters."""
    return text if text.isprintable() else escape.visible(text)


def _size(line: str) -> int:
    return len(line.encode("utf-8", "backslashreplace")) + 1


def _fitting(lines: Sequence[str], room: int) -> list[str]:
    """The first lines that together take at most `room` bytes."""
    return [line for line, end in zip(lines, accumulate(map(_size, lines)), strict=True) if end <= room]
