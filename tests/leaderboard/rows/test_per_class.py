"""Accuracy class by class, from planted records: figures, the gap, and the files that show them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from scipy.stats import binomtest

from builders import cell_info, result
from gauntlet.leaderboard.report.classes_csv import CLASS_DTYPES, classes_frame, read_classes
from gauntlet.leaderboard.report.leaderboard_csv import leaderboard_frame
from gauntlet.leaderboard.report.leaderboard_files import write_leaderboard_files
from gauntlet.leaderboard.report.markdown_classes import classes_section, gap_text
from gauntlet.leaderboard.report.markdown_writer import RunContext
from gauntlet.leaderboard.results.record import CellResult
from gauntlet.leaderboard.results.sample_set import SampleSet
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.per_class import class_gap, per_class
from gauntlet.leaderboard.rows.worst_case import WorstCase
from gauntlet.leaderboard.stats.proportions import Proportion


def worst(labels, correct, robust):
    labels = np.asarray(labels)
    ids = np.array([f"s{i}" for i in range(len(labels))])
    return WorstCase(
        SampleSet(ids, labels),
        np.asarray(correct, bool),
        np.asarray(robust, bool),
        1.0 - np.asarray(robust, float),
        complete=True,
    )


def classes(sizes, robust):
    """A worst case with so many samples of class 0, 1, …, of which so many are robust; all are right when clean."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    bits = np.concatenate([np.arange(n) < k for n, k in zip(sizes, robust, strict=True)])
    return worst(labels, np.ones(len(labels)), bits)


def by_class(labels, correct, robust, model="net", attack="pgd"):
    return result(robust, cell_info(model, attack), correct=correct, label=labels)


def hand_made(model="net"):
    """Three classes of 4, 2 and 2 samples: 3, 0 and 1 of them robust, and one of class 2 wrong when clean."""
    labels = [0, 0, 0, 0, 1, 1, 2, 2]
    return by_class(labels, [1, 1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0, 1, 0], model=model)


def test_every_class_has_its_own_clean_and_robust_accuracy():
    (row,) = build_rows([hand_made()])
    found = per_class(row.worst_case)
    assert [one.label for one in found] == [0, 1, 2]
    assert [one.robust for one in found] == [Proportion(3, 4), Proportion(0, 2), Proportion(1, 2)]
    assert [one.clean for one in found] == [Proportion(4, 4), Proportion(2, 2), Proportion(1, 2)]


def test_a_class_is_as_robust_as_the_worst_case_over_the_attacks_leaves_it():
    labels, right = [0, 0, 1, 1], [1, 1, 1, 1]
    attacks = [by_class(labels, right, [1, 0, 1, 1], attack="a"), by_class(labels, right, [0, 1, 1, 1], attack="b")]
    (row,) = build_rows(attacks)
    assert [one.robust.successes for one in per_class(row.worst_case)] == [0, 2]


def test_the_gap_is_the_best_class_minus_the_worst_and_the_mean_counts_classes_alike():
    gap = class_gap(per_class(classes([4, 2, 2], [3, 0, 1])))
    assert (gap.best.label, gap.worst.label) == (0, 1)
    assert gap.difference == pytest.approx(0.75)
    assert gap.below_mean == pytest.approx((0.75 + 0 + 0.5) / 3)


def test_ties_of_best_and_worst_go_to_the_smaller_label():
    gap = class_gap(per_class(classes([2, 2, 2, 2], [0, 2, 0, 2])))
    assert (gap.best.label, gap.worst.label) == (1, 0)


@pytest.mark.parametrize("labels", [[], [3, 3]])
def test_fewer_than_two_classes_have_no_gap(labels):
    assert class_gap(per_class(worst(labels, [True] * len(labels), [True] * len(labels)))) is None


def test_the_chance_of_a_gap_agrees_with_fishers_exact_test_for_two_classes():
    # With two classes, a gap as large is a table as far from independence: sizes alike, both tests order them the same.
    from scipy.stats import fisher_exact

    gap = class_gap(per_class(classes([20, 20], [16, 10])))
    exact = fisher_exact([[16, 4], [10, 10]]).pvalue
    assert gap.p_value == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 2000))


def test_classes_that_are_equally_robust_rarely_have_a_significant_gap():
    generator = np.random.default_rng(0)
    values = [class_gap(per_class(classes([40] * 10, generator.binomial(40, 0.7, 10)))).p_value for _ in range(200)]
    assert np.mean(np.array(values) < 0.05) < 0.11
    assert class_gap(per_class(classes([40] * 10, [30] * 9 + [5]))).p_value < 0.001


def test_the_frame_has_a_line_a_class_with_clopper_pearson_intervals():
    frame = classes_frame(build_rows([hand_made()]))
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == dict(CLASS_DTYPES)
    assert frame["label"].tolist() == [0, 1, 2]
    assert frame["n"].tolist() == [4, 2, 2]
    interval = binomtest(3, 4).proportion_ci(method="exact")
    assert frame.loc[0, ["robust_low", "robust_high"]].tolist() == pytest.approx([interval.low, interval.high])
    assert frame["clean_accuracy"].tolist() == [1.0, 1.0, 0.5]


def test_no_rows_give_an_empty_frame_with_all_columns_and_no_section():
    frame = classes_frame([])
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == dict(CLASS_DTYPES)
    assert len(frame) == 0
    assert classes_section([]) == ""


def test_classes_csv_is_written_beside_the_other_files_and_read_back_the_same(tmp_path):
    results = [hand_made("a"), hand_made("=b")]
    files = write_leaderboard_files(tmp_path, results, RunContext(("Linf:0.1",), "digits"))
    assert files.classes_csv == tmp_path / "classes.csv"
    back = read_classes(files.classes_csv)
    frame = classes_frame(build_rows(results))
    assert set(back["model"]) == {"a", "'=b"}
    pd.testing.assert_frame_equal(back.drop(columns="model"), frame.drop(columns="model"))


def test_the_leaderboard_names_the_best_class_and_the_gap():
    table = build_rows([hand_made(), by_class([0, 0], [1, 1], [1, 0], model="one")])
    line = leaderboard_frame(table).set_index("model")
    assert line.loc["net", ["worst_class", "best_class", "class_gap"]].tolist() == [1, 0, 0.75]
    assert line.loc["net", "class_gap_to_mean"] == pytest.approx(1.25 / 3)
    assert 0 < line.loc["net", "class_gap_p"] <= 1
    assert pd.isna(line.loc["one", "best_class"])
    assert np.isnan(line.loc["one", "class_gap"])
    by_name = {row.model: row for row in table}
    assert gap_text(by_name["net"]) == ", 75 points below class 0"
    assert gap_text(by_name["one"]) == ""


def tables(markdown):
    """Header and lines of each table, as texts."""
    found, line = [], []
    for token in MarkdownIt().enable("table").parse(markdown):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            line = []
        elif token.type == "tr_close":
            found[-1].append(line)
        elif token.type == "inline" and found:
            line.append(token.content)
    return found


def test_the_section_shows_robust_and_clean_of_each_class_and_marks_the_worst():
    (table,) = tables(classes_section(build_rows([hand_made()])))
    header, line = table
    assert header == ["model", "defense", "0", "1", "2", "gap", "n a class"]
    assert line[:5] == ["net", "none", "75 (100)", "**0 (100)**", "50 (50)"]
    assert line[5].startswith("75, p = ")
    assert line[6] == "2–4"


def test_the_section_of_25_rows_and_10_classes_stays_narrow():
    generator = np.random.default_rng(0)
    labels = np.tile(np.arange(10), 30)
    results = [
        by_class(labels, np.ones(300), generator.random(300) < 0.7, model=f"cnn.recipe{i}_digits") for i in range(25)
    ]
    section = classes_section(build_rows(results))
    (table,) = tables(section)
    assert len(table) == 26
    assert max(len(line) for line in section.splitlines() if line.startswith("| cnn")) < 170


def test_of_many_classes_the_weakest_and_strongest_are_named():
    labels = np.repeat(np.arange(30), 2)
    robust = np.ones(60, bool)
    robust[[14, 15]] = False
    robust[20] = False
    (table,) = tables(classes_section(build_rows([by_class(labels, np.ones(60), robust)])))
    header, line = table
    assert header == ["model", "defense", "weakest classes", "strongest classes", "gap", "n a class"]
    assert line[2].startswith("7: 0 (100), 10: 50 (100), ")
    assert len(line[2].split(", ")) == len(line[3].split(", ")) == 5


def test_an_unfinished_row_shows_the_classes_of_the_samples_that_every_attack_covered():
    full = by_class([0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], attack="a")
    part = by_class([0, 0, 1], [1, 1, 1], [1, 0, 0], attack="b")
    (row,) = build_rows([full, CellResult(part.cell, part.blocks, expected=4)])
    frame = classes_frame([row])
    assert frame["n"].tolist() == [2, 1]
    assert frame["robust_accuracy"].tolist() == [0.5, 0.0]
    assert set(frame["status"]) == {"unfinished"}
