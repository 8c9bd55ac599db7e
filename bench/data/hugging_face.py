"""Published data sets from Hugging Face: from the cache of `datasets`, else from the repository's Parquet files.

`load_dataset` would prepare every split, for ImageNet the training images too. Therefore the files of one split are
downloaded by huggingface_hub into its own cache, from which they are read the next time, also without a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gauntlet.bench.data.formats.raw_data import RawData
    from gauntlet.bench.data.samples.preprocessing import Preprocessing

EXTRA = "pip install 'robust-gauntlet[huggingface]'"


class HubError(LookupError):
    """The data set cannot be loaded from Hugging Face; the message says why."""


@dataclass(frozen=True)
class HubDataset:
    """The location of a data set on Hugging Face."""

    repository: str
    config: str
    folder: str
    """Folder of the Parquet files in the repository."""
    splits: tuple[tuple[str, str], ...] = (("test", "test"), ("train", "train"))
    """Pairs of a split's name here and its name in the repository."""

    def split(self, name: str) -> str:
        """The repository's name of a split."""
        return dict(self.splits)[name]


def read_hub(hub: HubDataset, split: str, preprocessing: Preprocessing) -> RawData:
    """Read a split from a cache or the network. Raises HubError, and ValueError for files that cannot be read."""
    try:
        import datasets  # noqa: F401
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise HubError(f"the package {error.name} is not installed ({EXTRA})") from error
    cached = _from_datasets(hub, hub.split(split), preprocessing)
    return cached if cached is not None else _from_files(hub, hub.split(split), preprocessing)


def _from_datasets(hub: HubDataset, split: str, preprocessing: Preprocessing) -> RawData | None:
    """The split from the cache of `datasets`; None if it is not cached."""
    import pyarrow.compute as pc

    from gauntlet.bench.data.formats import parquet
    from gauntlet.bench.data.formats.encoded_images import encoded_images
    from gauntlet.bench.data.formats.raw_data import RawData, integer_labels

    name = hub.repository.rpartition("/")[2]
    try:
        from datasets.packaged_modules.cache.cache import Cache

        builder = Cache(repo_id=hub.repository, dataset_name=name, config_name=hub.config, version="auto", hash="auto")
        dataset: Any = builder.as_dataset(split=split).with_format("arrow")
    except (ImportError, ValueError, OSError):  # not cached, another split only, or the cache of another version
        return None
    where = Path(builder.cache_dir)
    image = parquet.column(dataset.column_names, parquet.IMAGES, "images", where)
    label = parquet.column(dataset.column_names, parquet.LABELS, "labels", where)

    def fetch(rows: Sequence[int]) -> list[bytes]:
        return list(parquet.encoded_column(dataset[list(rows)][image], where).to_pylist())

    paths = pc.struct_field(dataset.data.column(image), "path").to_pylist()
    return RawData(
        images=encoded_images(
            fetch, lambda row: f"the image of row {row} in {str(where)!r}", len(dataset), preprocessing
        ),
        labels=integer_labels(dataset.data.column(label).to_numpy(), where),
        names=parquet.unique_names(paths),
        classes=getattr(dataset.features[label], "num_classes", None),
    )


def _from_files(hub: HubDataset, split: str, preprocessing: Preprocessing) -> RawData:
    """The split from the repository's files, in the cache of huggingface_hub or from the network."""
    from huggingface_hub import snapshot_download

    from gauntlet.bench.data.formats.parquet import ordered_shards, read_parquet

    pattern = f"{hub.folder}/{split}-*.parquet"
    try:
        snapshot = Path(snapshot_download(hub.repository, repo_type="dataset", allow_patterns=[pattern]))
    except Exception as error:  # no network, no such repository, or no access
        reason = (str(error).splitlines() or [""])[0]
        raise HubError(
            f"{pattern} of https://huggingface.co/datasets/{hub.repository} is not cached and cannot be downloaded "
            f"({type(error).__name__}: {reason})"
        ) from error
    paths = list(snapshot.glob(pattern))
    if not paths:
        raise HubError(f"https://huggingface.co/datasets/{hub.repository} has no {pattern}")
    return read_parquet(ordered_shards(paths), preprocessing)
