"""Ranks from planted records with known answers, and rows without a rank."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from builders import bits, cell_info, result
from gauntlet.leaderboard.results.record import Flag
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.ranks import unrank_reasons


def of(table, model):
    (row,) = [row for row in table if row.model == model]
    return row


def ranks_of(table):
    return {row.model: (row.rank, row.rank_interval) for row in table}


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
        [
            result(bits(20, 10), cell_info(attack=way, techniques={"": way}), flags=[flag], forwards=[300] * 20)
            for way in techniques
        ]
    )
    (reason,) = unrank_reasons(table[0])
    asked = reason.partition("needs attacks by ")[2]
    for word in ("bpda", "black-box", "transfer"):
        assert (word in asked) == (word in missing)


def test_a_blocked_row_is_ranked_once_it_has_been_attacked_in_all_ways():
    flag = Flag("non-differentiable-defense", "block", "Not differentiable.", needs=("bpda", "black-box", "transfer"))
    cells = [cell_info(attack=way, techniques={"": way}) for way in ("bpda", "black-box", "transfer")]
    passes = {"flags": [flag], "forwards": [300] * 20}
    assert build_rows([result(bits(20, 10), cell, **passes) for cell in cells])[0].rank == 1
    unfinished = [result(bits(20, 10), cell, expected=20 + (cell is cells[2]), **passes) for cell in cells]
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
