"""Arrays as evaluation data: what is accepted, and planted faults that are refused."""

import numpy as np
import pytest
import torch

from datafiles import random_data
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.data.samples.in_memory import from_arrays

# validation, with planted faults


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), -0.25, 1.5])
def test_a_pixel_outside_the_box_is_refused_with_its_sample_position_and_value(bad):
    images, labels = random_data()
    images[4, 0, 2, 3] = bad
    with pytest.raises(ValueError, match=r"sample 'e' \(position 4\)") as error:
        from_arrays(images, labels, ids="abcdef")
    assert repr(bad) in str(error.value)
    assert "(0, 2, 3)" in str(error.value)
    assert "1 of 6 samples" in str(error.value)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda x: (x * 255).round(), "divide by 255"),
        (lambda x: (x * 16).round(), "divide by 16"),
        (lambda x: x * 65535, "divide by the largest value"),
        (lambda x: (x - 0.5) / 0.2, "normalise inside the model"),
        (lambda x: x * 2 - 1, "normalise inside the model"),
        (lambda x: x / x.max() * (1 + 1e-6), "clip"),
        (lambda x: torch.where(x == x.max(), float("nan"), x), "NaN"),
    ],
)
def test_images_outside_the_box_are_refused_with_the_way_out(change, hint):
    images, labels = random_data()
    images[0, 0, 0, 0], images[0, 0, 0, 1] = 0, 1
    with pytest.raises(ValueError, match=hint):
        from_arrays(change(images), labels)


@pytest.mark.parametrize(
    ("planted", "message"),
    [
        (
            {"labels": torch.tensor([0, 1, 2, 3, 0, 1]), "classes": 3},
            r"sample '3' \(position 3\).* label 3, outside 0..2",
        ),
        ({"labels": torch.tensor([0, 1, -1, 2, 0, 1])}, r"sample '2' \(position 2\).* label -1"),
        ({"labels": torch.tensor([1, 2, 3])}, "6 images and 3 labels"),
        ({"labels": torch.eye(6)[:, :3].long()}, "argmax"),
        ({"labels": torch.zeros(6)}, "whole numbers"),
        ({"labels": torch.zeros(6, dtype=torch.bool)}, "whole numbers"),
        ({"labels": np.array(list("abcdef"))}, "not numeric"),
        ({"ids": list("abcde")}, "6 images and 5 ids"),
        ({"ids": list("abcdec")}, "id 'c' .* occurs 2 times, first at index 2 and 5"),
        ({"ids": ["a", "b", "", "d", "e", "f"]}, "id '' at index 2"),
        ({"ids": ["a", "b\nc", "c", "d", "e", "f"]}, "index 1"),
        ({"ids": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]}, "id 0.5 at index 0"),
        ({"classes": 1, "labels": torch.zeros(6).long()}, "at least 2"),
        ({"images": torch.rand(6, 5)}, r"\(6, 5\)"),
        ({"images": torch.rand(6, 1, 1, 5, 7)}, r"give \(N, C, H, W\)"),
        ({"images": torch.rand(6, 1, 0, 7)}, "no pixels"),
        ({"images": torch.zeros(6, 1, 5, 7, dtype=torch.int64)}, "uint8 in 0..255"),
        ({"images": torch.zeros(6, 1, 5, 7, dtype=torch.float16)}, "float32 or float64"),
        ({"images": torch.zeros(6, 1, 5, 7, dtype=torch.bool)}, "dtype"),
        ({"images": torch.zeros(0, 1, 5, 7), "labels": torch.zeros(0).long()}, "no samples"),
        ({"images": torch.rand(6, 32, 32, 3)}, "transpose"),
        ({"images": np.zeros((6, 28, 28, 1), np.uint8)}, "transpose"),
        ({"images": np.eye(7, dtype=np.uint8)[:6, None, None]}, "only 0 and 1.* multiply by 255"),
    ],
)
def test_a_planted_fault_is_refused_with_its_place_and_the_way_out(planted, message):
    images, labels = random_data()
    with pytest.raises(ValueError, match=message):
        from_arrays(**{"images": images, "labels": labels, **planted})


def test_data_built_by_hand_are_validated_too():
    images, labels = random_data(2)
    fine = {"name": "x", "images": images, "labels": labels, "ids": ("a", "b"), "classes": 3, "spec": "x"}
    Data(**fine, positions=(7, 3))
    with pytest.raises(ValueError, match=r"position 7 .* occurs 2 times"):
        Data(**fine, positions=(7, 7))
    with pytest.raises(ValueError, match="negative"):
        Data(**fine, positions=(-1, 0))
    with pytest.raises(ValueError, match=r"position 9\) .* 3.0"):
        Data(**{**fine, "images": images.index_fill(0, torch.tensor(1), 3.0)}, positions=(8, 9))


# arrays in memory


def test_bytes_become_float32_divided_by_255():
    images = np.arange(256, dtype=np.uint8).reshape(2, 1, 16, 8)
    data = from_arrays(images, [0, 1])
    assert data.images.dtype == torch.float32
    assert torch.equal(data.images.flatten(), torch.arange(256) / 255)


def test_images_without_a_channel_axis_gain_one():
    data = from_arrays(np.zeros((4, 9, 3), np.float64), np.array([0, 1, 2, 1], np.uint8))
    assert data.images.shape == (4, 1, 9, 3)
    assert data.images.dtype == torch.float64
    assert data.labels.dtype == torch.int64
    assert (data.classes, data.ids, data.name) == (3, ("0", "1", "2", "3"), "memory")


@pytest.mark.parametrize("shape", [(2, 3, 32, 3), (2, 1, 5, 3), (2, 3, 3, 3), (2, 2, 5, 3), (2, 6, 7, 9)])
def test_channels_first_shapes_are_not_mistaken_for_channels_last(shape):
    assert from_arrays(torch.zeros(shape), [0, 1]).images.shape == shape


def test_data_do_not_change_when_the_callers_arrays_do():
    images, labels = random_data()
    array = images.numpy().copy()
    data, other = from_arrays(images, labels), from_arrays(array, labels.numpy())
    before = data.images.clone()
    images.zero_()
    labels.fill_(1)
    array[:] = 0
    assert torch.equal(data.images, before)
    assert torch.equal(other.images, before)
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_read_only_foreign_ordered_and_differentiable_arrays_are_taken():
    images, labels = random_data()
    array = images.numpy().astype(">f4")
    array.setflags(write=False)
    data = from_arrays(array, labels.numpy().astype(">i2"))
    assert torch.equal(data.images, images)
    assert data.labels.tolist() == labels.tolist()
    assert not from_arrays(images.clone().requires_grad_(), labels).images.requires_grad
