"""What cannot be true of a block is refused, though its digests fit."""

from __future__ import annotations

import numpy as np
import pytest

from builders import bits, cell_info, record, samples
from gauntlet.leaderboard.results.errors import DamagedBlockError
from gauntlet.leaderboard.results.store import Store

IMAGE = np.zeros((1, 2, 2), np.float32)


def images(broken):
    return [IMAGE if one else None for one in broken]


def honest(**columns):
    """Four samples, of which the last two are broken, with an example each."""
    return samples(bits(4, 2), **({"adversarial": images([False, False, True, True])} | columns))


def read(tmp_path, whole, *, adversarial=True, **cell):
    store, made = Store(tmp_path), record(whole, cell_info(**cell))
    store.write(made)
    return store.read(made.key, adversarial=adversarial)


def test_an_honest_block_is_read_with_and_without_its_examples(tmp_path):
    for adversarial in (False, True):
        assert len(read(tmp_path, honest(), adversarial=adversarial).samples) == 4
    assert read(tmp_path / "not kept", honest(adversarial=[None] * 4)).samples.adversarial == [None] * 4


def test_a_minimum_norm_example_beyond_eps_contradicts_no_robust_verdict(tmp_path):
    far = honest(distance=[0.2, np.nan, 0.1, 0.15], adversarial=images([True, False, True, True]))
    assert read(tmp_path, far, minimum_norm=True).samples.robust.sum() == 2


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"clean_prediction": [1, 0, 0, 0]}, "s0: robust, but misclassified when clean"),
        ({"wrong_share_scored": [1.0, 0, 1, 1]}, "s0: the verdict does not follow from the share of wrong draws"),
        ({"wrong_share_scored": [0.0, 0, 0, 1]}, "s2: the verdict does not follow"),
        ({"distance": [np.nan, np.nan, np.nan, 0.1]}, r"s2: broken, but without an example within eps=0\.15"),
        ({"distance": [np.nan, np.nan, 0.16, 0.1]}, r"s2: broken, but without an example within eps=0\.15"),
        ({"distance": [0.1, np.nan, 0.1, 0.1]}, r"s0: robust, but with an example within eps=0\.15"),
        ({"id": ["s0", "s0", "s2", "s3"]}, "a sample occurs twice"),
        ({"forwards": [-1.0, 0, 0, 0]}, "forwards has a count below 0"),
        ({"backwards": [np.nan, 0, 0, 0]}, "backwards has a count below 0, or none"),
        ({"wrong_share": [1.5, 0, 1, 1]}, "wrong_share has a share outside of 0 to 1"),
    ],
)
def test_verdicts_that_do_not_follow_are_refused_whether_or_not_examples_are_read(tmp_path, columns, says):
    for adversarial in (False, True):
        with pytest.raises(DamagedBlockError, match=rf"was altered: {says}.*run the same command again"):
            read(tmp_path, honest(**columns), adversarial=adversarial)


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        ([False, False, True, False], "s3: a distance without its example"),
        ([True, False, True, True], "s0: an example"),
    ],
)
def test_examples_that_do_not_fit_the_verdicts_are_refused_where_they_are_read(tmp_path, kept, says):
    whole = honest(adversarial=images(kept))
    assert len(read(tmp_path, whole, adversarial=False).samples) == 4
    with pytest.raises(DamagedBlockError, match=says):
        read(tmp_path, whole)


def test_draws_of_a_randomised_model_may_break_a_sample_without_an_example(tmp_path):
    lucky = honest(distance=[np.nan, np.nan, np.nan, 0.1], adversarial=images([False, False, False, True]))
    assert read(tmp_path, lucky, randomised=True).samples.robust.sum() == 2
    with pytest.raises(DamagedBlockError, match="broken, but without an example"):
        read(tmp_path / "deterministic", lucky)


def test_certificates_and_corruptions_have_no_examples(tmp_path):
    bare = honest(distance=[np.nan] * 4, adversarial=[None] * 4)
    for kind in ("certificate", "corruption"):
        assert len(read(tmp_path / kind, bare, attack_kind=kind).samples) == 4
