"""The bracket, certified <= truth <= attacked, and the alarm where a sample is certified and broken."""

from __future__ import annotations

import numpy as np
import pytest

from gauntlet.leaderboard.report.formatting import certified, robust
from gauntlet.leaderboard.results.record import CellInfo, CellResult, Record, Samples, Stats
from gauntlet.leaderboard.rows.bracket import bracket
from gauntlet.leaderboard.rows.table import rows
from gauntlet.leaderboard.rows.worst_case import worst_case
from gauntlet.leaderboard.stats.proportions import Proportion


def cell(kind, standing, *, proven=None, randomised=False, blocks=2):
    n = len(standing)
    standing = np.asarray(standing, dtype=bool)
    info = CellInfo(
        model="net",
        defense="none",
        attack=kind,
        attack_spec=kind,
        attack_kind=kind,
        norm="Linf",
        eps=0.1,
        threat="Linf:0.1",
        suite="adaptive",
        data="digits",
        seed=0,
        randomised=randomised,
        ways={"": kind},
    )
    records = []
    for rows_ in np.array_split(np.arange(n), blocks):
        here = standing[rows_]
        none = np.zeros(len(rows_))
        records.append(
            Record(
                f"key {len(records)}",
                info,
                Samples(
                    id=np.array([f"s{i}" for i in rows_]),
                    label=np.zeros(len(rows_), dtype=np.int64),
                    clean_prediction=np.zeros(len(rows_), dtype=np.int64),
                    prediction=np.where(here, 0, 1),
                    robust=here,
                    distance=np.where(here, np.nan, 0.1),
                    margin=none,
                    forwards=none,
                    backwards=none,
                    steps=np.zeros(len(rows_), dtype=np.int64),
                    wrong_share=np.where(here, 0.0, 1.0),
                    wrong_share_scored=np.where(here, 0.0, 1.0),
                    adversarial=[None] * len(rows_),
                    certified=None if proven is None else np.asarray(proven, dtype=bool)[rows_],
                ),
                Stats(1.0, 1.0),
            )
        )
    return CellResult(info, tuple(records), None, n)


def first(n, count):
    return np.arange(n) < count


def test_a_row_without_a_certificate_has_no_bracket():
    (row,) = rows([cell("naive", first(10, 9)), cell("white-box", first(10, 6))])
    assert row.bracket is None
    assert certified(row) == "–"
    assert row.naive == Proportion(9, 10)
    assert robust(row).startswith("90.0 → 60.0 [")


def test_the_bracket_counts_who_is_certified_broken_and_open():
    (row,) = rows([cell("white-box", first(10, 6)), cell("certificate", first(10, 10), proven=first(10, 4))])
    assert row.bracket is not None
    assert row.bracket.certified == Proportion(4, 10)
    assert row.bracket.open == 2
    assert row.bracket.contradictions == ()
    assert row.status == "ok"
    assert certified(row) == "40.0 (2 open)"
    assert set(row.attacks) == {"white-box"}, "a certificate is no attack, and has no column of its own"


def test_a_witness_of_the_certificates_search_breaks_its_sample():
    (row,) = rows([cell("white-box", first(10, 6)), cell("certificate", first(10, 5), proven=first(10, 5))])
    assert row.robust == Proportion(5, 10)
    assert row.bracket is not None
    assert row.bracket.open == 0


@pytest.mark.parametrize("order", [1, -1])
def test_a_sample_that_is_certified_and_broken_makes_the_row_an_error_whichever_came_first(order):
    cells = [cell("white-box", first(10, 6)), cell("certificate", first(10, 10), proven=first(10, 7))]
    (row,) = rows(cells[::order])
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
        cell("white-box", first(n, n - broken), randomised=True),
        cell("certificate", first(n, n), proven=first(n, n), randomised=True),
    ]
    found = bracket(cells, worst_case(cells))
    assert found is not None
    assert found.probabilistic
    assert len(found.contradictions) == broken
    assert found.broken_proof == alarm
    (row,) = rows(cells)
    assert (row.status == "error") == alarm
    assert certified(row).startswith("~100.0")
