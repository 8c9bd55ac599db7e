"""Corruptions against their definitions: closed forms, slow loops, colorsys, Pillow, and the library where it is installed."""

from __future__ import annotations

import colorsys
import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

import gauntlet
from builders import ROOT
from gauntlet.attacks.ops.random import sample_keys
from gauntlet.attacks.registry.suites import SUITES
from gauntlet.bench import registries
from gauntlet.bench.corruptions import blur, digital, noise, weather
from gauntlet.bench.corruptions.catalog import CORRUPTIONS, SEVERITIES
from gauntlet.bench.corruptions.corrupt import corrupt
from gauntlet.bench.corruptions.image_ops import enlarged, grey, stored, trail
from gauntlet.bench.corruptions.severity_tables import TABLES, table_for
from gauntlet.leaderboard.rows.corruptions import ALEXNET

LIBRARY = ("frost", "spatter")
OWN = [name for name in CORRUPTIONS if name not in LIBRARY]
SHAPES = [(1, 8, 8), (3, 8, 8), (1, 28, 28), (3, 32, 32), (3, 33, 47), (1, 1, 1), (3, 2, 5)]


def generator(seed=3):
    return np.random.RandomState(seed)


def picture(height=32, width=32, channels=3, seed=0):
    """(H, W, C) of 8-bit values, smooth enough that neighbours are alike."""
    values = np.random.default_rng(seed).random((height, width, channels))
    smooth = gaussian_filter(values, (2, 2, 0)) if min(height, width) > 4 else values
    low, high = smooth.min(), smooth.max()
    return np.rint(255 * (smooth - low) / max(high - low, 1e-9)) / 255


def batch(shape, count=3):
    channels, height, width = shape
    images = [picture(height, width, channels, seed) for seed in range(count)]
    return torch.tensor(np.stack(images)).permute(0, 3, 1, 2).to(torch.float32), [f"test/{i}" for i in range(count)]


# What holds for all


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", OWN)
def test_every_corruption_gives_images_of_the_same_shape_in_8_bits(name, shape):
    known = CORRUPTIONS[name].channels
    if known is not None and shape[0] not in known:
        pytest.skip("refused")
    images, ids = batch(shape)
    for severity in SEVERITIES:
        found = corrupt(images, ids, name, severity, seed=0)
        assert found.shape == images.shape
        assert found.dtype == images.dtype
        assert 0 <= found.min() <= found.max() <= 1
        assert torch.allclose(255 * found, (255 * found).round(), atol=1e-4)


@pytest.mark.parametrize("name", OWN)
def test_a_large_severity_changes_every_image(name):
    images, ids = batch((3, 32, 32))
    changed = (corrupt(images, ids, name, 5, seed=0) - images).abs().flatten(1).amax(1)
    assert (changed > 2 / 255).all()


@pytest.mark.parametrize("name", OWN)
def test_an_image_depends_on_its_id_and_the_seed_and_not_on_its_company(name):
    images, ids = batch((3, 16, 16), 4)
    whole = corrupt(images, ids, name, 4, seed=7)
    alone = torch.cat([corrupt(images[[i]], [ids[i]], name, 4, seed=7) for i in (3, 1)])
    assert torch.equal(alone, whole[[3, 1]])
    assert torch.equal(corrupt(images.to(torch.float64), ids, name, 4, seed=7).to(torch.float32), whole)
    fixed = {
        *("defocus_blur", "zoom_blur", "gaussian_blur", "brightness", "contrast", "pixelate", "jpeg_compression"),
        "saturate",
    }
    for other in (corrupt(images, ids[::-1], name, 4, seed=7), corrupt(images, ids, name, 4, seed=8)):
        assert torch.equal(other, whole) == (name in fixed)


def test_corrupting_leaves_the_images_and_the_global_generators_alone():
    images, ids = batch((3, 32, 32))
    before, state, torch_state = images.clone(), np.random.get_state()[1].copy(), torch.get_rng_state()
    for name in OWN:
        corrupt(images, ids, name, 5, seed=0)
    assert torch.equal(images, before)
    assert np.array_equal(np.random.get_state()[1], state)
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_the_random_numbers_are_those_of_the_seed_the_corruption_the_severity_and_the_id():
    images, ids = batch((1, 8, 8))
    found = corrupt(images, ids, "gaussian_noise", 2, seed=5)
    for image, name, now in zip(images, ids, found, strict=True):
        key = int(sample_keys(5, "corruption.gaussian_noise.2", [name])[0])
        drawn = np.random.RandomState(np.random.Philox(key=key)).normal(size=(8, 8, 1), scale=0.06)
        exact = np.floor(255 * np.clip(image.numpy().transpose(1, 2, 0).astype(float) + drawn, 0, 1)) / 255
        np.testing.assert_allclose(now.numpy().transpose(1, 2, 0), exact, atol=1e-6)


def test_a_stored_picture_keeps_each_of_the_256_levels_and_cuts_off_between_them():
    levels = np.arange(256).reshape(16, 16, 1) / 255
    assert np.array_equal(stored(levels), levels)
    assert np.array_equal(stored(levels.astype(np.float32).astype(np.float64)), levels)
    assert np.array_equal(stored(levels[:, :15] + 0.99 / 255), levels[:, :15])
    assert stored(np.array([[[-0.2], [1.7]]])).ravel().tolist() == [0, 1]


@pytest.mark.parametrize("name", [name for name in OWN if CORRUPTIONS[name].channels is not None])
def test_images_of_other_channels_are_refused_by_the_corruption_s_name(name):
    images, ids = torch.zeros(2, 4, 8, 8), ["a", "b"]
    with pytest.raises(ValueError, match=rf"corruption '{name}' is for images of .* channels, not of 4"):
        corrupt(images, ids, name, 1, seed=0)


# Names, strengths, settings


def test_the_benchmark_has_15_corruptions_and_4_more_and_alexnet_s_errors_are_of_those_15():
    benchmark = [name for name, kind in CORRUPTIONS.items() if kind.of_the_benchmark]
    assert len(benchmark) == 15
    assert len(CORRUPTIONS) == 19
    assert set(ALEXNET) == set(benchmark)
    assert all(0.5 < error < 1 for error in ALEXNET.values())
    for norm in ("Linf", "L2", "L1"):
        assert [member.label for member in SUITES["corruptions-15"][norm]] == [*benchmark[:8], *benchmark[9:], "frost"]
        assert {member.label for member in SUITES["corruptions"][norm]} == set(benchmark) - {"frost"}
        assert all(member.spec == f"corruption.{member.label}" for member in SUITES["corruptions"][norm])


def test_every_table_has_five_strengths_of_every_corruption_but_the_library_s():
    for table in TABLES.values():
        assert set(table) == set(CORRUPTIONS) - {"spatter"}
        assert all(len(settings) == 5 for settings in table.values())


@pytest.mark.parametrize(
    ("height", "width", "table"),
    [(8, 8, "cifar"), (28, 28, "cifar"), (45, 300, "cifar"), (64, 64, "tiny-imagenet"), (96, 96, "tiny-imagenet"),
     (121, 400, "imagenet"), (224, 224, "imagenet")],
)  # fmt: skip
def test_the_table_is_that_of_the_nearest_size(height, width, table):
    assert table_for(height, width) == table


def test_a_table_can_be_named():
    images, ids = batch((1, 32, 32))
    by_size = corrupt(images, ids, "contrast", 1, seed=0)
    assert torch.equal(corrupt(images, ids, "contrast", 1, seed=0, table="cifar"), by_size)
    stronger = corrupt(images, ids, "contrast", 1, seed=0, table="imagenet")
    assert stronger.flatten(1).std(1).mean() < 0.6 * by_size.flatten(1).std(1).mean()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"severity": 6}, "severity=6 must be a whole number from 1 to 5"),
        ({"severity": 0}, "severity=0 must be a whole number from 1 to 5"),
        ({"severity": True}, "severity=True must be a whole number from 1 to 5"),
        ({"severity": 2.5}, "severity=2.5 must be a whole number from 1 to 5"),
        ({"severity": "high"}, "severity='high' must be a whole number from 1 to 5"),
        ({"table": "mnist"}, "table='mnist' is not known: use one of auto, cifar, tiny-imagenet, imagenet"),
        ({"strength": 3}, "has no setting 'strength': it has severity, table"),
        ({"name": "snow"}, "has no setting 'name'"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(settings, match):
    with pytest.raises(ValueError, match=match):
        registries.CORRUPTIONS.get("corruption.fog").make(gauntlet.ThreatModel("L2", 1), **settings)


def test_an_unknown_corruption_is_refused_with_near_ones():
    with pytest.raises(LookupError, match=r"corruption\.fogg.*did you mean corruption\.fog"):
        registries.CORRUPTIONS.get("corruption.fogg")


def test_what_needs_a_library_says_which_extra_to_install(monkeypatch):
    from importlib.metadata import PackageNotFoundError

    from gauntlet.bench.executors import corruption

    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(corruption, "version", absent)
    for name in LIBRARY:
        with pytest.raises(
            ValueError, match=rf"corruption\.{name} needs .*pip install 'robust-gauntlet\[corruptions\]'"
        ):
            registries.CORRUPTIONS.get(f"corruption.{name}").make(gauntlet.ThreatModel("L2", 1))


def test_the_page_of_corruptions_names_them_all():
    page = (ROOT / "docs/corruptions.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in CORRUPTIONS)
    assert all(f"`{name}`" in page for name in SUITES if name.startswith("corruptions"))


# Noise


def test_noise_is_numpy_s_of_the_same_generator():
    image = picture()
    again = generator()
    np.testing.assert_array_equal(
        noise.gaussian_noise(image, generator(), 0.1), image + again.normal(size=image.shape, scale=0.1)
    )
    np.testing.assert_array_equal(noise.shot_noise(image, generator(), 50), generator().poisson(image * 50) / 50)
    speckled = image + image * generator().normal(size=image.shape, scale=0.2)
    np.testing.assert_allclose(noise.speckle_noise(image, generator(), 0.2), speckled, atol=1e-12)


def test_impulse_noise_strikes_the_share_that_is_asked_for_and_makes_half_of_it_white():
    image = np.full((100, 100, 3), 0.4)
    found = noise.impulse_noise(image, generator(), 0.07)
    struck = found != image
    # 2,100 expected, standard deviation 44; of these 1,050 white, 23.
    assert abs(struck.sum() - 2100) < 220
    assert set(np.unique(found[struck])) == {0, 1}
    assert abs(found[struck].mean() - 0.5) < 0.06


# Blur


def test_a_blur_leaves_an_even_picture_even():
    image = np.full((16, 20, 3), 0.5)
    for name in ("gaussian_blur", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"):
        for table, severity in itertools.product(TABLES, range(5)):
            found = getattr(blur, name)(image, generator(), *TABLES[table][name][severity])
            # Glass keeps 8 bits in between, and a disk that reaches the edge of its square weighs a little more.
            np.testing.assert_allclose(found, image, atol=0.007, err_msg=f"{name}, {table}, {severity}")


def test_defocus_blur_is_the_sum_over_a_disk_with_mirrored_edges():
    image = picture(9, 12)
    found = blur.defocus_blur(image, generator(), 2, 1e-3)
    places = [(y, x) for y in range(-2, 3) for x in range(-2, 3) if y * y + x * x <= 4]

    def mirrored(index, size):
        return -index if index < 0 else 2 * (size - 1) - index if index >= size else index

    for row, column in ((0, 0), (4, 6), (8, 11)):
        near = [image[mirrored(row + y, 9), mirrored(column + x, 12)] for y, x in places]
        np.testing.assert_allclose(found[row, column], np.mean(near, axis=0), atol=1e-9)


def test_glass_blur_is_the_authors_loop_copies_included():
    image = picture()

    def authors(sigma, reach, rounds, drawn):
        pixels = np.floor(255 * gaussian_filter(image, (sigma, sigma, 0), mode="nearest", truncate=4) + 1e-6)
        for _ in range(rounds):
            for row in range(32 - reach, reach, -1):
                for column in range(32 - reach, reach, -1):
                    right, down = drawn.randint(-reach, reach, size=(2,))
                    pixels[row, column] = pixels[row + down, column + right]
        return gaussian_filter(pixels / 255, (sigma, sigma, 0), mode="nearest", truncate=4)

    for settings in ((0.05, 1, 1), (0.4, 1, 2), (0.7, 2, 1)):
        found = blur.glass_blur(image, generator(), *settings)
        np.testing.assert_allclose(found, authors(*settings, generator()), atol=1e-12)


@pytest.mark.parametrize(("degrees", "down", "right"), [(0, 0, 1), (-90, -1, 0), (90, 1, 0), (45, 1, 1)], ids=str)
def test_a_trail_is_half_a_normal_kernel_along_its_direction(degrees, down, right):
    image = np.zeros((21, 21, 1))
    image[10, 10] = 1
    found = trail(image, 3, 2, degrees)[..., 0]
    weights = np.exp(-(np.arange(7) ** 2) / 8)
    weights /= weights.sum()
    expected = np.zeros((21, 21))
    for step, weight in enumerate(weights):
        # On a diagonal a step of the kernel is less than a pixel each way.
        length = step if down * right == 0 else int(np.ceil(step * np.sqrt(0.5) - 0.5))
        expected[10 - down * length, 10 - right * length] += weight
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_an_enlarged_middle_is_the_middle_and_of_the_same_size():
    image = picture(32, 48)
    assert np.array_equal(enlarged(image, 1.0), image)
    twice = enlarged(image, 2.0)
    assert twice.shape == image.shape
    np.testing.assert_allclose(twice[0, 0], image[8, 12], atol=1e-12)
    np.testing.assert_allclose(twice[-1, -1], image[23, 35], atol=1e-12)


def test_zoom_blur_is_the_mean_of_the_image_and_its_enlargements():
    image = picture()
    factors = [1 + 0.01 * k for k in range(12)]
    expected = (image + sum(enlarged(image, factor) for factor in factors)) / 13
    np.testing.assert_allclose(blur.zoom_blur(image, generator(), 1.11, 0.01), expected, atol=1e-12)


# Weather


@pytest.mark.parametrize("side", [1, 2, 8, 64])
def test_a_plasma_is_a_height_map_from_0_to_1_and_each_new_point_lies_near_the_mean_of_its_corners(side):
    found = weather.plasma(side, 3.0, generator())
    assert found.shape == (side, side)
    assert found.min() == 0
    assert found.max() == (1 if side > 1 else 0)
    if side == 64:
        # The last middles: a mean of four corners on a torus, and a height 9 to the power of 5 times as small as the first.
        corners = found[::2, ::2]
        middle = (corners + np.roll(corners, -1, 0) + np.roll(corners, -1, 1) + np.roll(corners, (-1, -1), (0, 1))) / 4
        assert np.abs(found[1::2, 1::2] - middle).max() < 1e-4


def test_fog_is_a_cloud_dimmed_so_that_the_brightest_value_is_not_exceeded():
    image = 0.8 * picture(24, 32)
    found = weather.fog(image, generator(), 1.5, 1.75)
    cloud = weather.plasma(32, 1.75, generator())[:24, :32, None]
    np.testing.assert_allclose(found, (image + 1.5 * cloud) * image.max() / (image.max() + 1.5), atol=1e-12)
    assert found.max() <= image.max() + 1e-12


def test_brightness_raises_the_value_and_keeps_hue_and_saturation():
    image = picture(6, 6)
    found = weather.brightness(image, generator(), 0.2)
    for before, after in zip(image.reshape(-1, 3), found.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        np.testing.assert_allclose(after, colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.2)), atol=1e-9)
    np.testing.assert_allclose(
        weather.brightness(grey(image), generator(), 0.3), np.minimum(1, grey(image) + 0.3), atol=1e-12
    )
    assert np.array_equal(weather.brightness(np.zeros((2, 2, 3)), generator(), 0.3), np.full((2, 2, 3), 0.3))


def test_snow_whitens_and_adds_a_layer_and_the_same_turned_by_half_a_circle():
    image = np.full((32, 32, 3), 0.1)
    found = weather.snow(image, generator(), 0.1, 0.2, 1, 0.6, 8, 3, 0.95)
    white = 0.95 * image + 0.05 * (1.5 * 0.1 + 0.5)
    layers = (found - white)[..., 0]
    assert layers.min() > -1e-9
    assert layers.max() > 0.01
    np.testing.assert_allclose(layers, layers[::-1, ::-1], atol=1e-9)


# Digital


def test_contrast_keeps_each_channel_s_mean_and_a_share_of_its_differences():
    image = picture()
    found = digital.contrast(image, generator(), 0.3)
    np.testing.assert_allclose(found.mean(axis=(0, 1)), image.mean(axis=(0, 1)))
    np.testing.assert_allclose(found.std(axis=(0, 1)), 0.3 * image.std(axis=(0, 1)))


@pytest.mark.parametrize(("factor", "more"), [(0.3, 0), (2, 0.1), (20, 0.2)])
def test_saturate_is_colorsys_with_grey_taken_for_red(factor, more):
    image = picture(6, 6)
    image[0, :3] = [[0, 0, 0], [0.5, 0.5, 0.5], [1, 1, 1]]
    found = digital.saturate(image, generator(), factor, more)
    for before, after in zip(image.reshape(-1, 3), found.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        wanted = min(1, saturation * factor + more)
        np.testing.assert_allclose(after, colorsys.hsv_to_rgb(hue, wanted, value), atol=1e-9)


class Fixed:
    """A generator whose uniform numbers are all the same share of the way from the least to the largest."""

    def __init__(self, share):
        self.share = share

    def uniform(self, low, high, size):
        return np.full(size, low + self.share * (high - low))


def test_an_elastic_transform_without_strength_is_the_image_and_an_even_shift_is_a_shift():
    image = picture(20, 28)
    np.testing.assert_allclose(digital.elastic_transform(image, generator(), 0, 0, 0), image, atol=1e-9)
    # All corners by 0.1 of 20 pixels to the right and down, no shift after it.
    found = digital.elastic_transform(image, Fixed(1.0), 0, 0, 0.1)
    np.testing.assert_allclose(found[3:, 3:], image[1:-2, 1:-2], atol=1e-9)
    # No affine map, then each pixel from 0.05 of 20 pixels right of it and below it.
    found = digital.elastic_transform(image, Fixed(1.0), 0.05, 0.2, 0)
    np.testing.assert_allclose(found[:-1, :-1], image[1:, 1:], atol=1e-9)


def test_an_affine_map_takes_the_three_points_to_the_moved_ones():
    image = np.zeros((40, 40, 1))
    # The middle is (20, 20), a third of the side 13: points (x, y).
    points = [(33, 33), (33, 7), (7, 7)]
    for x, y in points:
        image[y - 2 : y + 3, x - 2 : x + 3] = 1
    moves = generator().uniform(-4, 4, size=(3, 2))
    found = digital.elastic_transform(image, generator(), 0, 0, 0.1)[..., 0]
    for (x, y), (right, down) in zip(points, moves, strict=True):
        assert found[round(y + down), round(x + right)] > 0.99


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_and_pixelate_are_pillow_s(channels):
    image = picture(channels=channels)
    pixels = np.rint(255 * image).astype(np.uint8)
    whole = Image.fromarray(pixels.squeeze())
    file = io.BytesIO()
    whole.save(file, "JPEG", quality=40)
    expected = np.asarray(Image.open(file)).reshape(32, 32, channels) / 255
    assert np.array_equal(digital.jpeg_compression(image, generator(), 40), expected)
    small = whole.resize((20, 20), Image.Resampling.BOX).resize((32, 32), Image.Resampling.BOX)
    expected = np.asarray(small).reshape(32, 32, channels) / 255
    assert np.array_equal(digital.pixelate(image, generator(), 0.65), expected)


# Beside the library, which knows ImageNet-C's strengths only


SAME = {
    *("gaussian_noise", "shot_noise", "speckle_noise", "defocus_blur", "motion_blur", "zoom_blur", "gaussian_blur"),
    *("fog", "brightness", "contrast", "pixelate", "jpeg_compression", "saturate"),
}


@pytest.mark.parametrize("name", sorted(SAME))
def test_the_library_gives_the_same_images_from_the_same_random_numbers(name):
    library = pytest.importorskip("imagecorruptions", reason="the extra `corruptions` is not installed")
    image = picture(160, 160)
    for severity in (1, 5):
        state = np.random.get_state()
        np.random.seed(7)
        theirs = library.corrupt(np.rint(255 * image).astype(np.uint8), corruption_name=name, severity=severity)
        np.random.set_state(state)
        room = next(room for room in (noise, blur, weather, digital) if hasattr(room, name))
        ours = stored(getattr(room, name)(image, generator(7), *TABLES["imagenet"][name][severity - 1]))
        # One level, where theirs is computed in float32 or rounded elsewhere.
        assert np.abs(255 * ours - theirs).max() <= 1.001


@pytest.mark.parametrize("name", LIBRARY)
def test_what_uses_the_library_is_keyed_and_leaves_the_global_generator_alone(name):
    pytest.importorskip("imagecorruptions", reason="the extra `corruptions` is not installed")
    images, ids = batch((3, 40, 48), 2)
    state = np.random.get_state()[1].copy()
    found = corrupt(images, ids, name, 5, seed=0)
    assert torch.equal(corrupt(images[[1]], [ids[1]], name, 5, seed=0)[0], found[1])
    assert not torch.equal(corrupt(images, ids, name, 5, seed=1), found)
    assert np.array_equal(np.random.get_state()[1], state)
    assert (found != images).flatten(1).any(1).all()
    if name == "spatter":
        with pytest.raises(ValueError, match="at least 32 × 32"):
            corrupt(images[..., :30], ids, name, 1, seed=0)
    else:
        small, names = batch((1, 8, 8))
        assert corrupt(small, names, name, 3, seed=0).shape == small.shape


# What it is for


def test_a_model_s_accuracy_falls_with_severity_on_average():
    model, data = gauntlet.load_model("cnn.standard_digits").module, gauntlet.load_data("digits")
    images, labels, ids = data.images[:150], data.labels[:150], data.ids[:150]
    names = ("gaussian_noise", "impulse_noise", "motion_blur", "zoom_blur", "fog", "brightness", "contrast", "snow")
    shares = []
    for severity in SEVERITIES:
        with torch.no_grad():
            right = [(model(corrupt(images, ids, name, severity, seed=0)).argmax(1) == labels) for name in names]
        shares.append(float(torch.stack(right).to(torch.float64).mean()))
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.95
    assert shares[-1] < 0.85
