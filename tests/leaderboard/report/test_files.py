"""Tables and files from planted records, read back."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest

from builders import bits, cell_info, result
from gauntlet.leaderboard.report.cells_csv import CELL_DTYPES, cells_frame, read_cells
from gauntlet.leaderboard.report.leaderboard_csv import LEADERBOARD_DTYPES, leaderboard_frame, read_leaderboard
from gauntlet.leaderboard.report.leaderboard_files import write_leaderboard_files
from gauntlet.leaderboard.report.markdown_writer import RunContext
from gauntlet.leaderboard.report.terminal import terminal_table
from gauntlet.leaderboard.results.errors import WriteError
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.results.record import Flag
from gauntlet.leaderboard.rows.build_rows import build_rows
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


def test_no_results_give_empty_tables_with_all_columns_and_types(tmp_path):
    assert build_rows([]) == []
    for frame, dtypes in ((cells_frame([]), CELL_DTYPES), (leaderboard_frame([]), LEADERBOARD_DTYPES)):
        assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == dict(dtypes)
        assert len(frame) == 0
    assert terminal_table([]) == ""
    files = write_leaderboard_files(tmp_path, [], CONTEXT)
    assert "No cells were run." in files.markdown.read_text("utf-8")
    assert read_leaderboard(files.leaderboard_csv).columns.tolist() == list(LEADERBOARD_DTYPES)


def test_the_report_states_the_plurality_and_the_majority_where_a_model_is_randomised(tmp_path):
    def report(randomised):
        results = [result(bits(9, 5), cell_info(randomised=randomised))]
        return write_leaderboard_files(tmp_path, results, CONTEXT).markdown.read_text("utf-8")

    sentence = "correct when clean and not robust although no attack changed it"
    assert sentence in report(randomised=True)
    assert sentence not in report(randomised=False)
