"""Published data sets from Hugging Face: from what `datasets` has cached, else the repository's Parquet files.

`load_dataset` would prepare every split, of ImageNet the training images as well: the files of one split are fetched
by huggingface_hub instead, into its own cache, from which they are read the next time, also without a network.
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
    """The data set cannot be had from Hugging Face; the message says why."""


@dataclass(frozen=True)
class HubDataset:
    """Where a data set lies on Hugging Face."""

    repository: str
    config: str
    folder: str
    """Of the Parquet files, in the repository."""
    splits: tuple[tuple[str, str], ...] = (("test", "test"), ("train", "train"))
    """Our names of the splits, and those that the repository has for them."""

    def split(self, ours: str) -> str:
        """The repository's name of a split."""
        return dict(self.splits)[ours]


def read_hub(hub: HubDataset, split: str, how: Preprocessing) -> RawData:
    """The split, from a cache or the network. Raises HubError, ValueError for files that cannot be read."""
    try:
        import datasets  # noqa: F401
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise HubError(f"the package {error.name} is not installed ({EXTRA})") from error
    cached = _from_datasets(hub, hub.split(split), how)
    return cached if cached is not None else _from_files(hub, hub.split(split), how)


def _from_datasets(hub: HubDataset, split: str, how: Preprocessing) -> RawData | None:
    """What `datasets` prepared at some time; None where it has not, or not this split."""
    import pyarrow.compute as pc

    from gauntlet.bench.data.formats import parquet
    from gauntlet.bench.data.formats.encoded_images import encoded_images
    from gauntlet.bench.data.formats.raw_data import RawData, integer_labels

    name = hub.repository.rpartition("/")[2]
    try:
        from datasets.packaged_modules.cache.cache import Cache

        builder = Cache(repo_id=hub.repository, dataset_name=name, config_name=hub.config, version="auto", hash="auto")
        dataset: Any = builder.as_dataset(split=split).with_format("arrow")
    except (ImportError, ValueError, OSError):  # nothing there, another split only, or another version's cache
        return None
    where = Path(builder.cache_dir)
    image = parquet.column(dataset.column_names, parquet.IMAGES, "images", where)
    label = parquet.column(dataset.column_names, parquet.LABELS, "labels", where)

    def fetch(rows: Sequence[int]) -> list[bytes]:
        return list(parquet.encoded_column(dataset[list(rows)][image], where).to_pylist())

    paths = pc.struct_field(dataset.data.column(image), "path").to_pylist()
    return RawData(
        images=encoded_images(fetch, lambda row: f"the image of row {row} in {str(where)!r}", len(dataset), how),
        labels=integer_labels(dataset.data.column(label).to_numpy(), where),
        names=parquet.unique_names(paths),
        classes=getattr(dataset.features[label], "num_classes", None),
    )


def _from_files(hub: HubDataset, split: str, how: Preprocessing) -> RawData:
    """The repository's own files, from huggingface_hub's cache or the network."""
    from huggingface_hub import snapshot_download

    from gauntlet.bench.data.formats.parquet import ordered_shards, read_parquet

    pattern = f"{hub.folder}/{split}-*.parquet"
    try:
        snapshot = Path(snapshot_download(hub.repository, repo_type="dataset", allow_patterns=[pattern]))
    except Exception as error:  # no network, no such repository, no right to read it
        reason = (str(error).splitlines() or [""])[0]
        raise HubError(
            f"{pattern} of https://huggingface.co/datasets/{hub.repository} is neither cached nor to be had "
            f"({type(error).__name__}: {reason})"
        ) from error
    paths = list(snapshot.glob(pattern))
    if not paths:
        raise HubError(f"https://huggingface.co/datasets/{hub.repository} has no {pattern}")
    return read_parquet(ordered_shards(paths), how)
