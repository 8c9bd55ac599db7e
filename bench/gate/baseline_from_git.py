"""A baseline as a commit of the git repository has it, such as the base of a pull request, with its artifact."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from gauntlet.bench.config.schema import ConfigError
from gauntlet.leaderboard.gate.baseline import BaselineError
from gauntlet.leaderboard.gate.baseline_file import read_baseline
from gauntlet.leaderboard.results.atomic_files import replace_file

_SECONDS = 300


def baseline_from_git(file: Path, ref: str, folder: Path) -> tuple[Path, str]:
    """Write the baseline `file` and its artifact, as they are in the commit `ref`, below `folder`.

    Returns the new file, and a sentence on where it comes from. An artifact that is not in git, or a pointer there, is copied
    from beside `file`: its digest stands in the baseline. Raises ConfigError if git cannot resolve `ref`, BaselineError if the
    commit lacks the file or has a damaged one, WriteError, OSError.
    """
    try:
        commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}").decode().strip()
    except OSError as error:
        raise ConfigError(f"baseline-from={ref!r} needs git, which cannot be run ({error})") from error
    except subprocess.SubprocessError as error:
        raise ConfigError(
            f"baseline-from={ref!r} is no commit that git knows in {Path.cwd()}: correct its name, or fetch it first (`git fetch "
            "origin REF`; with actions/checkout, `fetch-depth: 2` fetches the base of a pull request as HEAD^1)"
        ) from error
    path = Path(os.path.relpath(file)).as_posix()
    place = folder / f"baseline-{commit[:12]}"
    try:
        content = _blob(commit, path)
    except subprocess.SubprocessError as error:
        raise BaselineError(
            f"{file} is not in {ref} (commit {commit[:12]}): accept a baseline there first (`gauntlet baseline accept RUN --out "
            f"{file} --reason TEXT`), or correct the name"
        ) from error
    target = place / file.name
    replace_file(target, lambda out: out.write(content))
    try:
        artifact = read_baseline(target).artifact
    except BaselineError as error:
        raise BaselineError(
            f"{file} of {ref} (commit {commit[:12]}) cannot be read: accept it anew there, `gauntlet baseline accept` ({error})"
        ) from error
    if artifact is not None and not (place / artifact.file).exists():
        _artifact(commit, path, file.with_name(artifact.file), artifact.bytes, place)
    same = file.is_file() and file.read_bytes() == content
    differs = "" if same else f"; {file} in the working folder differs from it, and does not count"
    return target, f"Baseline of {ref}, commit {commit[:12]}{differs}."


def _artifact(commit: str, path: str, beside: Path, size: int, place: Path) -> None:
    """Write the artifact below `place`: the commit's, else the file beside the baseline, if there is one."""
    name = (Path(path).parent / beside.name).as_posix()
    try:
        if int(_git("cat-file", "-s", f"{commit}:./{name}")) == size:
            content = _blob(commit, name)
            replace_file(place / beside.name, lambda out: out.write(content))
            return
    except subprocess.SubprocessError:
        pass
    if beside.is_file():
        with beside.open("rb") as source:
            replace_file(place / beside.name, lambda out: shutil.copyfileobj(source, out))


def _blob(commit: str, path: str) -> bytes:
    """The content of a file of a commit; `path` is relative to the working folder."""
    return _git("cat-file", "blob", f"{commit}:./{path}")


def _git(*arguments: str) -> bytes:
    command: Sequence[str] = ["git", *arguments]
    return subprocess.run(command, capture_output=True, timeout=_SECONDS, check=True).stdout  # noqa: S603
