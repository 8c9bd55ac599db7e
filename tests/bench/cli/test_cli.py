"""The command line: what users type, what they read, and the exit codes that scripts rely on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders import slow_unless
from gauntlet.bench.run.engine import Engine
from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.report.cells_csv import read_cells
from gauntlet.leaderboard.report.leaderboard_csv import read_leaderboard
from gauntlet.leaderboard.results.block_file import from_file

TARGET = ("--model=model.py:build", "--data=data.npz", "--threat=Linf:0.1")
RUN = ("run", *TARGET, "--attacks=quick", "--out=out")


def cells(folder="out"):
    return read_cells(Path(folder) / "cells.csv")


def assert_told(done, code, *words):
    """An expected error: its exit code, one message with the words, and no traceback."""
    assert done.returncode == code, done.stdout + done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert "Traceback" not in done.stdout + done.stderr


# --- run, show, leaderboard, in processes of their own ----------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """A project after `gauntlet run`, and what that printed."""
    folder = tiny.write_project(tmp_path_factory.mktemp("finished"))
    return folder, tiny.run_command(folder, *RUN)


def test_run_shows_progress_leaderboard_and_files(finished):
    folder, done = finished
    assert done.returncode == 0, done.stderr
    progress = done.stderr.splitlines()
    assert [line.partition(": robust ")[0] for line in progress] == [
        "model.build × none × fgsm",
        "model.build × none × pgd-10",
    ]
    assert all(line.split(": robust ")[1].split(",")[0].endswith("% of 30") for line in progress)
    lines = done.stdout.splitlines()
    assert "Linf:0.1 · data.npz · quick" in lines
    assert "2 cells: 0 answered from the store (their recorded seconds are shown), 0 in error, 0 not run" in lines
    for name in ("leaderboard.csv", "cells.csv", "leaderboard.md"):
        assert f"written: {Path('out') / name}" in lines
        assert (folder / "out" / name).stat().st_size > 0
    assert "verify every stored example: gauntlet verify out --trust" in lines
    assert "\x1b" not in done.stdout + done.stderr


def test_the_report_names_the_command_that_repeats_it(finished):
    folder, _ = finished
    assert " ".join(RUN) in (folder / "out" / "leaderboard.md").read_text(encoding="utf-8")


def test_show_lists_every_cell(finished, call, monkeypatch):
    monkeypatch.chdir(finished[0])
    done = call("show", "out")
    assert done.returncode == 0
    table = cells().set_index("attack")
    for attack in ("fgsm", "pgd-10"):
        robust = 100 * table.loc[attack, "robust_accuracy"]
        assert f"model.build × none × {attack}: robust {robust:.1f} % of 30, " in done.stdout
    assert " MiB stored for this run in out" in done.stdout


def test_leaderboard_writes_the_files_again_from_the_store(finished, call, monkeypatch):
    monkeypatch.chdir(finished[0])
    before = {path.name: path.read_text(encoding="utf-8") for path in Path("out").glob("*.csv")}
    assert len(before) == 3
    for name in before:
        (Path("out") / name).unlink()
    assert call("leaderboard", "out").returncode == 0
    assert {path.name: path.read_text(encoding="utf-8") for path in Path("out").glob("*.csv")} == before


def test_the_installed_command_answers(tmp_path):
    script = Path(sys.executable).with_name("gauntlet")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == f"gauntlet, version {version('robust-gauntlet')}"
    done = subprocess.run([script, "list", "models", "cnn.[ft]*"], capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["cnn.fast_digits", "cnn.trades_digits"]


def test_a_reader_that_leaves_early_is_no_traceback(finished, tiny):
    folder, _ = finished
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", "from gauntlet.bench.cli.main import main; main()", "list", "models"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=folder, check=False)
    os.close(writing)
    assert "Traceback" not in done.stderr


# --- list -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("models", {"cnn.standard_digits", "cnn.trades_digits"}),
        ("attacks", {"fgsm", "pgd", "cw", "torchattacks.PGD", "art.HopSkipJump"}),
        ("suites", {"quick", "standard"}),
        ("defenses", {"none", "jpeg", "input_noise"}),
        ("data", {"digits", "digits-train"}),
    ],
)
def test_list_shows_names_with_a_line_each(call, kind, names):
    done = call("list", kind)
    assert done.returncode == 0
    found = [line.split()[0] for line in done.stdout.splitlines()]
    assert names <= set(found)
    assert found == sorted(found)
    assert all(len(line.split()) > 2 for line in done.stdout.splitlines())


def test_list_alone_shows_what_can_be_listed_with_the_number_of_entries(call):
    done = call("list")
    assert done.returncode == 0
    rows = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines()[:-1]}
    assert set(rows) == {"models", "attacks", "defenses", "data", "certificates", "corruptions", "suites"}
    for kind in ("models", "suites"):
        assert int(rows[kind]) == len(call("list", kind).stdout.splitlines())


def test_list_takes_wildcards_and_says_where_nothing_matches(call):
    assert call("list", "attacks", "torchattacks.*").stdout.count("torchattacks.PGD") == 1
    assert_told(call("list", "models", "resnet*"), 2, "no models match 'resnet*'", "gauntlet list models")
    assert_told(call("list", "attacks", "apdg"), 2, "no attacks match 'apdg'; did you mean apgd")


# --- options ----------------------------------------------------------------------------------------------------------


def test_threat_models_may_be_repeated_and_lists_split(project, call):
    done = call(*RUN[:3], "--attacks=fgsm", "--threat=Linf:0.1", "--threat", "Linf:0.21,L2:0.5", "--out=out")
    assert done.returncode == 0
    assert cells()["threat"].tolist() == ["Linf:0.1", "Linf:0.21", "L2:0.5"]
    robust = cells()["robust_accuracy"]
    assert robust[0] > robust[1]
    assert "model.build × none × fgsm L2:0.5: robust" in done.stderr


def test_models_and_attacks_may_have_wildcards(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ("--model=cnn.[ft]*", "--data=digits", "--samples=10", "--attacks=fgs?", "--out=out")
    assert call("run", *arguments).returncode == 0
    assert cells()["model"].tolist() == ["cnn.fast_digits", "cnn.trades_digits"]
    assert cells()["attack"].tolist() == ["fgsm", "fgsm"]
    assert cells()["threat"].tolist() == ["Linf:0.15"] * 2


@pytest.mark.parametrize("file", ["gauntlet.toml", "pyproject.toml", "other.toml"])
def test_the_config_file_is_read_and_the_command_line_wins(project, call, file):
    text = (
        "model = 'model.py:build'\ndata = 'data.npz'\nattacks = 'fgsm'\nthreat = 'Linf:0.1'\nseed = 3\nout = 'there'\n"
    )
    Path(file).write_text(("[tool.gauntlet]\n" if file == "pyproject.toml" else "") + text)
    named = ["--config=other.toml"] if file == "other.toml" else []
    assert call("run", *named).returncode == 0
    assert cells("there")["seed"].tolist() == [3]
    assert call("run", *named, "--seed=0", "--samples=12", "--out=here").returncode == 0
    (cell,) = cells("here").to_dict("records")
    assert (cell["seed"], cell["n"], cell["attack"], cell["threat"]) == (0, 12, "fgsm", "Linf:0.1")


def test_a_second_run_is_answered_from_the_store(project, call):
    assert call(*RUN).returncode == 0
    done = call(*RUN)
    assert done.returncode == 0
    assert done.stderr.count("(stored)") == 2
    assert "2 cells: 2 answered from the store" in done.stdout


def test_a_fresh_run_shows_and_keeps_its_seconds_and_leaves_the_blocks(project, call):
    assert call(*RUN).returncode == 0
    blocks = {path: path.read_bytes() for path in Path("out/store").rglob("*.parquet")}
    first = cells()
    done = call(*RUN, "--fresh")
    assert done.returncode == 0
    assert "(stored)" not in done.stderr
    assert "2 cells: 0 answered from the store" in done.stdout
    fresh = cells()
    assert (fresh["seconds"] != first["seconds"]).all()
    assert not fresh["cached"].any()
    costs = [name for name in fresh if name.endswith("seconds")] + ["peak_memory_mib", "cached"]
    assert fresh.drop(columns=costs).equals(first.drop(columns=costs))
    again = call(*RUN)
    assert "2 cells: 2 answered from the store" in again.stdout
    assert cells()["seconds"].tolist() == fresh["seconds"].tolist()
    assert cells()["cached"].all()
    assert {path: path.read_bytes() for path in Path("out/store").rglob("*.parquet")} == blocks


def test_a_dry_run_shows_the_plan_and_runs_nothing(project, call):
    done = call(*RUN, "--dry-run")
    assert done.returncode == 0
    assert re.search(
        r"model.build × none × pgd-10: 0 of 30 stored, the rest about \d+\.\d s by timed passes", done.stdout
    )
    assert "2 cells, about " in done.stdout
    assert not Path("out/store").exists()
    assert not Path("out/leaderboard.csv").exists()
    call(*RUN, "--attacks=fgsm")
    done = call(*RUN, "--dry-run")
    assert "model.build × none × fgsm: stored" in done.stdout
    library = call(*RUN[:4], "--attacks=torchattacks.Square", "--out=out", "--dry-run")
    assert "unknown cost" in library.stdout


def test_two_files_of_one_name_have_a_row_each(project, call, tiny):
    for folder, scale in (("one", "1.0"), ("two", "-1.0")):
        tiny.write_model(project / folder, tiny.MODEL.replace("torch.tensor(1.0)", f"torch.tensor({scale})"))
    models = "--model=one/model.py:build,two/model.py:build"
    assert call("run", models, *TARGET[1:], "--attacks=fgsm", "--out=out").returncode == 0
    board = read_leaderboard(Path("out/leaderboard.csv"))
    assert len(board) == 2
    assert set(board["model"]) == {"one/model.py:build", "two/model.py:build"}
    assert sorted(board["clean_accuracy"] > 0.5) == [False, True]


def test_a_run_without_model_and_configuration_says_that_it_is_the_default_benchmark(project, call):
    done = call("run", "--gate=nowhere.json")
    assert done.returncode == 2
    assert "the default benchmark runs" in done.stderr
    assert "the default benchmark runs" not in call("run", "--gate=nowhere.json", "--model=cnn.pgd_digits").stderr


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model=cnn.standart_digits"], ["unknown model 'cnn.standart_digits'", "did you mean cnn.standard_digits"]),
        (["--attacks=pgdd"], ["unknown attack 'pgdd'", "did you mean"]),
        (["--attacks=pgd(stepps=3)"], ["stepps", "pgd"]),
        (["--defense=mine.py:Smooth"], ["unknown defense 'mine.py:Smooth'", "--plugin FILE.py"]),
        (["--defense=jpg"], ["unknown defense 'jpg'", "did you mean jpeg"]),
        (["--threat=8/255"], ["8/255", "NORM:EPS"]),
        (["--batch-size=0"], ["batch_size=0"]),
        (["--device=gpu"], ["device 'gpu'", "cuda"]),
        (["--config=nowhere.toml"], ["nowhere.toml"]),
        (["--mean=a,b"], ["mean='a,b'"]),
        (["--seed=x"], ["--seed", "x"]),
        (["--sed=1"], ["--sed"]),
        (["surplus"], ["surplus"]),
    ],
)
def test_wrong_usage_is_told_with_the_way_out(project, call, arguments, words):
    done = call("run", "--data=data.npz", "--attacks=fgsm", *arguments)
    assert_told(done, 2, *words)
    assert not Path("gauntlet-results").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data=nowhere.npz"], ["nowhere.npz", "does not exist"]),
        (["--data=digitz"], ["digitz", "digits"]),
        (["--samples=31"], ["31", "30 samples"]),
        (["--model=nowhere.py:build"], ["nowhere.py", "does not exist"]),
        (["--model=model.py:bild"], ["bild", "did you mean build"]),
        (["--model=model.py"], ["model.py:NAME"]),
        (["--weights=nowhere.pt"], ["nowhere.pt"]),
        (["--mean=0.1,0.2,0.3"], ["mean has 3 values, but the images have 1 channel: give 1 value"]),
    ],
)
def test_a_model_or_data_that_are_not_there_are_told(project, call, arguments, words):
    done = call(*RUN[:4], "--attacks=fgsm", *arguments)
    assert done.returncode in (1, 2)
    assert_told(done, done.returncode, *words)


def test_a_cell_in_error_makes_exit_code_one_and_the_others_are_run(project, call):
    with Path("model.py").open("a") as file:
        file.write("\n\ndef broken():\n    raise OSError('no weights here')\n")
    done = call(*RUN, "--model=model.py:broken")
    assert_told(done, 1, "PROBLEM model.broken × none × fgsm: ModelError\n")
    # Each of the two cells says why as it ends, the table once for their row.
    assert done.stderr.count("no weights here") == 2
    assert done.stdout.count("no weights here") == 1
    assert "ERROR" in done.stdout
    assert cells()["status"].value_counts().to_dict() == {"ok": 2, "error": 2}
    shown = call("show", "out")
    assert "model.broken × none × fgsm: ERROR ModelError: " in shown.stdout


@pytest.mark.parametrize("finished", [0, 1])
def test_an_interrupt_says_what_is_stored_and_cells_that_were_not_reached_are_shown_as_such(
    project, call, monkeypatch, finished
):
    prepare, reached = Engine.prepare, []

    def interrupted(engine, cell):
        if len(reached) == finished:
            raise KeyboardInterrupt
        reached.append(cell)
        return prepare(engine, cell)

    monkeypatch.setattr(Engine, "prepare", interrupted)
    done = call(*RUN)
    assert done.returncode == 130
    stored = "30 outcomes are stored, one for each sample and attack; run the same command again to resume"
    assert done.stderr.endswith(f"interrupted: {stored if finished else 'nothing of this run is stored yet'}\n")
    shown = call("show", "out").stdout
    assert "model.build × none × pgd-10: not started\n" in shown
    assert "?" not in shown


def test_a_missed_expectation_makes_exit_code_one(project, call):
    Path("gauntlet.toml").write_text("[[expect]]\nmodel = 'model.*'\nattack = 'fgsm'\nmin_robust = 0.99\n")
    done = call(*RUN)
    assert_told(done, 1, "PROBLEM", "is below the expected minimum 99.0% (n=30)")
    Path("gauntlet.toml").write_text("[[expect]]\nmin_clean = 0.5\nmax_robust = 0.99\n")
    assert call(*RUN).returncode == 0


def test_a_folder_that_cannot_be_written_is_told(project, call):
    Path("out").write_text("a file")
    assert_told(call(*RUN), 1, "cannot write", "out")


def test_tables_that_cannot_be_written_fail_the_run_which_shows_and_keeps_its_results(project, call):
    Path("out/leaderboard.md").mkdir(parents=True)
    Path("out/cells.csv").write_text("older\n")
    done = call(*RUN)
    assert_told(
        done, 1, "PROBLEM the leaderboard could not be written: cannot write out/leaderboard.md", "run the same"
    )
    assert "2 cells: 0 answered from the store (their recorded seconds are shown), 0 in error, 0 not run" in done.stdout
    assert Path("out/cells.csv").read_text() == "older\n"
    assert_told(call("leaderboard", "out"), 1, "cannot write out/leaderboard.md")
    assert "2 cells: 2 answered from the store" in call(*RUN).stdout
    Path("out/leaderboard.md").rmdir()
    assert call(*RUN).returncode == 0


def test_a_table_that_cannot_be_removed_fails_the_run(project, call):
    Path("out/published.csv").mkdir(parents=True)
    assert_told(call(*RUN), 1, "cannot write out/published.csv")


def test_a_picture_that_cannot_be_written_fails(project, call):
    assert call(*RUN).returncode == 0
    Path("out/pictures").write_text("")
    assert_told(call("show", "out", "--pictures"), 1, "cannot write out/pictures/")


def test_a_damaged_block_is_told_with_its_file(project, call):
    call(*RUN)
    (file, *_) = Path("out/store").rglob("*.parquet")
    whole = from_file(BytesIO(file.read_bytes()))
    file.write_bytes(b"nothing")
    for command in ("show", "leaderboard"):
        assert_told(call(command, "out"), 1, file.name, "delete it and run the same command again")
    done = call(*RUN)
    assert done.returncode == 0
    assert f"{file.name} is damaged" in done.stderr
    assert f"moved to out/damaged/{file.name}, and computed again" in done.stderr
    assert Path("out/damaged", file.name).read_bytes() == b"nothing"
    np.testing.assert_array_equal(from_file(BytesIO(file.read_bytes())).samples.robust, whole.samples.robust)


def test_forged_verdicts_are_refused_by_every_command_and_computed_again(project, call):
    assert call(*RUN).returncode == 0
    honest = read_leaderboard(Path("out/leaderboard.csv"))
    files = sorted(Path("out/store").rglob("*.parquet"))
    for file in files:
        table = pq.read_table(file)
        at = table.schema.get_field_index("robust")
        pq.write_table(table.set_column(at, "robust", pa.array([True] * len(table))), file)
    for command in (["show"], ["leaderboard"], ["verify", "--trust"]):
        done = call(*command, "out")
        assert done.returncode == 1
        assert "was altered" in done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
    done = call(*RUN)
    assert done.returncode == 0
    assert done.stderr.count("was altered") == len(files)
    again = read_leaderboard(Path("out/leaderboard.csv"))
    for column in ("robust_accuracy", "clean_accuracy", "rank"):
        assert again[column].tolist() == honest[column].tolist()


@pytest.mark.parametrize("command", ["show", "leaderboard", "verify"])
def test_a_folder_without_a_run_is_told(tmp_path, call, command):
    assert_told(call(command, tmp_path / "nowhere"), 2, "nowhere", "holds no run")


@pytest.mark.parametrize("damage", ["{", '{"run": 3}', '{"run": "gone"}', "[]"])
def test_a_damaged_run_file_is_told(project, call, damage):
    call(*RUN, "--attacks=fgsm")
    Path("out/latest-run.json").write_text(damage)
    assert_told(call("show", "out"), 2, "run.json", "run the same command again")


@pytest.mark.parametrize(
    "name",
    [
        "=cmd",
        slow_unless(False, "a b|c"),
        "x\x1b[31m\x07y",
        "a`b<i>",
        slow_unless(False, "-rf"),
        slow_unless(False, "\u202egnp"),
    ],
)
def test_a_hostile_file_name_does_nothing_to_terminal_or_tables(project, call, name):
    Path("model.py").rename(f"{name}.py")
    Path("gauntlet.toml").write_text(f"model = [{json.dumps(f'./{name}.py:build')}]\n", encoding="utf-8")
    done = call("run", *TARGET[1:], "--attacks=fgsm", "--out=out")
    assert done.returncode == 0, done.stderr
    for text in (done.stdout, done.stderr, call("show", "out").stdout, call("verify", "out", "--trust").stdout):
        assert not {"\x1b", "\x07", "\u202e"} & set(text)
    written = Path("out/leaderboard.csv").read_text(encoding="utf-8")
    assert not {"\x1b", "\x07", "\u202e"} & set(written)
    assert ",=cmd" not in written
    assert len(load_run(Path("out")).plan.cells) == 1
    assert "<i>" not in Path("out/leaderboard.md").read_text(encoding="utf-8").split("## Reproduce")[0]
