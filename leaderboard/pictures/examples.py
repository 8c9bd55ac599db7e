"""Adversarial examples beside the clean images, with the perturbation and both labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.pictures.canvas import heading, new_figure, plain
from gauntlet.leaderboard.results.escape import shorten
from gauntlet.leaderboard.rows.closest_examples import Broken

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Image = npt.NDArray[np.floating[Any]]

MOST = 8
"""Examples in one picture."""
_LONGEST = 16


@dataclass(frozen=True, eq=False)
class Shown:
    """What one column of the picture shows: images (C, H, W) in [0, 1], both of one shape."""

    about: Broken
    clean: Image
    adversarial: Image


def chosen(broken: Iterable[Broken], most: int = MOST) -> list[Broken]:
    """At most `most` of them, spread over the classes: one of each class by ascending label, the first in the order given,
    then the second of each, and so on; sorted by label."""
    turns: Counter[int] = Counter()
    order = []
    for place, one in enumerate(broken):
        order.append((turns[one.label], one.label, place, one))
        turns[one.label] += 1
    return [one for *_, one in sorted(sorted(order, key=lambda entry: entry[:3])[:most], key=lambda entry: entry[1])]


def examples(shown: Sequence[Shown], title: str) -> Figure:
    """A column for each example: clean image with its label, perturbation, adversarial image with what it is taken for.

    The perturbation is scaled by the largest change among those shown: one channel from purple (darker) over white (none)
    to orange (lighter), colour images around grey. Raises ValueError where there is nothing to show or the shapes of a
    pair differ, PicturesMissingError.
    """
    if not shown:
        raise ValueError("shown is empty: an attack that broke nothing has no examples")
    for one in shown:
        if one.adversarial.shape != one.clean.shape:
            raise ValueError(
                f"the example of sample {one.about.id!r} has shape {one.adversarial.shape}, its clean image "
                f"{one.clean.shape}: give both alike"
            )
    largest = max(float(np.abs(one.adversarial - one.clean).max()) for one in shown) or 1.0
    width = max(1.45 * len(shown) + 1, 6)
    figure = new_figure(width, 6)
    grid = figure.subplots(3, len(shown), squeeze=False)
    for (top, middle, bottom), one in zip(grid.T, shown, strict=True):
        about = one.about
        _draw(top, one.clean)
        top.set_title(heading(f"{shorten(about.id, _LONGEST)}\nlabel {about.label}"), fontsize=9)
        _draw_change(middle, one.adversarial - one.clean, largest)
        middle.set_title(f"distance {about.distance:.3g}", fontsize=9)
        _draw(bottom, one.adversarial)
        bottom.set_title(f"taken for {about.prediction}", fontsize=9)
        bottom.set_xlabel(plain(shorten(about.attack, _LONGEST)), fontsize=8)
    for axes, name in zip(grid[:, 0], ("clean", "perturbation", "adversarial"), strict=True):
        axes.set_ylabel(name, fontsize=9)
    colours = (
        "grey: unchanged" if _pixels(shown[0].clean).ndim == 3 else "white: unchanged, orange: lighter, purple: darker"
    )
    figure.supxlabel(f"perturbation, {colours}; full colour: ±{largest:.3g} of the pixel range [0, 1]", fontsize=8)
    figure.suptitle(heading(title, int(10 * width)), fontsize=10)
    return figure


def _draw(axes: Axes, image: Image) -> None:
    pixels = _pixels(image)
    axes.imshow(pixels, cmap="gray" if pixels.ndim == 2 else None, vmin=0, vmax=1, interpolation="nearest")
    _bare(axes)


def _draw_change(axes: Axes, change: Image, largest: float) -> None:
    pixels = _pixels(change)
    if pixels.ndim == 2:
        axes.imshow(pixels, cmap="PuOr_r", vmin=-largest, vmax=largest, interpolation="nearest")
    else:
        axes.imshow(np.clip(0.5 + pixels / (2 * largest), 0, 1), interpolation="nearest")
    _bare(axes)


def _pixels(image: Image) -> Image:
    """(H, W) of one channel, (H, W, 3) of three or four (the fourth is left out); of others, the mean channel."""
    if len(image) in (3, 4):
        return np.moveaxis(image[:3], 0, -1)
    mean: Image = image.mean(0)
    return mean


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
