"""What git knows of some commits: their ancestors and their messages."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Collection
from pathlib import Path

from gauntlet.leaderboard.compare.commit_history import CommitHistory

_HASH = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_SECONDS = 60


def read_history(folder: Path, commits: Collection[str]) -> tuple[CommitHistory, str]:
    """The history that leads to those of the commits that the repository of `folder` knows, and why it knows none.

    The sentence is empty where there is a repository. Commits that it does not know are not in the history.
    """
    # From files, and on their way to a command line: nothing but a hash may pass.
    hashes = sorted({one for one in commits if _HASH.fullmatch(one)})
    try:
        told = _git(folder, "cat-file", "--batch-check=%(objectname) %(objecttype)", given="\n".join(hashes))
        known = [line.split()[0] for line in told.splitlines() if line.endswith(" commit")]
        if not known:
            return CommitHistory({}), ""
        lines = _git(folder, "rev-list", "--topo-order", "--reverse", "--parents", *known).splitlines()
        subjects = _git(
            folder, "log", "--no-walk=unsorted", "--no-show-signature", "--format=%H %s", *known
        ).splitlines()
    except FileNotFoundError:
        return CommitHistory({}), f"git is not installed, or {folder} is not there"
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(getattr(error, "stderr", None) or error).strip().splitlines() or [type(error).__name__]
        return CommitHistory({}), f"git cannot be asked in {folder} ({reason[0]})"
    parents = {commit: tuple(rest) for commit, *rest in (line.split() for line in lines)}
    return CommitHistory(parents, {commit: text for commit, _, text in (line.partition(" ") for line in subjects)}), ""


def _git(folder: Path, *arguments: str, given: str = "") -> str:
    done = subprocess.run(  # noqa: S603
        ["git", "-C", str(folder), *arguments],  # noqa: S607
        input=given,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=_SECONDS,
        check=True,
    )
    return done.stdout
