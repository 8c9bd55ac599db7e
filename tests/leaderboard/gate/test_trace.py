"""Gates that need fewer samples: the sequential test, and traces of runs that stopped early."""

import math
from functools import partial

import numpy as np
import pytest

import builders
from gauntlet.leaderboard.gate.judge import judge
from gauntlet.leaderboard.gate.policy import Policy
from gauntlet.leaderboard.gate.trace import Trace, dumps, loads, sample_order

N = 797
KEY = ("net", "none", "pgd", "Linf:0.15", "quick", "digits", 0)

baseline = partial(builders.baseline, test="sequential")
cell = partial(builders.baseline_cell, forwards=100.0 * N, backwards=0.0)
OLD = cell(np.arange(N) % 4 > 0)


def changed(lost=(), gained=(), **changes):
    """The cell with flips after these numbers of samples in the order of the test, next to where the baseline allows them."""
    order, robust = sample_order(OLD), OLD.robust.copy()
    for places, before in ((lost, True), (gained, False)):
        for place in places:
            at = next(at for at in order[place:] if OLD.robust[at] == before == robust[at])
            robust[at] = not before
    return cell(robust, **({"weights": "after"} | changes))


def seen(found, k, **changes):
    """What a gate that stopped after `k` samples saw of these bits."""
    order = sample_order(OLD)[:k]
    given = {
        "key": KEY,
        "n": N,
        "order": order,
        "before": OLD.robust[order],
        "now": found.robust[order],
        "spec": "spec",
        "weights": found.weights,
        "data_digest": "data",
        "forwards": 100.0 * k,
        "backwards": 0.0,
        "peak_memory_mib": math.nan,
        "seconds": 1.0,
        "device": "cpu",
        "randomised": False,
        "replay": "",
    }
    return Trace(**(given | changes))


def only(report):
    (verdict,) = report.verdicts
    return verdict


def test_the_order_is_a_permutation_that_the_data_alone_decide():
    order = sample_order(OLD)
    assert sorted(order.tolist()) == list(range(N))
    assert order.tolist() == sample_order(cell(~OLD.robust, weights="other")).tolist()
    assert order.tolist() != sample_order(cell(OLD.robust, data_digest="other")).tolist()
    # Neighbours of the file are not neighbours of the test.
    assert abs(np.corrcoef(np.arange(N), order)[0, 1]) < 0.1


def test_a_sequential_gate_stops_long_before_the_end_where_nothing_flips():
    found = only(judge(baseline(OLD), baseline(changed()), Policy()))
    assert found.verdict == "held"
    assert "decided after 180 of 797 samples" in found.sentence
    assert found.upper == pytest.approx(0.02, abs=1e-3)


def test_what_a_stopped_run_saw_gives_the_verdict_of_all_samples():
    for now, least in ((changed(), 180), (changed(lost=range(0, 200, 10)), 100)):
        whole = only(judge(baseline(OLD), baseline(now), Policy()))
        part = only(judge(baseline(OLD), baseline(now), Policy(), [seen(now, 250)]))
        assert part.verdict == whole.verdict
        assert part.sentence == whole.sentence
        short = judge(baseline(OLD), baseline(now), Policy(), [seen(now, least - 50)])
        assert only(short).verdict == "incomparable"
        assert "run the same command again to continue" in only(short).sentence
        assert not short.passed


def test_a_drop_is_found_after_few_losses_and_none_of_the_later_samples_undoes_it():
    now = changed(lost=range(0, 200, 10), gained=range(300, 700, 10))
    found = only(judge(baseline(OLD), baseline(now), Policy()))
    assert found.verdict == "regressed"
    assert found.p_value < 0.05
    assert only(judge(baseline(OLD, test="fixed"), baseline(now), Policy())).verdict != "regressed"


def test_more_cells_ask_for_more_evidence():
    now, others = changed(lost=range(0, 80, 10)), [cell(OLD.robust, model=f"m{i}") for i in range(4)]
    assert only(judge(baseline(OLD), baseline(now), Policy())).verdict == "regressed"
    report = judge(baseline(OLD, *others), baseline(now, *others), Policy())
    assert report.verdicts[0].verdict == "undecided"
    assert "of 100)" in report.verdicts[0].sentence


def test_all_samples_without_a_decision_are_undecided_and_say_how_many_more_would_do():
    now = changed(lost=range(0, 780, 60), gained=range(30, 780, 120))
    found = only(judge(baseline(OLD), baseline(now), Policy()))
    assert found.verdict == "undecided"
    assert "not decided after 797 of 797 samples" in found.sentence
    assert "more samples would decide" in found.sentence


def test_a_rise_with_the_baselines_weights_is_suspicious():
    now = changed(gained=range(0, 200, 10), weights="before")
    report = judge(baseline(OLD), baseline(now), Policy())
    assert only(report).verdict == "suspicious"
    assert not report.passed
    assert only(judge(baseline(OLD), baseline(changed(gained=range(0, 200, 10))), Policy())).verdict == "held"


def test_a_curtailed_run_says_what_is_certain_and_no_more():
    broken, order = np.flatnonzero(~OLD.robust), sample_order(OLD)
    now = changed(lost=range(0, 400, 5))
    first = [*broken, *[at for at in order if OLD.robust[at]][:200]]
    chosen = order[np.isin(order, first)]
    trace = seen(now, 0, order=chosen, before=OLD.robust[chosen], now=now.robust[chosen])
    report = judge(baseline(OLD, test="fixed"), baseline(now), Policy(), [trace])
    found, whole = only(report), only(judge(baseline(OLD, test="fixed"), baseline(now), Policy()))
    assert found.verdict == whole.verdict == "regressed"
    assert (found.n, found.lost) == (len(chosen), int((OLD.robust & ~now.robust)[chosen].sum()))
    assert (found.baseline_robust, found.robust) == (OLD.robust[chosen].mean(), now.robust[chosen].mean())
    assert (found.accepted_robust, found.accepted_n) == (OLD.robust.mean(), 797)
    assert found.p_value >= whole.p_value
    assert f"certain after {len(chosen)} of 797 samples" in found.sentence


def test_a_trace_without_samples_of_another_question_says_what_differs():
    none = np.zeros(0, np.int64)
    trace = seen(OLD, 0, order=none, before=none.astype(bool), now=none.astype(bool), data_digest="other")
    report = judge(baseline(OLD), baseline(changed()), Policy(), [trace])
    assert only(report).verdict == "incomparable"
    assert "images, labels, or sample ids" in only(report).sentence


def test_a_floor_is_not_checked_on_a_part_of_the_samples():
    report = judge(baseline(OLD), baseline(changed()), Policy(min_robust=0.1), [seen(changed(), 200)])
    assert not report.passed
    assert "needs every sample" in report.problems[0]


def test_losses_that_the_replay_explains_are_told():
    now = changed()
    trace = seen(now, 200)
    trace.before[np.flatnonzero(trace.before)[[0, 1, 2, -1]]] = False  # the last one after the decision
    trace.now[~trace.before] = False
    told = only(judge(baseline(OLD), baseline(now), Policy(), [trace])).sentence
    assert "3 more were broken by examples that break the baseline's model too" in told
    told = only(
        judge(baseline(OLD), baseline(now), Policy(), [seen(now, 200, replay="no replay: no artifact")])
    ).sentence
    assert told.endswith("no replay: no artifact")


def test_a_trace_is_read_back_as_it_was_written():
    trace = seen(changed(lost=[3]), 77, excused=2, computed=12.0)
    found = loads(dumps(trace))
    for name in ("order", "before", "now"):
        assert np.array_equal(getattr(found, name), getattr(trace, name))
        assert getattr(found, name).dtype == getattr(trace, name).dtype
    assert dumps(found) == dumps(trace)
    assert math.isnan(found.peak_memory_mib)
    assert found.key == trace.key
    with pytest.raises(ValueError, match="fewer bits"):
        loads(dumps(trace).replace('"before": "', '"before": "", "x": "'))
