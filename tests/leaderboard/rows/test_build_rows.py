"""Rows, ranks and files from planted records with known answers."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from builders import bits, cell_info, result
from gauntlet.leaderboard.report.cells_csv import CELL_DTYPES, cells_frame, read_cells
from gauntlet.leaderboard.report.csv_writer import csv_text
from gauntlet.leaderboard.report.leaderboard_csv import LEADERBOARD_DTYPES, leaderboard_frame, read_leaderboard
from gauntlet.leaderboard.report.leaderboard_files import write_leaderboard_files
from gauntlet.leaderboard.report.markdown_writer import RunContext
from gauntlet.leaderboard.report.terminal import terminal_table
from gauntlet.leaderboard.results.errors import WriteError
from gauntlet.leaderboard.results.escape import fenced, markdown, spreadsheet, visible
from gauntlet.leaderboard.results.record import Flag
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.ranks import unrank_reasons
from gauntlet.leaderboard.rows.worst_case import worst_case
from gauntlet.leaderboard.stats.proportions import Proportion

CONTEXT = RunContext(
    threat_models=("Linf:0.15",),
    data="digits, test split, 797 images",
    versions={"torch": "2.13.0"},
    device="cpu",
    seed=0,
    command="gauntlet run --suite 'quick' --seed 0",
    run_path="runs/one",
    started="2026-11-21T10:00:00+00:00",
)


def of(table, model):
    (row,) = [row for row in table if row.model == model]
    return row


def ranks_of(table):
    return {row.model: (row.rank, row.rank_interval) for row in table}


# Worst case


def test_a_sample_is_robust_only_if_no_attack_broke_it():
    attacks = [
        result([True, True, False, False], cell_info(attack="pgd")),
        result([True, False, True, False], cell_info(attack="square")),
    ]
    found = worst_case(attacks)
    assert found.robust.tolist() == [True, False, False, False]
    assert found.complete
    (row,) = build_rows(attacks)
    assert row.robust == Proportion(1, 4)
    assert row.attacks == {"pgd": Proportion(2, 4), "square": Proportion(2, 4)}


def test_attacks_on_different_samples_are_joined_on_those_that_all_covered():
    attacks = [
        result([True, True, False, True], cell_info(attack="pgd"), id=["a", "b", "c", "d"], label=[1, 2, 3, 4]),
        result([False, True], cell_info(attack="slow"), id=["d", "b"], label=[4, 2]),
    ]
    found = worst_case(attacks)
    assert found.id.tolist() == ["b", "d"]
    assert found.label.tolist() == [2, 4]
    assert found.robust.tolist() == [True, False]
    (row,) = build_rows(attacks)
    assert (row.robust, row.clean, row.status, row.rank) == (Proportion(1, 2), Proportion(2, 2), "ok", 1)


def test_repeated_sample_ids_are_refused_where_samples_must_be_matched():
    attacks = [
        result([True, True], cell_info(attack="pgd"), id=["a", "a"]),
        result([True], cell_info(attack="slow"), id=["a"]),
    ]
    with pytest.raises(ValueError, match=r"sample ids of cell 'net × none × pgd' repeat"):
        worst_case(attacks)


def test_the_worst_attack_of_a_randomised_model_is_chosen_on_one_set_of_draws_and_scored_on_another():
    attacks = [
        result(
            [True] * 4,
            cell_info(attack="a", randomised=True),
            wrong_share=[0.6, 0.2, 0.9, 0.4],
            wrong_share_scored=[0.4, 0.9, 0.6, 0.5],
        ),
        result(
            [True] * 4,
            cell_info(attack="b", randomised=True),
            wrong_share=[0.5, 0.3, 0.1, 0.3],
            wrong_share_scored=[0.9, 0.1, 0.2, 0.0],
        ),
    ]
    # Chosen: a, b, a, a. Scored: 0.4 robust, 0.1 robust, 0.6 wrong, 0.5 a tie, which is no majority.
    assert worst_case(attacks).robust.tolist() == [True, True, False, False]


def test_a_randomised_sample_that_is_wrong_when_clean_is_not_robust():
    attacks = [
        result([False], cell_info(randomised=True), correct=[False], wrong_share=[0.0], wrong_share_scored=[0.0])
    ]
    assert worst_case(attacks).robust.tolist() == [False]
    assert build_rows(attacks)[0].attacks == {"pgd": Proportion(0, 1)}


def test_cells_of_two_rows_are_not_mixed_in_one_worst_case():
    with pytest.raises(ValueError, match="rows are mixed"):
        worst_case([result([True], cell_info("a")), result([True], cell_info("b"))])
    with pytest.raises(ValueError, match="empty"):
        worst_case([])


def test_several_seeds_of_an_attack_are_its_worst_case():
    (row,) = build_rows(
        [result([True, False, True], cell_info(seed=1)), result([False, True, True], cell_info(seed=0))]
    )
    assert row.attacks == {"pgd": Proportion(1, 3)}
    assert row.seeds == (0, 1)


def test_blocks_of_a_cell_give_the_same_row_as_one_block():
    robust, labels = [True, False, True, True, False], [0, 1, 0, 1, 1]
    (whole,), (split,) = (build_rows([result(robust, blocks=count, label=labels)]) for count in (1, 3))
    assert replace(split, peak_memory_mib=whole.peak_memory_mib) == whole
    assert (whole.peak_memory_mib, split.peak_memory_mib) == (10.0, 12.0)


def test_the_worst_class_is_the_one_with_the_lowest_robust_accuracy():
    (row,) = build_rows([result([True, True, False, True, False, False], label=[7, 7, 3, 3, 5, 5])])
    assert (row.worst_class.label, row.worst_class.robust) == (5, Proportion(0, 2))


# Errors and unfinished cells


def test_a_failed_cell_is_shown_and_is_never_counted_as_robust():
    results = [
        result(bits(50, 40), cell_info("broken", "pgd")),
        result((), cell_info("broken", "cw"), error="out of memory", expected=50),
        result(bits(50, 5), cell_info("weak", "pgd")),
        result(bits(50, 5), cell_info("weak", "cw")),
    ]
    table = build_rows(results)
    broken = of(table, "broken")
    assert (broken.status, broken.rank, broken.robust) == ("error", None, Proportion(0, 0))
    assert broken.attacks == {"pgd": Proportion(40, 50), "cw": "error"}
    assert broken.clean == Proportion(50, 50)
    assert "out of memory" in " ".join(broken.unranked)
    assert [row.model for row in table] == ["weak", "broken"]
    assert of(table, "weak").rank_interval == (1, 1)


def test_a_cell_that_failed_after_some_blocks_is_still_an_error():
    (row,) = build_rows([result(bits(10, 9), error="killed", expected=10)])
    assert (row.status, row.rank, row.attacks) == ("error", None, {"pgd": "error"})


@pytest.mark.parametrize(("robust", "expected"), [(bits(30, 30), 50), ((), 50), ((), 0)])
def test_an_unfinished_cell_has_no_rank_and_no_accuracy_of_its_own(robust, expected):
    results = [result(bits(50, 50), cell_info(attack="pgd")), result(robust, cell_info(attack="cw"), expected=expected)]
    (row,) = build_rows(results)
    assert (row.status, row.rank, row.attacks["cw"]) == ("unfinished", None, "–")
    assert row.robust.n == len(robust)
    assert not row.worst_case.complete
    assert "not finished" in row.unranked[0]


def test_no_results_give_empty_tables_with_all_columns_and_types(tmp_path):
    assert build_rows([]) == []
    for frame, dtypes in ((cells_frame([]), CELL_DTYPES), (leaderboard_frame([]), LEADERBOARD_DTYPES)):
        assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == dict(dtypes)
        assert len(frame) == 0
    assert terminal_table([]) == ""
    files = write_leaderboard_files(tmp_path, [], CONTEXT)
    assert "No cells were run." in files.markdown.read_text("utf-8")
    assert read_leaderboard(files.leaderboard_csv).columns.tolist() == list(LEADERBOARD_DTYPES)


# Ranks


def test_rows_that_differ_clearly_are_ranked_in_order():
    table = build_rows(
        [result(bits(200, k), cell_info(name)) for name, k in (("low", 20), ("high", 150), ("middle", 80))]
    )
    assert ranks_of(table) == {"high": (1, (1, 1)), "middle": (2, (2, 2)), "low": (3, (3, 3))}
    assert [row.model for row in table] == ["high", "middle", "low"]


def test_rows_that_cannot_be_told_apart_share_a_rank_and_show_its_range():
    table = build_rows([result(bits(100, k), cell_info(name)) for name, k in (("b", 70), ("a", 72), ("c", 10))])
    assert ranks_of(table) == {"a": (1, (1, 2)), "b": (1, (1, 2)), "c": (3, (3, 3))}
    assert [row.model for row in table] == ["a", "b", "c"]


def test_identical_rows_share_the_whole_range():
    table = build_rows([result(bits(40, 20), cell_info(name)) for name in "abc"])
    assert set(ranks_of(table).values()) == {(1, (1, 3))}


def test_a_difference_that_is_significant_alone_is_not_after_holms_correction():
    # 6 samples against 0: p = 2 / 2^6 = 0.031 alone; with three pairs Holm asks for three times that.
    alone = build_rows([result(bits(20, k), cell_info(name)) for name, k in (("a", 16), ("b", 10))])
    assert ranks_of(alone) == {"a": (1, (1, 1)), "b": (2, (2, 2))}
    three = build_rows([result(bits(20, k), cell_info(name)) for name, k in (("a", 16), ("b", 10), ("c", 13))])
    assert {rank for rank, _ in ranks_of(three).values()} == {1}


def test_pairing_tells_rows_apart_whose_intervals_overlap():
    table = build_rows([result(bits(100, 60), cell_info("a")), result(bits(100, 52), cell_info("b"))])
    assert of(table, "b").rank == 2
    assert of(table, "a").robust.interval[0] < of(table, "b").robust.interval[1]


@pytest.mark.parametrize("seed", range(6))
def test_a_rank_is_one_plus_the_rows_that_an_independent_count_finds_better(seed):
    from statsmodels.stats.contingency_tables import mcnemar as reference
    from statsmodels.stats.multitest import multipletests

    rng = np.random.default_rng(seed)
    outcomes = {f"m{i}": rng.uniform(size=120) < share for i, share in enumerate(rng.uniform(0.2, 0.8, size=5))}
    table = build_rows([result(robust, cell_info(name)) for name, robust in outcomes.items()])
    names = list(outcomes)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    tables = [
        [
            [np.sum(outcomes[a] == k) if False else np.sum((outcomes[a] == k) & (outcomes[b] == m)) for m in (1, 0)]
            for k in (1, 0)
        ]
        for a, b in pairs
    ]
    rejected = multipletests([min(reference(t, exact=True).pvalue, 1.0) for t in tables], 0.05, "holm")[0]
    for name in names:
        better = sum(
            bool(hit) and outcomes[a if name == b else b].mean() > outcomes[name].mean()
            for (a, b), hit in zip(pairs, rejected, strict=True)
            if name in (a, b)
        )
        worse = sum(bool(hit) and name in pair for pair, hit in zip(pairs, rejected, strict=True)) - better
        row = of(table, name)
        assert (row.rank, row.rank_interval) == (1 + better, (1 + better, 5 - worse))


@pytest.mark.parametrize(
    "changes",
    [{"threat": "L2:0.5", "norm": "L2", "eps": 0.5}, {"data": "letters"}, {"suite": "full"}, {"seed": 3}],
    ids=lambda changes: next(iter(changes)),
)
def test_rows_are_compared_only_on_the_same_data_threat_model_suite_and_seeds(changes):
    table = build_rows([result(bits(100, 90), cell_info("a")), result(bits(100, 10), cell_info("b", **changes))])
    assert ranks_of(table) == {"a": (1, (1, 1)), "b": (1, (1, 1))}


def test_rows_are_compared_only_on_the_same_samples_in_the_same_order():
    ids = [f"s{i}" for i in range(100)]
    table = build_rows(
        [result(bits(100, 90), cell_info("a"), id=ids), result(bits(100, 10), cell_info("b"), id=ids[::-1])]
    )
    assert ranks_of(table) == {"a": (1, (1, 1)), "b": (1, (1, 1))}


# Rows without rank


def test_a_blocking_flag_takes_the_rank_and_a_warning_does_not():
    block = Flag("zero-gradient", "block", "The gradient is zero on 90 of 100 samples: run BPDA.")
    warn = Flag("converged", "warn", "Twice the steps break 1 more sample.")
    table = build_rows(
        [
            result(bits(100, 95), cell_info("masked"), flags=[block]),
            result(bits(100, 50), cell_info("honest"), flags=[warn]),
        ]
    )
    assert ranks_of(table) == {"honest": (1, (1, 1)), "masked": (None, None)}
    assert of(table, "masked").unranked == (block.message,)
    assert of(table, "honest").flags == (warn,)


def test_a_flag_on_one_block_of_one_attack_is_a_flag_of_the_row():
    flag = Flag("zero-gradient", "block", "Zero.")
    clean, flagged = result(bits(9, 5), blocks=3), result(bits(9, 5), blocks=3, flags=[flag])
    mixed = replace(clean, blocks=(*clean.blocks[:2], flagged.blocks[2]))
    (row,) = build_rows([mixed, result(bits(9, 5), cell_info(attack="square"))])
    assert (row.flags, row.rank) == ((flag,), None)


def test_a_randomised_row_has_no_rank_with_or_without_its_flag():
    flag = Flag("randomised-defense", "block", "EOT is needed.", needs=("eot",))
    for flags in ((), (flag,)):
        (row,) = build_rows([result(bits(20, 10), cell_info(randomised=True), flags=flags)])
        assert row.rank is None
        assert len(row.unranked) == 1
        assert "EOT" in row.unranked[0]


@pytest.mark.parametrize(
    ("techniques", "missing"),
    [
        (("white-box",), ("bpda", "black-box", "transfer")),
        (("bpda",), ("black-box", "transfer")),
        (("black-box",), ("bpda", "transfer")),
        (("bpda+eot", "black-box"), ("transfer",)),
    ],
)
def test_a_blocked_row_says_in_which_ways_it_must_still_be_attacked(techniques, missing):
    flag = Flag("non-differentiable-defense", "block", "Not differentiable.", needs=("bpda", "black-box", "transfer"))
    table = build_rows(
        [result(bits(20, 10), cell_info(attack=way, techniques={"": way}), flags=[flag]) for way in techniques]
    )
    (reason,) = unrank_reasons(table[0])
    asked = reason.partition("before attacks by ")[2]
    for word in ("bpda", "black-box", "transfer"):
        assert (word in asked) == (word in missing)


def test_a_blocked_row_is_ranked_once_it_has_been_attacked_in_all_ways():
    flag = Flag("non-differentiable-defense", "block", "Not differentiable.", needs=("bpda", "black-box", "transfer"))
    cells = [cell_info(attack=way, techniques={"": way}) for way in ("bpda", "black-box", "transfer")]
    assert build_rows([result(bits(20, 10), cell, flags=[flag]) for cell in cells])[0].rank == 1
    unfinished = [result(bits(20, 10), cell, flags=[flag], expected=20 + (cell is cells[2])) for cell in cells]
    assert "transfer" in " ".join(build_rows(unfinished)[0].unranked)


@pytest.mark.parametrize("flag", [Flag("planted", "block", "Missed.", needs=()), Flag("planted", "block", "Missed.")])
def test_a_block_that_no_attack_lifts_stands(flag):
    every = {way: way for way in ("white-box", "bpda", "eot", "beneath", "transfer", "black-box")}
    (row,) = build_rows([result(bits(20, 10), cell_info(techniques=every), flags=[flag])])
    assert row.rank is None
    assert "Missed." in row.unranked[0]


def test_threat_models_stand_in_order_of_first_appearance_and_unranked_rows_last():
    block = Flag("zero-gradient", "block", "Zero.")
    l2 = {"threat": "L2:0.5", "norm": "L2", "eps": 0.5}
    table = build_rows(
        [
            result(bits(100, 99), cell_info("masked", **l2), flags=[block]),
            result(bits(100, 50), cell_info("a")),
            result(bits(100, 10), cell_info("a", **l2)),
            result(bits(100, 80), cell_info("b")),
        ]
    )
    assert [(row.threat, row.model) for row in table] == [
        ("L2:0.5", "a"),
        ("L2:0.5", "masked"),
        ("Linf:0.15", "b"),
        ("Linf:0.15", "a"),
    ]


# Tables and files


def planted():
    warn = Flag("converged", "warn", "Twice the steps break 1 more sample.")
    return [
        result(bits(797, 581), cell_info("net"), blocks=2, flags=[warn], label=np.arange(797) % 10, cached=True),
        result(bits(797, 700), cell_info("net", "square", attack_kind="black-box"), label=np.arange(797) % 10),
        result(
            bits(797, 60),
            cell_info("plain"),
            label=np.arange(797) % 10,
            correct=bits(797, 790),
            distance=np.where(bits(797, 60), np.nan, 0.05),
        ),
        result((), cell_info("plain", "square", attack_kind="black-box"), error="line one\nline | two", expected=797),
    ]


def test_the_table_of_cells_holds_the_planted_figures():
    frame = cells_frame(planted()).set_index(["model", "attack"])
    net = frame.loc[("net", "pgd")]
    assert (net["n"], net["robust_accuracy"], net["clean_accuracy"]) == (797, 581 / 797, 1.0)
    assert (net["robust_low"], net["robust_high"]) == Proportion(581, 797).interval
    assert (net["seconds"], net["forwards_per_sample"], net["backwards_per_sample"]) == (2.0, 4.0, 3.0)
    assert (net["candidates_rejected"], net["disagreements"], net["peak_memory_mib"]) == (2, 4, 11.0)
    assert (net["status"], net["flags"], net["device"], net["cached"]) == ("ok", "converged", "cpu", True)
    plain = frame.loc[("plain", "pgd")]
    assert (plain["clean_accuracy"], plain["median_distance"]) == (790 / 797, 0.05)
    failed = frame.loc[("plain", "square")]
    assert (failed["status"], failed["n"], failed["expected"]) == ("error", 0, 797)
    assert math.isnan(failed["robust_accuracy"])
    assert failed["error"] == "RuntimeError: line one\nline | two"


def test_the_leaderboards_frame_holds_shares_counts_and_a_column_for_each_attack():
    frame = leaderboard_frame(build_rows(planted())).set_index("model")
    net, plain = frame.loc["net"], frame.loc["plain"]
    assert (net["rank"], net["rank_low"], net["rank_high"], net["n"]) == (1, 1, 1, 797)
    assert (net["robust_accuracy"], net["robust[pgd]"], net["robust[square]"]) == (581 / 797, 581 / 797, 700 / 797)
    assert (net["seconds"], net["forwards_per_sample"], net["worst_attack"]) == (4.0, 8.0, "pgd")
    assert pd.isna(plain["rank"])
    assert math.isnan(plain["robust[square]"])
    assert (plain["status"], plain["n"]) == ("error", 0)
    assert (plain["clean_n"], plain["clean_accuracy"]) == (797, 790 / 797)


def test_csv_files_are_read_back_exactly_with_their_types(tmp_path):
    results = [*planted(), result(bits(7, 3), cell_info("NA", defense="null"))]
    files = write_leaderboard_files(tmp_path / "new" / "folder", results, CONTEXT)
    for read, expected, column in (
        (read_leaderboard(files.leaderboard_csv), leaderboard_frame(build_rows(results)), "unranked"),
        (read_cells(files.cells_csv), cells_frame(results), "error"),
    ):
        expected[column] = expected[column].map(visible).astype("string")  # an error's lines become one
        pd.testing.assert_frame_equal(read, expected)


def test_plain_pandas_reads_the_columns_of_numbers_as_numbers(tmp_path):
    frame = pd.read_csv(write_leaderboard_files(tmp_path, planted(), CONTEXT).leaderboard_csv)
    numbers = [name for name, dtype in LEADERBOARD_DTYPES.items() if dtype != "string"]
    assert all(pd.api.types.is_numeric_dtype(frame[name]) for name in [*numbers, "robust[pgd]"])


def test_the_report_shows_figures_with_intervals_ranks_errors_flags_and_how_to_repeat_the_run(tmp_path):
    text = write_leaderboard_files(tmp_path, planted(), CONTEXT).markdown.read_text("utf-8")
    assert "72.9 [69.7, 76.0]" in text
    assert re.search(r"^\| 1 \| net \|", text, re.MULTILINE)
    assert re.search(r"^\| – \| plain \|", text, re.MULTILINE)
    assert "(incomplete)" in text
    for needed in (
        "an upper bound of the truth",
        "covers sampling only",
        "RuntimeError: line one line \\| two",
        "Twice the steps break 1 more sample.",
        "pgd(steps=40)",
        "torch 2.13.0",
        "```sh\ngauntlet run --suite 'quick' --seed 0\n```",
    ):
        assert needed in text


def test_a_range_of_ranks_is_shown_with_both_ends(tmp_path):
    results = [result(bits(100, k), cell_info(name)) for name, k in (("a", 72), ("b", 70), ("c", 71), ("d", 1))]
    text = write_leaderboard_files(tmp_path, results, CONTEXT).markdown.read_text("utf-8")
    assert "| 1–3 | a |" in text
    assert "| 4 | d |" in text


def test_the_terminal_table_fits_100_columns_and_keeps_both_ends_of_a_long_name():
    name = "wide_resnet_28_10.trades_with_extra_synthetic_data_and_more_linf0.15"
    results = [result(bits(50, 20), cell_info(name, defense="jpeg(quality=75, chroma='4:2:0', optimise=False)"))]
    results += planted()
    lines = terminal_table(build_rows(results)).splitlines()
    assert max(map(len, lines)) <= 100
    assert any(re.search(r"wide_.*….*0\.15", line) for line in lines)
    assert any("72.9 [69.7, 76.0]" in line and "pgd" in line for line in lines)
    assert any("ERROR" in line for line in lines)


def test_writing_again_replaces_the_files_and_leaves_nothing_beside_them(tmp_path):
    write_leaderboard_files(tmp_path, planted(), CONTEXT)
    files = write_leaderboard_files(tmp_path, planted()[:2], CONTEXT)
    names = ["cells.csv", "classes.csv", "leaderboard.csv", "leaderboard.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert read_leaderboard(files.leaderboard_csv)["model"].tolist() == ["net"]


def test_a_reader_of_the_old_files_never_sees_a_part_of_the_new_ones(tmp_path):
    for path in (tmp_path / "leaderboard.csv", tmp_path / "cells.csv", tmp_path / "leaderboard.md"):
        path.write_text("old", "utf-8")
        with path.open(encoding="utf-8") as reader:
            write_leaderboard_files(tmp_path, planted(), CONTEXT)
            assert reader.read() == "old"


def test_a_file_that_does_not_fit_leaves_all_old_files_intact_and_is_named(tmp_path):
    resource = pytest.importorskip("resource")
    files = write_leaderboard_files(tmp_path, planted(), CONTEXT)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The leaderboard still fits; the table of cells does not.
    many = [result(bits(9, 4), cell_info(attack=f"a{i}", attack_spec="x" * 400)) for i in range(20)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, old[1]))
    try:
        with pytest.raises(WriteError, match=r"cells\.csv"):
            write_leaderboard_files(tmp_path, many, CONTEXT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert files.cells_csv in before


# Hostile names

HOSTILE = [
    "=cmd|'/c calc'!A1",
    "+1+1",
    "-2",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    '"=1+1"',
    "' =1",
    "a;=1",
    "＝1+1",
    "\u200b=1",
    "<script>alert(1)</script>",
    "<img src=x onerror=y>",
    "[click](javascript:alert(1))",
    "![x](http://evil.example/x.png)",
    "[ref]: http://evil.example",
    "<http://evil.example>",
    "https://evil.example",
    "www.evil.example",
    "a|b\\|c\\",
    "`code` ``more",
    "**bold** _it_ __x__ ~~gone~~",
    "line\n\n# heading\n- item\n| a | b |",
    "# heading",
    "1. list",
    "- list",
    "&lt;b&gt; &#124; &amp;",
    "\\u0041\\",
    "rtl\u202egnp.exe\u2066",
    "\x1b[31mred\x00\x07",
    "\ud800",
    "\u2028x\u0085y",
]


def rendered_cells(text):
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    inlines = [token for token in tokens if token.type == "inline"]
    kinds = {child.type for token in inlines for child in token.children} | {token.type for token in tokens}
    texts = ["".join(child.content for child in token.children) for token in inlines]
    return kinds, texts


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_renders_as_itself_in_markdown(name):
    table = f"| a | b |\n|---|---|\n| {markdown(name)} | x |\n"
    kinds, texts = rendered_cells(table)
    assert texts == ["a", "b", visible(name), "x"]
    assert kinds <= {
        *("table_open", "table_close", "thead_open", "thead_close", "tbody_open", "tbody_close", "tr_open", "tr_close"),
        *("th_open", "th_close", "td_open", "td_close", "inline", "text", "text_special"),
    }
    kinds, texts = rendered_cells(f"- {markdown(name)}\n")
    assert texts == [visible(name)]
    assert kinds <= {
        *("bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close"),
        *("paragraph_open", "paragraph_close", "inline", "text", "text_special"),
    }


@pytest.mark.parametrize("name", ["https://evil.example", "ftp://evil.example", "mailto:a.b", "www.evil.example"])
def test_bare_addresses_are_broken_up_for_renderers_that_make_links_of_them(name):
    assert not re.search(r"[a-z]://|www\.|mailto:", markdown(name))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_report_of_hostile_names_and_messages_has_no_link_no_html_and_no_extra_cell(name, tmp_path):
    flag = Flag(name, "block", name)
    cell = cell_info(name, name, defense=name, attack_spec=name, data=name, suite=name, precision=name)
    results = [result([True, False], cell, flags=[flag], error=name)]
    context = replace(CONTEXT, data=name, versions={name: name}, device=name, command=name, started=name)
    text = write_leaderboard_files(tmp_path, results, context).markdown.read_text("utf-8")
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(text)
    children = [child for token in tokens for child in token.children or []]
    kinds = {token.type for token in tokens} | {child.type for child in children}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "code_inline", "em_open", "s_open"}
    assert len([token for token in tokens if token.type == "td_open"]) == 14
    assert len([token for token in tokens if token.type == "th_open"]) == 14
    assert len([token for token in tokens if token.type == "fence"]) == 1
    headings = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings[2:] == ["How to read it", "Without rank", "Flags", "Errors", "Setup", "Reproduce"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_no_formula_and_no_extra_field_in_a_csv_file(name):
    results = [result([True, False], cell_info(name, name, defense=name), flags=[Flag(name, "warn", name)], error=name)]
    for frame in (cells_frame(results), leaderboard_frame(build_rows(results))):
        lines = list(csv.reader(io.StringIO(csv_text(frame))))
        assert [len(line) for line in lines] == [len(frame.columns)] * 2
        for value, (_, dtype) in zip(lines[1], frame.dtypes.items(), strict=True):
            if dtype == "string":
                for field in value.split(";"):
                    assert not re.match("[\\s\"'`]*[=+\\-@＝＋－＠]", field) or re.match("\\s*'", field)
            elif value not in ("", "True", "False"):
                float(value)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("=1+1", "'=1+1"),
        ("\t=1", "'=1"),
        ('"=1+1"', '\'"=1+1"'),
        ("' @x", "'' @x"),
        ("a; -1", "a;' -1"),
        ("＝1", "'＝1"),
        ("a=1", "a=1"),
    ],
)
def test_an_apostrophe_stands_before_what_starts_a_formula(name, field):
    assert spreadsheet(name) == field


def test_negative_numbers_in_a_column_of_numbers_stay_numbers():
    frame = pd.DataFrame({"margin": [-1.5, 2.0], "name": pd.Series(["-1.5", "b"], dtype="string")})
    assert csv_text(frame) == "margin,name\n-1.5,'-1.5\n2.0,b\n"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_takes_one_visible_line_in_the_terminal(name):
    text = terminal_table(build_rows([result([True, False], cell_info(name, name, defense=name))]))
    assert len(text.splitlines()) == 3
    assert all(character.isprintable() for character in text.replace("\n", ""))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cnn_small.trades_digits_linf0.15", "cnn_small.trades_digits_linf0.15"),
        ("pgd(steps=40, alpha=-0.1)", "pgd(steps=40, alpha=-0.1)"),
        ("Linf:8/255", "Linf:8/255"),
        ("2026-11-21T10:00:00+00:00", "2026-11-21T10:00:00+00:00"),
        ("modèle №1 模型", "modèle №1 模型"),
    ],
)
def test_ordinary_names_are_left_alone(name, shown):
    assert markdown(name) == visible(name) == spreadsheet(name) == shown


def test_a_command_is_shown_exactly_and_cannot_close_its_block():
    text = fenced("run ```\n````\n# not a heading")
    (block,) = MarkdownIt().parse(text)
    assert block.content == "run ```\n````\n# not a heading\n"
