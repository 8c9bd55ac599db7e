"""The commands of the documentation: lines of its code blocks that call Gauntlet, pytest, tox or Python."""

from __future__ import annotations

import itertools
import shlex
from dataclasses import dataclass

from markdown_it import MarkdownIt

from builders import ROOT

DOCS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
PROGRAMS = {"gauntlet", "pytest", "tox", "python"}


@dataclass(frozen=True)
class DocCommand:
    """A command as the documentation has it, without its comment: continued lines are joined."""

    doc: str
    line: int
    text: str


def complete(lines):
    """The words of a command that may go on over several lines; None where a quote or a line is not ended."""
    text = "\n".join(lines)
    if text.endswith("\\"):
        return None
    lexer = shlex.shlex(text.replace("\\\n", " "), posix=False, punctuation_chars="&|;")
    lexer.whitespace_split = True
    try:
        return list(lexer)
    except ValueError:
        return None


def commands_in(block):
    """The commands of a code block with the line that each begins at: words are separated by single spaces."""
    pending, begun = [], 0
    for number, line in enumerate(block.splitlines()):
        if not pending:
            line, begun = line.strip().removeprefix("$ "), number
        pending.append(line)
        words = complete(pending)
        if words is None:
            continue
        pending = []
        first = {word for before, word in itertools.pairwise(["&&", *words]) if before == "&&"}
        if first & PROGRAMS:
            yield begun, " ".join(words)


def doc_commands(doc):
    """The commands of a Markdown file, in order."""
    found = []
    for token in MarkdownIt().parse(doc.read_text(encoding="utf-8")):
        if token.type not in ("fence", "code_block") or token.info.strip() not in ("", "sh", "bash"):
            continue
        first = token.map[0] + 1 + (token.type == "fence")
        for offset, text in commands_in(token.content):
            found.append(DocCommand(doc.relative_to(ROOT).as_posix(), first + offset, text))
    return found


def inline_commands(doc):
    """Line and words after `gauntlet` of each command that a sentence of a Markdown file names."""
    for token in MarkdownIt("commonmark").enable("table").parse(doc.read_text(encoding="utf-8")):
        for child in token.children or ():
            if child.type == "code_inline" and child.content.startswith("gauntlet "):
                yield token.map[0] + 1, child.content.split()[1:]
