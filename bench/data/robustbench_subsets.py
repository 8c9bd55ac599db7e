"""Parts of published sets that others evaluate on, so that figures are of the same samples.

RobustBench (robustbench/data.py and loaders.py, version 1.1.1) takes of CIFAR-10 and CIFAR-100 the first n test images in
the order of the files, and of ImageNet the first n of 5,000 paths in a file of its package. That file is not part of this
project: it is read from where it is, and its content must be the one that is known.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gauntlet.bench.data.samples.dataset import Data

PARTS = ("robustbench-N",)
LIST = "imagenet_test_image_ids.txt"
LIST_SHA256 = "d4121626d07722a0126c35b1563042e46a546f1a05ce705f2cdc635896d58574"
"""Of the 5,000 paths, joined by newlines."""


def robustbench_first(data: Data, part: str, root: Path | None = None) -> Data:
    """Of CIFAR: the first N samples, for a name like `robustbench-1000`; their results are shared with the full set's.

    Raises ValueError for more than there are.
    """
    from gauntlet.bench.data.samples.selection import subset

    return subset(data, range(_count(data, part, len(data))))


def robustbench_listed(data: Data, part: str, root: Path | None = None) -> Data:
    """Of ImageNet: the first N of RobustBench's list, a set of its own with positions counted in the list.

    The list is looked for in `root`, in the folders of GAUNTLET_DATA, and in the package robustbench. Raises ValueError
    where it is not there or another one, and for more samples than it has.
    """
    from gauntlet.bench.data.samples.selection import subset

    wanted = _list(root)
    wanted = wanted[: _count(data, part, len(wanted))]
    index_of = {sample: index for index, sample in enumerate(data.ids)}
    missing = [sample for sample in wanted if sample not in index_of]
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(wanted)} samples that RobustBench evaluates are not in data {data.name!r}, the first "
            f"is {missing[0]!r}: they are named by their folder and file in val/"
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
    # The package itself is not imported: its data are read where its code cannot be.
    package = importlib.util.find_spec("robustbench")
    folders += [Path(folder) / "helper_files" for folder in (package and package.submodule_search_locations) or ()]
    path = next((folder / LIST for folder in folders if (folder / LIST).is_file()), None)
    if path is None:
        looked = ", ".join(map(str, folders)) or "nowhere, as no folder is named"
        raise ValueError(
            f"the list of RobustBench's ImageNet samples is not here (looked for {LIST} in {looked}): install its package "
            f"(pip install --no-deps robustbench), or put robustbench/helper_files/{LIST} of its repository beside the data"
        )
    names = path.read_text(encoding="utf-8", errors="replace").split()
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    if digest != LIST_SHA256:
        raise ValueError(
            f"{str(path)!r} is not RobustBench's list of 5,000 samples (its sha256 is {digest[:12]}…, not "
            f"{LIST_SHA256[:12]}…): fetch it again, or evaluate your own list with --samples {path}"
        )
    return names
