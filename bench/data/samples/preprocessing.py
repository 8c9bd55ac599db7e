"""Preprocessing: resize, crop and colour, as torchvision's evaluation transforms do it on Pillow images.

torchvision.transforms.Resize and CenterCrop (transforms/functional.py) call Pillow for a Pillow image; the sizes and
offsets here follow the same rules, so that a published model sees the pixels that its figures were measured on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gauntlet.attacks.ops.validators import one_of

if TYPE_CHECKING:
    from PIL import Image

SETTINGS = ("mode", "resize", "crop", "interpolation")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
MODES = ("L", "RGB")


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before it is evaluated, in the order of the fields. Raises ValueError for bad settings."""

    mode: str | None = None
    """`RGB`, or `L` for grey, into which images are converted; None: they are one of these already."""
    resize: int | tuple[int, int] | None = None
    """Pixels of the shorter side, the ratio kept; or height and width."""
    crop: int | None = None
    """Pixels of a side of the square that is cut out of the middle; what it lacks at the edges becomes black."""
    interpolation: str = "bilinear"
    """Of `resize`; one of `INTERPOLATIONS`, all but `nearest` with antialiasing."""

    def __post_init__(self) -> None:
        if self.mode is not None:
            one_of("mode", self.mode, MODES)
        one_of("interpolation", self.interpolation, INTERPOLATIONS)
        sides = self.resize if isinstance(self.resize, tuple) else (self.resize,)
        for name, value in (*(("resize", side) for side in sides), ("crop", self.crop)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                form = "; of height and width write resize='224x224'" if name == "resize" else ""
                raise ValueError(f"{name}={value!r} must be a whole number of pixels, at least 1{form}")

    def __str__(self) -> str:
        parts = [] if self.mode is None else [f"mode={self.mode}"]
        if self.resize is not None:
            parts.append(f"resize={self.resize if isinstance(self.resize, int) else '{}x{}'.format(*self.resize)}")
        if self.crop is not None:
            parts.append(f"crop={self.crop}")
        if self.resize is not None:
            parts.append(f"interpolation={self.interpolation}")
        return ", ".join(parts)


PLAIN = Preprocessing()


def with_settings(default: Preprocessing, settings: Mapping[str, Any]) -> Preprocessing:
    """The preprocessing with some of `SETTINGS`, as a name's brackets hold them, in place of its own.

    Raises ValueError for bad values, and for an interpolation where nothing is resized.
    """
    given = dict(settings)
    sides = re.fullmatch(r"(\d+)x(\d+)", given["resize"]) if isinstance(given.get("resize"), str) else None
    if sides:
        given["resize"] = (int(sides[1]), int(sides[2]))
    made = replace(default, **given)
    if "interpolation" in given and made.resize is None:
        raise ValueError(f"interpolation={made.interpolation!r} is of resize: add resize=256, or leave it out")
    return made


def preprocess(image: Image.Image, how: Preprocessing) -> Image.Image:
    """The image, converted, resized and cropped."""
    if how.mode is not None and image.mode != how.mode:
        image = image.convert(how.mode)
    if how.resize is not None:
        image = _resized(image, how.resize, how.interpolation)
    return image if how.crop is None else _cropped(image, how.crop)


def _resized(image: Image.Image, resize: int | tuple[int, int], interpolation: str) -> Image.Image:
    from PIL.Image import Resampling

    width, height = image.size
    if isinstance(resize, tuple):
        size = resize[1], resize[0]
    elif width <= height:
        size = resize, int(resize * height / width)
    else:
        size = int(resize * width / height), resize
    return image if size == image.size else image.resize(size, Resampling[interpolation.upper()])


def _cropped(image: Image.Image, side: int) -> Image.Image:
    width, height = image.size
    if width < side or height < side:
        left, top = max(0, (side - width) // 2), max(0, (side - height) // 2)
        right, bottom = max(0, (side - width + 1) // 2), max(0, (side - height + 1) // 2)
        # Pillow's crop fills with black what lies outside.
        image = image.crop((-left, -top, width + right, height + bottom))
        width, height = image.size
    # Half to even, as Python rounds; torchvision's offsets are rounded so as well.
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image.crop((left, top, left + side, top + side))
