"""`gauntlet baseline`: what is accepted, what changed, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gate_project import ATTACK, BASELINE, FAILING, RUN, assert_told
from gauntlet.leaderboard.gate.baseline_file import read_baseline


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
        (("gate", BASELINE, BASELINE), [str(BASELINE), "holds no run"]),
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
