"""The leaderboard as tables in LaTeX with booktabs, by the Styler of pandas; one for each threat model, data set and suite."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from typing import Final

import pandas as pd

from gauntlet.leaderboard.report import formatting
from gauntlet.leaderboard.report.comparisons import rank, separate
from gauntlet.leaderboard.report.model_table import ModelDescription
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.rows.row import LeaderboardRow

HEAD: Final = (
    "% Tables of a Gauntlet leaderboard. In the preamble: \\usepackage[utf8]{inputenc} \\usepackage[T1]{fontenc} "
    "\\usepackage{booktabs}\n"
)
_SYMBOLS: Final = {"–": "--", "→": "$\\rightarrow$", "×": "$\\times$", "…": "\\dots{}", "≤": "$\\leq$", "−": "$-$"}
_COMMAND = re.compile(r"[\\{}$&#^_%~]")
_ESCAPED: Final = {"\\": "\\textbackslash{}", "^": "\\textasciicircum{}", "~": "\\textasciitilde{}"}
_LIGATURE = re.compile(r"(?<=[-,<>'`!?])(?=[-,<>'`])")
_PIECE = re.compile(r"[\u2e80-\U0010ffff]|[^-_./@=(,:;\u2e80-\U0010ffff]{1,12}[-_./@=(,:;]?|[-_./@=(,:;]")
_LONGEST: Final = 24
"""Number of characters from which on a name may be broken."""
_SMALL: Final = "\\footnotesize\\setlength{\\tabcolsep}{3pt}\n"
"""Before a table: nine columns then fit a page of one column."""
_OTHER = re.compile(r"[^\x20-\x7e]")


class LatexMissingError(RuntimeError):
    """What LaTeX tables need is not installed; the message has the command that installs it."""


def latex_tables(rows: Sequence[LeaderboardRow], models: Mapping[str, ModelDescription] | None = None) -> str:
    """The text of `leaderboard.tex`, the rows in the order given; shares are in percent.

    `models`: descriptions by the models' names in the tables, whose names are shown. Raises LatexMissingError.
    """
    if importlib.util.find_spec("jinja2") is None:
        raise LatexMissingError("tables in LaTeX need jinja2: pip install 'robust-gauntlet[page]'")
    sections: dict[tuple[str, str, str], list[LeaderboardRow]] = {}
    for row in rows:
        sections.setdefault((row.threat, row.data, row.suite), []).append(row)
    tables = [
        _table(
            members,
            models or {},
            f"Robust accuracy (\\%) at {latex(threat)} on {_broken(data)}, suite {_broken(suite)}.",
            number,
        )
        for number, ((threat, data, suite), members) in enumerate(sections.items(), start=1)
    ]
    return "\n".join([HEAD, *tables])


def latex(text: str) -> str:
    """Text that LaTeX prints literally; letters that pdfLaTeX cannot be expected to know become their code points."""
    # Two hyphens, commas or quotes would become another sign.
    apart = (_COMMAND.sub(_command, part) for part in _LIGATURE.split(visible(text)))
    escaped = "{}".join(apart)
    for symbol, command in _SYMBOLS.items():
        escaped = escaped.replace(symbol, command)
    # A bracket after the end of a line would be read as an argument.
    return _OTHER.sub(_letter, escaped).replace("[", "{[}").replace("]", "{]}")


def _broken(text: str) -> str:
    """The text for LaTeX. One of more than `_LONGEST` characters may be broken at spaces, and within words after punctuation and
    every 12 characters."""
    if len(text) <= _LONGEST:
        return latex(text)
    return " ".join("\\allowbreak{}".join(map(latex, _PIECE.findall(word))) for word in text.split(" "))


def _name(text: str) -> str:
    """The entry of a name, over several lines where it is long."""
    return f"\\parbox[t]{{0.22\\linewidth}}{{\\raggedright {_broken(text)}}}" if len(text) > _LONGEST else latex(text)


def _command(match: re.Match[str]) -> str:
    """A character that is a command, as a letter."""
    return _ESCAPED.get(match[0], f"\\{match[0]}")


def _letter(match: re.Match[str]) -> str:
    """Letters of western and central Europe as they are, which T1 has; others by their numbers."""
    return match[0] if match[0] in _T1 else f"U+{ord(match[0]):04X}"


_T1: Final = (
    frozenset(chr(code) for code in (*range(0xC0, 0x180), 0xA3, 0xA7, 0xA1, 0xBF))
    - {"×", "÷"}
    - frozenset("ĀāĂĈĉĊċĒēĔĕĖėĜĝĠġĢģĤĥĦħĨĩĪīĬĭĮįĴĵĶķĸĻļĿŀŅņŊŋŌōŎŏŖŗŜŝŦŧŨũŪūŬŭŲųŴŵŶŷſ")
)


def _table(rows: Sequence[LeaderboardRow], models: Mapping[str, ModelDescription], caption: str, number: int) -> str:
    several = separate(rows)
    lines = [_line(row, models, several) for row in rows]
    columns = {
        "Rank": True,
        "Model": True,
        "Defense": any(row.defense != "none" for row in rows),
        "Clean": True,
        "Proven": any(row.bracket is not None for row in rows),
        "Naive": any(row.naive is not None for row in rows),
        "Robust": True,
        "95\\,\\%": True,
        "$n$": True,
    }
    frame = pd.DataFrame(lines)[[name for name, shown in columns.items() if shown]]
    left = {"Model", "Defense"}
    text: str = frame.style.hide(axis="index").to_latex(
        hrules=True,
        caption=caption,
        label=f"tab:gauntlet-{number}",
        position="tbp",
        position_float="centering",
        column_format="".join("l" if name in left else "r" for name in frame.columns),
    )
    return text.replace("\\begin{tabular}", f"{_SMALL}\\begin{{tabular}}", 1)


def _line(row: LeaderboardRow, models: Mapping[str, ModelDescription], several: bool) -> dict[str, str]:
    described = models.get(row.model)
    low, high = row.robust.interval
    certified = formatting.percent(row.bracket.certified) if row.bracket is not None else formatting.NOTHING
    unfinished = "" if row.status == "ok" else f" ({row.status})"
    return {
        "Rank": latex(rank(row, named=several)),
        "Model": _name((described.name if described is not None else "") or row.model),
        "Defense": _name(row.defense),
        "Clean": latex(formatting.percent(row.clean)),
        "Proven": latex(certified),
        "Naive": latex(formatting.percent(row.naive) if row.naive is not None else formatting.NOTHING),
        "Robust": latex(formatting.percent(row.robust) + unfinished),
        "95\\,\\%": latex(f"[{100 * low:.1f}, {100 * high:.1f}]" if row.robust.n else formatting.NOTHING),
        "$n$": str(row.robust.n),
    }
