"""`gauntlet leaderboard` over all runs of a folder, removed and described models, kept tables."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from conftest import run_here

from gauntlet.bench.results_folder.all_runs import joint_summaries, shown_runs
from gauntlet.bench.results_folder.joint_tables import write_joint_tables
from gauntlet.bench.run.run_folder import load_run, start_run
from gauntlet.bench.speed.synthetic_store import StoreSize, make_store
from gauntlet.leaderboard.report.leaderboard_csv import read_leaderboard


@pytest.fixture
def folder(tmp_path):
    """A results folder with three models under two attacks, and after that a run of one of them and a fourth."""
    run = make_store(tmp_path / "out", StoreSize(4, 2, 120))
    cells = run.plan.cells
    for number, (first, last) in enumerate([(0, 6), (4, 8)]):
        context = replace(run.context, started=f"2026-02-0{number + 1}T00:00:00+00:00", command=f"command {number}")
        part = start_run(run.root, replace(run.plan, cells=cells[first:last]), context)
        for cell in part.plan.cells:
            part.note_keys(cell, run.keys(cell))
    (run.folder / "run.json").unlink()
    return run.root


def models(folder):
    return sorted(read_leaderboard(folder / "leaderboard.csv")["model"])


def named(*numbers):
    return [f"model_{number:04d}.made_up" for number in numbers]


def test_a_second_run_adds_its_rows(folder, capsys):
    assert run_here("leaderboard", folder) == 0
    assert models(folder) == named(0, 1, 2, 3)
    assert "2 runs together" in capsys.readouterr().out
    assert "command 0\ncommand 1" in (folder / "leaderboard.md").read_text()


def test_one_run_is_shown_alone(folder, capsys):
    old = shown_runs(folder).shown[1].folder
    assert run_here("leaderboard", folder, "--run", old.name[:6]) == 0
    assert models(folder) == named(0, 1, 2)
    assert run_here("leaderboard", old) == 0
    assert models(folder) == named(0, 1, 2)
    assert run_here("leaderboard", folder, "--run", "nothing") == 2
    assert "names no run" in capsys.readouterr().err


def test_of_a_row_of_several_runs_the_newest_run_counts(folder):
    runs = shown_runs(folder)
    newest = runs.newest
    cell = newest.plan.cells[0]
    newest.note_keys(cell, newest.keys(cell)[:1])
    by_model = {one.cell.model: len(one) for one in joint_summaries(runs) if one.cell.attack == cell.info.attack}
    assert by_model == dict(zip(named(0, 1, 2, 3), (120, 120, 100, 120), strict=True))


def test_runs_with_other_questions_are_named_with_the_command_that_shows_them(folder, capsys):
    run = load_run(folder)
    cells = tuple(replace(cell, data=replace(cell.data, samples="50")) for cell in run.plan.cells)
    other = start_run(folder, replace(run.plan, cells=cells), replace(run.context, started="2026-03-01T00:00:00+00:00"))
    assert run_here("leaderboard", folder) == 0
    out = capsys.readouterr().out
    assert all(f"--run {one.folder.name}" in out for one in shown_runs(folder).others)
    assert len(shown_runs(folder).others) == 2
    assert shown_runs(folder).newest.folder == other.folder


def test_models_are_removed_and_restored_and_their_results_stay(folder, capsys):
    assert run_here("remove", "model_0001.*", "--out", folder) == 0
    assert run_here("leaderboard", folder) == 0
    assert models(folder) == named(0, 2, 3)
    assert "removed: model_0001.made_up" in capsys.readouterr().out
    assert run_here("remove", "--undo", named(1)[0], "--out", folder) == 0
    assert run_here("leaderboard", folder) == 0
    assert models(folder) == named(0, 1, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model_0009.made_up"], "no model matches 'model_0009.made_up': did you mean"),
        (["--undo", "model_0001.made_up"], "is not removed"),
        (["zzz"], "there are model_0000.made_up"),
    ],
)
def test_models_that_are_not_there_are_refused(folder, arguments, message, capsys):
    assert run_here("remove", *arguments, "--out", folder) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "removed.json").exists() or (folder / "removed.json").read_text() == "{}"


DESCRIBED = """
[[model]]
model = "model_0001.made_up"
name = "Made up | 1"
paper = "Nobody 2026"
link = "https://example.org"
"""


def test_described_models_have_a_table(folder, capsys):
    (folder / "models.toml").write_text(DESCRIBED + '[[model]]\nmodel = "model_001.made_up"\nlicence = "MIT"\n')
    assert run_here("leaderboard", folder) == 0
    out, text = capsys.readouterr().out, (folder / "leaderboard.md").read_text()
    assert "models.toml describes 'model_001.made_up', which no run has; did you mean 'model_0001.made_up'?" in out
    assert "| model\\_0001.made\\_up |" in text or "Made up \\| 1" in text
    assert "architecture" not in text
    assert (folder / "models.csv").read_text().splitlines()[1].startswith("model_0001.made_up,Made up | 1,Nobody 2026,")
    (folder / "models.toml").write_text("")
    assert run_here("leaderboard", folder) == 0
    assert not (folder / "models.csv").exists()


def test_everything_is_written_before_the_first_line_is_shown(folder):
    # `gauntlet leaderboard RUN --format json | head -1` ends the command early.
    lines = write_joint_tables(folder, formats=("json", "html"))
    assert next(lines) is not None
    for name in ("leaderboard.csv", "leaderboard.md", "leaderboard.json", "leaderboard.html"):
        assert (folder / name).is_file(), name
    assert any((folder / "tables").iterdir())


def test_the_table_is_printed_as_a_run_prints_it(folder, capsys):
    assert run_here("leaderboard", folder) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:4] == ["rank", "model", "clean", "%"]
    assert any("model_0001.made_up" in line and "adaptive" not in line for line in lines[2:6])
    assert any(line.startswith("written: ") for line in lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[model]\n", "cannot be read"),
        ('[[modell]]\nmodel = "x"\n', "unknown key 'modell'"),
        ('[model]\nmodel = "x"\n', "with two brackets"),
        ('[[model]]\nname = "x"\n', "model is missing"),
        ('[[model]]\nmodel = "x"\nlicense = "MIT"\n', "did you mean licence?"),
        ('[[model]]\nmodel = "x"\npaper = 3\n', "paper=3 must be a text"),
        ('[[model]]\nmodel = "x"\nlink = "javascript:alert()"\n', "must begin with https://"),
        ('[[model]]\nmodel = "x"\n[[model]]\nmodel = "x"\n', "describes model 'x' twice"),
    ],
)
def test_wrong_descriptions_are_refused_with_what_is_accepted(folder, text, message, capsys):
    (folder / "models.toml").write_text(text)
    assert run_here("leaderboard", folder) == 2
    assert message in capsys.readouterr().err


def test_models_with_the_same_weights_are_pointed_out(folder, monkeypatch, capsys):
    monkeypatch.setattr("gauntlet.leaderboard.results.summary._weights", lambda blocks: "ab" * 32)
    assert run_here("leaderboard", folder) == 0
    assert "have the same weights (abababababab): one model under 4 names" in capsys.readouterr().out
    assert "one model under 4 names" in (folder / "leaderboard.md").read_text()


def test_other_weights_of_an_older_run_under_the_same_name_are_pointed_out(folder, monkeypatch, capsys):
    # Only models 2 of these runs is in both; each cell is of weights of its own here.
    digests = iter(f"{number:064x}" for number in range(1000))
    monkeypatch.setattr("gauntlet.leaderboard.results.summary._weights", lambda blocks: next(digests))
    old, new = (shown_runs(folder).shown[place].folder.name for place in (1, 0))
    assert run_here("leaderboard", folder) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "other weights under this name" in line]
    assert len(said) == 1
    assert said[0].startswith(f"model_0002.made_up: run {old} evaluated other weights")
    assert f"run {new} stand in" in said[0]


def test_each_table_is_kept_and_what_changed_is_said(folder, capsys):
    old = shown_runs(folder).shown[1].folder.name
    run_here("leaderboard", folder, "--run", old)
    assert "since" not in capsys.readouterr().out
    run_here("leaderboard", folder)
    out = capsys.readouterr().out
    assert "since 0001-20260201T000000-000000000000: new: model_0003.made_up" in out
    run_here("leaderboard", folder)
    assert "no row is new, gone or re-ranked" in capsys.readouterr().out
    run_here("remove", "model_0000.*", "--out", folder)
    run_here("leaderboard", folder)
    assert "gone: model_0000.made_up" in capsys.readouterr().out
    kept = sorted(path.name for path in (folder / "tables").iterdir())
    assert [name[:4] for name in kept] == ["0001", "0002", "0003"]
    assert (folder / "tables" / kept[-1] / "leaderboard.csv").read_bytes() == (folder / "leaderboard.csv").read_bytes()
    # A table that somebody deletes leaves a gap: no other takes its number.
    shutil.rmtree(folder / "tables" / kept[0])
    run_here("remove", "model_0000.*", "--out", folder, "--undo")
    run_here("leaderboard", folder)
    assert "new: model_0000.made_up" in capsys.readouterr().out
    assert sorted(path.name[:4] for path in (folder / "tables").iterdir()) == ["0002", "0003", "0004"]


def test_files_of_other_formats_that_are_not_written_again_are_named(folder, capsys):
    run_here("leaderboard", folder, "--format", "json")
    assert "not written again" not in capsys.readouterr().out
    (folder / "leaderboard.html").write_text("an earlier page")
    run_here("remove", "model_0000.*", "--out", folder)
    run_here("leaderboard", folder)
    said = capsys.readouterr().out
    assert "not written again: leaderboard.html, leaderboard.json (--format html,json writes them)" in said
    run_here("leaderboard", folder, "--format", "json")
    assert "not written again: leaderboard.html (--format html writes it)" in capsys.readouterr().out
