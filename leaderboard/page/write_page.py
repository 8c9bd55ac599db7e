"""Writing the page of a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gauntlet.leaderboard.page.content import PageContent
from gauntlet.leaderboard.page.render import render_page
from gauntlet.leaderboard.results.atomic_files import replace_text

PAGE: Final = "leaderboard.html"


def write_page(folder: Path, content: PageContent) -> Path:
    """Write the page into `folder` and return its path. Raises PageMissingError, WriteError."""
    path = folder / PAGE
    replace_text(path, render_page(content))
    return path
