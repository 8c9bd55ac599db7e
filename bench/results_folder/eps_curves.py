"""Robust accuracy against eps of models in results folders, from stored results alone."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.config.cell import Cell
from gauntlet.bench.results_folder.all_runs import joint_summaries, row_runs, shown_runs
from gauntlet.bench.results_folder.removed_models import removed_models
from gauntlet.bench.run.run_folder import Run
from gauntlet.leaderboard.pictures.eps_curve import EpsCurve, eps_curve
from gauntlet.leaderboard.pictures.eps_series import EpsSeries
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.reasons import reasons
from gauntlet.leaderboard.rows.row import LeaderboardRow
from gauntlet.leaderboard.rows.worst_case import row_key
from gauntlet.leaderboard.stats.proportions import Proportion

RADII = "radii"
_EPS = "eps="


class CurveError(ValueError):
    """There is nothing to draw, or it cannot be drawn together; the message has the way out."""


def parse_radii(text: str) -> tuple[float, ...]:
    """The radii of `eps=0,1/255,2/255`, ascending. Raises CurveError."""
    words = [word.strip() for word in text.removeprefix(_EPS).split(",") if word.strip()]
    if not text.startswith(_EPS) or not words:
        raise CurveError(f"--over {text!r} is not understood: write eps=V,V… such as eps=0,1/255,2/255")
    try:
        return tuple(sorted({0.0 if word in ("0", "0.0") else ThreatModel.parse(f"L2:{word}").eps for word in words}))
    except ValueError:
        raise CurveError(f"--over {text!r}: a radius is a number or a fraction such as 8/255") from None


def eps_series(
    folders: Sequence[Path],
    models: Sequence[str] = ("*",),
    defense: str = "*",
    norm: str | None = None,
    data: str = "*",
    radii: Sequence[float] | None = None,
) -> list[EpsSeries]:
    """The series of the rows whose model fits one of the patterns `models`, and whose defense and data fit theirs.

    Of a row with minimum-norm attacks an exact series, and beside it the worst case at the radii that were attacked, the clean
    accuracy at 0. With `radii` these alone: the worst case where a row was attacked at that radius, else what the exact series
    says. Raises CurveError, RunError, StoreError.
    """
    found: list[EpsSeries] = []
    seen: dict[str, None] = {}
    for folder in folders:
        found += _of_folder(folder, models, defense, norm, data, radii, seen)
    for pattern in models:
        if not any(_fits(model, pattern) for model in seen):
            near = difflib.get_close_matches(pattern, list(seen), 1, 0.5)
            raise CurveError(
                f"no model fits --model {pattern!r}"
                + (f"; did you mean {near[0]!r}?" if near else "")
                + f" The folders have {', '.join(seen)}"
            )
    if not found:
        raise CurveError("no row fits --defense, --norm and --data: `gauntlet show RUN` lists the rows")
    for name, option in (("norm", "--norm"), ("data", "--data")):
        values = list(dict.fromkeys(getattr(one, name) for one in found))
        if len(values) > 1:
            raise CurveError(f"the rows have several values of {name} ({', '.join(values)}): choose one with {option}")
    return found


def _of_folder(
    folder: Path,
    models: Sequence[str],
    defense: str,
    norm: str | None,
    data: str,
    radii: Sequence[float] | None,
    seen: dict[str, None],
) -> Iterator[EpsSeries]:
    runs = shown_runs(folder)
    taken = row_runs(runs)
    pipelines: dict[tuple[str, ...], list[LeaderboardRow]] = {}
    summaries = joint_summaries(runs, tuple(removed_models(runs.newest.root)))
    missing: dict[tuple[str, ...], int] = {}
    for one in summaries:
        if not one.cell.corrupts:
            key = row_key(one.cell)
            missing[key] = max(missing.get(key, 0), one.expected - len(one))
    for row in build_rows(summaries):
        seen.setdefault(row.model)
        chosen = any(_fits(row.model, pattern) for pattern in models)
        if chosen and _fits(row.defense, defense) and _fits(row.data, data) and norm in (None, row.norm):
            target = row.threat.partition(":target=")[2]
            pipelines.setdefault((row.model, row.defense, row.norm, target, row.data, row.suite), []).append(row)
    for rows in pipelines.values():
        keys = {row.key for row in rows}
        cells = [(run, cell) for run in runs.shown for cell in run.plan.cells]
        own = [(run, cell) for run, cell in cells if row_key(cell.info) in keys and taken[row_key(cell.info)] is run]
        for series in _series(sorted(rows, key=lambda row: row.eps), _curve(own), str(folder), radii):
            blocks = dict.fromkeys(reason.name for row in rows for reason in reasons(row) if reason.blocks)
            yield replace(series, missing=max(missing[key] for key in keys), blocks=tuple(blocks))


def _curve(cells: Sequence[tuple[Run, Cell]]) -> EpsCurve | None:
    return eps_curve([run.result(cell) for run, cell in cells if cell.info.minimum_norm])


def _series(
    rows: Sequence[LeaderboardRow], curve: EpsCurve | None, folder: str, radii: Sequence[float] | None
) -> Iterator[EpsSeries]:
    first = rows[0]
    shared = (first.model, first.defense, first.norm, first.data, first.suite, folder)
    at = {0.0: first.clean} | {row.eps: row.robust for row in rows if row.robust.n}
    if radii is not None:
        known = {eps: share for eps in radii if (share := _attacked(eps, at)) is not None}
        if known:
            yield EpsSeries(*shared, RADII, False, tuple(known.items()))
        rest = [eps for eps in radii if eps not in known]
        if rest and curve is None:
            raise CurveError(_not_known(rest, first))
        if rest and curve is not None:
            yield EpsSeries(*shared, ", ".join(curve.attacks), False, tuple((eps, curve.at(eps)) for eps in rest))
        return
    if curve is not None:
        steps = tuple(
            (float(eps), Proportion(int(count), curve.n)) for eps, count in zip(curve.eps, curve.standing, strict=True)
        )
        yield EpsSeries(*shared, ", ".join(curve.attacks), True, steps)
    if first.clean.n:
        yield EpsSeries(*shared, RADII, False, tuple(sorted(at.items())))


def _attacked(eps: float, at: dict[float, Proportion]) -> Proportion | None:
    """The accuracy at a radius that was attacked, or the clean one at 0; None at others."""
    known = next((share for radius, share in at.items() if abs(radius - eps) <= 1e-9 * max(eps, 1.0)), None)
    return known if known is not None and known.n else None


def _not_known(radii: Sequence[float], row: LeaderboardRow) -> str:
    threats = " ".join(f"--threat {row.norm}:{eps:g}" for eps in radii)
    return (
        f"{row.title} was not attacked at eps {', '.join(f'{eps:g}' for eps in radii)} and has no minimum-norm attack (fmn, ddn, "
        f"cw): run one, or add the radii, {threats}, to the command of its run, which the report names"
    )


def _fits(name: str, pattern: str) -> bool:
    return name == pattern or fnmatch.fnmatchcase(name, pattern)
