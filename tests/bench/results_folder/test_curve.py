"""`gauntlet curve`: the figures of stored results, as a table and as a picture."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import run_here

from gauntlet.bench.results_folder.eps_curves import CurveError, eps_series, parse_radii
from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.pictures.eps_series import series_figure
from gauntlet.leaderboard.report.leaderboard_csv import read_leaderboard
from gauntlet.leaderboard.stats.proportions import Proportion

ATTACKED = ("--checks=none", "--data=digits", "--samples=40", "--threat=Linf:0.1", "--threat=Linf:0.15")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models, one of them under a minimum-norm attack too, at two radii."""
    out = tmp_path_factory.mktemp("curve") / "out"
    model = "--model=cnn.pgd_digits"
    assert run_here("run", model, "--attacks=fmn(steps=30),pgd(steps=10)", *ATTACKED, f"--out={out}") == 0
    assert run_here("run", "--model=cnn.fast_digits", "--attacks=pgd(steps=10)", *ATTACKED, f"--out={out}") == 0
    assert run_here("leaderboard", out) == 0
    return out


def frame(folder, *options):
    assert run_here("curve", folder, f"--out={folder / 'c.svg'}", *options) == 0
    return pd.read_csv(folder / "c.csv")


def test_a_row_without_rank_is_named_and_marked(tmp_path, capsys):
    asked = ("--model=cnn.standard_digits", "--defense=bit_depth", "--attacks=fmn(steps=5)", "--samples=20")
    assert run_here("run", *asked, "--threat=Linf:0.15", f"--out={tmp_path}") == 0
    capsys.readouterr()
    assert run_here("curve", tmp_path, f"--out={tmp_path / 'c.svg'}") == 0
    assert (
        "cnn.standard_digits × bit_depth has no rank (non-differentiable-defense, planted-example)"
        in capsys.readouterr().out
    )
    assert "cnn.standard_digits × bit_depth (no rank), fmn" in (tmp_path / "c.svg").read_text()


def test_a_row_without_rank_of_several_folders_is_named_with_its_own(tmp_path, capsys):
    for defense in ("bit_depth", "jpeg"):
        asked = ("--model=cnn.standard_digits", f"--defense={defense}", "--attacks=fmn(steps=5)", "--samples=20")
        assert run_here("run", *asked, "--threat=Linf:0.15", f"--out={tmp_path / defense}") == 0
    shutil.copytree(tmp_path / "bit_depth", tmp_path / "again")
    capsys.readouterr()
    folders = [tmp_path / name for name in ("bit_depth", "again", "jpeg")]
    assert run_here("curve", *folders, f"--out={tmp_path / 'c.svg'}") == 0
    told = [line.partition(" has no rank")[0] for line in capsys.readouterr().out.splitlines() if "has no rank" in line]
    assert told == [
        f"cnn.standard_digits × {folder.name.replace('again', 'bit_depth')} of {folder}" for folder in folders
    ]


def test_a_folder_that_does_not_exist_is_said(tmp_path, capsys):
    assert run_here("curve", tmp_path / "absent") == 2
    assert "absent holds no run (it does not exist): give the --out folder of `gauntlet run`" in capsys.readouterr().err


def distances(folder):
    """The distances of the minimum-norm attack, the nearest of both cells, from the blocks themselves."""
    found = []
    for run in map(load_run, sorted((folder / "runs").iterdir())):
        for cell in run.plan.cells:
            if cell.info.minimum_norm:
                samples = [block.samples for block in run.result(cell).blocks]
                distance = np.concatenate([one.distance for one in samples])
                right = np.concatenate([one.correct for one in samples])
                found.append(np.where(right, np.where(np.isnan(distance), np.inf, distance), -1))
    return np.min(found, axis=0)


def test_a_minimum_norm_attack_gives_exact_steps(folder):
    table = frame(folder, "--model=cnn.pgd_digits")
    exact = table[table["source"] != "radii"]
    expected = distances(folder)
    assert len(exact) > 10
    for line in exact.itertuples():
        assert line.standing == np.count_nonzero(expected > line.eps)
        assert (line.robust_low, line.robust_high) == Proportion(line.standing, line.n).interval
    assert (folder / "c.svg").read_text().count("cnn.pgd_digits") == 1


def test_radii_are_those_of_the_leaderboard_and_begin_with_the_clean_accuracy(folder):
    board = read_leaderboard(folder / "leaderboard.csv").set_index(["model", "eps"])
    table = frame(folder)
    for line in table[table["source"] == "radii"].itertuples():
        row = board.loc[(line.model, line.eps or 0.1)]
        assert line.robust_accuracy == (row["robust_accuracy"] if line.eps else row["clean_accuracy"])
    assert set(table[table["model"] == "cnn.fast_digits"]["source"]) == {"radii"}


def test_chosen_radii_are_answered_by_what_was_attacked_and_else_by_distances(folder):
    table = frame(folder, "--model=cnn.pgd_digits", "--over=eps=0,0.05,1/10,0.3")
    by_eps = table.set_index("eps")
    assert sorted(by_eps.index) == [0.0, 0.05, 0.1, 0.3]
    assert by_eps.loc[[0.0, 0.1], "source"].tolist() == ["radii", "radii"]
    for eps in (0.05, 0.3):
        assert by_eps.loc[eps, "standing"] == np.count_nonzero(distances(folder) > eps)


def test_a_radius_that_nothing_answers_is_named_with_the_command_that_would(folder, capsys):
    assert run_here("curve", folder, "--model=cnn.fast_digits", "--over=eps=0.1,0.2") == 2
    told = capsys.readouterr().err
    assert "cnn.fast_digits was not attacked at eps 0.2" in told
    assert "--threat Linf:0.2" in told


def test_models_are_chosen_by_names_and_wildcards(folder, capsys):
    assert set(frame(folder, "--model=cnn.pgd_digits,cnn.f*")["model"]) == {"cnn.pgd_digits", "cnn.fast_digits"}
    assert run_here("curve", folder, "--model=cnn.pgd_digit") == 2
    assert "did you mean 'cnn.pgd_digits'?" in capsys.readouterr().err


@pytest.mark.parametrize(("suffix", "begin"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_the_picture_is_written_as_its_name_says_and_the_same_each_time(folder, suffix, begin):
    path = folder / f"picture.{suffix}"
    contents = []
    for _ in range(2):
        assert run_here("curve", folder, f"--out={path}") == 0
        contents.append(path.read_bytes())
    assert contents[0].startswith(begin)
    assert contents[0] == contents[1]


def test_samples_that_an_unfinished_row_lacks_are_counted(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "out")
    assert run_here("curve", tmp_path / "out") == 0
    assert "not finished" not in capsys.readouterr().out
    run = next(run for run in map(load_run, (tmp_path / "out" / "runs").iterdir()) if len(run.plan.cells) == 2)
    (key, _), *_ = run.keys(run.plan.cells[1])
    run.store.path(key).unlink()
    assert run_here("curve", tmp_path / "out") == 0
    assert "cnn.fast_digits is not finished: 40 samples are missing" in capsys.readouterr().out


def test_several_folders_are_told_apart(folder):
    series = eps_series([folder, folder], ["cnn.fast_digits"])
    assert len(series) == 2
    drawn = series_figure(series, "title").axes[0]
    assert len(drawn.get_legend().get_texts()) == 1


def test_steps_are_never_slanted_and_points_are_not_joined(folder):
    drawn = series_figure(eps_series([folder]), "title").axes[0]
    lines = [line for line in drawn.get_lines() if len(line.get_xdata()) > 1 and line.get_linestyle() != "None"]
    assert len(lines) == 1
    assert lines[0].get_drawstyle() == "steps-post"


@pytest.mark.parametrize("text", ["eps", "steps=1,2", "eps=", "eps=a", "eps=-1"])
def test_radii_that_are_none_are_refused(text):
    with pytest.raises(CurveError, match="--over"):
        parse_radii(text)


def test_other_endings_are_refused(folder, capsys):
    assert run_here("curve", folder, "--out=c.jpg") == 2
    assert "must end in .png, .svg or .pdf" in capsys.readouterr().err
