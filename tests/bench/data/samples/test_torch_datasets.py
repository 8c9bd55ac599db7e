"""Torch data sets, loaders, and functions that return them, as evaluation data."""

import sys

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from datafiles import random_data
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.data.samples.in_memory import from_arrays, from_dataset

# files


# torch data sets and loaders


class Dicts(Dataset):
    classes = ("cat", "dog", "cow", "pig")

    def __init__(self, read=None):
        self.images, self.labels = random_data(10, 3)
        self.read = [] if read is None else read

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.read.append(index)
        return {"image": self.images[index], "label": self.labels[index]}


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(*random_data(), strict=True)


class Augmented(Dicts):
    def __getitem__(self, index):
        return torch.rand(3, 5, 7), 0


def test_data_sets_and_loaders_give_the_same_data_as_their_arrays():
    images, labels = random_data(10, 3)
    expected = from_arrays(images, labels, classes=4)
    pairs = TensorDataset(images, labels)
    pictures = [
        (Image.fromarray((one.permute(1, 2, 0) * 255).to(torch.uint8).numpy()), int(k))
        for one, k in zip(images, labels, strict=True)
    ]
    for source in (pairs, DataLoader(pairs, batch_size=4), Dicts(), DataLoader(Dicts(), batch_size=3)):
        data = from_dataset(source, classes=4)
        assert torch.equal(data.images, expected.images)
        assert torch.equal(data.labels, expected.labels)
        assert data.ids == expected.ids
        assert data.classes == 4
    assert torch.equal(from_dataset(pictures).images, (images * 255).to(torch.uint8) / 255)
    assert len(from_dataset(Stream())) == len(from_dataset(DataLoader(Stream(), batch_size=None))) == 6


def test_a_limit_reads_no_more_than_it_says_and_the_data_set_names_its_classes():
    source = Dicts()
    data = from_dataset(source, limit=9)
    assert (len(data), data.classes) == (9, 4)
    assert 9 not in source.read
    assert len(from_dataset(DataLoader(Dicts(), batch_size=4), limit=5)) == 5
    with pytest.raises(ValueError, match="limit=0"):
        from_dataset(source, limit=0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda: DataLoader(Dicts(), shuffle=True), "shuffle=False"),
        (
            lambda: DataLoader(
                Dicts(),
                batch_sampler=torch.utils.data.BatchSampler(torch.utils.data.RandomSampler(range(10)), 2, False),
            ),
            "shuffle",
        ),
        (lambda: Augmented(), "sample 0 differs when it is read again"),
        (lambda: [(torch.rand(1, 4, 4), 0), (torch.rand(1, 4, 5), 1)], "sample 1 .* one size"),
        (lambda: [(torch.rand(1, 4, 4), 0.5)], "label of sample 0 is 0.5"),
        (lambda: [(torch.rand(1, 4, 4), "cat")], "label of sample 0 is 'cat'"),
        (lambda: [torch.rand(1, 4, 4)], "a sample is a Tensor"),
        (lambda: [{"picture": 1, "label": 0}], "keys .*label.*picture"),
        (list, "no samples"),
        (
            lambda: [(torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0)), 0)] * 3,
            "normalise inside the model",
        ),
    ],
)
def test_a_data_set_that_cannot_be_evaluated_again_or_is_malformed_is_refused(source, message):
    with pytest.raises(ValueError, match=message):
        from_dataset(source())


# functions of the user's


USERS = """
import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

images, labels = torch.arange(12).view(12, 1, 1, 1).expand(12, 1, 2, 3) / 12, torch.arange(12) % 3

def pair(): return images, labels
def triple(): return images.numpy(), labels.numpy(), [f"n{i}" for i in range(12)]
def dataset(): return TensorDataset(images, labels)
def loader(): return DataLoader(TensorDataset(images, labels), batch_size=5)
def nothing(): return None
def short_stream():
    yield from zip(images[:7], labels[:7])
    raise OSError("read too far")
def fails(): raise RuntimeError("the disk is gone")
"""


@pytest.fixture
def users(tmp_path, monkeypatch):
    (tmp_path / "users_data_module.py").write_text(USERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("users_data_module", None)


@pytest.mark.parametrize("function", ["pair", "triple", "dataset", "loader"])
def test_a_function_of_a_module_gives_arrays_a_data_set_or_a_loader(users, function):
    data = load_data(f"users_data_module:{function}", samples="2:7", classes=4)
    assert torch.equal(data.images[:, 0, 0, 0], torch.arange(2, 7) / 12)
    assert data.labels.tolist() == [2, 0, 1, 2, 0]
    assert (data.positions, data.classes) == ((2, 3, 4, 5, 6), 4)
    assert data.ids == tuple(f"n{i}" if function == "triple" else str(i) for i in range(2, 7))
    assert (data.name, data.spec) == (f"users_data_module:{function}",) * 2


def test_no_more_of_a_stream_is_read_than_the_selection_needs(users):
    assert load_data("users_data_module:short_stream", samples="2:7").positions == (2, 3, 4, 5, 6)
    with pytest.raises(OSError, match="read too far"):
        load_data("users_data_module:short_stream", samples="2:8")


def test_a_function_of_a_file_is_found_by_the_files_path(users):
    spec = f"{users / 'users_data_module.py'}:pair"
    data = load_data(spec)
    assert (len(data), data.classes, data.name, data.spec) == (12, 3, "users_data_module:pair", spec)


def test_a_function_that_returns_nothing_is_refused_and_its_own_errors_are_passed_on(users):
    with pytest.raises(ValueError, match=r"nothing.* returned NoneType"):
        load_data("users_data_module:nothing")
    with pytest.raises(RuntimeError, match="the disk is gone"):
        load_data("users_data_module:fails")
    with pytest.raises(ValueError, match="more than the 12 samples"):
        load_data("users_data_module:dataset", samples="13")
