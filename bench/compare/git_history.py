"""Reading the ancestors and messages of commits from git."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Collection
from pathlib import Path

from gauntlet.leaderboard.compare.commit_history import CommitHistory

_HASH = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_SECONDS = 60


def read_history(folder: Path, commits: Collection[str]) -> tuple[CommitHistory, str]:
    """The history of the commits that the repository of `folder` has, and the reason if git cannot be read.

    The reason is empty if there is a repository. Commits that it does not have are left out of the history.
    """
    # The commits come from files and go to a command line: only hashes are passed on.
    hashes = sorted({commit for commit in commits if _HASH.fullmatch(commit)})
    try:
        objects = _git(folder, "cat-file", "--batch-check=%(objectname) %(objecttype)", given="\n".join(hashes))
        known = [line.split()[0] for line in objects.splitlines() if line.endswith(" commit")]
        if not known:
            return CommitHistory({}), ""
        lines = _git(folder, "rev-list", "--topo-order", "--reverse", "--parents", *known).splitlines()
        subjects = _git(
            folder, "log", "--no-walk=unsorted", "--no-show-signature", "--format=%H %s", *known
        ).splitlines()
    except FileNotFoundError:
        return CommitHistory({}), f"git is not installed, or {folder} does not exist"
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(getattr(error, "stderr", None) or error).strip().splitlines() or [type(error).__name__]
        return CommitHistory({}), f"git cannot read {folder} ({reason[0]})"
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
