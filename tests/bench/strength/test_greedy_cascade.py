"""The greedy choice of stages, on outcomes that are written down."""

from __future__ import annotations

import numpy as np
import pytest

from gauntlet.bench.strength.greedy_cascade import Trial, apply, build


def trial(name, broken, passes, nearness=None, near=np.inf):
    """`broken`: a text with an x for each broken sample; `passes` for each sample that stands, half of it for a broken one."""
    bits = np.array([one == "x" for one in broken])
    costs = np.where(bits, passes / 2, passes).astype(float)
    return Trial(name, bits, costs, np.full(len(bits), np.inf) if nearness is None else np.array(nearness), near)


def test_the_best_gain_for_each_pass_comes_first_and_what_it_broke_counts_no_more():
    cheap = trial("cheap", "xx....", 10)
    strong = trial("strong", "xxxx..", 100)
    other = trial("other", "....x.", 40)
    chosen = build([strong, other, cheap])
    # cheap: 2 / 50; then of the four that stand other gives 1 / 140, strong 2 / 300.
    assert [one.name for one in chosen] == ["cheap", "other", "strong"]
    picks = apply(chosen)
    assert [(one.faced, one.broke, one.standing) for one in picks] == [(6, 2, 4), (4, 1, 3), (3, 2, 1)]
    assert [one.passes for one in picks] == [50, 140, 200]


def test_a_candidate_that_breaks_nothing_new_is_left_out():
    assert [one.name for one in build([trial("a", "xx.", 10), trial("b", "x..", 1), trial("c", "...", 1)])] == [
        "b",
        "a",
    ]
    assert build([trial("a", "...", 1)]) == []


def test_a_least_gain_ends_the_cascade():
    trials = [trial("cheap", "x...", 10), trial("dear", ".x..", 1000)]
    assert [one.name for one in build(trials, least_gain=1.0)] == ["cheap"]
    assert [one.name for one in build(trials)] == ["cheap", "dear"]


def test_a_candidate_for_near_samples_is_charged_for_them_alone():
    first = trial("first", "x...", 10, nearness=[0, 0.05, 0.5, 0.9])
    near = trial("late", ".xx.", 100, near=0.1)
    everywhere = trial("late", ".xx.", 100)
    chosen = build([near, first])
    assert [one.name for one in chosen] == ["first", "late"]
    assert apply(chosen)[1].passes == 50
    # The third sample would be broken too, and is not near.
    assert apply(chosen)[1].standing == 2
    assert apply([first, everywhere])[1].standing == 1


def test_what_every_cascade_begins_with_is_charged_to_none_and_tells_what_is_near():
    begin = trial("begin", "x...", 10, nearness=[0, 0.05, 0.5, 0.9])
    late = trial("late", "xxx.", 100, near=0.1)
    other = trial("other", "..x.", 30)
    chosen = build([late, other], begin=[begin])
    assert [one.name for one in chosen] == ["late", "other"]
    assert [one.standing for one in apply([begin, *chosen])] == [3, 2, 1]


def test_trials_of_different_samples_are_refused():
    with pytest.raises(ValueError, match=r"\[2, 3\] samples"):
        build([trial("a", "x..", 1), trial("b", "x.", 1)])
    with pytest.raises(ValueError, match="at least one"):
        apply([])
