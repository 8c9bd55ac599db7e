"""Small tables in HTML for notebooks: every text escaped, with a caption, and headers that screen readers announce."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from gauntlet.leaderboard.results.escape import visible


def text(content: str) -> str:
    """The content as HTML that renders literally, on one line."""
    return escape(visible(content), quote=True)


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names its rows."""
    columns = "".join(f'<th scope="col">{text(name)}</th>' for name in header)
    lines = "".join(
        f'<tr><th scope="row">{text(first)}</th>{"".join(f"<td>{text(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    return f"<table><caption>{text(caption)}</caption><thead><tr>{columns}</tr></thead><tbody>{lines}</tbody></table>"


def items(lines: Sequence[str]) -> str:
    """A list; empty for no lines."""
    return f"<ul>{''.join(f'<li>{text(line)}</li>' for line in lines)}</ul>" if lines else ""
