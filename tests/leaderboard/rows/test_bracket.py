"""The bracket, certified <= truth <= attacked, and the alarm where a sample is certified and broken."""

from __future__ import annotations

import pytest

from builders import bits, cell_info, result
from gauntlet.leaderboard.report.formatting import certified, robust
from gauntlet.leaderboard.rows.bracket import bracket
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.worst_case import worst_case
from gauntlet.leaderboard.stats.proportions import Proportion


def cell(kind, robust, *, randomised=False, **columns):
    info = cell_info(attack=kind, attack_kind=kind, suite="adaptive", randomised=randomised, techniques={"": kind})
    return result(robust, info, blocks=2, **columns)


def test_a_row_without_a_certificate_has_no_bracket():
    (row,) = build_rows([cell("naive", bits(10, 9)), cell("white-box", bits(10, 6))])
    assert row.bracket is None
    assert certified(row) == "–"
    assert row.naive == Proportion(9, 10)
    assert robust(row).startswith("90.0 → 60.0 [")


def test_the_bracket_counts_who_is_certified_broken_and_open():
    (row,) = build_rows([cell("white-box", bits(10, 6)), cell("certificate", bits(10, 10), certified=bits(10, 4))])
    assert row.bracket is not None
    assert row.bracket.certified == Proportion(4, 10)
    assert row.bracket.open == 2
    assert row.bracket.contradictions == ()
    assert row.status == "ok"
    assert certified(row) == "40.0 (2 open)"
    assert set(row.attacks) == {"white-box"}, "a certificate is no attack, and has no column of its own"


def test_a_witness_of_the_certificates_search_breaks_its_sample():
    (row,) = build_rows([cell("white-box", bits(10, 6)), cell("certificate", bits(10, 5), certified=bits(10, 5))])
    assert row.robust == Proportion(5, 10)
    assert row.bracket is not None
    assert row.bracket.open == 0


FAILED = {"error": "cannot be copied", "expected": 10}
UNFINISHED = {"expected": 10}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(("done", "how"), [(0, FAILED), (6, FAILED), (6, UNFINISHED)])
def test_the_figures_of_the_attacks_stand_without_a_whole_certificate(order, done, how):
    proof = cell("certificate", bits(done, done), certified=bits(done, 3) if done else None, **how)
    attacked = cell("white-box", bits(10, 7))
    (row,) = build_rows([attacked, proof][::order])
    assert (row.status, row.robust, row.rank, row.problems) == ("ok", Proportion(7, 10), 1, ())
    assert (row.bracket.certified if row.bracket else None) == (Proportion(3, 10) if done else None)
    flags = [flag for flag in row.flags if flag.name == "certificate-failed"]
    assert len(flags) == ("error" in how)
    assert all(flag.severity == "warn" and "cannot be copied" in flag.message for flag in flags)


def test_a_certificate_that_failed_alone_is_an_error_of_its_row():
    (row,) = build_rows([cell("certificate", bits(0, 0), **FAILED)])
    assert (row.status, row.rank, row.robust) == ("error", None, Proportion(0, 0))


def test_a_certificate_hides_no_attack_that_failed():
    (row,) = build_rows([cell("white-box", bits(6, 6), **FAILED), cell("certificate", bits(10, 10))])
    assert (row.status, row.rank) == ("error", None)


@pytest.mark.parametrize("order", [1, -1])
def test_a_sample_that_is_certified_and_broken_makes_the_row_an_error_whichever_came_bits(order):
    cells = [cell("white-box", bits(10, 6)), cell("certificate", bits(10, 10), certified=bits(10, 7))]
    (row,) = build_rows(cells[::order])
    assert row.bracket is not None
    assert row.bracket.contradictions == ("s6",)
    assert row.status == "error"
    assert row.rank is None
    assert "CONTRADICTION: 1 samples" in row.problems[0]
    assert "s6" in row.problems[0]


@pytest.mark.parametrize(("broken", "alarm"), [(0, False), (1, False), (3, False), (12, True)])
def test_a_probabilistic_certificate_may_be_wrong_as_often_as_its_alpha_allows(broken, alarm):
    n = 1000
    cells = [
        cell("white-box", bits(n, n - broken), randomised=True),
        cell("certificate", bits(n, n), certified=bits(n, n), randomised=True),
    ]
    found = bracket(cells, worst_case(cells))
    assert found is not None
    assert found.probabilistic
    assert len(found.contradictions) == broken
    assert found.broken_proof == alarm
    (row,) = build_rows(cells)
    assert (row.status == "error") == alarm
    assert certified(row).startswith("~100.0")
