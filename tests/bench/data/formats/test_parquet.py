"""Parquet files of data sets, made by the tests, and what is refused."""

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from datafiles import PAGE, noise, png
from gauntlet.bench.data.formats.parquet import read_parquet
from gauntlet.bench.data.load_data import load_data

FEATURES = {
    "info": {"features": {"image": {"_type": "Image"}, "label": {"names": list("abcde"), "_type": "ClassLabel"}}}
}


def parquet(path, contents, labels, *, names=None, group=3, image="image", label="label", features=None):
    rows = [{"bytes": one, "path": None if names is None else names[i]} for i, one in enumerate(contents)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({image: pa.array(rows, kind), label: pa.array(labels)})
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=group)


def test_the_rows_of_several_parquet_files_are_read_in_order_and_by_any_index(tmp_path):
    pixels = noise((10, 6, 5, 3))
    contents = [png(one) for one in pixels]
    parquet(tmp_path / "test-00000-of-00002.parquet", contents[:7], [0, 1, 2, 0, 1, 2, 0], features=FEATURES)
    parquet(tmp_path / "test-00001-of-00002.parquet", contents[7:], [1, 2, 0], group=2)
    data = load_data(str(tmp_path))
    expected = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()) / 255
    assert torch.equal(data.images, expected)
    assert (data.labels.tolist(), data.classes) == ([0, 1, 2, 0, 1, 2, 0, 1, 2, 0], 5)
    assert data.ids == tuple("0123456789")
    raw = read_parquet(sorted(tmp_path.glob("*.parquet")))
    for index in ([9, 0, 6, 7], [3], list(range(10)), [8, 2, 8]):
        assert torch.equal(raw.images[index], expected[index])


def test_a_parquet_file_names_its_samples_by_their_paths_where_these_are_unique(tmp_path):
    contents = [png(one) for one in noise((3, 4, 4))]
    parquet(tmp_path / "a.parquet", contents, [0, 1, 0], names=["x.png", "y.png", "z.png"])
    parquet(tmp_path / "b.parquet", contents, [0, 1, 0], names=["x.png", "x.png", "z.png"])
    assert load_data(str(tmp_path / "a.parquet")).ids == ("x.png", "y.png", "z.png")
    assert load_data(str(tmp_path / "b.parquet"), samples="1:3").ids == ("1", "2")


def test_a_column_of_bytes_as_pandas_writes_it_is_read(tmp_path):
    pixels = noise((4, 4, 4))
    frame = pd.DataFrame({"img": [png(one) for one in pixels], "target": [1, 0, 2, 2]})
    frame.to_parquet(tmp_path / "mine.parquet")
    data = load_data(str(tmp_path / "mine.parquet"))
    assert torch.equal(data.images, torch.from_numpy(pixels[:, None]) / 255)
    assert (data.labels.tolist(), data.classes, data.name) == ([1, 0, 2, 2], 3, "mine")


def test_a_parquet_file_with_a_fault_is_refused(tmp_path):
    path, contents = tmp_path / "x.parquet", [png(one) for one in noise((3, 4, 4))]
    for table, message in (
        ({"picture": contents, "label": [0, 1, 0]}, "its columns are picture, label.* must hold the images"),
        ({"image": contents, "klass": [0, 1, 0]}, "its columns are image, klass.* must hold the labels"),
        ({"image": contents, "label": ["cat", "dog", "cat"]}, "its labels are object|its labels are <U"),
        ({"image": contents, "label": [0.0, 1.0, 0.0]}, "its labels are float64"),
        ({"image": contents, "label": [0, None, 0]}, "1 rows have no label"),
        ({"image": ["a", "b", "c"], "label": [0, 1, 0]}, "its images are of type string"),
        ({"image": [contents[0], None, contents[1]], "label": [0, 1, 0]}, "1 rows have a path but no bytes"),
        ({"image": [contents[0], PAGE, contents[1]], "label": [0, 1, 0]}, r"row 1 of '.*x\.parquet' cannot be read"),
        (
            {"image": [contents[0], png(noise((5, 4))), contents[1]], "label": [0, 1, 0]},
            "row 1 of .* one size and mode",
        ),
        ({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}, "it has no rows"),
    ):
        pq.write_table(pa.table(table), path)
        with pytest.raises(ValueError, match=message):
            load_data(str(path))
    parquet(path, contents, [0, 1, 0])
    whole = path.read_bytes()
    for content in (b"", PAGE, whole[: len(whole) // 2], whole[:4] + bytes(80) + whole[84:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.parquet' cannot be read"):
            load_data(str(path))


def test_a_part_of_a_set_in_several_files_that_is_missing_is_named(tmp_path):
    for number in (0, 2):
        parquet(tmp_path / f"test-0000{number}-of-00003.parquet", [png(one) for one in noise((3, 4, 4))], [0, 1, 0])
    with pytest.raises(ValueError, match="part 1 of the same set is missing"):
        load_data(str(tmp_path))
