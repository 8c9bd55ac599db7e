"""Random numbers: the published generator, the right distributions, and nothing that depends on company."""

from __future__ import annotations

import math

import pytest
import torch

from gauntlet.attacks.ops.norms import distance, limit, random_point
from gauntlet.attacks.ops.random import Draws, active_draws, model_randomness, philox, sample_keys
from gauntlet.attacks.ops.threat import ThreatModel

KNOWN_ANSWERS = [
    # counter, key, output: the kat_vectors file of Random123 (Salmon et al., SC 2011), philox 4x32 10.
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return [torch.tensor([int(word, 16)]) for word in text.split()]


def draws(count, seed=0):
    return Draws.start(sample_keys(seed, "test", [str(i) for i in range(count)]))


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers_of_random123(counter, key, expected):
    first, second = words(key)
    assert philox(words(counter), (first, second)) == tuple(words(expected))


def test_all_known_answers_come_out_of_one_call_at_once():
    counter = [torch.cat(column) for column in zip(*(words(c) for c, _, _ in KNOWN_ANSWERS), strict=True)]
    key = tuple(torch.cat(column) for column in zip(*(words(k) for _, k, _ in KNOWN_ANSWERS), strict=True))
    expected = torch.stack([torch.cat(words(out)) for _, _, out in KNOWN_ANSWERS])
    assert torch.equal(torch.stack(philox(counter, key), dim=1), expected)


def test_uniform_numbers_have_the_moments_of_the_uniform_distribution():
    sample = draws(200).uniform((5, 100), dtype=torch.float64)
    n = sample.numel()
    assert sample.shape == (200, 5, 100)
    assert 0 <= sample.min() < 1e-3
    assert 1 - 1e-3 < sample.max() < 1
    assert abs(sample.mean() - 1 / 2) < 4 * math.sqrt(1 / 12 / n)
    assert abs(sample.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / n)


def test_normal_numbers_have_the_moments_of_the_normal_distribution_and_no_infinities():
    sample = draws(200).normal((500,), dtype=torch.float64)
    n = sample.numel()
    assert sample.isfinite().all()
    assert abs(sample.mean()) < 4 / math.sqrt(n)
    assert abs(sample.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((sample**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((sample**4).mean() - 3) < 4 * math.sqrt(96 / n)


def test_integers_are_evenly_spread_below_the_bound():
    counts = torch.bincount(draws(100).integers(7, (700,)).flatten(), minlength=7)
    assert len(counts) == 7
    # Chi-squared with 6 degrees of freedom stays below 22.5 in 99.9 % of seeds.
    assert ((counts - 10_000.0) ** 2 / 10_000).sum() < 22.5


def test_numbers_of_neighbouring_samples_steps_restarts_and_tags_are_uncorrelated():
    one = draws(50)
    shifted = [
        one.normal((400,))[1:],
        one.at(step=one.step + 1).normal((400,)),
        one.at(restart=one.restart + 1).normal((400,)),
        one.normal((400,), tag=1),
        draws(50, seed=1).normal((400,)),
    ]
    for other in shifted:
        first = one.normal((400,))[: len(other)]
        correlation = torch.corrcoef(torch.stack([first.flatten(), other.flatten()]))[0, 1]
        assert abs(correlation) < 4 / math.sqrt(other.numel())


def test_a_sample_gets_the_same_numbers_in_any_company_and_order():
    together = draws(9)
    whole = together.normal((3, 4), tag=2)
    order = torch.tensor([7, 0, 8, 3])
    part = Draws(together.keys[order], together.restart[order], together.step[order]).normal((3, 4), tag=2)
    alone = Draws(together.keys[4:5], together.restart[4:5], together.step[4:5]).normal((3, 4), tag=2)
    assert torch.equal(part, whole[order])
    assert torch.equal(alone, whole[4:5])


def test_the_first_numbers_do_not_depend_on_how_many_are_drawn():
    assert torch.equal(draws(3).uniform((5,)), draws(3).uniform((50,))[:, :5])


def test_samples_of_one_batch_may_stand_at_different_steps():
    one = draws(3)
    mixed = one.at(step=torch.tensor([0, 5, 2])).uniform((4,))
    for row, step in enumerate((0, 5, 2)):
        assert torch.equal(mixed[row], one.at(step=torch.full((3,), step)).uniform((4,))[row])


def test_drawing_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    draws(3).normal((10,))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("seed", "purpose", "sample"), [(1, "pgd", "a"), (0, "cw", "a"), (0, "pgd", "b")])
def test_keys_differ_by_seed_purpose_and_sample(seed, purpose, sample):
    assert sample_keys(seed, purpose, [sample]) != sample_keys(0, "pgd", ["a"])
    assert sample_keys(0, "pgd", ["a"]) == sample_keys(0, "pgd", ["a"])


def test_draws_are_offered_to_the_model_inside_the_context_only():
    one = draws(2)
    with model_randomness(one):
        assert active_draws() is one
    assert active_draws() is None


def test_draws_are_withdrawn_when_the_model_raises():
    with pytest.raises(RuntimeError, match="broken model"), model_randomness(draws(2)):
        raise RuntimeError("broken model")
    assert active_draws() is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threat", [ThreatModel("Linf", 8 / 255), ThreatModel("L2", 0.5)], ids=str)
def test_random_starts_lie_in_ball_and_box_even_for_large_images(threat, dtype):
    clean = draws(4).uniform((3, 128, 128), tag=9, dtype=dtype).round(decimals=1)
    start = random_point(clean, threat, draws(4))
    assert start.dtype == dtype
    assert 0 <= start.min() <= start.max() <= 1
    assert (distance(start, clean, threat.norm) <= limit(threat)).all()


def test_random_starts_in_l2_fill_the_ball_evenly():
    clean = torch.full((4000, 1, 1, 3), 0.5, dtype=torch.float64)
    radius = distance(random_point(clean, ThreatModel("L2", 0.25), draws(4000)), clean, "L2") / 0.25
    # In three dimensions half of the volume lies within the radius 0.5 ** (1 / 3).
    assert abs((radius <= 0.5 ** (1 / 3)).double().mean() - 0.5) < 4 * math.sqrt(0.25 / 4000)
