"""What `bisection` found, as text for a terminal and as plain values for JSON."""

from __future__ import annotations

import difflib
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gauntlet.leaderboard.compare.bisection import CellHistory, Fate, Step
from gauntlet.leaderboard.compare.history import History
from gauntlet.leaderboard.report.columns import aligned
from gauntlet.leaderboard.report.formatting import NOTHING
from gauntlet.leaderboard.results.escape import visible

SCHEMA: Final = 1
"""Of the JSON; it grows where a field changes its meaning or goes."""
WIDTH = 100
"""Columns that the text tries to fit."""

_IDS = 6
"""Ids that the text names."""
_HASH = 10
"""Characters of a commit that the text shows."""
_HEADER = ("", "commit", "time", "weights", "n", "robust %", "lost", "gained", "p", "Holm", "not run")
_LEFT = {0, 1, 2, 3}

READING: Final = (
    "* marks where current results are from. Lost and gained: samples, against the nearest version before that holds them. p: "
    "exact McNemar test, two-sided; Holm: corrected over all steps of all cells that flipped a sample. Not run: commits since "
    "the version before that have no results of their own."
)


@dataclass(frozen=True, eq=False)
class Bisection:
    """The cells of some runs, through the versions that are stored of them."""

    cells: tuple[CellHistory, ...]
    history: History
    """Of the commits that git knows."""
    notes: tuple[str, ...]
    """Sentences on all of it: what could not be read."""


def bisection_text(found: Bisection) -> str:
    """For a terminal: a table for each cell, which samples are lost now since when, and the largest loss."""
    parts = ["\n".join(map(visible, found.notes)), *("\n".join(_cell(cell, found.history)) for cell in found.cells)]
    if any(cell.steps for cell in found.cells):
        parts += [_largest(found), textwrap.fill(READING, WIDTH)]
    return "\n\n".join(part for part in parts if part) + "\n"


def sample_text(found: Bisection, sample: str) -> str:
    """What became of one sample in every version that holds it. Raises ValueError where none does."""
    parts = []
    for cell in _holding(found, sample):
        table = [
            ("*" if number == cell.now.get(sample) else "", one.name, _time(one.time), _told(one.fates[sample]))
            for number, one in enumerate(cell.versions)
            if sample in one.fates
        ]
        lines = aligned(table, left=_LEFT, names=(), most=WIDTH)
        parts.append("\n".join([visible(f"{sample} in {cell.title}:"), *lines]))
    return "\n\n".join(parts) + "\n"


def bisection_json(found: Bisection, sample: str | None = None) -> dict[str, Any]:
    """All of it as plain values that JSON has, with all ids; with `sample`, only what became of that one.

    Versions are meant by their number in `versions`, from 0. Raises ValueError as `sample_text`.
    """
    if sample is None:
        cells = [_plain(cell, found.history) for cell in found.cells]
    else:
        cells = [_plain_sample(cell, sample) for cell in _holding(found, sample)]
    return {"schema": SCHEMA, "notes": list(found.notes), "cells": cells}


def _cell(cell: CellHistory, history: History) -> Iterator[str]:
    yield visible(cell.title)
    steps = {step.version: step for step in cell.steps}
    current = set(cell.now.values())
    table: list[tuple[str, ...]] = [_HEADER]
    for number, one in enumerate(cell.versions):
        share = f"{100 * one.robust / len(one.fates):.1f}"
        facts = (
            "*" * (number in current),
            one.name,
            _time(one.time),
            one.weights[:8] or NOTHING,
            str(len(one.fates)),
            share,
        )
        table.append((*facts, *_figures(cell, steps.get(number), history)))
    yield from aligned(table, left=_LEFT, names=(), most=WIDTH)
    yield from map(visible, cell.notes)
    if len(cell.versions) == 1:
        yield "Only one version is stored: run at another commit, and its results can be compared."
        return
    count = sum(len(loss.samples) for loss in cell.losses)
    yield f"Lost now: {count} of {len(cell.now)} samples{':' if count else '.'}"
    for loss in cell.losses:
        yield f"  {len(loss.samples)} at {_named(cell, loss.version, history)}:"
        yield f"    {_some(loss.samples)}"
        if skipped := len(_skipped(cell, loss.before, loss.version, history)):
            old, new = (cell.versions[number].commit[:_HASH] for number in (loss.before, loss.version))
            commits = "the commit" if skipped == 1 else f"one of the {skipped} commits"
            yield f"    or at {commits} of {old}..{new} without results: git bisect start {new} {old}"


def _figures(cell: CellHistory, step: Step | None, history: History) -> tuple[str, ...]:
    if step is None:
        return (NOTHING,) * 5
    skipped = len(_skipped(cell, step.before[0], step.version, history))
    return (
        str(len(step.lost)),
        str(len(step.gained)),
        f"{step.p_value:.2g}",
        f"{step.p_holm:.2g}",
        str(skipped or NOTHING),
    )


def _largest(found: Bisection) -> str:
    steps = [(cell, step) for cell in found.cells if (step := cell.largest)]
    if not steps:
        return "No version lost a sample."
    cell, step = max(steps, key=lambda pair: len(pair[1].lost))
    figures = f"{len(step.lost)} lost, {len(step.gained)} gained of {step.compared}"
    where = f" in {visible(cell.title)}" if len(found.cells) > 1 else ""
    return f"Largest loss: {_named(cell, step.version, found.history)}: {figures}{where}."


def _skipped(cell: CellHistory, before: int, version: int, history: History) -> frozenset[str]:
    """Commits between two versions of which the cell has no version."""
    old, new = cell.versions[before].commit, cell.versions[version].commit
    return history.between(old, new) - {one.commit for one in cell.versions}


def _named(cell: CellHistory, number: int, history: History) -> str:
    one = cell.versions[number]
    subject = history.subjects.get(one.commit)
    changed = "uncommitted changes on " if one.dirty else ""
    return f"{changed}{one.commit[:_HASH] or f'no commit, {_time(one.time)}'}" + (
        f" ({visible(subject)})" if subject else ""
    )


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _IDS} more" if len(ids) > _IDS else ""
    return visible(", ".join(ids[:_IDS])) + more


def _time(text: str) -> str:
    """`2026-11-21 18:50`."""
    return visible(text[:16].replace("T", " ")) or NOTHING


def _told(fate: Fate) -> str:
    if not fate.correct:
        return f"wrong when clean: taken for {fate.prediction} (label {fate.label})"
    if fate.robust:
        return "robust"
    far = f" at distance {fate.distance:.4g}" if math.isfinite(fate.distance) else ""
    return f"broken: taken for {fate.prediction}{far} (label {fate.label})"


def _holding(found: Bisection, sample: str) -> list[CellHistory]:
    cells = [cell for cell in found.cells if any(sample in one.fates for one in cell.versions)]
    if not cells:
        ids = dict.fromkeys(name for cell in found.cells for one in cell.versions for name in one.fates)
        near = ", ".join(difflib.get_close_matches(sample, ids, n=3, cutoff=0.4))
        raise ValueError(f"no version holds sample {sample!r}" + (f": is it one of {near}?" if near else ""))
    return cells


def _plain(cell: CellHistory, history: History) -> dict[str, Any]:
    steps = [
        {
            "version": step.version,
            "before": list(step.before),
            "compared": step.compared,
            "lost": list(step.lost),
            "gained": list(step.gained),
            "p": step.p_value,
            "p_holm": step.p_holm,
            "commits_not_run": len(_skipped(cell, step.before[0], step.version, history)),
        }
        for step in cell.steps
    ]
    lost = [{"version": one.version, "before": one.before, "samples": list(one.samples)} for one in cell.losses]
    found = [
        _version(cell, number, history) | {"n": len(one.fates), "robust": one.robust}
        for number, one in enumerate(cell.versions)
    ]
    return {"title": cell.title, "notes": list(cell.notes), "versions": found, "steps": steps, "lost_now": lost}


def _plain_sample(cell: CellHistory, sample: str) -> dict[str, Any]:
    fates = [
        {"commit": one.commit, "dirty": one.dirty, "time": one.time, "current": number == cell.now.get(sample)}
        | one.fates[sample]._asdict()
        | {"distance": one.fates[sample].distance if math.isfinite(one.fates[sample].distance) else None}
        for number, one in enumerate(cell.versions)
        if sample in one.fates
    ]
    return {"title": cell.title, "sample": sample, "fates": fates}


def _version(cell: CellHistory, number: int, history: History) -> dict[str, Any]:
    one = cell.versions[number]
    plain = {name: getattr(one, name) for name in ("commit", "dirty", "time", "weights")}
    return plain | {"subject": history.subjects.get(one.commit, ""), "current": number in cell.now.values()}
