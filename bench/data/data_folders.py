"""The folders in which published data sets are searched for: the folder that the user names, or those of GAUNTLET_DATA."""

from __future__ import annotations

import os
from pathlib import Path

from gauntlet.bench.data.formats.catalog import SearchPlace

VARIABLE = "GAUNTLET_DATA"
"""Environment variable with the folders in which published sets are searched for, separated as in PATH."""


def search_places(names: tuple[str, ...], root: Path | None) -> list[SearchPlace]:
    """The places to search, in order.

    With `root`, that folder or file alone. Otherwise the sub-folders of GAUNTLET_DATA's folders that have one of `names`,
    then those folders themselves. Raises ValueError for a folder that does not exist.
    """
    if root is not None:
        if not root.exists():
            raise ValueError(f"data folder {str(root)!r} does not exist: write NAME@FOLDER, settings before the @")
        return [SearchPlace(root, own=True)]
    roots = data_folders()
    missing = [folder for folder in roots if not folder.is_dir()]
    if missing:
        raise ValueError(f"{VARIABLE} names {str(missing[0])!r}, which is not a folder: correct or unset it")
    below = [SearchPlace(folder / name, own=True) for folder in roots for name in names if (folder / name).is_dir()]
    return [*below, *(SearchPlace(folder, own=False) for folder in roots)]


def data_folders() -> list[Path]:
    """The folders that GAUNTLET_DATA names."""
    return [Path(part).expanduser() for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part.strip()]
