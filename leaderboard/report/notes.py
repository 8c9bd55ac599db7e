"""Lines below a table: why rows have no rank, what flags advise, and the verdict in words."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from gauntlet.leaderboard.report import formatting
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.rows.evidence import describe_evidence
from gauntlet.leaderboard.rows.reasons import Reason, reasons
from gauntlet.leaderboard.rows.row import LeaderboardRow

Surface = Literal["command line", "pytest", "python"]
"""Where a remedy is followed: an option of `gauntlet`, an option of pytest, or an argument of `gauntlet.evaluate`."""

_FLAGS = ("binary", "not-differentiable", "randomised")
"""Options without a value, which are true in Python."""
OPTIONS = (
    *("attacks", "batch-size", "checks", "fresh", "logits", "mean", "out", "precision", "samples", "std", "weights"),
    *_FLAGS,
)
"""The options of a run that remedies name; others in a message are not ours."""
_OPTION = re.compile(rf"(?<![\w-])--({'|'.join(OPTIONS)})\b(?!-)((?: (?:[\w./#-]+,)*[\w/#-]+(?:\.[\w/#-]+)*)?)")
_NUMBER = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_NORMALISATION = re.compile(rf"--(mean|std) ({_NUMBER}(?:,{_NUMBER})*)(?: and --(std) ({_NUMBER}(?:,{_NUMBER})*))?")
_VALUED = ("attacks", "checks", "logits", "precision", "weights")
"""Options whose value is quoted in Python."""
_RENAMED = {"out": "store"}
_MOST = 5
"""Number of rows that are named one by one."""
_CHECKS_OFF = (
    "The checks were off (--checks none): whether gradients are masked and whether the figures can be trusted was not looked "
    "at. Use --checks default."
)


def phrased(text: str, surface: Surface) -> str:
    """The text with its options as the surface has them: `--attacks adaptive`, `attacks="adaptive"` in Python."""
    if surface == "command line":
        return text
    if surface == "pytest":
        return _OPTION.sub(r"--gauntlet-\1\2", text)
    return _OPTION.sub(_argument, _NORMALISATION.sub(_normalisation, text))


def _argument(match: re.Match[str]) -> str:
    name, value = match[1].replace("-", "_"), match[2].strip()
    if match[1] in _FLAGS:
        return f"{name}=True{match[2]}"
    name = _RENAMED.get(name, name)
    return f'{name}="{value}"' if name in _VALUED and value else f"{name}{match[2]}"


def _normalisation(match: re.Match[str]) -> str:
    pairs = [(match[1], match[2]), *([(match[3], match[4])] if match[3] else [])]
    numbers = " and ".join(
        f"{name}=({values.replace(',', ', ')}{'' if ',' in values else ','})" for name, values in pairs
    )
    return f"{numbers} in the model's forward, or in gauntlet.load_model"


def evaluation_notes(row: LeaderboardRow) -> tuple[str, ...]:
    """The reasons of a row in Python's words, for a figure that stands alone."""
    return tuple(
        visible(
            phrased(f"{'not to be trusted' if one.blocks else 'note'} ({one.name}): {_lower(one.sentence)}", "python")
        )
        for one in reasons(row)
    )


def row_notes(rows: Sequence[LeaderboardRow], surface: Surface) -> list[str]:
    """Why rows have no rank, then what flags advise: each sentence once, with the rows that it concerns."""
    shown = [row for row in rows if not _corruptions_only(row)]
    missing: dict[str, list[LeaderboardRow]] = {}
    advice: dict[tuple[str, str], list[LeaderboardRow]] = {}
    for row in shown:
        found = reasons(row)
        if blocking := [reason for reason in found if reason.blocks]:
            missing.setdefault(why(blocking), []).append(row)
        for reason in found:
            if not reason.blocks:
                advice.setdefault((reason.name, reason.sentence), []).append(row)
    lines = []
    for text, members in missing.items():
        names = _names(members, shown)
        lines.append(f"{formatting.some(names)} {'has' if len(names) == 1 else 'have'} no rank: {text}")
    lines += [
        f"{formatting.some(_names(members, shown))} ({name}): {_lower(sentence)}"
        for (name, sentence), members in advice.items()
    ]
    return [visible(phrased(line, surface)) for line in lines]


def lifted_notes(rows: Sequence[LeaderboardRow]) -> list[str]:
    """What lifted blocks about gradients, with its figures: a line for each of the first rows, and how many have such a line."""
    title = titles(rows)
    lines = []
    for row in rows:
        shown = {flag.name: describe_evidence(flag) for flag in row.flags if flag.lifted_by}
        names = [name for name, text in shown.items() if text]
        if names:
            most = max(shown.values(), key=len)
            lines.append(f"{title(row)} (answered: {', '.join(names)}): {most}.")
    more = [f"{len(lines) - _MOST} more rows have answered blocks: leaderboard.md."] if len(lines) > _MOST else []
    return [visible(line) for line in (*lines[:_MOST], *more)]


def why(found: Sequence[Reason]) -> str:
    """The first of several reasons in full, and the names of the others."""
    others = list(dict.fromkeys(reason.name for reason in found[1:] if reason.name != found[0].name))
    return _lower(found[0].sentence) + (f" Also: {', '.join(others)}." if others else "")


def checks_off(surface: Surface) -> str:
    """The sentence on a run without checks."""
    return phrased(_CHECKS_OFF, surface)


def verdict(rows: Sequence[LeaderboardRow]) -> list[str]:
    """The result in words: the best row of each comparison, then the rows that have no rank."""
    shown = [row for row in rows if not _corruptions_only(row)]
    title, lines = titles(shown), []
    ranked = [row for row in shown if row.rank is not None]
    for members in _grouped(ranked, lambda row: (row.threat, row.data, row.suite, row.comparison)):
        best, *others = members
        among = (
            f"{best.comparison}: " if any(row.comparison != best.comparison for row in _beside(best, ranked)) else ""
        )
        level = [title(row) for row in others if row.rank == 1]
        tied = f"; not significantly worse: {formatting.some(level)}" if level else ""
        lines.append(
            f"{among}{title(best)} keeps {formatting.percent(best.robust)} %{_interval(best)} under the strongest attack{tied}"
        )
    unranked = [row for row in shown if row.rank is None]
    if unranked:
        count = "1 row has" if len(unranked) == 1 else f"{len(unranked)} rows have"
        without = f"{count} no rank: {_by_reason(unranked, title)}"
        lines = [*lines[:-1], f"{lines[-1]}; {without}" if lines else without]
    corrupted = [row for row in rows if _corruptions_only(row)]
    if corrupted and not shown:
        best = max(corrupted, key=lambda row: row.corruption.mean.estimate if row.corruption else 0.0)
        accuracy, _, interval = formatting.corrupted(best).partition(" ")
        lines.append(f"{titles(corrupted)(best)} keeps {accuracy} % {interval} under corruptions, on average")
    return [visible(f"{line}.") for line in lines]


def wrapped(lines: Sequence[str], width: int, indent: str = "  ") -> Iterator[str]:
    """The lines, broken at blanks; continued lines are indented."""
    for line in lines:
        yield from textwrap.wrap(
            line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        ) or [""]


def titles(rows: Sequence[LeaderboardRow]) -> Callable[[LeaderboardRow], str]:
    """A function that names a row: model and defense and, where several rows have these, what tells them apart."""
    times = Counter(row.title for row in rows)
    varying = [name for name in ("threat", "data", "suite") if len({getattr(row, name) for row in rows}) > 1]

    def title(row: LeaderboardRow) -> str:
        place = ", ".join(getattr(row, name) for name in varying) if times[row.title] > 1 else ""
        return f"{row.title} ({place})" if place else row.title

    return title


def _names(members: Sequence[LeaderboardRow], rows: Sequence[LeaderboardRow]) -> list[str]:
    """The names of some of the rows; a model and defense all of whose rows are members is named once."""
    title = titles(rows)
    others = {row.title for row in rows if row not in members}
    return list(dict.fromkeys(title(row) if row.title in others else row.title for row in members))


def _by_reason(rows: Sequence[LeaderboardRow], title: Callable[[LeaderboardRow], str]) -> str:
    """The rows with the name of their reason; of many rows, how many have each reason."""
    if len(rows) <= _MOST:
        return ", ".join(f"{title(row)} ({_short(row)})" for row in rows)
    return ", ".join(f"{count} for {reason}" for reason, count in Counter(map(_short, rows)).items())


def _corruptions_only(row: LeaderboardRow) -> bool:
    """Whether corruptions are all that was asked for, and have finished: the row then lacks nothing."""
    return not row.attacks and row.corruption is not None and row.status == "ok"


def _grouped(rows: Sequence[LeaderboardRow], key: Callable[[LeaderboardRow], object]) -> list[list[LeaderboardRow]]:
    groups: dict[object, list[LeaderboardRow]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def _beside(row: LeaderboardRow, rows: Sequence[LeaderboardRow]) -> list[LeaderboardRow]:
    """The rows of the same table."""
    place = row.threat, row.data, row.suite
    return [other for other in rows if (other.threat, other.data, other.suite) == place]


def _interval(row: LeaderboardRow) -> str:
    return formatting.with_interval(row.robust).removeprefix(formatting.percent(row.robust))


def _short(row: LeaderboardRow) -> str:
    return next((reason.name for reason in reasons(row) if reason.blocks), row.status)


def _lower(sentence: str) -> str:
    """The sentence with a small letter at its start, for use after a colon."""
    return sentence[:1].lower() + sentence[1:] if sentence[1:2].islower() or sentence[1:2] == " " else sentence
