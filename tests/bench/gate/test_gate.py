"""`gauntlet baseline` and `gauntlet gate`: a model that lost robustness is caught, and nothing passes unseen."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import gauntlet
from gauntlet.bench.cli.main import cli
from gauntlet.bench.config.schema import load_config
from gauntlet.bench.gate.judge_run import snapshot
from gauntlet.bench.gate.lost_samples import again_command
from gauntlet.bench.models.cnn import cnn
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.gate.baseline_file import read_baseline, write_baseline

MODEL = '''
"""Somebody's network. Its weights lie beside it."""

from pathlib import Path

import torch

from gauntlet.bench.models.cnn import cnn


def build():
    model = cnn()
    model.load_state_dict(torch.load(Path(__file__).with_name("weights.pt"), weights_only=True))
    return model.eval()
'''
FAILING = (
    MODEL.replace(
        "    return model.eval()",
        "    model.register_forward_pre_hook(refuse)\n    return model.eval()",
    )
    + '''

def refuse(module, given):
    """Nobody attacks this network."""
    if given[0].requires_grad:
        raise OSError("no gradients here")
'''
)
RUN = ("run", "--model=model.py:build", "--data=digits", "--samples=200", "--threat=Linf:0.15", "--out=out")
ATTACK = "--attacks=pgd(steps=10)"
BASELINE = Path("bench", "baselines", "custom.json")


def fine_tuned(state):
    """The network after 30 steps of standard training: it keeps its clean accuracy, and loses robustness."""
    model, data = cnn(), gauntlet.load_data("digits-train")
    model.load_state_dict(state)
    drawn = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(30):
        chosen = torch.randint(len(data.labels), (100,), generator=drawn)
        optimiser.zero_grad()
        functional.cross_entropy(model(data.images[chosen]), data.labels[chosen]).backward()
        optimiser.step()
    return model.state_dict()


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    """Not inside a workflow of GitHub, wherever the tests run."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def states():
    """Weights of an adversarially trained network, and of the same one fine-tuned without attacks."""
    robust = gauntlet.load_model("cnn.pgd_digits").module.model.state_dict()
    return robust, fine_tuned(robust)


@pytest.fixture(scope="module")
def accepted(states, tiny, tmp_path_factory):
    """A project whose robust model's run has been accepted as the baseline."""
    folder = tmp_path_factory.mktemp("accepted")
    (folder / "model.py").write_text(MODEL)
    torch.save(states[0], folder / "weights.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert tiny.run_here(*RUN, ATTACK) == 0
        assert tiny.run_here("baseline", "accept", "out", "--reason=the first one") == 0
    return folder


@pytest.fixture
def here(accepted, tmp_path, monkeypatch):
    """A copy of that project as the working folder."""
    shutil.copytree(accepted, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_told(done, code, *words):
    """An expected error: its exit code, one message with the words, and no traceback."""
    assert done.returncode == code, done.stdout + done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert "Traceback" not in done.stdout + done.stderr


# --- verdicts ---------------------------------------------------------------------------------------------------------


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


# --- a run that is gated at once --------------------------------------------------------------------------------------


def test_a_run_with_a_gate_tells_both(here, call, states):
    done = call(*RUN, ATTACK, f"--gate={BASELINE}")
    assert done.returncode == 0
    assert "1 cells: 1 answered from the store" in done.stdout
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


# --- what there is to look at -----------------------------------------------------------------------------------------


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
    assert "1 cells: 0 answered from the store" in done.stdout
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


# --- formats ----------------------------------------------------------------------------------------------------------


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


# --- the gate of the configuration ------------------------------------------------------------------------------------

PROJECT = f"""
model = "model.py:build"
data = "digits"
samples = "200"
threat = "Linf:0.15"
attacks = "pgd(steps=10)"
out = "out"

[gate]
baseline = "{BASELINE.as_posix()}"
"""


def configure(text=""):
    """The project's configuration, with more in its gate table."""
    Path("gauntlet.toml").write_text(PROJECT + text, encoding="utf-8")


def test_a_run_of_the_configuration_is_gated_by_it(here, call, states):
    configure()
    done = call("run")
    assert done.returncode == 0
    assert "Gate passed: 1 held." in done.stdout
    torch.save(states[1], "weights.pt")
    assert call("run").returncode == 1
    assert call("gate", "out").returncode == 1
    assert call("gate", "out", "--config=gauntlet.toml").returncode == 1


def test_options_that_narrow_the_run_leave_the_gate_out_unless_it_is_named(here, call):
    configure()
    done = call("run", "--samples=50")
    assert done.returncode == 0
    assert f"Gate not applied: options narrow the run. To apply it nevertheless, add --gate={BASELINE}" in done.stdout
    assert "INCOMPARABLE" not in done.stdout
    assert call("run", "--samples=50", f"--gate={BASELINE}").returncode == 3
    assert_told(call("run", "--samples=50", "--allow-undecided"), 2, "--allow-undecided needs a gate", "options narrow")


def test_a_baseline_of_the_configuration_that_is_not_there_yet_is_told_and_accepting_writes_it(here, call):
    configure()
    text = Path("gauntlet.toml").read_text(encoding="utf-8").replace(BASELINE.as_posix(), "new/first.json")
    Path("gauntlet.toml").write_text(text, encoding="utf-8")
    for extra in ((), ("--allow-undecided",)):
        done = call("run", *extra)
        assert done.returncode == 0
        assert "Gate not applied: new/first.json does not exist yet." in done.stdout
        assert "gauntlet baseline accept out --reason TEXT" in done.stdout
    assert not Path("out/gate.md").exists()
    assert_told(call("gate", "out"), 2, "new/first.json does not exist")
    assert_told(call("run", "--gate=new/first.json"), 2, "new/first.json does not exist")
    assert call("baseline", "accept", "out", "--reason=first").returncode == 0
    assert Path("new/first.json").is_file()
    assert "Gate passed" in call("run").stdout


def test_a_damaged_baseline_of_the_configuration_is_wrong_usage_before_anything_runs(here, call):
    configure()
    BASELINE.write_text("{}", encoding="utf-8")
    assert_told(call("run", "--out=new"), 2, BASELINE.name)
    assert not Path("new").exists()


def test_settings_of_the_gate_come_from_the_configuration_and_options_win(here, call):
    configure("margin = 0.005\nmin_robust = 0.1\n")
    assert call("gate", "out").returncode == 4
    assert call("gate", "out", BASELINE).returncode == 4
    assert call("run").returncode == 4
    assert call("gate", "out", "--margin=0.05").returncode == 0
    assert call("gate", "out", "--margin=0.05", "--min-robust=0.99").returncode == 1
    configure("margin = 0.005\nallow_undecided = true\n")
    assert call("run").returncode == call("gate", "out").returncode == 0
    configure("max_passes_ratio = 0.5\n")
    assert call("gate", "out").returncode == 1
    configure('[gate.min_robust]\n"model.*" = 0.99\n')
    assert call("gate", "out").returncode == 1


def test_a_gate_without_any_baseline_says_where_one_can_be_named(here, call):
    assert_told(call("gate", "out"), 2, "BASELINE", "[gate]")


# --- baselines --------------------------------------------------------------------------------------------------------


def test_the_baseline_is_small_and_has_what_the_run_gave(here):
    found = read_baseline(BASELINE)
    (cell,) = found.cells
    assert (found.suite, found.reason) == ("custom", "the first one")
    assert (cell.model, cell.threat, cell.n, cell.status) == ("model.build", "Linf:0.15", 200, "ok")
    assert 0 < cell.robust.sum() < cell.correct.sum() <= 200
    assert BASELINE.stat().st_size < 4096


def test_replays_are_no_part_of_a_baseline(here, call):
    assert call(*RUN, "--attacks=fgsm,replay", "--samples=20", "--out=both").returncode == 0
    assert call("baseline", "accept", "both", "--out=both.json").returncode == 0
    assert [cell.attack for cell in read_baseline(Path("both.json")).cells] == ["fgsm"]


def test_a_run_of_replays_alone_is_not_accepted(here, call):
    assert call(*RUN, "--attacks=replay", "--samples=20").returncode == 0
    assert_told(call("baseline", "accept", "out", "--out=none.json"), 2, "out has no cell that a gate judges")
    assert not Path("none.json").exists()


def test_accepting_again_shows_what_changed_and_diff_shows_it_before(here, call, states):
    assert call("baseline", "diff", "out", BASELINE).stdout == "nothing changed\n"
    torch.save(states[1], "weights.pt")
    assert call(*RUN, ATTACK).returncode == 0
    told = call("baseline", "diff", "out", BASELINE)
    assert told.returncode == 0
    assert "model.build" in told.stdout
    old = BASELINE.read_bytes()
    done = call("baseline", "accept", "out", "--reason=faster")
    assert done.returncode == 0
    assert set(told.stdout.splitlines()) <= set(done.stdout.splitlines())
    assert f"written: {BASELINE} (1 cell, " in done.stdout
    assert BASELINE.read_bytes() != old
    assert call("gate", "out", BASELINE).returncode == 0
    Path("old.json").write_bytes(old)
    assert call("baseline", "diff", BASELINE, "old.json").stdout.count("model.build") >= 1


def test_a_run_with_errors_is_not_accepted(here, call):
    old = BASELINE.read_bytes()
    Path("model.py").write_text(FAILING)
    call(*RUN, ATTACK)
    assert_told(
        call("baseline", "accept", "out"),
        2,
        "out cannot become a baseline",
        "pgd",
        "error",
        "Run the same command again",
    )
    assert BASELINE.read_bytes() == old


def test_an_unfinished_run_is_not_accepted(here, call):
    old = BASELINE.read_bytes()
    (block, *_) = Path("out/store").rglob("*.parquet")
    block.unlink()
    assert_told(call("baseline", "accept", "out"), 2, "1 of its 1 cells are not finished", "unfinished")
    assert BASELINE.read_bytes() == old
    done = call("gate", "out", BASELINE)
    assert done.returncode == 3
    assert "incomparable" in done.stdout.lower()


def test_the_baseline_of_another_suite_is_not_replaced(here, call):
    old = BASELINE.read_bytes()
    assert call(*RUN, "--attacks=quick", "--samples=20", "--out=quick").returncode == 0
    assert_told(
        call("baseline", "accept", "quick", f"--out={BASELINE}"), 2, "'custom'", "'quick'", "name another --out"
    )
    assert BASELINE.read_bytes() == old
    assert call("baseline", "accept", "quick").returncode == 0
    assert BASELINE.with_name("quick.json").is_file()
    assert call("gate", "out", BASELINE.with_name("quick.json")).returncode == 3


def damaged(kind):
    """The text of a baseline file that cannot be read."""
    fields = json.loads(BASELINE.read_text(encoding="utf-8"))
    return {
        "cut": BASELINE.read_text(encoding="utf-8")[:-40],
        "no object": "[]",
        "older schema": json.dumps({**fields, "schema": 0}),
        "newer schema": json.dumps({**fields, "schema": 99}),
        "nothing in it": "{}",
        "no text": "\x00\x01",
    }[kind]


@pytest.mark.parametrize("kind", ["cut", "no object", "older schema", "newer schema", "nothing in it", "no text"])
def test_a_baseline_that_cannot_be_read_is_told_and_stays_as_it_is(here, call, kind):
    text = damaged(kind)
    BASELINE.write_text(text, encoding="utf-8")
    for command in (("gate", "out", BASELINE), ("baseline", "diff", "out", BASELINE), ("baseline", "accept", "out")):
        assert_told(call(*command), 2, BASELINE.name)
    assert BASELINE.read_text(encoding="utf-8") == text
    assert not Path("out/gate.md").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gate", "out", "nowhere.json"), ["nowhere.json"]),
        (("gate", "out", BASELINE, "--format=xml"), ["xml"]),
        (("gate", "nowhere", BASELINE), ["nowhere", "holds no run"]),
        (("gate", "out", BASELINE, "--margin=0"), ["margin 0.0", "between 0 and 1"]),
        (("gate", "out", BASELINE, "--alpha=5"), ["alpha 5.0", "between 0 and 0.5"]),
        (("gate", "out", BASELINE, "--min-robust=70"), ["min_robust 70.0", "a share in 0..1"]),
        (("gate", "out"), ["BASELINE"]),
        ((*RUN, ATTACK, "--allow-undecided"), ["--allow-undecided needs a gate", "--gate=FILE"]),
        (("baseline", "accept", "nowhere"), ["nowhere", "holds no run"]),
        (("baseline", "diff", "nowhere", BASELINE), ["nowhere"]),
        (("baseline",), ["Usage: "]),
    ],
)
def test_wrong_usage_is_told_and_nothing_is_written(here, call, arguments, words):
    old = BASELINE.read_bytes()
    assert_told(call(*arguments), 2, *words)
    assert BASELINE.read_bytes() == old
    assert not Path("out/gate.md").exists()
