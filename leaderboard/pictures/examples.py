"""Adversarial examples beside the clean images, with the perturbation, the label and the prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.pictures.canvas import heading, new_figure, plain
from gauntlet.leaderboard.results.escape import shorten
from gauntlet.leaderboard.rows.closest_examples import BrokenSample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Image = npt.NDArray[np.floating[Any]]

MOST_EXAMPLES = 8
"""Largest number of examples in one picture."""
_LONGEST = 16


@dataclass(frozen=True, eq=False)
class ExampleColumn:
    """One column of the picture: images (C, H, W) in [0, 1], both of one shape."""

    sample: BrokenSample
    clean: Image
    adversarial: Image


def spread_over_classes(broken: Iterable[BrokenSample], most: int = MOST_EXAMPLES) -> list[BrokenSample]:
    """At most `most` samples, spread over the classes: the first of each class, then the second of each, and so on, until
    there are enough; sorted by label."""
    seen: Counter[int] = Counter()
    candidates = []
    for place, sample in enumerate(broken):
        candidates.append((seen[sample.label], sample.label, place, sample))
        seen[sample.label] += 1
    chosen = sorted(candidates, key=lambda candidate: candidate[:3])[:most]
    return [sample for *_, sample in sorted(chosen, key=lambda candidate: candidate[1])]


def examples_figure(columns: Sequence[ExampleColumn], title: str) -> Figure:
    """A column for each example: clean image with its label, perturbation, adversarial image with its prediction.

    The perturbation is scaled by the largest change among the examples: grey images from purple (darker) over white (unchanged)
    to orange (lighter), colour images around grey. Raises ValueError for no examples and for a pair of images whose shapes
    differ, PicturesMissingError.
    """
    if not columns:
        raise ValueError("columns is empty: an attack that broke nothing has no examples")
    for column in columns:
        if column.adversarial.shape != column.clean.shape:
            raise ValueError(
                f"the example of sample {column.sample.id!r} has shape {column.adversarial.shape}, its clean image "
                f"{column.clean.shape}: give images of one shape"
            )
    largest = max(float(np.abs(column.adversarial - column.clean).max()) for column in columns) or 1.0
    width = max(1.45 * len(columns) + 1, 6)
    figure = new_figure(width, 6)
    grid = figure.subplots(3, len(columns), squeeze=False)
    for (top, middle, bottom), column in zip(grid.T, columns, strict=True):
        sample = column.sample
        _draw(top, column.clean)
        top.set_title(heading(f"{shorten(sample.id, _LONGEST)}\nlabel {sample.label}"), fontsize=9)
        _draw_change(middle, column.adversarial - column.clean, largest)
        middle.set_title(f"distance {sample.distance:.3g}", fontsize=9)
        _draw(bottom, column.adversarial)
        bottom.set_title(f"prediction {sample.prediction}", fontsize=9)
        bottom.set_xlabel(plain(shorten(sample.attack, _LONGEST)), fontsize=8)
    for axes, name in zip(grid[:, 0], ("clean", "perturbation", "adversarial"), strict=True):
        axes.set_ylabel(name, fontsize=9)
    colours = (
        "grey: unchanged"
        if _pixels(columns[0].clean).ndim == 3
        else "white: unchanged, orange: lighter, purple: darker"
    )
    figure.supxlabel(f"perturbation, {colours}; full colour: ±{largest:.3g} of the pixel range [0, 1]", fontsize=8)
    figure.suptitle(heading(title, int(10 * width)), fontsize=10)
    return figure


def _draw(axes: Axes, image: Image) -> None:
    pixels = _pixels(image)
    axes.imshow(pixels, cmap="gray" if pixels.ndim == 2 else None, vmin=0, vmax=1, interpolation="nearest")
    _hide_ticks(axes)


def _draw_change(axes: Axes, change: Image, largest: float) -> None:
    pixels = _pixels(change)
    if pixels.ndim == 2:
        axes.imshow(pixels, cmap="PuOr_r", vmin=-largest, vmax=largest, interpolation="nearest")
    else:
        axes.imshow(np.clip(0.5 + pixels / (2 * largest), 0, 1), interpolation="nearest")
    _hide_ticks(axes)


def _pixels(image: Image) -> Image:
    """(H, W) of one channel; (H, W, 3) of three or four channels (the fourth is dropped); the mean of any other number."""
    if len(image) in (3, 4):
        return np.moveaxis(image[:3], 0, -1)
    mean: Image = image.mean(0)
    return mean


def _hide_ticks(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
