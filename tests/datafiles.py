"""Files and arrays of data as tests make them."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

PAGE = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body>no such file</body></html>"


def noise(shape, seed=0):
    """Random bytes."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def random_data(count=6, channels=1, height=5, width=7, classes=3, seed=0):
    """Random images of this shape, and labels that go round the classes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, height, width, generator=generator), torch.arange(count) % classes


def png(pixels, kind="PNG"):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def picture(path: Path, value, mode="L", size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


class Planted:
    """Unpickled by Python, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write_modules(folder: Path, **files: str) -> Path:
    """Write Python files into `folder`; a double underscore in a name is a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / ("__init__.py" if name == "__init__" else f"{name.replace('__', '/')}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
