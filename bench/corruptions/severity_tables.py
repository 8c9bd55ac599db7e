"""The settings of each severity, for images of about 32, 64 and 224 pixels, from `severities.toml`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

CIFAR, TINY_IMAGENET, IMAGENET = "cifar", "tiny-imagenet", "imagenet"
Settings = tuple[tuple[Any, ...], ...]


def _read() -> dict[str, dict[str, Settings]]:
    text = Path(__file__).with_name("severities.toml").read_text(encoding="utf-8")
    tables: dict[str, dict[str, Settings]] = {
        table: {name: tuple(map(tuple, settings)) for name, settings in rows.items()}
        for table, rows in tomllib.loads(text).items()
    }
    # The code for ImageNet has multiples of 244 for images of 224 pixels; here they become shares of the side.
    elastic = tables[IMAGENET]["elastic_transform"]
    tables[IMAGENET]["elastic_transform"] = tuple(tuple(share * 244 / 224 for share in row) for row in elastic)
    return tables


TABLES = _read()
"""By name of the table and of the corruption. `spatter` uses the library's own table, that of ImageNet."""


def table_for(height: int, width: int) -> str:
    """The table for an image: the size nearest to its shorter side, in proportion (limits 45 and 120 pixels)."""
    side = min(height, width)
    return CIFAR if side <= 45 else TINY_IMAGENET if side <= 120 else IMAGENET
