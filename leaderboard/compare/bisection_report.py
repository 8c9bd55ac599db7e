"""A bisection as text for a terminal, and as plain values for JSON."""

from __future__ import annotations

import difflib
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gauntlet.leaderboard.compare.bisection import CellHistory, SampleResult, VersionChange
from gauntlet.leaderboard.compare.commit_history import CommitHistory
from gauntlet.leaderboard.report.formatting import NOTHING
from gauntlet.leaderboard.report.text_columns import aligned
from gauntlet.leaderboard.results.escape import visible

SCHEMA: Final = 1
"""Version of the JSON; raised when the meaning of a field changes or a field is removed."""
WIDTH = 100
"""Width of the text, if it fits."""

_MOST_IDS = 6
_HASH_LENGTH = 10
_HEADER = ("", "commit", "time", "weights", "n", "robust %", "lost", "gained", "p", "Holm", "not run")
_LEFT = {0, 1, 2, 3}

READING: Final = (
    "* marks the versions of the current results. Lost and gained: samples, against the nearest earlier version that holds "
    "them. p: exact McNemar test, two-sided; Holm: corrected over all changes of all cells that flipped a sample. Not run: "
    "commits since the version before that have no results."
)


@dataclass(frozen=True, eq=False)
class Bisection:
    """The histories of the cells of some runs."""

    cells: tuple[CellHistory, ...]
    history: CommitHistory
    """The commits that git knows."""
    notes: tuple[str, ...]
    """Sentences on files that could not be read."""


def bisection_text(bisection: Bisection) -> str:
    """The text for a terminal: a table per cell, the samples that are lost now with the commit, and the largest loss."""
    parts = [
        "\n".join(map(visible, bisection.notes)),
        *("\n".join(_cell_lines(cell, bisection.history)) for cell in bisection.cells),
    ]
    if any(cell.changes for cell in bisection.cells):
        parts += [_largest_loss(bisection), textwrap.fill(READING, WIDTH)]
    return "\n\n".join(part for part in parts if part) + "\n"


def sample_text(bisection: Bisection, sample: str) -> str:
    """The result of one sample in every version that holds it. Raises ValueError if none does."""
    parts = []
    for cell in _cells_with(bisection, sample):
        table = [
            (
                "*" if number == cell.current.get(sample) else "",
                version.name,
                _time(version.time),
                _describe(version.samples[sample]),
            )
            for number, version in enumerate(cell.versions)
            if sample in version.samples
        ]
        lines = aligned(table, left=_LEFT, names=(), width=WIDTH)
        parts.append("\n".join([visible(f"{sample} in {cell.title}:"), *lines]))
    return "\n\n".join(parts) + "\n"


def bisection_json(bisection: Bisection, sample: str | None = None) -> dict[str, Any]:
    """The whole bisection as plain JSON values, with all ids; with `sample`, only the results of that sample.

    Versions are given by their index in `versions`. Raises ValueError as `sample_text` does.
    """
    if sample is None:
        cells = [_cell_json(cell, bisection.history) for cell in bisection.cells]
    else:
        cells = [_sample_json(cell, sample) for cell in _cells_with(bisection, sample)]
    return {"schema": SCHEMA, "notes": list(bisection.notes), "cells": cells}


def _cell_lines(cell: CellHistory, history: CommitHistory) -> Iterator[str]:
    yield visible(cell.title)
    changes = {change.version: change for change in cell.changes}
    current = set(cell.current.values())
    table: list[tuple[str, ...]] = [_HEADER]
    for number, version in enumerate(cell.versions):
        columns = (
            "*" * (number in current),
            version.name,
            _time(version.time),
            version.weights[:8] or NOTHING,
            str(len(version.samples)),
            f"{100 * version.robust / len(version.samples):.1f}",
        )
        table.append((*columns, *_change_columns(cell, changes.get(number), history)))
    yield from aligned(table, left=_LEFT, names=(), width=WIDTH)
    yield from map(visible, cell.notes)
    if len(cell.versions) == 1:
        yield "Only one version is stored: run at another commit to compare its results."
        return
    count = sum(len(loss.samples) for loss in cell.losses)
    yield f"Lost now: {count} of {len(cell.current)} samples{':' if count else '.'}"
    for loss in cell.losses:
        yield f"  {len(loss.samples)} at {_version_name(cell, loss.version, history)}:"
        yield f"    {_first_ids(loss.samples)}"
        if skipped := len(_commits_not_run(cell, loss.before, loss.version, history)):
            old, new = (cell.versions[number].commit[:_HASH_LENGTH] for number in (loss.before, loss.version))
            commits = "the commit" if skipped == 1 else f"one of the {skipped} commits"
            yield f"    or at {commits} of {old}..{new} without results: git bisect start {new} {old}"


def _change_columns(cell: CellHistory, change: VersionChange | None, history: CommitHistory) -> tuple[str, ...]:
    if change is None:
        return (NOTHING,) * 5
    not_run = len(_commits_not_run(cell, change.before[0], change.version, history))
    return (
        str(len(change.lost)),
        str(len(change.gained)),
        f"{change.p_value:.2g}",
        f"{change.p_holm:.2g}",
        str(not_run or NOTHING),
    )


def _largest_loss(bisection: Bisection) -> str:
    losses = [(cell, change) for cell in bisection.cells if (change := cell.largest_loss)]
    if not losses:
        return "No version lost a sample."
    cell, change = max(losses, key=lambda loss: len(loss[1].lost))
    counts = f"{len(change.lost)} lost, {len(change.gained)} gained of {change.compared}"
    where = f" in {visible(cell.title)}" if len(bisection.cells) > 1 else ""
    return f"Largest loss: {_version_name(cell, change.version, bisection.history)}: {counts}{where}."


def _commits_not_run(cell: CellHistory, before: int, version: int, history: CommitHistory) -> frozenset[str]:
    """Commits between two versions at which the cell has no version."""
    old, new = cell.versions[before].commit, cell.versions[version].commit
    return history.between(old, new) - {one.commit for one in cell.versions}


def _version_name(cell: CellHistory, number: int, history: CommitHistory) -> str:
    version = cell.versions[number]
    commit = version.commit[:_HASH_LENGTH] or f"no commit, {_time(version.time)}"
    subject = history.subjects.get(version.commit)
    return f"{'uncommitted changes on ' if version.dirty else ''}{commit}" + (
        f" ({visible(subject)})" if subject else ""
    )


def _first_ids(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _MOST_IDS} more" if len(ids) > _MOST_IDS else ""
    return visible(", ".join(ids[:_MOST_IDS])) + more


def _time(text: str) -> str:
    """`2026-11-21 18:50`."""
    return visible(text[:16].replace("T", " ")) or NOTHING


def _describe(sample: SampleResult) -> str:
    if not sample.correct:
        return f"wrong when clean: classified as {sample.prediction} (label {sample.label})"
    if sample.robust:
        return "robust"
    distance = f" at distance {sample.distance:.4g}" if math.isfinite(sample.distance) else ""
    return f"broken: classified as {sample.prediction}{distance} (label {sample.label})"


def _cells_with(bisection: Bisection, sample: str) -> list[CellHistory]:
    cells = [cell for cell in bisection.cells if any(sample in version.samples for version in cell.versions)]
    if not cells:
        ids = dict.fromkeys(name for cell in bisection.cells for version in cell.versions for name in version.samples)
        near = ", ".join(difflib.get_close_matches(sample, ids, n=3, cutoff=0.4))
        raise ValueError(f"no version holds sample {sample!r}" + (f": did you mean {near}?" if near else ""))
    return cells


def _cell_json(cell: CellHistory, history: CommitHistory) -> dict[str, Any]:
    steps = [
        {
            "version": change.version,
            "before": list(change.before),
            "compared": change.compared,
            "lost": list(change.lost),
            "gained": list(change.gained),
            "p": change.p_value,
            "p_holm": change.p_holm,
            "commits_not_run": len(_commits_not_run(cell, change.before[0], change.version, history)),
        }
        for change in cell.changes
    ]
    lost = [{"version": loss.version, "before": loss.before, "samples": list(loss.samples)} for loss in cell.losses]
    versions = [
        {
            **{name: getattr(version, name) for name in ("commit", "dirty", "time", "weights")},
            "subject": history.subjects.get(version.commit, ""),
            "current": number in cell.current.values(),
            "n": len(version.samples),
            "robust": version.robust,
        }
        for number, version in enumerate(cell.versions)
    ]
    return {"title": cell.title, "notes": list(cell.notes), "versions": versions, "steps": steps, "lost_now": lost}


def _sample_json(cell: CellHistory, sample: str) -> dict[str, Any]:
    fates = []
    for number, version in enumerate(cell.versions):
        if sample in version.samples:
            result = version.samples[sample]
            origin = {name: getattr(version, name) for name in ("commit", "dirty", "time")}
            distance = result.distance if math.isfinite(result.distance) else None
            current = number == cell.current.get(sample)
            fates.append({**origin, "current": current, **result._asdict(), "distance": distance})
    return {"title": cell.title, "sample": sample, "fates": fates}
