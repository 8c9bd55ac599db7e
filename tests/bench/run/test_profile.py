"""Where a run's seconds went: by part and by stage, as printed, in `profile.csv` and in `cells.csv`."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from click.testing import CliRunner

from gauntlet.bench.cli.main import cli
from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.report.cells_csv import read_cells
from gauntlet.leaderboard.report.profile_report import PROFILE_DTYPES
from gauntlet.leaderboard.results.errors import StoreError
from gauntlet.leaderboard.results.spent import PARTS, Spent, read_spent

PARTS_IN_CELLS = [f"{part}_seconds" for part in PARTS if part != "attack"]


def run(folder, *more, samples="12"):
    asked = ("--model=cnn.standard_digits", "--attacks=gauntlet", f"--samples={samples}", f"--out={folder}")
    done = CliRunner().invoke(cli, ["run", *asked, *more], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profiled")
    return folder, run(folder, "--profile")


def test_the_lines_name_every_part_and_stage_and_their_shares_add_up(profiled):
    folder, output = profiled
    (spent,) = (result.spent for result in load_run(folder).results())
    assert set(spent.seconds) == set(PARTS)
    lines = output[output.index("Where the seconds went") :].splitlines()
    named = {
        line[: line.rindex(" s ")].rsplit(None, 1)[0].strip(): line.split()[-2] for line in lines if " % " in f"{line} "
    }
    assert set(PARTS) | {f"attack, {stage}" for stage in spent.stages} == set(named)
    assert math.isclose(sum(float(named[part]) for part in PARTS), 100, abs_tol=0.5)
    assert any(line.startswith("and ") and line.endswith(" for start-up, imports and tables") for line in lines)


def test_stages_take_no_more_than_their_attack(profiled):
    folder, _ = profiled
    (result,) = load_run(folder).results()
    faced = {stage for block in result.blocks for stages in block.samples.faced for stage in stages.split()}
    assert set(result.spent.stages) == faced
    assert 0 < sum(result.spent.stages.values()) <= result.spent.seconds["attack"]


def test_both_tables_have_the_seconds(profiled):
    folder, _ = profiled
    (result,) = load_run(folder).results()
    (cell,) = read_cells(folder / "cells.csv").to_dict("records")
    assert [cell[name] for name in PARTS_IN_CELLS] == [result.spent.seconds[part] for part in PARTS if part != "attack"]
    assert [pair.split("=")[0] for pair in cell["stage_seconds"].split()] == list(result.spent.stages)
    written = pd.read_csv(folder / "profile.csv")
    assert list(written.columns) == list(PROFILE_DTYPES)
    by_part = dict(zip(written["part"], written["seconds"], strict=True))
    assert {part: by_part[part] for part in PARTS} == pytest.approx(dict(result.spent.seconds))
    assert written["stage"].dropna().tolist() == list(result.spent.stages)


def test_stored_results_keep_their_seconds_and_further_blocks_add_to_them(tmp_path):
    output = run(tmp_path)
    assert "Where the seconds went" not in output
    assert not (tmp_path / "profile.csv").exists()
    (first,) = (result.spent for result in load_run(tmp_path).results())
    run(tmp_path)
    (again,) = (result.spent for result in load_run(tmp_path).results())
    assert again == first
    key, _ = load_run(tmp_path).keys(load_run(tmp_path).plan.cells[0])[0]
    load_run(tmp_path).store.path(key).unlink()
    run(tmp_path)
    (anew,) = (result.spent for result in load_run(tmp_path).results())
    assert anew != first
    latest = load_run(tmp_path)
    latest.note_spent(latest.plan.cells[0], Spent({"attack": 1.0}), anew=False)
    assert latest.results()[0].spent.seconds["attack"] == anew.seconds["attack"] + 1


def test_a_folder_without_these_figures_has_empty_columns(tmp_path):
    run(tmp_path)
    (file,) = tmp_path.glob("runs/*/spent/*.json")
    file.unlink()
    CliRunner().invoke(cli, ["leaderboard", str(tmp_path)], catch_exceptions=False)
    (cell,) = read_cells(tmp_path / "cells.csv").to_dict("records")
    assert all(math.isnan(cell[name]) for name in PARTS_IN_CELLS)
    assert cell["stage_seconds"] == ""


@pytest.mark.parametrize("text", ["", "[]", '{"seconds": {"load": "much"}, "stages": {}}', '{"seconds": {}}'])
def test_a_damaged_file_says_that_no_result_is_lost(tmp_path, text):
    (tmp_path / "spent.json").write_text(text)
    with pytest.raises(StoreError, match="delete it; its figures are lost, no result is"):
        read_spent(tmp_path / "spent.json")
