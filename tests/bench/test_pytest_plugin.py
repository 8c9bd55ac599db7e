"""The pytest plugin, run by real pytest as users run it."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from conftest import CELL

# Imported before pytester looks, which forgets all modules that a run in this process brings: torch loads only once.
import gauntlet.attacks.adapters.torchattacks_adapter
import gauntlet.attacks.pgd
import gauntlet.bench.session.pytest_session
import gauntlet.bench.test_cells
import gauntlet.defenses.jpeg  # noqa: F401
from builders import ROOT
from gauntlet.leaderboard.report.cells_csv import read_cells
from gauntlet.leaderboard.report.leaderboard_csv import read_leaderboard

pytest_plugins = ["pytester"]

MODEL = ("--gauntlet-model=model.py:build", "--gauntlet-data=data.npz", "--gauntlet-threat=Linf:0.1")
QUICK = (*MODEL, "--gauntlet-attacks=quick")
ONE = (*MODEL, "--gauntlet-attacks=fgsm")
"""A single cell."""
FAILING = "\n\ndef broken():\n    raise OSError('no weights here')\n"


def table(user, out="gauntlet-results"):
    return read_leaderboard(user.path / out / "leaderboard.csv")


def cells(user, out="gauntlet-results"):
    return read_cells(user.path / out / "cells.csv")


# --- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_passes_shows_the_leaderboard_and_writes_its_files(user):
    result = user.runpytest("-v", *QUICK)
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "test_robust.py::test_cell[[]model.build × none × fgsm] PASSED*",
            "test_robust.py::test_cell[[]model.build × none × pgd-10] PASSED*",
            "*= gauntlet leaderboard =*",
            "Linf:0.1 · data.npz · quick",
            "rank  model*robust %*",
            "*1  model.build  *",
            "model.build keeps *",
            "2 cells: 0 answered from the store*, 0 in error, 0 not run",
            "written: *leaderboard.csv",
        ]
    )
    (row,) = table(user).to_dict("records")
    assert (row["model"], row["status"], row["n"]) == ("model.build", "ok", 30)
    assert row["robust_accuracy"] == min(row["robust[fgsm]"], row["robust[pgd-10]"]) < row["clean_accuracy"]
    report = (user.path / "gauntlet-results" / "leaderboard.md").read_text(encoding="utf-8")
    assert "pytest -v --gauntlet-model=model.py:build" in report


def test_a_second_run_is_answered_from_the_store_and_is_not_timed(user):
    first = user.runpytest(*QUICK)
    first.stdout.fnmatch_lines(["*benchmark 'Linf:0.1': 2 tests*"])
    before = table(user)
    second = user.runpytest(*QUICK, "--benchmark-json=second.json")
    assert second.ret == 0
    second.stdout.fnmatch_lines(["2 cells: 2 answered from the store (their recorded seconds are shown)*"])
    second.stdout.no_fnmatch_line("*benchmark 'Linf*")
    assert not (user.path / "second.json").exists() or not (user.path / "second.json").read_text()
    assert cells(user)["cached"].tolist() == [True, True]
    assert table(user).equals(before)
    again = user.runpytest(*QUICK, "--gauntlet-fresh")
    assert again.ret == 0
    again.stdout.fnmatch_lines(["*benchmark 'Linf:0.1': 2 tests*", "2 cells: 0 answered from the store*"])


def columns(result):
    header = next(line for line in result.outlines if line.startswith("Name (time in "))
    return header.split(")", 1)[1].split()


def test_a_cell_that_is_timed_once_has_one_column_of_time(user):
    assert columns(user.runpytest(*ONE)) == ["Mean"]
    shutil.rmtree(user.path / "gauntlet-results")
    assert columns(user.runpytest(*ONE, "--benchmark-columns=min,rounds")) == ["Min", "Rounds"]
    shutil.rmtree(user.path / "gauntlet-results")
    user.makepyfile(test_own="def test_own(benchmark):\n    benchmark.pedantic(abs, args=(1,), rounds=3)\n")
    assert len(columns(user.runpytest(*ONE))) > 5


def test_the_benchmarks_json_has_what_the_cells_gave(user):
    assert user.runpytest(*QUICK, "--benchmark-json=bench.json").ret == 0
    found = {one["name"]: one for one in json.loads((user.path / "bench.json").read_text())["benchmarks"]}
    assert set(found) == {"test_cell[model.build × none × fgsm]", "test_cell[model.build × none × pgd-10]"}
    for name, row in zip(sorted(found), cells(user).to_dict("records"), strict=True):
        extra = found[name]["extra_info"]
        assert extra["n"] == 30
        assert extra["robust_accuracy"] == pytest.approx(row["robust_accuracy"])
        assert extra["forwards_per_sample"] == pytest.approx(row["forwards_per_sample"])
        assert extra["backwards_per_sample"] == pytest.approx(row["backwards_per_sample"])
        assert extra["peak_memory_mib"] > 0
        assert extra["attack_seconds"] > 0
        assert extra["cached"] is False
        assert found[name]["stats"]["rounds"] == 1
        assert found[name]["stats"]["max"] >= extra["attack_seconds"]


def test_k_chooses_cells_and_the_others_are_shown_as_not_run(user):
    result = user.runpytest("-k", "pgd-10", *QUICK)
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines(["2 cells: 0 answered from the store*, 0 in error, 1 not run"])
    assert table(user)["status"].tolist() == ["unfinished"]


def test_without_timing_the_results_are_stored_all_the_same(user):
    result = user.runpytest("--benchmark-disable", *QUICK)
    result.assert_outcomes(passed=2)
    result.stdout.no_fnmatch_line("*benchmark 'Linf*")
    assert cells(user)["status"].tolist() == ["ok", "ok"]
    assert table(user)["rank"].tolist() == [1]


def test_collecting_writes_nothing(user):
    result = user.runpytest("--collect-only", "-q", *QUICK)
    result.stdout.fnmatch_lines(["*test_cell[[]model.build × none × fgsm]"])
    assert not (user.path / "gauntlet-results").exists()


# --- what fails -------------------------------------------------------------------------------------------------------


def test_a_missed_expectation_fails_the_test_with_both_figures(user):
    (user.path / "gauntlet.toml").write_text("[[expect]]\nattack = 'pgd-*'\nmin_robust = 0.99\n")
    result = user.runpytest(*QUICK)
    result.assert_outcomes(passed=1, failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["*model.build × none × pgd-10 Linf:0.1: robust accuracy *% is below the expected minimum 99.0% (n=30)"]
    )
    assert table(user)["status"].tolist() == ["ok"]
    # Also where the store answers.
    assert user.runpytest("-k", "pgd-10", *QUICK).ret == pytest.ExitCode.TESTS_FAILED


def test_low_robustness_alone_is_no_failure(user):
    result = user.runpytest(*MODEL[:2], "--gauntlet-threat=Linf:0.9", "--gauntlet-attacks=fgsm")
    assert result.ret == 0
    assert table(user)["robust_accuracy"].iloc[0] < 0.1


def test_a_cell_in_error_fails_its_test_and_stands_in_the_leaderboard(user):
    with (user.path / "model.py").open("a") as file:
        file.write(FAILING)
    result = user.runpytest(*QUICK, "--gauntlet-model=model.py:broken")
    result.assert_outcomes(passed=2, failed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*model.broken × none × fgsm: ModelError: building*no weights here*"])
    result.stdout.fnmatch_lines(["4 cells: *, 2 in error, 0 not run"])
    found = table(user).set_index("model")
    assert found.loc["model.broken", "status"] == "error"
    assert found.loc["model.build", "rank"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--gauntlet-model=cnn.standart_digits"],
            "*unknown model 'cnn.standart_digits'; did you mean cnn.standard_dig*",
        ),
        (["--gauntlet-attacks=pgdd"], "*unknown attack 'pgdd'; did you mean *pgd*"),
        (["--gauntlet-threat=Linf:8"], "*did you mean 8/255*"),
        (["--gauntlet-config=nowhere.toml"], "*configuration file 'nowhere.toml' does not exist*"),
        (["--gauntlet-device=cuda:99"], "*device 'cuda:99' is not available*"),
    ],
)
def test_a_wrong_option_is_a_usage_error(user, arguments, words):
    result = user.runpytest(*QUICK, *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([words])
    text = result.stdout.str() + result.stderr.str()
    assert "Traceback" not in text
    assert not re.search("internal ?error", text, re.IGNORECASE)


def test_a_wrong_option_is_a_usage_error_with_workers_too(user):
    result = user.runpytest_subprocess("-n", "2", *QUICK, "--gauntlet-model=cnn.standart_digits")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stdout.str() + result.stderr.str()
    assert "did you mean cnn.standard_digits" in text
    assert not re.search("internal ?error", text, re.IGNORECASE)


def test_a_damaged_block_is_told_and_computed_again_and_other_tests_go_on(user):
    user.runpytest(*QUICK)
    (file, *_) = (user.path / "gauntlet-results" / "store").rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:100])
    user.makepyfile(test_other="def test_other():\n    pass\n")
    result = user.runpytest(*QUICK)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["warning: *parquet is damaged*moved to *damaged*and computed again*"])
    assert file.stat().st_size > 100


NOISY = """

class Noise(torch.nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


def noisy():
    return torch.nn.Sequential(build(), Noise()).eval()
"""


def test_what_was_measured_of_a_model_that_declares_nothing_is_told_with_the_option_of_pytest(user):
    file = user.path / "model.py"
    file.write_text(f"import torch\n{file.read_text(encoding='utf-8')}{NOISY}", encoding="utf-8")
    options = ("--gauntlet-model=model.py:noisy", *ONE[1:])
    told = "measured: model.noisy answers the same image differently*--gauntlet-randomised*"
    user.runpytest(*options).stdout.fnmatch_lines([told])
    user.runpytest(*options, "--gauntlet-randomised").stdout.no_fnmatch_line(told)


def test_an_unreadable_store_is_told_and_other_tests_go_on(user):
    user.runpytest(*QUICK)
    (user.path / "gauntlet-results" / "damaged").write_text("a file in the way of the folder")
    (block, *_) = (user.path / "gauntlet-results" / "store").rglob("*.parquet")
    block.write_bytes(block.read_bytes()[:100])
    user.makepyfile(test_other="def test_other():\n    pass\n")
    result = user.runpytest(*QUICK)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*WriteError: cannot write *damaged*"])
    result.stdout.fnmatch_lines(["ERROR: the leaderboard could not be written: *parquet is damaged*"])


def test_a_leaderboard_that_cannot_be_written_fails_the_run_and_is_shown(user):
    (user.path / "gauntlet-results" / "leaderboard.md").mkdir(parents=True)
    result = user.runpytest(*ONE)
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "*1  model.build  *",
            "model.build keeps *",
            "ERROR: the leaderboard could not be written: cannot write *leaderboard.md: *",
        ]
    )


# --- in users' projects -----------------------------------------------------------------------------------------------


def test_the_cells_can_be_run_without_a_file_of_ones_own(user):
    (user.path / "test_robust.py").unlink()
    result = user.runpytest("--pyargs", "gauntlet.bench", "-k", "fgsm", *QUICK)
    result.assert_outcomes(passed=1, deselected=1)
    assert result.ret == 0


def test_the_checkouts_bench_folder_collects_the_same_cells(user):
    arguments = ("--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), "--collect-only", "-q")
    result = user.runpytest(str(ROOT / "bench"), *arguments, *ONE)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["bench/test_cells.py::test_cell[[]model.build × none × fgsm]"])


def test_a_repository_with_modules_of_our_names_is_evaluated_with_its_own(user, tiny):
    (user.path / "models").mkdir()
    (user.path / "model.py").rename(user.path / "models" / "net.py")
    (user.path / "means.npy").rename(user.path / "models" / "means.npy")
    (user.path / "models" / "__init__.py").write_text("")
    for name in ("attacks", "bench", "defenses", "leaderboard", "utils"):
        (user.path / f"{name}.py").write_text(f"NAME = 'mine: {name}'\n")
    (user.path / "robust.py").write_text(
        "import attacks, bench, defenses, leaderboard, utils\n"
        "from models.net import Means\n\n\n"
        "def build():\n"
        "    found = [one.NAME for one in (attacks, bench, defenses, leaderboard, utils)]\n"
        "    assert found == ['mine: attacks', 'mine: bench', 'mine: defenses', 'mine: leaderboard', 'mine: utils']\n"
        "    return Means().eval()\n"
    )
    user.makepyfile(
        test_own="import attacks\n\n\ndef test_own():\n    assert attacks.NAME == 'mine: attacks'\n", test_robust=CELL
    )
    result = user.runpytest(*ONE, "--gauntlet-model=robust.py:build,robust:build")
    # The first `--gauntlet-model` names a file that has been moved.
    result.assert_outcomes(passed=3, failed=1)
    found = table(user).set_index("model")
    assert found.loc["robust.py:build" if "robust.py:build" in found.index else "robust.build", "status"] == "ok"


def test_where_warnings_are_errors_a_run_passes(user):
    user.makeini("[pytest]\nfilterwarnings = error\naddopts = --strict-markers --strict-config -p no:cacheprovider\n")
    for _ in range(2):
        result = user.runpytest("-W", "error", *ONE, "--gauntlet-defense=none,jpeg")
        result.assert_outcomes(passed=2)
        assert result.ret == 0


def test_settings_are_read_from_the_projects_files_and_options_win(user):
    (user.path / "pyproject.toml").write_text(
        "[tool.gauntlet]\nmodel = 'model.py:build'\ndata = 'data.npz'\nattacks = 'fgsm'\nsamples = '20'\nout = 'there'\n"
    )
    assert user.runpytest().ret == 0
    assert cells(user, "there")["n"].tolist() == [20]
    assert user.runpytest("--gauntlet-samples=10").ret == 0
    assert cells(user, "there")["n"].tolist() == [10]


@pytest.mark.parametrize("file", ["gauntlet.toml", "pyproject.toml"])
def test_the_projects_settings_are_found_from_a_folder_below_it(user, monkeypatch, file):
    table = "[tool.gauntlet]\n" if file == "pyproject.toml" else ""
    model = user.path / "model.py"
    (user.path / file).write_text(
        f"{table}model = '{model}:build'\ndata = '{user.path / 'data.npz'}'\nattacks = 'fgsm'\n"
    )
    (user.path / "tests").mkdir()
    (user.path / "test_robust.py").rename(user.path / "tests" / "test_robust.py")
    monkeypatch.chdir(user.path / "tests")
    result = user.runpytest("--collect-only", "-q")
    result.stdout.fnmatch_lines(["*test_cell[[]model.build × none × fgsm]", "1 test collected*"])


def test_hostile_file_names_are_shown_as_text(user):
    names = ["a b", "=1+1", "x[1]", "näht × none", "-rm", "a\x1b[31m", "q'\"%s{}"]
    for name in names:
        shutil.copy(user.path / "model.py", user.path / f"{name}.py")
    models = json.dumps([f"./{name}.py:build" for name in names])
    config = f"model = {models}\ndata = 'data.npz'\nattacks = 'fgsm'\nthreat = 'Linf:0.1'\n"
    (user.path / "gauntlet.toml").write_text(config, encoding="utf-8")
    result = user.runpytest("-v")
    result.assert_outcomes(passed=len(names))
    assert "\x1b" not in result.stdout.str()
    assert not (user.path / "gauntlet-results" / "leaderboard.csv").read_text(encoding="utf-8").count("\n=")
    assert len(table(user)) == len(names)


def test_tests_that_are_not_ours_do_not_load_anything_heavy(user):
    for file in ("test_robust.py", "model.py"):
        (user.path / file).unlink()
    user.makeconftest(
        """
        import sys

        def pytest_unconfigure(config):
            assert "gauntlet.bench.pytest_plugin" in sys.modules
            heavy = ("torch", "numpy", "pandas", "pyarrow", "scipy", "art", "torchattacks", "click", "rich")
            sys.stdout.write(f"loaded: {[name for name in heavy if name in sys.modules]}\\n")
        """
    )
    user.makepyfile("def test_it():\n    pass\n")
    result = user.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["loaded: [[]]"])
    result.stdout.no_fnmatch_line("*gauntlet leaderboard*")
    assert not (user.path / "gauntlet-results").exists()
