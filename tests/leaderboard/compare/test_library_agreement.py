"""The same attack in several libraries, on planted results: pairs, pooled models, invalid points, and the page."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from builders import bits, cell_info, result
from gauntlet.leaderboard.compare.agreement_report import agreement_frame, agreement_markdown, overview, samples_frame
from gauntlet.leaderboard.compare.library_agreement import AgreementResults, InvalidPoints, Member, library_agreement
from gauntlet.leaderboard.page.agreement_page import agreement_page
from page_results import CONTEXT, HOSTILE, THEIRS, agreement_results, with_stats


def cell(attack, model="net", **changes):
    return cell_info(model, attack, **changes)


def compared(*members):
    return library_agreement("PGD-40 Linf", "Linf:0.15", members)


def test_the_counts_of_differing_samples_are_those_counted_by_hand():
    generator = np.random.default_rng(0)
    right, ours, theirs, third = generator.random((4, 200)) < 0.7
    verdicts = {"a": ours & right, "b": theirs & right, "c": third & right}
    one = compared(
        *(
            Member(name, name, [result(robust, cell(name), correct=right, blocks=3)])
            for name, robust in verdicts.items()
        )
    )
    for a, first in enumerate(verdicts.values()):
        for b, second in enumerate(verdicts.values()):
            by_hand = sum(not first[i] and second[i] for i in range(200) if right[i])
            assert one.differ[a][b] == by_hand
    for line, robust in zip(one.lines, verdicts.values(), strict=True):
        assert line.broken == sum(right[i] and not robust[i] for i in range(200))
        assert line.robust.successes == robust.sum()
        assert line.only_this == sum(ours[i] and not robust[i] for i in range(200) if right[i])
    apart = [i for i in range(200) if right[i] and len({bool(robust[i]) for robust in verdicts.values()}) > 1]
    assert [key[3] for key, _, _ in one.samples] == [f"s{i}" for i in apart]
    assert one.apart == len(apart)
    for key, broken, left in one.samples:
        place = int(key[3][1:])
        assert set(broken) == {name for name, robust in verdicts.items() if not robust[place]}
        assert set(left) == set(verdicts) - set(broken)


def test_equal_results_differ_nowhere():
    one = compared(*(Member(name, name, [result(bits(50, 20), cell(name))]) for name in ("a", "b")))
    assert one.apart == 0
    assert one.differ == ((0, 0), (0, 0))
    assert [(line.only_this, line.only_reference) for line in one.lines] == [(0, 0), (0, 0)]
    assert one.lines[1].distance_ratio == 1.0


def test_samples_are_paired_by_name_and_not_by_place():
    names = [f"s{i}" for i in range(10)]
    one = compared(
        Member("a", "a", [result(bits(10, 4), cell("a"), id=names)]),
        Member("b", "b", [result(bits(10, 4)[::-1], cell("b"), id=names[::-1])]),
    )
    assert one.apart == 0


def test_samples_of_several_models_with_the_same_names_are_different_samples():
    one = compared(
        Member("a", "a", [result(bits(10, 4), cell("a", "net")), result(bits(10, 6), cell("a", "other"))]),
        Member("b", "b", [result(bits(10, 4), cell("b", "net")), result(bits(10, 5), cell("b", "other"))]),
    )
    assert one.lines[0].robust.n == 20
    assert one.differ == ((0, 0), (1, 0))
    assert one.samples == ((("other", "none", "digits", "s5"), ("b",), ("a",)),)


def test_a_cell_that_failed_is_named_and_its_samples_are_not_compared():
    one = compared(
        Member("a", "a", [result(bits(10, 4), cell("a", "net")), result(bits(10, 6), cell("a", "other"))]),
        Member(
            "b", "b", [result(bits(10, 4), cell("b", "net")), result((), cell("b", "other"), error="boom", expected=10)]
        ),
        Member("c", "c", [result((), cell("c", model), error="boom", expected=10) for model in ("net", "other")]),
    )
    assert one.lines[1].failures == ("other on digits: RuntimeError: boom",)
    assert one.lines[1].robust.n == 10
    assert one.differ == ((0, 0, None), (0, 0, None), (None, None, None))
    assert overview(AgreementResults((one,)))[1] == ("PGD-40, Linf:0.15", "20", "broke 10", "+0 −0", "error", "0")
    assert AgreementResults((one,)).failures[0] == "b: other on digits: RuntimeError: boom"


def test_another_seed_says_how_far_an_attack_agrees_with_itself():
    again = result(bits(10, 7), cell("a", seed=1))
    one = compared(
        Member("a", "a", [result(bits(10, 4), cell("a"))], [again]), Member("b", "b", [result(bits(10, 4), cell("b"))])
    )
    assert [line.itself for line in one.lines] == [3, None]


def test_distances_are_compared_on_the_samples_that_both_broke():
    ours = result(bits(4, 0), cell("cw", minimum_norm=True), distance=[1.0, 2.0, 1.0, 4.0])
    theirs = result(bits(4, 1), cell("lib.CW", minimum_norm=True), distance=[np.nan, 4.0, 3.0, 2.0])
    one = compared(Member("a", "cw", [ours]), Member("b", "lib.CW", [theirs]))
    assert one.lines[0].distance == 1.5
    assert one.lines[1].distance == 3.0
    assert one.lines[1].distance_ratio == 2.0


def test_invalid_points_add_up_over_blocks_and_are_unknown_where_one_block_does_not_say():
    known = with_stats(result(bits(10, 4), cell("a"), blocks=2), outside_ball=1, outside_box=2, false_claims=3)
    unknown = result(bits(10, 4), cell("b", "other"))
    one = compared(Member("a", "a", [known]), Member("b", "b", [with_stats(known), unknown]))
    assert one.lines[0].invalid == InvalidPoints(2, 4, 6)
    assert one.lines[0].invalid.total == 12
    assert one.lines[1].invalid is None


def test_the_report_has_the_matrix_the_lines_and_the_command():
    text = agreement_markdown(agreement_results(), "digits", "gauntlet agreement 'PGD*'")
    assert "| PGD-40, Linf:0.15 | 10 | broke 6 | +1 −0, 3 invalid | 1 |" in text
    assert "| lib.PGD(steps=40) | 30.0 | 7 | +1 −0 | – | 1.000 | 4.0 / 3.0 | 2.00 | 0 / 1 / 2 |" in text
    assert "gauntlet agreement 'PGD*'" in text


def test_the_tables_have_stable_columns_and_name_the_samples():
    frame = agreement_frame(agreement_results())
    assert frame["only_this"].tolist() == [0, 1, 0, 0]
    assert frame["false_claims"].tolist()[1] == 2
    assert frame["failures"].tolist() == [0, 0, 0, 1]
    samples = samples_frame(agreement_results())
    assert samples.iloc[0].tolist() == [
        "PGD-40 Linf",
        "Linf:0.15",
        "net",
        "none",
        "digits",
        "s3",
        THEIRS,
        "pgd(steps=40)",
    ]


def test_hostile_names_are_text_on_the_page_and_in_the_report():
    pytest.importorskip("jinja2")
    page = agreement_page(agreement_results(HOSTILE, HOSTILE), replace(CONTEXT, command=HOSTILE, data=HOSTILE))
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;window.hit=1&lt;/script&gt;" in page
    assert "script-src &#39;none&#39;" in page
    text = agreement_markdown(agreement_results(HOSTILE, HOSTILE), HOSTILE, "gauntlet agreement")
    assert "<script" not in text
    assert "<img" not in text


def test_the_page_has_every_comparison_as_an_accessible_table():
    pytest.importorskip("jinja2")
    page = agreement_page(agreement_results(), CONTEXT)
    assert page.count("<h2>PGD-40, Linf:0.15</h2>") == 2
    assert '<th scope="row">lib.PGD(steps=40)</th>' in page
    assert "broke 6" in page
    assert "+1 −0, 3 invalid" in page
    assert "the attacks of lib.PGD(steps=40) are left out" in page
    assert "http:" not in page
    assert "https:" not in page
