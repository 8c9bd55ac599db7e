"""`gauntlet compare`: paired differences, ranks, who is broken by what, and what must not be compared."""

from __future__ import annotations

import csv
import io
import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt
from scipy.optimize import brentq, minimize_scalar
from scipy.special import xlogy
from scipy.stats import norm
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from builders import bits, cell_info, result
from gauntlet.leaderboard.compare.comparison import CompareError, RunRow, compare, difference_interval
from gauntlet.leaderboard.compare.comparison_export import comparison_json, pairs_frame
from gauntlet.leaderboard.compare.comparison_report import comparison_markdown, comparison_text
from gauntlet.leaderboard.report.terminal import NARROWEST, WIDTH
from gauntlet.leaderboard.results.record import Flag
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.worst_case import row_key


def contenders(results, source="run"):
    """The rows of a run that has these cells."""
    return [
        RunRow(row, tuple(one for one in results if row_key(one.cell) == key), source)
        for row in build_rows(results)
        for key in [(row.model, row.defense, row.threat, row.data, row.suite)]
    ]


def drawn(count, n=200, seed=0):
    """Cells of models that are robust on overlapping samples, from nearly all to few."""
    rng = np.random.default_rng(seed)
    hardness = rng.random(n)
    shares = np.linspace(0.9, 0.3, count)
    return [
        result(hardness + 0.05 * rng.standard_normal(n) < share, cell_info(f"net{i:02}"))
        for i, share in enumerate(shares)
    ]


# The interval of a difference


def likelihood(share, difference, first, second, n):
    shares = np.array([share + difference, share, 1 - 2 * share - difference])
    return float(xlogy([first, second, n - first - second], np.maximum(shares, 0)).sum())


def score(difference, first, second, n):
    """Tango's statistic with the likelihood maximised by search."""
    low, high = max(0.0, -difference), (1 - difference) / 2
    found = minimize_scalar(
        lambda share: -likelihood(share, difference, first, second, n),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-12},
    )
    best = max((low, found.x), key=lambda share: likelihood(share, difference, first, second, n))
    return (first - second - n * difference) / math.sqrt(n * (2 * best + difference * (1 - difference)))


@pytest.mark.parametrize(
    ("first", "second", "n"), [(5, 2, 30), (0, 7, 40), (31, 72, 797), (2, 0, 25), (0, 0, 50), (40, 60, 120)]
)
def test_the_interval_ends_where_a_score_test_by_search_begins_to_reject(first, second, n):
    z, observed = norm.ppf(0.975), (first - second) / n
    low = brentq(lambda at: score(at, first, second, n) - z, -1 + 1e-9, observed - 1e-6, xtol=1e-12)
    high = brentq(lambda at: score(at, first, second, n) + z, observed + 1e-6, 1 - 1e-9, xtol=1e-12)
    assert difference_interval(first, second, n) == pytest.approx((low, high), abs=1e-6)


def test_where_all_flips_go_one_way_the_upper_end_is_wilsons():
    _, expected = proportion_confint(12, 300, alpha=0.05, method="wilson")
    assert difference_interval(12, 0, 300)[1] == pytest.approx(expected, abs=1e-12)


def test_exchanging_the_two_turns_the_interval_round():
    low, high = difference_interval(9, 4, 100)
    assert difference_interval(4, 9, 100) == (-high, -low)


@pytest.mark.parametrize(("p_first", "p_second", "n"), [(0.1, 0.05, 100), (0.02, 0.02, 200), (0.3, 0.1, 60)])
def test_the_interval_covers_the_true_difference_as_often_as_it_says(p_first, p_second, n):
    rng = np.random.default_rng(0)
    counts = rng.multinomial(n, [p_first, p_second, 1 - p_first - p_second], size=1500)
    intervals = {pair: difference_interval(*pair, n) for pair in {(int(a), int(b)) for a, b, _ in counts}}
    covered = [low <= p_first - p_second <= high for a, b, _ in counts for low, high in [intervals[int(a), int(b)]]]
    assert 0.93 <= np.mean(covered) <= 0.98


# Pairs and ranks


def test_differences_and_p_values_are_those_of_statsmodels_over_all_pairs():
    results = drawn(5)
    (group,) = compare(contenders(results)).groups
    outcomes = [line.row.worst_case.robust for line in group.rows]
    pairs = list(combinations(range(5), 2))
    exact = [statsmodels_mcnemar(table(outcomes[a], outcomes[b]), exact=True).pvalue for a, b in pairs]
    assert [(one.first, one.second) for one in group.differences] == pairs
    assert [one.estimate for one in group.differences] == pytest.approx(
        [outcomes[a].mean() - outcomes[b].mean() for a, b in pairs]
    )
    assert [one.p_value for one in group.differences] == pytest.approx(multipletests(exact, method="holm")[1])


def table(first, second):
    return [[(x & y).sum() for y in (second, ~second)] for x in (first, ~first)]


def test_ranks_are_the_leaderboards():
    results = drawn(8, seed=3)
    (group,) = compare(contenders(results)).groups
    assert [(line.row.model, line.row.rank, line.row.rank_interval) for line in group.rows] == [
        (row.model, row.rank, row.rank_interval) for row in build_rows(results)
    ]
    assert len({line.row.rank for line in group.rows}) > 2


def test_a_row_without_rank_shows_its_difference_and_is_not_tested():
    flag = Flag("zero-gradient", "block", "The gradient is zero.")
    honest = [result(bits(60, 40), cell_info("a")), result(bits(60, 10), cell_info("b"))]
    masked = result(bits(60, 58), cell_info("masked"), flags=[flag])
    (group,) = compare(contenders([*honest, masked])).groups
    (alone,) = compare(contenders(honest)).groups
    assert [line.row.model for line in group.rows] == ["a", "b", "masked"]
    assert group.rows[2].rank is None
    assert group.rows[2].row.unranked == ("The gradient is zero.",)
    assert [one.p_value is None for one in group.differences] == [False, True, True]
    assert group.differences[1].estimate == pytest.approx(-18 / 60)
    assert group.differences[0].p_value == alone.differences[0].p_value
    text = comparison_text(compare(contenders([*honest, masked])))
    assert "#3 masked has no rank: The gradient is zero." in text
    assert "not tested" in text


def test_a_row_that_failed_before_its_first_sample_is_told_and_not_compared():
    found = compare(contenders([*drawn(2), result([], cell_info("broken"), error="out of memory")]))
    assert len(found.groups) == 1
    assert found.missing[0][0] == "broken"
    assert "out of memory" in found.missing[0][1][0]
    assert "broken has no sample" in comparison_text(found)


def test_the_same_model_of_two_runs_is_told_apart_by_the_run():
    old, new = result(bits(50, 40), cell_info()), result(bits(50, 20), cell_info())
    (group,) = compare([*contenders([old], "before"), *contenders([new], "after")]).groups
    assert [line.label for line in group.rows] == ["net [before]", "net [after]"]


def test_a_row_that_two_runs_answer_from_the_same_blocks_counts_once():
    shared = result(bits(50, 40), cell_info("shared"))
    mine, yours = result(bits(50, 30), cell_info("mine")), result(bits(50, 20), cell_info("yours"))
    (group,) = compare([*contenders([shared, mine], "one"), *contenders([shared, yours], "two")]).groups
    assert [line.label for line in group.rows] == ["shared", "mine", "yours"]


# What must not be compared


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (result(bits(40, 9), cell_info(threat="Linf:0.1", eps=0.1)), "threat model Linf:0.1 instead of Linf:0.15"),
        (result(bits(40, 9), cell_info(data="mnist")), "data mnist instead of digits"),
        (result(bits(40, 9), cell_info(seed=1)), "seeds 1 instead of 0"),
        (result(bits(40, 9), cell_info(suite="full")), "suite full instead of quick"),
        (result(bits(30, 9), cell_info()), "other samples (30 instead of 40, 30 in common)"),
        (result(bits(40, 9), cell_info(), made={"data": "two"}), "other images or labels under the same ids"),
        (result(bits(40, 9), cell_info(attack_spec="pgd(steps=1)")), "other attacks or settings (pgd)"),
        (result(bits(40, 9), cell_info(attack="fgsm")), "other attacks or settings (fgsm, pgd)"),
        (result(bits(40, 9), cell_info(), id=[f"s{i}" for i in range(40)][::-1]), "other samples (40 instead of 40"),
    ],
)
def test_rows_of_another_question_are_set_apart_with_the_reason(other, reason):
    one, two = result(bits(40, 30), cell_info("one")), result(bits(40, 20), cell_info("two"))
    found = compare([*contenders([one, two], "here"), *contenders([other], "there")])
    assert [len(group.rows) for group in found.groups] == [2, 1]
    assert found.groups[0].separation == ""
    assert found.groups[1].separation.startswith("not comparable with group 1: ")
    assert reason in found.groups[1].separation
    assert reason in " ".join(comparison_text(found).split())
    with pytest.raises(CompareError, match="no two of the 2 rows can be compared"):
        compare([*contenders([one], "here"), *contenders([other], "there")])


def test_less_than_two_rows_are_refused():
    with pytest.raises(CompareError, match="only 1 row to compare"):
        compare(contenders([result(bits(40, 30), cell_info())]))


# Who is broken by what


def test_what_each_attack_broke_and_what_it_alone_broke_are_counted():
    right = [1, 1, 1, 1, 1, 0]
    pgd = result([1, 0, 0, 0, 1, 0], cell_info(), correct=right, stage=["", "ce", "ce", "dlr", "", ""])
    square = result([1, 1, 0, 1, 0, 0], cell_info(attack="square"), correct=right)
    proof = result([1, 0, 0, 0, 0, 0], cell_info(attack="proof", attack_kind="certificate"), correct=right)
    (group,) = compare([*contenders([pgd, square, proof]), *contenders([result(bits(6, 3), cell_info("other", "pgd")),
                        result(bits(6, 3), cell_info("other", "square"))])]).groups  # fmt: skip
    (line,) = [line for line in group.rows if line.label == "net"]
    assert [(one.attack, one.broke, one.alone, one.stages) for one in line.broken_by] == [
        ("pgd", 3, 2, (("ce", 2), ("dlr", 1))),
        ("square", 2, 1, ()),
    ]
    assert line.wrong_clean == 1


def test_two_seeds_of_one_attack_are_one_attack():
    first, second = result([1, 0, 1, 1], cell_info()), result([1, 1, 0, 1], cell_info(seed=1))
    others = [result([1, 1, 1, 0], cell_info("b", seed=seed)) for seed in (0, 1)]
    (group,) = compare(contenders([first, second, *others])).groups
    assert {line.label: [(one.attack, one.broke, one.alone) for one in line.broken_by] for line in group.rows} == {
        "net": [("pgd", 2, 2)],
        "b": [("pgd", 1, 1)],
    }


# Formats


def test_the_matrix_is_shown_up_to_twelve_rows_and_fits_the_terminal():
    twelve, thirteen = (comparison_text(compare(contenders(drawn(count, n=400)))) for count in (12, 13))
    assert "Every pair:" in twelve
    assert "Every pair:" not in thirteen
    assert "CSV" in thirteen
    assert max(map(len, [*twelve.splitlines(), *thirteen.splitlines()])) <= WIDTH


def test_the_matrix_has_differences_above_the_diagonal_and_p_values_below():
    found = compare(contenders([result(bits(100, robust), cell_info(str(robust))) for robust in (90, 60, 58)]))
    lines = comparison_text(found).split("Every pair:\n")[1].splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["1", "–", "+30.0*", "+32.0*"],
        ["2", "<0.001", "–", "+2.0"],
        ["3", "<0.001", "0.500", "–"],
    ]


def test_csv_and_json_have_every_pair():
    found = compare(contenders(drawn(14)))
    lines = list(csv.DictReader(io.StringIO(pairs_frame(found).to_csv(index=False))))
    told = json.loads(json.dumps(comparison_json(found), allow_nan=False))
    (group,) = told["groups"]
    assert len(lines) == len(group["pairs"]) == 14 * 13 // 2
    for line, pair in zip(lines, group["pairs"], strict=True):
        assert line["first"] == group["rows"][pair["first"]]["label"]
        assert line["second"] == group["rows"][pair["second"]]["label"]
        assert [float(line[name]) for name in ("difference", "low", "high", "p_holm")] == pytest.approx(
            [pair["difference"], *pair["interval"], pair["p_holm"]]
        )
    assert [tuple(row["rank"]) for row in group["rows"]] == [line.row.rank_interval for line in found.groups[0].rows]


def test_names_do_not_break_the_markdown():
    named = "a|b <img> [x](y) *z*"
    text = comparison_markdown(
        compare(contenders([result(bits(9, 5), cell_info(named)), result(bits(9, 2), cell_info("c"))]))
    )
    html = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    assert "a|b &lt;img&gt; [x](y) *z*" in html
    assert html.count("<table>") == 2


def test_names_of_another_script_and_control_characters_are_shown_safely():
    found = compare(contenders([result(bits(9, 5), cell_info("网络\x1b[31m")), result(bits(9, 2), cell_info("c"))]))
    assert "\x1b" not in comparison_text(found)
    assert "网络" in comparison_text(found)


# The command

RUN = ("run", "--data=data.npz", "--threat=Linf:0.15", "--attacks=fgsm,pgd(steps=5),replay")


@pytest.fixture(scope="module")
def ran(tiny, tmp_path_factory):
    """A project with two runs: the model with means of its own, and one whose means are worse."""
    folder = tiny.write_project(tmp_path_factory.mktemp("compared"), count=120)
    tiny.write_model(folder, tiny.MODEL.replace("2 * means", "2 * means.roll(1, 1)"), "worse.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert tiny.run_here(*RUN, "--model=model.py:build", "--out=before") == 0
        assert tiny.run_here(*RUN, "--model=worse.py:build", "--model=model.py:build", "--out=both") == 0
    return folder


@pytest.fixture
def here(ran, monkeypatch):
    monkeypatch.chdir(ran)
    return ran


def assert_refused(done, *words):
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_one_run_is_compared_as_its_leaderboard_ranks_it(here, call):
    done = call("compare", "both")
    assert done.returncode == 0
    assert "model.build" in done.stdout
    assert "worse.build" in done.stdout
    assert "replay" in done.stdout
    told = json.loads(call("compare", "both", "--format=json").stdout)
    shown = call("show", "both").stdout
    for row in told["groups"][0]["rows"]:
        assert f"{100 * row['robust_accuracy']:.1f}" in shown


@pytest.mark.parametrize("columns", [NARROWEST, 130])
def test_the_comparison_fills_the_terminal_and_a_file_has_the_usual_width(here, call, monkeypatch, tmp_path, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    longest = max(map(len, call("compare", "both").stdout.splitlines()))
    assert columns - 15 < longest <= columns
    assert call("compare", "both", f"--out={tmp_path / 'text'}").returncode == 0
    assert WIDTH - 15 < max(map(len, (tmp_path / "text").read_text(encoding="utf-8").splitlines())) <= WIDTH


def test_two_runs_are_put_together_without_replays(here, call):
    done = call("compare", "before", "both")
    assert done.returncode == 0
    assert "Replays are left out" in done.stdout
    told = json.loads(call("compare", "before", "both", "--format=json").stdout)
    assert [run["name"] for run in told["runs"]] == ["before", "both"]
    (group,) = told["groups"]
    assert sorted(row["label"] for row in group["rows"]) == ["model.build", "worse.build"]
    assert [one["attack"] for one in group["rows"][0]["broken_by"]] == ["fgsm", "pgd(steps=5)"]


def test_a_folder_of_one_run_and_a_results_folder_can_both_be_given(here, call):
    (run,) = Path("both/runs").iterdir()
    assert call("compare", run).returncode == 0


def test_the_comparison_is_written_to_a_file(here, call, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(WIDTH))  # That of files.
    for form in ("text", "markdown", "csv", "json"):
        out = tmp_path / "new" / form
        done = call("compare", "both", f"--format={form}", f"--out={out}")
        assert (done.returncode, done.stdout) == (0, f"written: {out}\n")
        assert out.read_text(encoding="utf-8") == call("compare", "both", f"--format={form}").stdout


def test_wrong_input_is_one_sentence_and_exit_code_2(here, call, tmp_path):
    assert_refused(call("compare", tmp_path), f"{tmp_path} holds no run")
    assert_refused(call("compare", "before"), "only 1 row to compare")
    assert_refused(call("compare", "both", "both"), "given twice")
    assert_refused(call("compare", "both", "--model=nobody"), "no row matches model 'nobody'")
    assert_refused(call("compare", "both", "--model=worse*"), "only 1 row to compare")
    assert_refused(call("compare", "both", "--format=pdf"), "pdf")
    assert_refused(call("compare"), "RUN")


def test_a_row_keeps_the_rank_that_a_replay_gave_it_though_replays_are_left_out(here, call):
    # At half the range every sample has an example to replay.
    guarded = ("run", "--data=data.npz", "--threat=Linf:0.5", "--attacks=pgd(steps=9),square(queries=20),replay")
    assert call(*guarded, "--defense=bit_depth,none", "--out=guarded", "--model=model.py:build").returncode == 0
    alone, together = (
        {row["label"]: row["unranked"] for group in json.loads(call("compare", *runs, "--format=json").stdout)["groups"]
         for row in group["rows"]}
        for runs in (["guarded"], ["guarded", "both"])
    )  # fmt: skip
    assert alone == {"model.build": [], "model.build × bit_depth": []}
    assert together["model.build × bit_depth"] == []
