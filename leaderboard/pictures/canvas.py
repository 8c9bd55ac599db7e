"""What all pictures share: figures without global state, colours that everybody can tell apart, plain text, PNG bytes."""

from __future__ import annotations

import io
import textwrap
import warnings
from typing import TYPE_CHECKING

from gauntlet.leaderboard.results.escape import visible

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito, "Color Universal Design" (2008), without the yellow, which is too light for lines."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[str, ...] = ("-", "--", "-.", ":")

_DPI = 120


class PicturesMissingError(RuntimeError):
    """matplotlib is not installed; the message says how to install it."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches, drawn by the Agg canvas; pyplot and its global state are not used.

    Raises PicturesMissingError where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise PicturesMissingError(
            f"pictures need matplotlib ({error}): pip install 'robust-gauntlet[pictures]'"
        ) from error
    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def png(figure: Figure) -> bytes:
    """The figure as a PNG of 120 pixels an inch; the same bytes for the same figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    file = io.BytesIO()
    with warnings.catch_warnings():
        # Names in scripts that the font does not have are drawn as boxes, which is no reason to draw nothing.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        FigureCanvasAgg(figure).print_figure(file, format="png", metadata={"Software": None})
    return file.getvalue()


def plain(text: str) -> str:
    """Text that is drawn as it is: `$` starts no formula, and a leading `_` hides nothing from a legend."""
    text = visible(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def heading(text: str, width: int = 95) -> str:
    """A title's lines, each plain and broken where it is longer than the picture is wide."""
    return "\n".join(plain(part) for line in text.splitlines() for part in textwrap.wrap(line, width))


def style(number: int) -> dict[str, str]:
    """Colour, dashes and marker of the line of that number, distinct for the first 28 and never by colour alone."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def accuracy_axis(axes: Axes, name: str = "robust accuracy (%)") -> None:
    """A vertical axis from 0 to 100 % with a light grid."""
    axes.set_ylim(-2, 102)
    axes.set_ylabel(name)
    axes.grid(visible=True, color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend(axes: Axes, entries: int) -> None:
    """A legend that covers no data: beside the axes where there is much in it."""
    if entries > 6:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False)
    elif entries:
        axes.legend(fontsize=8, framealpha=0.9)
