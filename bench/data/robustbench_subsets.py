"""The subsets of published sets that RobustBench evaluates on, for figures on the same samples.

RobustBench (robustbench/data.py and loaders.py, version 1.1.1) evaluates the first n test images of CIFAR-10 and CIFAR-100 in
the order of the files, and the first n of 5,000 ImageNet paths that a file of its package lists. That file is not part of this
project: it is read from an installation of RobustBench or from a data folder, and its sha256 is checked.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gauntlet.leaderboard.results.user_text import read_user_text

if TYPE_CHECKING:
    from gauntlet.bench.data.samples.dataset import Data

PARTS = ("robustbench-N",)
LIST = "imagenet_test_image_ids.txt"
LIST_SHA256 = "d4121626d07722a0126c35b1563042e46a546f1a05ce705f2cdc635896d58574"
"""sha256 of the 5,000 paths, joined by newlines."""


def robustbench_first(data: Data, part: str, root: Path | None = None) -> Data:
    """For CIFAR: the first N samples, for a name such as `robustbench-1000`; results are shared with the full set.

    Raises ValueError if the set has fewer samples.
    """
    from gauntlet.bench.data.samples.selection import subset

    return subset(data, range(_count(data, part, len(data))))


def robustbench_listed(data: Data, part: str, root: Path | None = None) -> Data:
    """For ImageNet: the first N samples of RobustBench's list, as a set of its own with positions in the list.

    The list is searched for in `root`, in the folders of GAUNTLET_DATA and in the package robustbench. Raises ValueError
    if it is missing or has another content, and if it has fewer samples.
    """
    from gauntlet.bench.data.samples.selection import subset

    wanted = _list(root)
    wanted = wanted[: _count(data, part, len(wanted))]
    index_of = {sample: index for index, sample in enumerate(data.ids)}
    missing = [sample for sample in wanted if sample not in index_of]
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(wanted)} samples that RobustBench evaluates are missing in data {data.name!r}, the "
            f"first is {missing[0]!r}: images must be named by their folder and file in val/"
        )
    return replace(subset(data, [index_of[sample] for sample in wanted]), positions=tuple(range(len(wanted))))


def _count(data: Data, part: str, most: int) -> int:
    count = int(part.rpartition("-")[2])
    if not 1 <= count <= most:
        raise ValueError(f"data {data.name!r} has no part {part!r}: RobustBench evaluates 1 to {most} of its samples")
    return count


def _list(root: Path | None) -> list[str]:
    from gauntlet.bench.data.data_folders import data_folders

    folders = [*([root] if root is not None and root.is_dir() else []), *data_folders()]
    # The package is not imported: its data can be read even if its code cannot run.
    package = importlib.util.find_spec("robustbench")
    folders += [Path(folder) / "helper_files" for folder in (package and package.submodule_search_locations) or ()]
    path = next((folder / LIST for folder in folders if (folder / LIST).is_file()), None)
    if path is None:
        searched = ", ".join(map(str, folders)) or "no folder"
        raise ValueError(
            f"the list of RobustBench's ImageNet samples is missing (searched for {LIST} in {searched}): install its package "
            f"(pip install --no-deps robustbench), or put robustbench/helper_files/{LIST} of its repository beside the data"
        )
    try:
        names = read_user_text(path).split()
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is not RobustBench's list of samples ({error})") from error
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    if digest != LIST_SHA256:
        raise ValueError(
            f"{str(path)!r} is not RobustBench's list of 5,000 samples (its sha256 is {digest[:12]}…, not "
            f"{LIST_SHA256[:12]}…): download it again, or evaluate your own list with --samples {path}"
        )
    return names
