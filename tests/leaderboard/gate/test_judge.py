"""The gate: what it says of a run, beside an accepted one."""

import math
from dataclasses import replace

import numpy as np
import pytest
from markdown_it import MarkdownIt
from scipy.stats import binom
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from builders import baseline, baseline_cell
from gauntlet.leaderboard.gate.judge import judge
from gauntlet.leaderboard.gate.policy import Policy
from gauntlet.leaderboard.stats.paired import drop_p_value, drop_upper

MARGIN, ALPHA = 0.02, 0.05


def flipped(before, lost, gained, **changes):
    """The cell with its first `lost` robust samples broken, and its first `gained` broken ones robust; other weights."""
    robust = before.robust.copy()
    robust[np.flatnonzero(before.robust)[:lost]] = False
    robust[np.flatnonzero(~before.robust)[:gained]] = True
    return replace(before, robust=robust, **({"weights": "after"} | changes))


def only(report):
    (verdict,) = report.verdicts
    return verdict


OLD = baseline_cell(np.arange(1000) < 700)


def single(lost, gained, policy=None, **changes):
    return judge(baseline(OLD), baseline(flipped(OLD, lost, gained, **changes)), policy or Policy())


# The tests of the drop


@pytest.mark.parametrize(("lost", "gained"), [(12, 3), (25, 5), (6, 5), (3, 12), (0, 4), (4, 0), (0, 0)])
def test_the_p_value_of_one_cell_is_that_of_statsmodels_exact_test(lost, gained):
    two_sided = reference_mcnemar([[600, lost], [gained, 200]], exact=True).pvalue
    p = only(single(lost, gained)).p_value
    if lost > gained:
        assert p == pytest.approx(two_sided / 2, abs=1e-12)
    assert p == pytest.approx(binom.sf(lost - 1, lost + gained, 0.5), abs=1e-12)
    assert p == pytest.approx(drop_p_value(lost, gained), abs=1e-12)


def test_p_values_of_several_cells_are_adjusted_by_holm():
    flips = [(12, 3), (9, 3), (3, 9), (20, 2), (0, 0)]
    olds = [replace(OLD, model=f"m{i}") for i in range(len(flips))]
    report = judge(
        baseline(*olds), baseline(*(flipped(old, *flip) for old, flip in zip(olds, flips, strict=True))), Policy()
    )
    raw = [binom.sf(lost - 1, lost + gained, 0.5) for lost, gained in flips]
    np.testing.assert_allclose([v.p_value for v in report.verdicts], multipletests(raw, method="holm")[1], atol=1e-12)


# Verdicts


def test_the_gate_itself_raises_no_more_false_alarms_than_alpha_and_holds_what_has_not_changed():
    rng = np.random.default_rng(0)
    verdicts = [only(single(*rng.multinomial(1000, [0.004, 0.004, 0.992], size=1)[0, :2])).verdict for _ in range(400)]
    assert verdicts.count("regressed") / 400 <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / 400)
    assert verdicts.count("held") / 400 > 0.9


def test_a_significant_drop_is_regressed_with_its_figures():
    report = single(55, 4)
    found = only(report)
    assert (found.verdict, found.lost, found.gained, found.n) == ("regressed", 55, 4, 1000)
    assert (found.baseline_robust, found.robust) == (0.7, 0.649)
    assert found.upper == drop_upper(55, 4, 1000, 0.95)
    assert found.lost_at == tuple(range(55))
    assert not report.passed
    assert report.text().startswith(
        "REGRESSED net × none × pgd Linf:0.15, seed 0: 70.0 % → 64.9 % (n=1000; 55 lost, 4 gained; drop 5.1, at most 6.4; p="
    )


def test_a_drop_that_is_significant_but_below_the_margin_is_regressed_all_the_same():
    found = only(single(8, 0))
    assert found.upper < MARGIN
    assert found.verdict == "regressed"


def test_an_unchanged_cell_is_held():
    report = single(0, 0)
    assert only(report).verdict == "held"
    assert report.passed
    assert "Gate passed: 1 held." in report.text()


def test_a_cell_that_may_have_lost_the_margin_is_undecided_and_says_how_many_samples_decide():
    old = baseline_cell(np.arange(100) < 70)
    pair = baseline(old), baseline(flipped(old, 0, 0))
    report = judge(*pair, Policy())
    assert only(report).verdict == "undecided"
    assert "about 149 samples would decide" in only(report).sentence
    assert not report.passed
    assert judge(*pair, Policy(allow_undecided=True)).passed


def test_a_larger_margin_decides_what_a_smaller_one_leaves_open():
    assert only(single(45, 36)).verdict == "undecided"
    assert only(single(45, 36, Policy(margin=0.03))).verdict == "held"


def test_a_rise_with_the_baselines_weights_is_suspicious_and_does_not_pass():
    report = single(1, 20, weights="before", spec="fewer steps")
    found = only(report)
    assert found.verdict == "suspicious"
    assert found.p_value == pytest.approx(binom.cdf(1, 21, 0.5))
    assert "check for a weaker attack" in found.sentence
    assert "settings are not the baseline's" in found.sentence
    assert not judge(
        baseline(OLD), baseline(flipped(OLD, 1, 20, weights="before")), Policy(allow_undecided=True)
    ).passed


@pytest.mark.parametrize("weights", [("before", "after"), ("", "")])
def test_a_rise_with_other_or_unknown_weights_is_an_improvement_and_held(weights):
    old, new = (replace(one, weights=w) for one, w in zip((OLD, flipped(OLD, 1, 20)), weights, strict=True))
    report = judge(baseline(old), baseline(new), Policy())
    assert only(report).verdict == "held"
    assert "improved" in only(report).sentence
    assert report.passed


def test_a_small_rise_with_the_same_weights_is_no_suspicion():
    assert only(single(3, 5, weights="before")).verdict == "held"


def test_a_drop_with_the_baselines_weights_is_regressed():
    assert only(single(20, 1, weights="before")).verdict == "regressed"


def test_randomised_cells_say_that_their_bits_are_majorities():
    assert "majority verdicts" in only(single(0, 0, randomised=True)).sentence


def test_another_seed_of_the_same_cell_is_compared_and_named():
    found = only(single(2, 2, seed=7, weights="before"))
    assert found.verdict == "held"
    assert "the baseline's seed was 0" in found.sentence
    assert found.key == replace(OLD, seed=7).key


def test_of_several_seeds_each_is_compared_with_its_own():
    olds = [OLD, flipped(OLD, 300, 0, seed=1)]
    report = judge(baseline(*olds), baseline(*reversed(olds)), Policy())
    assert [v.verdict for v in report.verdicts] == ["held", "held"]


# What cannot be compared


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data_digest": "other"}, "sample ids"),
        ({"data_digest": ""}, "images of the run are not recorded"),
        ({"threat": "Linf:0.1"}, "threat model Linf:0.15 → Linf:0.1"),
        ({"suite": "full"}, "suite quick → full"),
        ({"data": "digits[:9]"}, "data digits → "),
        ({"status": "error", "error": "RuntimeError: boom"}, "failed in the run (RuntimeError: boom)"),
        ({"status": "unfinished"}, "not finished in the run"),
    ],
)
def test_another_question_or_an_unfinished_cell_is_incomparable(changes, says):
    report = judge(baseline(OLD), baseline(replace(OLD, **changes)), Policy(allow_undecided=True))
    found = only(report)
    assert found.verdict == "incomparable"
    assert not report.passed
    assert says in found.sentence
    assert math.isnan(found.p_value)


@pytest.mark.parametrize("status", ["error", "unfinished"])
def test_a_cell_that_the_baseline_lacks_an_answer_for_is_incomparable(status):
    report = judge(baseline(replace(OLD, status=status)), baseline(OLD), Policy())
    assert only(report).verdict == "incomparable"
    assert "in the baseline" in only(report).sentence


def test_other_numbers_of_samples_are_incomparable():
    found = only(judge(baseline(OLD), baseline(baseline_cell(np.arange(500) < 350, data_digest="half")), Policy()))
    assert found.verdict == "incomparable"
    assert "number of samples 1000 → 500" in found.sentence


def test_a_cell_that_is_missing_on_either_side_is_incomparable_beside_those_that_are_compared():
    extra = replace(OLD, model="extra")
    gone = judge(baseline(OLD, extra), baseline(OLD), Policy())
    new = judge(baseline(OLD), baseline(OLD, extra), Policy())
    for report, says in ((gone, "The run lacks this cell"), (new, "The baseline lacks this cell")):
        assert [v.verdict for v in report.verdicts] == ["held", "incomparable"]
        assert says in report.verdicts[1].sentence
        assert not report.passed


@pytest.mark.parametrize(("old", "new"), [([], []), ([], [OLD]), ([OLD], []), ([OLD], [replace(OLD, model="other")])])
def test_a_gate_that_compared_nothing_does_not_pass(old, new):
    report = judge(baseline(*old), baseline(*new), Policy(allow_undecided=True))
    assert {v.verdict for v in report.verdicts} == {"incomparable"}
    assert not report.passed
    assert "Gate failed" in report.text()


def test_incomparable_cells_take_no_part_in_holms_correction():
    old, broken = replace(OLD, model="other"), replace(OLD, model="other", status="error", error="x")
    report = judge(baseline(OLD, old), baseline(flipped(OLD, 12, 3), broken), Policy())
    assert report.verdicts[0].p_value == pytest.approx(binom.sf(11, 15, 0.5))


# Limits


def test_a_cell_that_costs_more_passes_than_allowed_fails_the_gate_though_it_held():
    report = single(0, 0, forwards=6000.0, backwards=3000.0)
    assert only(report).verdict == "held"
    assert not report.passed
    assert report.problems == ("net × none × pgd Linf:0.15: 7,000 → 9,000 passes, more than ×1.25.",)
    assert "1 limit missed" in report.summary
    assert single(0, 0, Policy(max_passes_ratio=1.3), forwards=6000.0, backwards=3000.0).passed


def test_passes_that_a_more_robust_model_costs_are_explained():
    (problem,) = single(0, 50, forwards=9000.0).problems
    assert "more robust model cost more" in problem


def test_memory_is_gated_and_time_is_only_told():
    assert "peak memory 100 → 160 MiB" in single(0, 0, peak_memory_mib=160.0).problems[0]
    slow = single(0, 0, seconds=200.0)
    assert slow.passed
    assert "2.0 → 200.0 s (time is not gated)" in slow.text()


def test_a_floor_is_held_against_the_worst_case_over_a_models_attacks():
    one, two = np.ones(100, bool), np.ones(100, bool)
    one[:20], two[10:40] = False, False
    cells = [baseline_cell(one), baseline_cell(two, attack="square")]

    def problems(floor):
        return judge(baseline(*cells), baseline(*cells), Policy(min_robust=floor)).problems

    assert problems(0.6) == ()
    (problem,) = problems(0.61)
    assert problem == "net × none Linf:0.15: worst case 60.0 % [49.7, 69.7] (n=100) is below the floor of 61 %."
    assert problems({"net": 0.61, "qu*": 0.5, "n[e]t": 0.7}) != ()
    assert problems({"quick": 0.61}) == (problem,)


def test_a_floor_that_matches_nothing_is_a_problem():
    report = single(0, 0, Policy(min_robust={"nets": 0.5}))
    assert report.problems == ("Floor 0.5 of 'nets': no model or suite of the run has such a name.",)
    assert not report.passed


@pytest.mark.parametrize("changes", [{"status": "unfinished"}, {"data_digest": "other"}])
def test_a_floor_that_cannot_be_checked_is_a_problem(changes):
    other = replace(OLD, attack="square", **changes)
    report = judge(baseline(OLD, other), baseline(OLD, other), Policy(min_robust=0.1))
    assert "cannot be checked" in report.problems[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": 0.0},
        {"alpha": 0.5},
        {"margin": 0.0},
        {"margin": 2.0},
        {"min_robust": 80},
        {"min_robust": {"net": -0.1}},
        {"max_passes_ratio": 0.0},
        {"max_memory_ratio": math.nan},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_by_name(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        Policy(**wrong)


# What is shown


def mixed():
    names = ["fallen", "same", "few", "odd|*name*"]
    olds = [replace(OLD, model=name) for name in names]
    news = [
        flipped(olds[0], 60, 0),
        olds[1],
        flipped(olds[2], 45, 36),
        replace(olds[3], status="error", error="Bad: a\nline | <b>"),
    ]
    return judge(baseline(*olds), baseline(*news), Policy(min_robust=0.65))


def test_the_text_lists_what_needs_attention_first_a_line_each():
    lines = mixed().text().splitlines()
    assert [line.split()[0] for line in lines] == [
        "REGRESSED",
        "INCOMPARABLE",
        "UNDECIDED",
        "HELD",
        "LIMIT",
        "LIMIT",
        "Costs",
        "Margin",
        "Gate",
    ]
    assert lines[-1] == "Gate failed: 1 regressed, 1 incomparable, 1 undecided, 1 held, 2 limits missed."


def test_the_markdown_renders_as_a_table_in_which_names_stay_what_they_are():
    html = MarkdownIt("commonmark").enable("table").render(mixed().markdown())
    assert html.count("<tr>") == 1 + 3
    assert "odd|*name*" in html
    assert "<em>" not in html
    assert "<b>" not in html
    assert "nan" not in html
    assert html.count("<li>") == 3 + 2
