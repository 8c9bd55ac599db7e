"""`gauntlet gate`: a model that lost robustness is caught, and nothing passes unseen."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import gauntlet
from gate_project import ATTACK, BASELINE, FAILING, MODEL, RUN, assert_told
from gauntlet.bench.cli.main import cli
from gauntlet.bench.config.schema import load_config
from gauntlet.bench.gate.lost_samples import again_command
from gauntlet.bench.gate.snapshot import snapshot
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.gate.baseline_file import read_baseline, write_baseline

# verdicts


def test_the_accepted_run_is_held(here, call):
    done = call("gate", "out", BASELINE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "held" in done.stdout.lower()
    assert "model.build × none × pgd" in done.stdout
    assert "held" in Path("out/gate.md").read_text(encoding="utf-8").lower()


def test_a_model_fine_tuned_without_attacks_is_caught(here, call, states):
    torch.save(states[1], "weights.pt")
    assert call(*RUN, ATTACK).returncode == 0
    done = call("gate", "out", BASELINE)
    assert done.returncode == 1
    assert "regressed" in done.stdout.lower()
    assert "regressed" in Path("out/gate.md").read_text(encoding="utf-8").lower()
    assert call("gate", "out", BASELINE, "--allow-undecided").returncode == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_another_seed_of_the_attack_on_the_same_weights_is_no_regression(here, call, seed):
    assert call(*RUN, ATTACK, f"--seed={seed}").returncode == 0
    done = call("gate", "out", BASELINE, "--margin=0.05")
    assert done.returncode == 0, done.stdout
    assert "held" in done.stdout.lower()


def test_seeds_that_a_baseline_tells_apart_are_not_exchanged(here, call):
    both = read_baseline(BASELINE)
    write_baseline(BASELINE, replace(both, cells=(*both.cells, replace(both.cells[0], seed=7))))
    done = call("gate", "out", BASELINE)
    assert done.returncode == 3
    assert "incomparable" in done.stdout.lower()


def test_too_few_samples_are_undecided_and_pass_only_where_that_is_allowed(here, call):
    few = ("--samples=50", "--out=few")
    assert call(*RUN, ATTACK, *few).returncode == 0
    assert call("baseline", "accept", "few", "--out=few.json").returncode == 0
    done = call("gate", "few", "few.json")
    assert done.returncode == 4
    assert "undecided" in done.stdout.lower()
    assert call("gate", "few", "few.json", "--allow-undecided").returncode == 0
    assert call("gate", "few", "few.json", "--margin=0.1").returncode == 0


@pytest.mark.parametrize("change", ["--samples=150", "--threat=Linf:0.1", "--attacks=fgsm"])
def test_a_run_of_something_else_is_incomparable_and_never_passes(here, call, change):
    assert call(*RUN, ATTACK, change).returncode == 0
    done = call("gate", "out", BASELINE, "--allow-undecided")
    assert done.returncode == 3
    assert "incomparable" in done.stdout.lower()


def test_a_cell_that_fails_is_incomparable(here, call):
    Path("model.py").write_text(FAILING)
    assert call(*RUN, ATTACK).returncode == 1
    done = call("gate", "out", BASELINE)
    assert done.returncode == 3
    assert "incomparable" in done.stdout.lower()


def test_an_absolute_floor_fails_where_nothing_was_lost(here, call):
    robust = read_baseline(BASELINE).cells[0].robust.mean()
    assert call("gate", "out", BASELINE, f"--min-robust={robust - 0.01}").returncode == 0
    assert call("gate", "out", BASELINE, f"--min-robust={robust + 0.01}").returncode == 1


def test_a_rise_by_other_attack_settings_on_the_same_weights_is_suspicious_and_fails(here, call):
    old = read_baseline(BASELINE)
    weaker = old.cells[0].robust & (np.arange(200) % 2 == 0)
    write_baseline(BASELINE, replace(old, cells=(replace(old.cells[0], spec="of stronger settings", robust=weaker),)))
    done = call("gate", "out", BASELINE)
    assert done.returncode == 1
    assert "suspicious" in done.stdout.lower()


# a run that is gated at once


def test_a_run_with_a_gate_tells_both(here, call, states):
    done = call(*RUN, ATTACK, f"--gate={BASELINE}")
    assert done.returncode == 0
    assert "1 cell: 1 answered from the store" in done.stdout
    assert "held" in done.stdout.lower()
    torch.save(states[1], "weights.pt")
    done = call(*RUN, ATTACK, f"--gate={BASELINE}")
    assert done.returncode == 1
    assert "regressed" in done.stdout.lower()


def test_a_run_with_a_gate_that_is_not_there_runs_nothing(here, call):
    assert_told(call(*RUN, ATTACK, "--out=new", "--gate=nowhere.json"), 2, "nowhere.json")
    assert not Path("new").exists()


def test_a_cell_that_fails_makes_a_gated_run_incomparable_and_a_missed_expectation_fails_it(here, call):
    other = "\ndef broken():\n    raise OSError('no weights here')\n"
    Path("model.py").write_text(MODEL + other, encoding="utf-8")
    two = ("--model=model.py:broken", ATTACK, f"--gate={BASELINE}")
    done = call(*RUN, *two)
    assert done.returncode == 3
    assert "HELD model.build" in done.stdout
    assert "INCOMPARABLE model.broken" in done.stdout
    Path("gauntlet.toml").write_text("[[expect]]\nmodel = 'model.build'\nmin_robust = 1\n", encoding="utf-8")
    done = call(*RUN, *two)
    assert done.returncode == 1
    assert "below the expected minimum" in done.stderr
    assert call(*RUN, *two[:-1]).returncode == 1


def test_a_certificate_that_fails_makes_a_gated_run_incomparable(here, call, monkeypatch):
    assert call(*RUN, ATTACK, f"--gate={BASELINE}", "--attacks=certificate").returncode == 0
    monkeypatch.setattr("gauntlet.bench.executors.certificate.certify", None)  # not callable: it fails
    done = call(*RUN, ATTACK, f"--gate={BASELINE}", "--attacks=certificate", "--fresh")
    assert "Gate passed: 1 held." in done.stdout
    assert done.returncode == 3


# what there is to look at


def verdicts(folder="out"):
    """The verdicts in gate.json."""
    return json.loads(Path(folder, "gate.json").read_text(encoding="utf-8"))["verdicts"]


@pytest.fixture
def lost(here, call, states):
    """The project after a change that lost robustness, run and judged: what the gate printed."""
    torch.save(states[1], "weights.pt")
    done = call(*RUN, ATTACK, f"--gate={BASELINE}")
    assert done.returncode == 1
    return done.stdout


def test_the_printed_command_attacks_the_cell_again_and_keeps_the_run(lost, call):
    (line,) = [line for line in lost.splitlines() if line.startswith("  reproduce: ")]
    command = line.removeprefix("  reproduce: ")
    assert command == verdicts()[0]["reproduce"]
    name, *arguments = shlex.split(command)
    assert name == "gauntlet"
    done = call(*arguments)
    assert done.returncode == 0
    assert "1 cell: 0 answered from the store" in done.stdout
    cell, again = (snapshot(load_run(Path(folder))).cells[0] for folder in ("out", arguments[-1]))
    assert (again.robust == cell.robust).all()
    assert (again.spec, again.weights, again.data_digest) == (cell.spec, cell.weights, cell.data_digest)
    assert call("gate", "out", BASELINE).returncode == 1


def planned(arguments):
    """The cells that `gauntlet run` with these arguments plans."""
    options = cli.commands["run"].make_context("run", list(arguments)).params
    return make_plan(load_config(options, folder=Path.cwd())).cells


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model=cnn.pgd_digits", "--attacks=pgd(steps=7, loss=cw),fgsm", "--defense=jpeg(quality=50)", "--seed=3"],
        ["--model=cnn.pgd_digits,cnn.fast_digits", "--attacks=adaptive", "--samples=100:200"],
        ["--model=cnn.pgd_digits", "--attacks=quick", "--threat=L2:0.5:target=3", "--threat=Linf:8/255:target=next"],
        ["--model=my models/a'b.py:build", "--weights=w  1.pt", "--mean=-0.5", "--std=0.25", "--data=my data.npz"],
        ["--model=m.py:f@w (1).pt(mean=(0.1, 0.2, 0.3), randomised=True),m.py:f(not_differentiable=True)"],
    ],
)
def test_the_command_of_a_cell_plans_that_cell_alone_whatever_the_configuration_says(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    cells = planned(arguments)
    Path("gauntlet.toml").write_text(
        "model = 'other.py:f'\nweights = 'o.pt'\nmean = [1]\nsamples = '9'\nseed = 9\ndefense = 'bit_depth'\n"
        "[gate]\nbaseline = 'b.json'\n"
    )
    for cell in cells:
        gauntlet_, run_, *again = shlex.split(again_command(cell, Path("new one"), "bf16+channels_last"))
        assert (gauntlet_, run_) == ("gauntlet", "run")
        (same,) = planned(again)
        assert same.name == cell.name
        assert again[-4:] == ["--precision", "bfloat16", "--out", "new one"]


def test_a_model_that_was_in_memory_has_no_command(tmp_path):
    model, data = gauntlet.load_model("cnn.pgd_digits").module, gauntlet.load_data("digits", samples=5)
    gauntlet.evaluate(model, data, attacks="fgsm", threat="Linf:0.1", store=tmp_path)
    (cell,) = load_run(tmp_path).plan.cells
    assert again_command(cell, tmp_path, "float32") == ""


def test_the_lost_samples_are_named_as_the_run_names_them_and_can_be_shown(lost, call):
    (found,) = verdicts()
    cell, old = snapshot(load_run(Path("out"))).cells[0], read_baseline(BASELINE).cells[0]
    ids = [name for block in load_run(Path("out")).results()[0].blocks for name in block.samples.id]
    expected = [name for name, before, now in zip(ids, old.robust, cell.robust, strict=True) if before and not now]
    assert found["lost_ids"] == expected
    assert len(expected) > 10
    assert f"  lost: {', '.join(expected[:10])} and {len(expected) - 10} more" in lost.splitlines()
    _, *arguments = shlex.split(found["show"])
    assert "not robust" in call(*arguments).stdout
    assert arguments[arguments.index("--sample") + 1] == expected[0]


def test_a_picture_shows_a_few_lost_samples(lost):
    (found,) = verdicts()
    assert f"  picture: {found['picture']}" in lost.splitlines()
    assert Path(found["picture"]).read_bytes().startswith(b"\x89PNG")
    assert Path("out", "pictures") in Path(found["picture"]).parents


def test_without_matplotlib_the_extra_is_named_once_and_the_gate_goes_on(lost, call, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = call("gate", "out", BASELINE)
    assert done.returncode == 1
    assert done.stdout.count("no picture: pictures need matplotlib") == 1
    assert "pip install 'robust-gauntlet[pictures]'" in done.stdout
    assert verdicts()[0]["picture"] == ""
    assert len(verdicts()[0]["lost_ids"]) > 10


def test_examples_that_were_not_kept_are_told_and_the_samples_named_all_the_same(here, call, states):
    torch.save(states[1], "weights.pt")
    done = call(*RUN, ATTACK, "--no-adversarials", f"--gate={BASELINE}")
    assert done.returncode == 1
    assert "no picture: the example of sample" in done.stdout
    assert "  lost: digits/" in done.stdout


# formats


def test_json_is_printed_alone_and_written_beside_the_markdown(lost, call):
    done = call("gate", "out", BASELINE, "--format=json", "--min-robust=0.9")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert done.stdout == Path("out/gate.json").read_text(encoding="utf-8")
    assert (found["state"], found["exit_code"]) == ("failed", 1)
    assert found["baseline"]["reason"] == "the first one"
    assert found["policy"]["min_robust"] == 0.9
    assert len(found["problems"]) == 1
    assert done.stderr.splitlines() == ["written: out/gate.md", "written: out/gate.json"]


@pytest.mark.parametrize(
    ("change", "options", "code"),
    [((), (), 0), (("--samples=100", "--out=few"), (), 4), (("--threat=Linf:0.1",), ("--allow-undecided",), 3)],
)
def test_the_exit_code_stands_in_the_json(here, call, change, options, code):
    call(*RUN, ATTACK, *change)
    folder = "few" if "--out=few" in change else "out"
    if folder == "few":
        assert call("baseline", "accept", "few", "--out=few.json").returncode == 0
    done = call("gate", folder, "few.json" if folder == "few" else BASELINE, "--format=json", *options)
    assert (done.returncode, json.loads(done.stdout)["exit_code"]) == (code, code)


def test_inside_github_the_run_is_annotated_and_summarised(lost, call, monkeypatch, tmp_path):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert "::error" not in lost
    done = call(*RUN, ATTACK, f"--gate={BASELINE}")
    assert done.returncode == 1
    errors = [line for line in done.stdout.splitlines() if line.startswith("::")]
    assert len(errors) == 1
    assert errors[0].startswith("::error title=Robustness regressed%3A model.build × none × pgd")
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert summary.endswith(Path("out/gate.md").read_text(encoding="utf-8"))
    assert "::" not in call("gate", "out", BASELINE, "--format=text").stdout
    monkeypatch.delenv("GITHUB_ACTIONS")
    assert errors[0] in call("gate", "out", BASELINE, "--format=github").stdout.splitlines()


def test_a_report_that_cannot_be_written_changes_no_verdict_and_is_told(here, call):
    Path("out/gate.md").mkdir()
    done = call("gate", "out", BASELINE)
    assert done.returncode == 0
    assert "not written: cannot write out/gate.md" in done.stdout
    assert "written: out/gate.json" in done.stdout


def test_a_damaged_block_makes_the_run_incomparable(here, call):
    (block, *_) = Path("out/store").rglob("*.parquet")
    block.write_bytes(b"not parquet")
    done = call("gate", "out", BASELINE, "--format=json")
    assert done.returncode == 3
    (found,) = json.loads(done.stdout)["verdicts"]
    assert found["verdict"] == "incomparable"
    assert block.name in found["sentence"]
