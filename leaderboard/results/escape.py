"""Escaping of names and messages for terminals, Markdown, and CSV files that are opened in a spreadsheet.

A model's name may come from a file name or from third-party code, an error message from anywhere. Neither may add cells, links,
markup or formulas to a report.
"""

from __future__ import annotations

import re
import unicodedata

_MARKUP = re.compile(r"[\\`*\[\]#!|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=[^\s\d])|(?<=www)\.")
_BLOCK_START = re.compile(r"^(\d+(?=[.)])|(?=[-+]))")
# Also after blanks, quotes and semicolons: some programs drop blanks and quotes, and some locales split at semicolons.
_FORMULA = re.compile("(^|;)(?=[\\s\"'`]*[=+\\-@＝＋－＠])")


def visible(text: str) -> str:
    """The text as one line in which every character is visible.

    Runs of white space become one space. Control and format characters (among them bidirectional overrides and zero-width
    characters) and lone surrogates become `\\u` and their code point.
    """
    line = " ".join(text.split())
    # Printable ASCII has none of them.
    return line if line.isascii() and line.isprintable() else "".join(map(_visible_character, line))


def visible_lines(text: str) -> str:
    """The text with its lines and blanks as they are, in which every other character is visible as in `visible`."""
    return "\n".join("".join(map(_visible_character, line)) for line in text.splitlines())


def _visible_character(character: str) -> str:
    return f"\\u{ord(character):04x}" if unicodedata.category(character) in ("Cc", "Cf", "Cs") else character


def markdown(text: str, limit: int | None = None) -> str:
    """The text as Markdown that renders literally, in a paragraph, a list item or a table cell.

    Text longer than `limit` characters is shortened before escaping.
    """
    text = shorten(visible(text), limit) if limit else visible(text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Backslashes rather than entities keep names readable in the source.
    text = _MARKUP.sub(lambda match: "\\" + match.group(), text)
    return _BLOCK_START.sub(r"\1\\", text)


def fenced(text: str) -> str:
    """The text as a shell code block; the fence is longer than any run of backticks in the text."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return "\n".join([fence + "sh", visible_lines(text), fence])


def spreadsheet(text: str) -> str:
    """The text as a CSV field that a spreadsheet does not evaluate: an apostrophe precedes characters that start a formula.

    The characters are those of OWASP's list ("CSV injection"). Quoting the field does not help, so the apostrophe is part of
    the text. Only for text, not for numbers.
    """
    return _FORMULA.sub(r"\1'", visible(text))


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters; the middle of a longer text is replaced by …."""
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 2
    return f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"
