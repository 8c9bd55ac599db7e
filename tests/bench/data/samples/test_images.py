"""Images that are read when they are indexed: like a tensor, and never more of them in memory than were asked for."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from datafiles import noise
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.data.samples import in_memory as arrays
from gauntlet.bench.data.samples import lazy_images as module
from gauntlet.bench.data.samples.dataset import Data, block_digest, blocks
from gauntlet.bench.data.samples.in_memory import from_arrays, from_dataset
from gauntlet.bench.data.samples.lazy_images import Images, array_images, load_if_small, select_images
from gauntlet.bench.data.samples.selection import select


def lazy(images, labels=None, classes=5, ids=None):
    count = len(images)
    return Data(
        name="x",
        images=array_images(images),
        labels=torch.arange(count) % classes if labels is None else torch.tensor(labels),
        ids=tuple(map(str, range(count))) if ids is None else ids,
        classes=classes,
        spec="x",
        positions=tuple(range(count)),
    )


INDICES = (
    3,
    -1,
    slice(None),
    slice(2, 7),
    slice(0, 0),
    slice(-3, None),
    [],
    [4, 4, 0],
    (1, 2),
    range(2, 9, 3),
    torch.tensor([5, 1]),
    torch.tensor(6),
    np.array([0, 8]),
    torch.arange(9) % 2 == 0,
)


@pytest.mark.parametrize("index", INDICES, ids=lambda one: str(one).replace(" ", ""))
@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64, ">f4"])
def test_images_are_indexed_like_the_tensor_that_they_would_be(index, kind):
    array = noise((9, 2, 4, 3)) if kind == np.uint8 else (noise((9, 2, 4, 3)) / 255).astype(kind)
    images = array_images(array)
    whole = from_arrays(array, np.arange(9)).images
    wanted = whole[list(index)] if isinstance(index, tuple | range) else whole[index]
    found = images[index]
    assert isinstance(found, torch.Tensor)
    assert found.dtype == images.dtype == whole.dtype
    assert torch.equal(found, wanted)
    assert found.is_contiguous()
    assert (images.shape, images.ndim, len(images)) == (whole.shape, whole.ndim, len(whole))


def test_what_is_read_is_an_own_copy():
    array = noise((4, 1, 2, 2)) / 255
    images = array_images(array)
    images[1].zero_()
    images[:][2] = 0
    assert torch.equal(images[:], torch.from_numpy(array))


@pytest.mark.parametrize("index", [9, -10, [0, 9], torch.tensor([9])])
def test_an_index_outside_is_an_error(index):
    with pytest.raises(IndexError):
        array_images(noise((9, 1, 2, 2)))[index]


def test_a_selection_of_a_selection_reads_the_right_ones_and_nothing_before():
    asked = []
    array = noise((50, 1, 3, 3))

    def read(rows):
        asked.extend(rows)
        return array[rows]

    images = Images(read, 50, (1, 3, 3))
    some = select_images(select_images(images, range(10, 40)), torch.tensor([29, 0, 5]))
    data = select(lazy(array), "stratified:20")
    assert isinstance(some, Images)
    assert isinstance(data.images, Images)
    assert asked == []
    assert torch.equal(some[1:], torch.from_numpy(array[[10, 15]]) / 255)
    assert asked == [10, 15]


def test_unread_data_have_the_digests_of_the_same_data_in_memory():
    array, ids = noise((250, 3, 4, 4)), tuple(f"s{number}" for number in range(250))
    inside = from_arrays(array, np.arange(250) % 5, ids=ids)
    outside = lazy(array, ids=ids)
    for indices in (*blocks(outside), [7, 3], range(5)):
        assert block_digest(outside, indices) == block_digest(inside, indices)


def test_sets_that_fit_are_read_once_and_larger_ones_stay_unread(monkeypatch):
    images = array_images(noise((300, 3, 4, 4)))
    size = 300 * 3 * 4 * 4 * 4
    monkeypatch.setattr(module, "MEMORY_LIMIT", size)
    whole = load_if_small(images)
    assert isinstance(whole, torch.Tensor)
    assert torch.equal(whole, images[:])
    monkeypatch.setattr(module, "MEMORY_LIMIT", size - 1)
    assert load_if_small(images) is images
    assert load_if_small(whole) is whole


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (float("nan"), r"sample '137' \(position 137\) .* nan .* NaN"),
        (255.0, r"sample '137' .* 255.0 at channel, row, column \(1, 0, 2\).*divide by 255"),
        (-0.5, "normalise inside the model"),
    ],
)
def test_floats_outside_the_box_are_found_without_reading_all_at_once(bad, message):
    array = (noise((250, 2, 3, 3)) / 255).astype(np.float32)
    array[137, 1, 0, 2] = bad
    largest = 0

    def read(rows):
        nonlocal largest
        largest = max(largest, len(rows))
        return array[rows]

    fields = {
        "name": "x",
        "labels": torch.arange(250) % 5,
        "ids": tuple(map(str, range(250))),
        "classes": 5,
        "spec": "x",
    }
    with pytest.raises(ValueError, match=message):
        Data(images=Images(read, 250, (2, 3, 3), np.float32), positions=tuple(range(250)), **fields)
    assert largest == 100


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (noise((4, 1, 3, 3)).astype(np.int64), "dtype torch.int64: give float32 or float64"),
        (noise((4, 8, 9, 3)), r"looks like \(N, H, W, C\)"),
        (noise((0, 1, 3, 3)), "no samples"),
        (noise((4, 1, 0, 3)), "no pixels"),
    ],
)
def test_unread_data_with_a_fault_are_refused_as_tensors_are(array, message):
    with pytest.raises(ValueError, match=message):
        lazy(array)


def test_a_fault_of_a_picture_is_found_when_it_is_read_and_names_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MEMORY_LIMIT", 0)
    for number in range(6):
        path = tmp_path / f"{number % 2}/{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise((4, 4 + (number == 3)))).save(path)
    (tmp_path / "1/5.png").write_bytes(b"<html>")
    data = load_data(str(tmp_path))
    assert data.images.shape == (6, 1, 4, 4)
    assert data.images[:3].shape == (3, 1, 4, 4)
    with pytest.raises(ValueError, match=r"3\.png' has channels, height, width \(1, 4, 5\), but the first image"):
        data.images[3]
    with pytest.raises(ValueError, match=r"5\.png' cannot be read"):
        data.images[[0, 5]]


class Listed(torch.utils.data.Dataset):
    classes = tuple("abcd")

    def __init__(self, images):
        self.images = images
        self.read = []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.read.append(index)
        return self.images[index], index % 3


@pytest.mark.parametrize("shape", [(3, 4, 4), (4, 4)])
@pytest.mark.parametrize("scale", [1, 255])
def test_a_torch_data_set_that_does_not_fit_is_read_again_when_it_is_indexed(monkeypatch, shape, scale):
    pixels = torch.from_numpy(noise((30, *shape)))
    source = Listed(pixels if scale == 1 else pixels / 255)
    whole = from_dataset(source)
    monkeypatch.setattr(arrays, "MEMORY_LIMIT", 29 * 4 * pixels[0].numel())
    data = from_dataset(source)
    assert isinstance(data.images, Images)
    assert torch.equal(data.images[:], whole.images)
    assert (data.labels.tolist(), data.ids, data.classes) == (whole.labels.tolist(), whole.ids, 4)
    source.read.clear()
    assert torch.equal(data.images[[7, 2]], whole.images[[7, 2]])
    assert source.read == [7, 2]
    assert isinstance(from_dataset(source, limit=29).images, torch.Tensor)
    assert isinstance(from_dataset(torch.utils.data.DataLoader(source, batch_size=4)).images, torch.Tensor)
    if scale == 255:
        source.images[29] = 3
        with pytest.raises(ValueError, match=r"sample '29' .* outside \[0, 1\]"):
            from_dataset(source)


# --- memory ---------------------------------------------------------------------------------------------------------

PICTURES = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image

root, count = Path(sys.argv[1]), int(sys.argv[2])
pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
for label in range(10):
    (root / f"c{label}").mkdir(parents=True)
for number in range(count):
    Image.fromarray(pixels[number]).save(root / f"c{number % 10}/{number:05d}.png", compress_level=0)
"""

WALK = """
import resource, sys
from gauntlet.bench.data.samples.dataset import block_digest, blocks
from gauntlet.bench.data.load_data import load_data

spec, count, megabytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
few = load_data(spec, samples="200")
digests = [block_digest(few, indices) for indices in blocks(few)]
taken = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData:")) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (taken + megabytes * 2**20,) * 2)
data = load_data(spec, samples=str(count))
digests = {block_digest(data, indices) for indices in blocks(data)}
assert len(data) == count
assert len(digests) == count // 100
data.images[:]
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a process's data are limited as Linux does it")
@pytest.mark.parametrize(
    ("count", "side"),
    [pytest.param(3_000, 96, id="3,000 of 96"), pytest.param(50_000, 32, id="50,000 of 32", marks=pytest.mark.slow)],
)
def test_a_folder_is_walked_through_within_a_memory_limit_in_which_it_does_not_fit(tmp_path, count, side):
    """As tensors these take 332 and 614 MB. What stays is a path, an id and a label of each, and a block of images."""
    subprocess.run([sys.executable, "-c", PICTURES, str(tmp_path / "x"), str(count)], check=True, timeout=300)
    command = [sys.executable, "-c", WALK, f"{tmp_path / 'x'}(resize={side})", str(count), "120"]
    done = subprocess.run(command, check=False, timeout=300, capture_output=True, text=True)
    # Only the last line, which reads all of them at once, comes to the limit.
    assert "data.images[:]" in WALK.splitlines()[-1]
    assert 'File "<string>", line 15' in done.stderr, done.stderr
    assert "not enough memory" in done.stderr or "MemoryError" in done.stderr
