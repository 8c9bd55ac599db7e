"""Adversarial examples as small PNG pictures within the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Final

import numpy as np

from gauntlet.leaderboard.page.details import PictureColumn
from gauntlet.leaderboard.pictures.examples import ExampleColumn, Image

LARGEST: Final = 96
"""Height and width in pixels above which pictures are made smaller."""


def picture_columns(columns: Sequence[ExampleColumn], names: Sequence[str] = ()) -> tuple[PictureColumn, ...]:
    """The pictures of examples; perturbations are magnified alike, to the full range at the largest change among them.

    `names`: names of the classes by label, if they have any.
    """
    largest = max((float(np.abs(one.adversarial - one.clean).max()) for one in columns), default=0.0) or 1.0

    def name(label: int) -> str:
        return names[label] if label < len(names) else str(label)

    return tuple(
        PictureColumn(
            sample=one.sample.id,
            label=name(one.sample.label),
            prediction=name(one.sample.prediction),
            attack=one.sample.attack,
            distance=one.sample.distance,
            clean=_png(one.clean),
            perturbation=_png(0.5 + (one.adversarial - one.clean) / (2 * largest)),
            adversarial=_png(one.adversarial),
        )
        for one in columns
    )


def _png(image: Image) -> str:
    """An image (C, H, W) in [0, 1] as a `data:` address: three channels as colours, any other number as their mean in grey."""
    from PIL import Image as Pillow

    colours = len(image) in (3, 4)
    pixels = np.moveaxis(image[:3], 0, -1) if colours else image.mean(0)
    levels = (255 * np.clip(np.nan_to_num(pixels), 0, 1)).round().astype(np.uint8)
    picture = Pillow.fromarray(levels)
    if max(picture.size) > LARGEST:
        picture.thumbnail((LARGEST, LARGEST))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
