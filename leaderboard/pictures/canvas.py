"""Shared by all pictures: figures without global state, accessible colours, plain text, the bytes of files."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

from gauntlet.leaderboard.results.escape import visible

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import FigureCanvasBase
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito, "Color Universal Design" (2008), without yellow, which is too light for lines."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[str, ...] = ("-", "--", "-.", ":")

Form = Literal["png", "svg", "pdf"]
"""What a picture is written as."""
FORMS: tuple[Form, ...] = get_args(Form)

_DPI = 120
_UNDATED: Mapping[Form, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


class PicturesMissingError(RuntimeError):
    """matplotlib is not installed; the message has the command that installs it."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` × `height` inches, without pyplot and its global state.

    Raises PicturesMissingError if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise PicturesMissingError(
            f"pictures need matplotlib ({error}): pip install 'robust-gauntlet[pictures]'"
        ) from error
    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def png(figure: Figure) -> bytes:
    """The figure as a PNG at 120 dpi; the same bytes for the same figure."""
    return drawn(figure, "png")


def drawn(figure: Figure, form: Form) -> bytes:
    """The figure as the content of a file, the same bytes for the same figure; texts of SVG are texts."""
    import matplotlib

    file = io.BytesIO()
    # Dates and random names of parts would differ each time.
    with (
        warnings.catch_warnings(),
        matplotlib.rc_context({"svg.hashsalt": "gauntlet", "svg.fonttype": "none"}),
    ):
        # Characters that the font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        canvas = _canvas(figure, form)
        canvas.print_figure(file, format=form, metadata=_UNDATED[form])
    return file.getvalue()


def _canvas(figure: Figure, form: Form) -> FigureCanvasBase:
    if form == "svg":
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        return FigureCanvasSVG(figure)
    if form == "pdf":
        from matplotlib.backends.backend_pdf import FigureCanvasPdf

        return FigureCanvasPdf(figure)
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    return FigureCanvasAgg(figure)


def plain(text: str) -> str:
    """Text that matplotlib draws literally: `$` starts no formula, and a leading `_` does not hide a legend entry."""
    text = visible(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def heading(text: str, width: int = 95) -> str:
    """The lines of a title, as plain text wrapped at `width` characters."""
    return "\n".join(plain(part) for line in text.splitlines() for part in textwrap.wrap(line, width))


def style(number: int) -> dict[str, str]:
    """Colour, dashes and marker of a line by its number, distinct for the first 28 and never by colour alone."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number % len(DASHES)],
        "marker": MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],
    }


def accuracy_axis(axes: Axes, name: str = "robust accuracy (%)") -> None:
    """Give the figure a vertical axis from 0 to 100 % with a light grid."""
    axes.set_ylim(-2, 102)
    axes.set_ylabel(name)
    axes.grid(visible=True, color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend(axes: Axes, entries: int) -> None:
    """Add a legend; with more than 6 entries beside the axes, so that it covers no data."""
    if entries > 6:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False)
    elif entries:
        axes.legend(fontsize=8, framealpha=0.9)
