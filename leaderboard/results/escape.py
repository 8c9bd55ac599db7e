"""Names and messages made safe to show: in a terminal, in Markdown, and in a CSV file that a spreadsheet opens.

A model's name comes from a file name or a stranger's code, an error message from anywhere: neither may add cells,
links, markup or formulas to a report.
"""

from __future__ import annotations

import re
import unicodedata

_MARKUP = re.compile(r"[\\`*\[\]#!|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=[^\s\d])|(?<=www)\.")
_BLOCK_START = re.compile(r"^(\d+(?=[.)])|(?=[-+]))")
# Also after blanks, quotes and semicolons: some programs drop the first two, and some languages split at the last.
_FORMULA = re.compile("(^|;)(?=[\\s\"'`]*[=+\\-@＝＋－＠])")


def visible(text: str) -> str:
    """One line in which every character shows.

    Runs of white space become one space; control and format characters (among them the bidirectional overrides and
    those of no width) and lone surrogates become `\\u` and their number.
    """
    return "".join(_shown(character) for character in " ".join(text.split()))


def _shown(character: str) -> str:
    return f"\\u{ord(character):04x}" if unicodedata.category(character) in ("Cc", "Cf", "Cs") else character


def markdown(text: str, limit: int | None = None) -> str:
    """The text as Markdown that renders as itself, in a paragraph, a list item or a cell of a table.

    At most `limit` characters are kept, before escaping.
    """
    text = shorten(visible(text), limit) if limit else visible(text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Backslashes rather than entities, so that names stay readable in the file itself.
    text = _MARKUP.sub(lambda match: "\\" + match.group(), text)
    return _BLOCK_START.sub(r"\1\\", text)


def fenced(text: str) -> str:
    """The text as a code block, to be copied exactly; the fence is longer than any run of backticks in the text."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    lines = ("".join(map(_shown, line)) for line in text.splitlines() or [""])
    return "\n".join([fence + "sh", *lines, fence])


def spreadsheet(text: str) -> str:
    """The text as a CSV field that a spreadsheet shows and does not run: an apostrophe before what starts a formula.

    The first characters are OWASP's list ("CSV injection"); quoting the field does not help, so the apostrophe stands
    inside the quotes. For text only: numbers are written as numbers.
    """
    return _FORMULA.sub(r"\1'", visible(text))


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, with … in the middle in place of what was left out."""
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"
