"""`gauntlet baseline` and `gauntlet gate`: a model that lost robustness is caught, and nothing passes unseen."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import gauntlet
from gauntlet.bench.models.cnn import cnn
from gauntlet.leaderboard.baseline import read_baseline, write_baseline

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
    assert done.returncode == 1
    assert "incomparable" in done.stdout.lower()


def test_too_few_samples_are_undecided_and_pass_only_where_that_is_allowed(here, call):
    few = ("--samples=50", "--out=few")
    assert call(*RUN, ATTACK, *few).returncode == 0
    assert call("baseline", "accept", "few", "--out=few.json").returncode == 0
    done = call("gate", "few", "few.json")
    assert done.returncode == 1
    assert "undecided" in done.stdout.lower()
    assert call("gate", "few", "few.json", "--allow-undecided").returncode == 0
    assert call("gate", "few", "few.json", "--margin=0.1").returncode == 0


@pytest.mark.parametrize("change", ["--samples=150", "--threat=Linf:0.1", "--attacks=fgsm"])
def test_a_run_of_something_else_is_incomparable_and_never_passes(here, call, change):
    assert call(*RUN, ATTACK, change).returncode == 0
    done = call("gate", "out", BASELINE, "--allow-undecided")
    assert done.returncode == 1
    assert "incomparable" in done.stdout.lower()


def test_a_cell_that_fails_is_incomparable(here, call):
    Path("model.py").write_text("def build():\n    raise OSError('no weights here')\n")
    assert call(*RUN, ATTACK).returncode == 1
    done = call("gate", "out", BASELINE)
    assert done.returncode == 1
    assert "incomparable" in done.stdout.lower()


def test_an_absolute_floor_fails_where_nothing_was_lost(here, call):
    robust = read_baseline(BASELINE).cells[0].robust.mean()
    assert call("gate", "out", BASELINE, f"--min-robust={robust - 0.01}").returncode == 0
    assert call("gate", "out", BASELINE, f"--min-robust={robust + 0.01}").returncode == 1


def test_a_rise_by_other_attack_settings_on_the_same_weights_is_suspicious(here, call):
    old = read_baseline(BASELINE)
    weaker = old.cells[0].robust & (np.arange(200) % 2 == 0)
    write_baseline(BASELINE, replace(old, cells=(replace(old.cells[0], spec="of stronger settings", robust=weaker),)))
    assert "suspicious" in call("gate", "out", BASELINE).stdout.lower()


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
    assert_told(call("baseline", "accept", "out", "--out=none.json"), 2, "out has no attack's cell")
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
    assert f"written: {BASELINE} (1 cells, " in done.stdout
    assert BASELINE.read_bytes() != old
    assert call("gate", "out", BASELINE).returncode == 0
    Path("old.json").write_bytes(old)
    assert call("baseline", "diff", BASELINE, "old.json").stdout.count("model.build") >= 1


def test_a_run_with_errors_is_not_accepted(here, call):
    old = BASELINE.read_bytes()
    Path("model.py").write_text("def build():\n    raise OSError('no weights here')\n")
    call(*RUN, ATTACK)
    assert_told(
        call("baseline", "accept", "out"), 2, "out is no baseline", "pgd", "error", "run the same command again"
    )
    assert BASELINE.read_bytes() == old


def test_an_unfinished_run_is_not_accepted(here, call):
    old = BASELINE.read_bytes()
    (block, *_) = Path("out/store").rglob("*.parquet")
    block.unlink()
    assert_told(call("baseline", "accept", "out"), 2, "1 of its 1 cells are not finished", "unfinished")
    assert BASELINE.read_bytes() == old
    done = call("gate", "out", BASELINE)
    assert done.returncode == 1
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
    assert call("gate", "out", BASELINE.with_name("quick.json")).returncode == 1


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
        (("gate", "nowhere", BASELINE), ["nowhere", "holds no run"]),
        (("gate", "out", BASELINE, "--margin=0"), ["margin 0.0", "between 0 and 1"]),
        (("gate", "out", BASELINE, "--alpha=5"), ["alpha 5.0", "between 0 and 0.5"]),
        (("gate", "out", BASELINE, "--min-robust=70"), ["min_robust 70.0", "a share in 0..1"]),
        (("gate", "out"), ["BASELINE"]),
        ((*RUN, ATTACK, "--allow-undecided"), ["--allow-undecided is about a gate", "--gate FILE"]),
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
