"""Like is ranked with like: which rows are compared with each other, and how tables say so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from builders import bits, cell_info, result
from gauntlet.leaderboard.report.comparisons import describe_comparisons
from gauntlet.leaderboard.report.leaderboard_csv import leaderboard_frame
from gauntlet.leaderboard.report.leaderboard_files import write_leaderboard_files
from gauntlet.leaderboard.report.markdown_writer import RunContext
from gauntlet.leaderboard.report.terminal import WIDTH, terminal_table
from gauntlet.leaderboard.results.record import Flag
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.conditions import BLACK_BOX_FLAG, LABELS_ONLY

NOISE, PGD = "noise(draws=1)", "pgd(steps=20)"


def row_of(name, robust, *attacks, flags=(), n=100, **changes):
    """The cells of a row of the suite `custom` that faced these attacks."""
    return [
        result(bits(n, robust), cell_info(name, attack, attack_spec=attack, suite="custom", **changes), flags=flags)
        for attack in attacks or (PGD,)
    ]


def black_box(labels_only=False):
    return Flag(BLACK_BOX_FLAG, "warn", "Outputs only.", evidence=((LABELS_ONLY, float(labels_only)),))


def ranks_of(table):
    return {row.model: (row.comparison, row.rank, row.rank_interval, row.compared) for row in table}


def test_rows_that_faced_other_attacks_are_ranked_apart():
    table = build_rows([*row_of("noisy", 95, NOISE), *row_of("strong", 60), *row_of("weak", 10)])
    assert ranks_of(table) == {"noisy": ("A", 1, (1, 1), 1), "strong": ("B", 1, (1, 1), 2), "weak": ("B", 2, (2, 2), 2)}


@pytest.mark.parametrize("attacks", [(PGD, NOISE), ("pgd(steps=40)",), (NOISE,)])
def test_one_attack_more_or_another_setting_is_another_comparison(attacks):
    table = build_rows([*row_of("a", 90), *row_of("b", 10, *attacks)])
    assert {row.comparison for row in table} == {"A", "B"}
    assert {row.rank for row in table} == {1}


def test_the_same_label_with_other_settings_is_another_comparison():
    table = build_rows(
        [result(bits(99, k), cell_info(name, attack_spec=f"pgd:{k}")) for name, k in (("a", 90), ("b", 9))]
    )
    assert {row.rank_interval for row in table} == {(1, 1)}
    assert "other attacks or settings (pgd)" in describe_comparisons(table)


def test_what_was_measured_of_a_model_splits_no_comparison():
    """Stages and techniques of an adaptive attack, the attacked form, costs, certificates, corruptions, what a replay found."""
    asked = [cell_info("plain", attack, attack_spec=attack, suite="custom") for attack in (PGD, "replay")]
    plain = [
        replace(info, attack_kind=kind, role="") for info, kind in zip(asked, ("white-box", "transfer"), strict=True)
    ]
    plain[1] = replace(plain[1], role="replay")
    defended = [
        replace(info, model="defended", techniques={"a": "bpda", "b": "eot"}, precision="bf16") for info in plain
    ]
    certificate = replace(
        plain[0], model="defended", attack="certificate", attack_spec="certificate", role="certificate"
    )
    corruption = replace(plain[0], attack="fog", attack_spec="corruption.fog", role="corruption", severities=(1,))
    table = build_rows(
        [
            *(result(bits(100, 80), info) for info in plain),
            *(result(bits(100, 30), info, seconds=9.0) for info in defended),
            result(bits(100, 100), certificate, certified=bits(100, 5)),
            result(bits(100, 50), corruption),
        ]
    )
    assert ranks_of(table) == {"plain": ("A", 1, (1, 1), 2), "defended": ("A", 2, (2, 2), 2)}
    assert describe_comparisons(table) == ""


def test_black_boxes_are_compared_among_themselves_even_under_the_same_attacks():
    table = build_rows(
        [
            *row_of("open", 10, "square"),
            *row_of("boxed", 80, "square", flags=[black_box()]),
            *row_of("boxed2", 40, "square", flags=[black_box()]),
            *row_of("classes", 90, "square", flags=[black_box(labels_only=True)]),
        ]
    )
    assert {model: places[:3] for model, places in ranks_of(table).items()} == {
        "open": ("A", 1, (1, 1)),
        "boxed": ("B", 1, (1, 1)),
        "boxed2": ("B", 2, (2, 2)),
        "classes": ("C", 1, (1, 1)),
    }
    sentence = describe_comparisons(table)
    for text in (
        "A (1 row): models that can be seen inside",
        "B (2 rows): black boxes;",
        "C (1 row): black boxes that give",
    ):
        assert text in sentence


def test_other_images_under_the_same_ids_are_another_comparison():
    other = result(bits(100, 10), cell_info("b"), made={"data": "other"})
    table = build_rows([result(bits(100, 90), cell_info("a")), other])
    assert {row.rank for row in table} == {1}
    assert "other images or labels under the same ids" in describe_comparisons(table)


def test_other_samples_and_other_seeds_are_named():
    table = build_rows([*row_of("a", 50), *row_of("b", 20, n=40), *row_of("c", 20, seed=3)])
    sentence = describe_comparisons(table)
    for text in ("100 samples from s0 to s99", "40 samples from s0 to s39", "seed 3"):
        assert text in sentence


@pytest.mark.parametrize("seed", range(4))
def test_a_row_is_ranked_as_if_its_comparison_stood_alone(seed):
    """P-values, Holm's correction and intervals are those of the comparison's own rows."""
    rng = np.random.default_rng(seed)
    rows = {}
    for number in range(9):
        attack = (NOISE, PGD, "square")[rng.integers(3)]
        name = f"net{number}"
        cell = cell_info(name, attack, attack_spec=attack, suite="custom")
        rows.setdefault(attack, []).append(result(rng.random(60) < rng.uniform(0.2, 0.9), cell))
    together = {
        row.model: (row.rank, row.rank_interval) for row in build_rows([one for part in rows.values() for one in part])
    }
    alone = {row.model: (row.rank, row.rank_interval) for part in rows.values() for row in build_rows(part)}
    assert together == alone


def test_a_table_names_its_comparisons_in_a_sentence_and_before_each_rank(tmp_path):
    block = Flag("zero-gradient", "block", "Zero.")
    results = [
        *row_of("noisy", 95, NOISE),
        *row_of("strong", 60),
        *row_of("weak", 10),
        *row_of("flat", 99, flags=[block]),
    ]
    rows = build_rows(results)
    sentence = (
        "Rows are ranked only against rows that faced the same attacks on the same samples, in 2 comparisons. "
        f"A (1 row): attacked by {NOISE}; B (2 rows): attacked by {PGD}."
    )
    assert describe_comparisons(rows) == sentence
    table = terminal_table(rows).splitlines()
    assert max(map(len, table)) <= WIDTH
    assert sentence in " ".join(table)
    assert [" ".join(line.split()[:3]) for line in table[2:6]] == [
        "A 1 noisy",
        "B 1 strong",
        "B 2 weak",
        "– flat 100.0",
    ]
    files = write_leaderboard_files(tmp_path, results, RunContext(("Linf:0.15",), "digits"))
    report = files.markdown.read_text("utf-8")
    assert sentence in report
    assert "| B 2 | weak |" in report
    frame = leaderboard_frame(rows).set_index("model")
    assert frame["comparison"].to_dict() == {"noisy": "A", "strong": "B", "weak": "B", "flat": ""}
    assert frame["compared"].to_dict() == {"noisy": 1, "strong": 2, "weak": 2, "flat": 0}


def test_a_single_comparison_is_not_named():
    rows = build_rows([*row_of("a", 50), *row_of("b", 20)])
    assert describe_comparisons(rows) == ""
    assert terminal_table(rows).splitlines()[2].split()[:2] == ["1", "a"]


def test_names_of_comparisons_go_on_after_z_and_the_sentence_names_the_first():
    rows = build_rows([one for number in range(28) for one in row_of(f"net{number}", 50, f"pgd(steps={number})")])
    assert [row.comparison for row in rows][-3:] == ["Z", "AA", "AB"]
    assert describe_comparisons(rows).endswith("and 22 more.")
