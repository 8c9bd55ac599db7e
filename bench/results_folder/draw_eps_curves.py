"""Writing the picture and the table of robust accuracy against eps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gauntlet.bench.results_folder.eps_curves import CurveError, eps_series, parse_radii
from gauntlet.leaderboard.pictures.canvas import FORMS, drawn
from gauntlet.leaderboard.pictures.eps_series import series_figure, series_frame
from gauntlet.leaderboard.report.csv_writer import csv_text
from gauntlet.leaderboard.report.formatting import counted
from gauntlet.leaderboard.results.atomic_files import replace_bytes, replace_text
from gauntlet.leaderboard.results.escape import visible


def draw_eps_curves(
    folders: Sequence[Path],
    models: Sequence[str],
    defense: str,
    norm: str | None,
    data: str,
    over: str | None,
    out: Path | None,
) -> Iterator[str]:
    """Write the table, then the picture, and yield a line for each. Raises as `eps_series`, WriteError, PicturesMissingError."""
    path = folders[0] / "robust-against-eps.svg" if out is None else out
    form = next((one for one in FORMS if path.suffix == f".{one}"), None)
    if form is None:
        raise CurveError(f"--out {str(path)!r} must end in .png, .svg or .pdf")
    series = eps_series(folders, models, defense, norm, data, None if over is None else parse_radii(over))
    table = path.with_suffix(".csv")
    replace_text(table, csv_text(series_frame(series)))
    yield f"written: {table}"
    sizes = sorted({share.n for one in series for _, share in one.points})
    n = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    title = f"Robust accuracy against eps, {series[0].data}\nn {n}, bands and bars: 95 % intervals"
    replace_bytes(path, drawn(series_figure(series, title), form))
    yield f"written: {path}"
    several = len({one.folder for one in series}) > 1
    named = [(f"{one.title} of {one.folder}" if several else one.title, one) for one in series]
    for title, missing in {name: one.missing for name, one in named if one.missing > 0}.items():
        lacking = f"{counted(missing, 'sample')} {'is' if missing == 1 else 'are'} missing"
        yield visible(f"{title} is not finished: {lacking}; run its command again")
    for title, blocks in {name: one.blocks for name, one in named if one.blocks}.items():
        yield visible(
            f"{title} has no rank ({', '.join(blocks)}): what is drawn may be too high; `gauntlet show RUN` says why"
        )
