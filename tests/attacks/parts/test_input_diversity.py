"""What the transferring attacks do to images and gradients, against the same done one image at a time."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import norm as gaussian
from torch.nn.functional import conv2d, interpolate, pad

from gauntlet.attacks.ops.random import Draws, sample_keys
from gauntlet.attacks.parts.input_diversity import diversify
from gauntlet.attacks.parts.smoothing_kernel import scaled_length, smooth


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def placements(image, least):
    """Every picture that diversity may make of an image (C, H, W), as interpolation and padding, one by one."""
    height, width = image.shape[1:]
    lowest = (min(int(least * height), height - 1), min(int(least * width), width - 1))
    for tall in range(lowest[0], height):
        for wide in range(lowest[1], width):
            shrunk = interpolate(image[None], (tall, wide), mode="bilinear", align_corners=False)[0]
            for top in range(height - tall + 1):
                for left in range(width - wide + 1):
                    yield (tall, wide, top, left), pad(shrunk, (left, width - wide - left, top, height - tall - top))


def draws(count, seed=0):
    return Draws.start(sample_keys(seed, "test", [str(i) for i in range(count)]))


@pytest.mark.parametrize(
    ("shape", "least", "kinds"),
    [((1, 8, 8), 0.9, 4), ((3, 16, 16), 0.85, 29), ((2, 10, 5), 0.7, None)],
    ids=["digit", "colour", "oblong"],
)
def test_every_slot_is_resized_and_padded_by_a_draw_of_its_own_and_all_are_reached(generator, shape, least, kinds):
    image = 0.2 + 0.8 * torch.rand(shape, generator=generator, dtype=torch.float64)
    moved = diversify(image.expand(600, *shape), draws(600), probability=1, least=least)
    possible = dict(placements(image, least))
    pictures = torch.stack(list(possible.values())).flatten(1)
    apart, which = torch.cdist(moved.flatten(1), pictures, p=torch.inf).min(1)
    assert apart.max() < 1e-12
    reached = {list(possible)[index] for index in which.tolist()}
    if kinds is None:
        # The sides keep their proportion, up to rounding.
        assert {(tall, wide) for tall, wide, *_ in reached} == {(7, 3), (8, 3), (8, 4), (9, 4)}
    else:
        square = {key for key in possible if key[0] == key[1]}
        assert len(square) == kinds
        assert reached == square


def test_an_image_that_the_draw_leaves_alone_is_returned_bit_by_bit(generator):
    images = torch.rand(2000, 1, 8, 8, generator=generator) + 0.1
    moved = diversify(images, draws(2000), probability=0.3, least=0.9)
    changed = (moved != images).flatten(1).any(1)
    assert 0.26 < changed.double().mean() < 0.34
    assert torch.equal(diversify(images, draws(2000), probability=0, least=0.9), images)
    assert not torch.equal(moved, diversify(images, draws(2000, seed=1), probability=0.3, least=0.9))


def test_the_gradient_through_diversity_is_the_one_of_finite_differences(generator):
    images = torch.rand(4, 2, 6, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: diversify(x, draws(4), probability=0.7, least=0.5), images)


@pytest.mark.parametrize(("length", "sigmas"), [(3, 1.0), (15, 3.0), (5, 2.0)])
def test_smoothing_is_a_convolution_with_the_papers_kernel_also_where_it_is_larger_than_the_image(
    generator, length, sigmas
):
    gradient = torch.randn(3, 2, 8, 11, generator=generator, dtype=torch.float64)
    line = torch.tensor(gaussian.pdf(torch.linspace(-sigmas, sigmas, length)), dtype=torch.float64)
    kernel = torch.outer(line, line) / line.sum() ** 2
    expected = conv2d(gradient, kernel.expand(2, 1, length, length), padding=length // 2, groups=2)
    torch.testing.assert_close(smooth(gradient, length, sigmas), expected, rtol=1e-6, atol=1e-8)


def test_the_kernel_that_suits_an_image_has_the_papers_share_of_it():
    assert [scaled_length(side) for side in (8, 32, 64, 224, 299)] == [3, 3, 3, 11, 15]
