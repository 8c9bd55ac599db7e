"""Preprocessing of images: sizes, offsets and pixels as torchvision's evaluation transforms give them for Pillow images."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.data.samples.preprocessing import PLAIN, Preprocessing, preprocess, with_settings

SMOOTH = 128 + 60 * np.sin(np.add.outer(np.arange(60), 2 * np.arange(90))[..., None] / np.array([3, 7, 19]))
"""Far enough from 0 and 255 that no interpolation overshoots them, where Pillow clips between its two passes."""


def picture(width, height, mode="RGB", seed=0):
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize(
    ("size", "resize", "expected"),
    [
        ((500, 375), 256, (341, 256)),  # int(256 * 500 / 375) = 341: cut, not rounded
        ((375, 500), 256, (256, 341)),
        ((256, 256), 256, (256, 256)),
        ((256, 400), 256, (256, 400)),
        ((100, 90), 256, (284, 256)),
        ((30, 20), (7, 11), (11, 7)),
    ],
)
def test_the_shorter_side_gets_the_size_and_the_longer_one_keeps_the_ratio(size, resize, expected):
    image = picture(*size)
    found = preprocess(image, Preprocessing(resize=resize))
    assert found.size == expected
    assert np.array_equal(found, image.resize(expected, Image.Resampling.BILINEAR))


@pytest.mark.parametrize(
    ("size", "crop", "corner"),
    [
        ((10, 9), 4, (3, 2)),  # (9 - 4) / 2 = 2.5 is rounded to the even 2
        ((11, 8), 4, (4, 2)),  # 3.5 is rounded to the even 4
        ((4, 4), 4, (0, 0)),
        ((341, 256), 224, (58, 16)),  # 58.5 to 58
    ],
)
def test_the_crop_is_cut_from_the_middle_with_offsets_rounded_half_to_even(size, crop, corner):
    image = picture(*size)
    left, top = corner
    found = np.asarray(preprocess(image, Preprocessing(crop=crop)))
    assert np.array_equal(found, np.asarray(image)[top : top + crop, left : left + crop])


def test_an_image_smaller_than_the_crop_is_filled_up_with_black_more_of_it_right_and_below():
    image = picture(5, 8, "L")
    found = np.asarray(preprocess(image, Preprocessing(crop=8)))
    assert np.array_equal(found[:, 1:6], image)
    assert not found[:, 0].any()
    assert not found[:, 6:].any()
    both = np.asarray(preprocess(picture(3, 2, "L"), Preprocessing(crop=5)))
    assert np.array_equal(both[1:3, 1:4], picture(3, 2, "L"))
    assert both.sum() == np.asarray(picture(3, 2, "L"), dtype=int).sum()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("side", [24, 45, 120])
def test_resizing_is_the_antialiased_interpolation_of_torch_to_within_rounding(interpolation, side):
    """An independent implementation of the same filters; Pillow rounds to a level after each of two passes."""
    image = Image.fromarray(SMOOTH.astype(np.uint8))
    found = np.asarray(preprocess(image, Preprocessing(resize=(side, side), interpolation=interpolation)), dtype=float)
    pixels = torch.from_numpy(np.floor(SMOOTH)).permute(2, 0, 1)[None]
    other = interpolate(pixels, (side, side), mode=interpolation, antialias=True, align_corners=False)
    gap = np.abs(found - other[0].permute(1, 2, 0).numpy().clip(0, 255))
    assert gap.max() <= 1.1
    assert gap.mean() < 0.4


def test_the_default_of_imagenet_is_resize_256_crop_224_bilinear(tmp_path):
    from gauntlet.bench.data.catalog import DATA

    assert DATA.get("imagenet").card.preprocessing == "mode=RGB, resize=256, crop=224, interpolation=bilinear"


def test_colours_are_converted_before_anything_else():
    image = picture(20, 30).convert("CMYK")
    found = preprocess(image, Preprocessing("RGB", resize=8, crop=6))
    expected = image.convert("RGB").resize((8, 12), Image.Resampling.BILINEAR).crop((1, 3, 7, 9))
    assert np.array_equal(found, expected)
    assert preprocess(picture(4, 4), Preprocessing("L")).mode == "L"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resize": 0}, "resize=0 must be a whole number"),
        ({"resize": 2.5}, "resize=2.5"),
        ({"resize": True}, "resize=True"),
        ({"resize": "big"}, "resize='224x224'"),
        ({"resize": "0x3"}, "resize=0"),
        ({"crop": -1}, "crop=-1"),
        ({"crop": "224"}, "crop='224'"),
        ({"mode": "CMYK"}, "mode='CMYK' is not known: use one of L, RGB"),
        ({"resize": 8, "interpolation": "cubic"}, "interpolation='cubic' is not known: use one of nearest, bilinear"),
        ({"interpolation": "bicubic"}, "needs resize: add resize=256"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_the_way_out(settings, message):
    with pytest.raises(ValueError, match=message):
        with_settings(PLAIN, settings)


def test_preprocessing_reads_as_it_is_written():
    how = with_settings(PLAIN, {"resize": "30x40", "crop": 24, "interpolation": "bicubic", "mode": "L"})
    assert how == Preprocessing("L", (30, 40), 24, "bicubic")
    assert str(how) == "mode=L, resize=30x40, crop=24, interpolation=bicubic"
    assert str(PLAIN) == ""
    assert str(Preprocessing(crop=3)) == "crop=3"


def test_a_folder_of_images_of_all_sizes_and_modes_is_evaluated_once_it_is_told_how(tmp_path):
    images = {"a/1.png": picture(40, 30), "a/2.png": picture(31, 50, "L"), "b/1.png": picture(64, 64).convert("RGBA")}
    for name, image in images.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image.save(tmp_path / name)
    with pytest.raises(ValueError, match=r"resize or convert .* \(resize=256, crop=224, mode=RGB\)|mode=RGB"):
        load_data(str(tmp_path))
    spec = f"{tmp_path}(resize=16, crop=12, mode=RGB)"
    data = load_data(spec)
    how = Preprocessing("RGB", 16, 12)
    for found, name in zip(data.images, data.ids, strict=True):
        expected = np.asarray(preprocess(images[name], how)).transpose(2, 0, 1) / np.float32(255)
        assert np.array_equal(found, expected)
    assert (data.name, data.spec) == (f"{tmp_path.name}(mode=RGB, resize=16, crop=12, interpolation=bilinear)", spec)
    with pytest.raises(ValueError, match="has the unknown setting 'size': files have"):
        load_data(f"{tmp_path}(size=16)")


def test_arrays_are_prepared_as_their_images_would_be(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 20, 16), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=pixels, labels=np.arange(5))
    data = load_data(f"{tmp_path / 'x.npz'}(resize=8, crop=6, interpolation=bicubic)")
    image = Image.fromarray(pixels[3].transpose(1, 2, 0))
    expected = np.asarray(preprocess(image, Preprocessing(None, 8, 6, "bicubic"))).transpose(2, 0, 1)
    assert torch.equal(data.images[3], torch.from_numpy(expected.copy()) / 255)
    grey = load_data(f"{tmp_path / 'x.npz'}(mode=L)")
    assert grey.images.shape == (5, 1, 20, 16)
