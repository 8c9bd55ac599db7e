"""Rows from planted records with known answers: the worst case, errors, and unfinished cells."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders import bits, cell_info, result
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.worst_case import worst_case
from gauntlet.leaderboard.stats.proportions import Proportion


def of(table, model):
    (row,) = [row for row in table if row.model == model]
    return row


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
