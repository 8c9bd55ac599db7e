"""Preprocessing of Pillow images: colour mode, resizing and cropping as in torchvision's evaluation transforms.

torchvision.transforms.Resize and CenterCrop (transforms/functional.py) call Pillow for a Pillow image; the sizes and
offsets here follow the same rules, so that a published model receives the pixels that its figures were measured on.
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
    """Steps applied to an image before it is evaluated, in the order of the fields. Raises ValueError for bad settings."""

    mode: str | None = None
    """Colour mode to convert to: `RGB`, or `L` for grey; None: no conversion."""
    resize: int | tuple[int, int] | None = None
    """Size of the shorter side in pixels, with the aspect ratio kept; or height and width."""
    crop: int | None = None
    """Side in pixels of the square that is cut out of the centre; smaller images are padded with black."""
    interpolation: str = "bilinear"
    """Interpolation of `resize`, one of `INTERPOLATIONS`; all but `nearest` use antialiasing."""

    def __post_init__(self) -> None:
        if self.mode is not None:
            one_of("mode", self.mode, MODES)
        one_of("interpolation", self.interpolation, INTERPOLATIONS)
        sides = self.resize if isinstance(self.resize, tuple) else (self.resize,)
        for name, value in (*(("resize", side) for side in sides), ("crop", self.crop)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                form = "; for height and width write resize='224x224'" if name == "resize" else ""
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
    """Replace settings of the preprocessing by those in the brackets of a data name (see `SETTINGS`).

    Raises ValueError for bad values, and for an interpolation without `resize`.
    """
    given = dict(settings)
    sides = re.fullmatch(r"(\d+)x(\d+)", given["resize"]) if isinstance(given.get("resize"), str) else None
    if sides:
        given["resize"] = (int(sides[1]), int(sides[2]))
    made = replace(default, **given)
    if "interpolation" in given and made.resize is None:
        raise ValueError(f"interpolation={made.interpolation!r} needs resize: add resize=256, or leave it out")
    return made


def preprocess(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Convert, resize and crop an image."""
    if preprocessing.mode is not None and image.mode != preprocessing.mode:
        image = image.convert(preprocessing.mode)
    if preprocessing.resize is not None:
        image = _resized(image, preprocessing.resize, preprocessing.interpolation)
    return image if preprocessing.crop is None else _cropped(image, preprocessing.crop)


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
        # Pillow's crop fills the area outside the image with black.
        image = image.crop((-left, -top, width + right, height + bottom))
        width, height = image.size
    # Python rounds half to even, and so does torchvision.
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image.crop((left, top, left + side, top + side))
