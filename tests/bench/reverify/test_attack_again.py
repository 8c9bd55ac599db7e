"""`gauntlet verify --attack`: a folder that says what its attack gives passes, and one that hides what breaks does not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gauntlet.bench.reverify.attack_again import Amount
from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.results.block_file import to_bytes
from gauntlet.leaderboard.results.store import Store

RUN = ("run", "--model=model.py:build", "--data=data.npz", "--threat=Linf:0.1", "--out=out")


@pytest.fixture(scope="module")
def honest(tiny, tmp_path_factory):
    """A project with a finished run of two attacks on 200 samples, made once."""
    folder = tiny.write_project(tmp_path_factory.mktemp("honest"), 200)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert tiny.run_here(*RUN, "--attacks=fgsm,pgd(steps=5)", "--defense=none,input_noise") == 0
    return folder


@pytest.fixture(params=["project", pytest.param("finished", marks=pytest.mark.slow)])
def run(request, call):
    """Runs its options in a small project; of the slow cases `finished`, which is larger, has its run already."""
    request.getfixturevalue(request.param)

    def made(*options):
        if request.param == "project":
            assert call(*RUN, *options).returncode == 0

    return made


def rewrite(cell, change):
    """Write a cell's blocks anew as `change` makes them, with digests that fit, and without the table that gives it away."""
    run, store = load_run(Path("out")), Store(Path("out"))
    for key, _ in run.keys(run.plan.cells[cell]):
        record = change(store.read(key, adversarial=True))
        store.path(key).write_bytes(to_bytes(record))
    Path("out/cells.csv").unlink(missing_ok=True)


def hide(share):
    """A forger who says that this share of what was broken stands."""

    def forged(record):
        samples = record.samples
        hidden = samples.correct & ~samples.robust & (np.random.default_rng(0).random(len(samples)) < share)
        return replace(
            record,
            samples=replace(
                samples,
                robust=samples.robust | hidden,
                prediction=np.where(hidden, samples.label, samples.prediction),
                distance=np.where(hidden, np.nan, samples.distance),
                margin=np.where(hidden, 1.0, samples.margin),
                wrong_share=np.where(hidden, 0.0, samples.wrong_share),
                wrong_share_scored=np.where(hidden, 0.0, samples.wrong_share_scored),
                steps=np.where(hidden, -1, samples.steps),
                adversarial=[None if gone else image for gone, image in zip(hidden, samples.adversarial, strict=True)],
            ),
        )

    return forged


def lines(done, word):
    return [line for line in done.stdout.splitlines() if line.startswith(word)]


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_honest_folder_passes_and_says_what_fell_beside_what_was_claimed(finished, call, seed):
    done = call("verify", "out", "--trust", "--attack=30%", f"--seed={seed}")
    assert done.returncode == 0, done.stdout
    told = lines(done, "again")
    assert len(told) == 4 + 2
    pattern = (
        r"\d+ of \d+ standing samples attacked again, \d+ fell.* \[.*\]; of \d+ broken ones \d+ stood; as many falls"
    )
    assert all(re.search(pattern, line) for line in told[:4])
    assert sum("adaptive attacked" in line for line in told) == 2
    assert "from above only" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("cell", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_folder_that_hides_what_breaks_fails_and_names_it(finished, call, cell):
    rewrite(cell, hide(0.5))
    assert call("verify", "out", "--trust").returncode == 0, "measuring examples again does not see it"
    done = call("verify", "out", "--trust", "--attack=50%", "--seed=1")
    assert done.returncode == 1
    (failed,) = lines(done, "FAILED")
    assert ["fgsm", "pgd"][cell] in failed
    assert "1 failures" in done.stdout.splitlines()[-1]
    chance = float(re.search(r"in (\S+) % of honest folders", failed)[1])
    assert 0 <= chance < 1


def test_a_folder_that_hides_all_that_breaks_fails_though_it_names_nothing_broken(run, call, tiny):
    tiny.write_data(".", 200)
    run("--attacks=fgsm")
    rewrite(0, hide(1.0))
    done = call("verify", "out", "--trust", "--attack=40", "--seed=1")
    assert done.returncode == 1
    assert "of 0 broken ones 0 stood" in lines(done, "FAILED")[0]


def test_adaptive_shows_an_attack_that_is_too_weak_and_accuses_nobody(project, call):
    """Three steps of nearly nothing leave everything standing: honestly so."""
    assert call(*RUN, "--attacks=pgd(steps=1,step_size=0.001)").returncode == 0
    done = call("verify", "out", "--trust", "--attack=100%", "--seed=2")
    assert done.returncode == 0, done.stdout
    weak, adaptive = lines(done, "again")
    assert ", 0 fell," in weak
    assert int(re.search(r"(\d+) fell", adaptive)[1]) > 0
    assert "would be left" in adaptive


def test_a_row_that_adaptive_attacked_is_not_attacked_by_it_twice(project, call):
    assert call(*RUN, "--attacks=adaptive", "--samples=12").returncode == 0
    done = call("verify", "out", "--trust", "--attack=5", "--seed=2")
    assert done.returncode == 0, done.stdout
    told = lines(done, "again")
    assert any("× adaptive:" in line for line in told)
    assert not any("adaptive attacked" in line for line in told)


def test_certificates_corruptions_and_replays_are_no_attacks_to_repeat(project, call):
    attacks = "--attacks=fgsm,certificate,replay,corruption.brightness"
    assert call(*RUN[:-2], "--threat=Linf:0.1:target=next", "--out=out", attacks, "--samples=12").returncode == 0
    done = call("verify", "out", "--trust", "--attack=3", "--seed=2")
    assert done.returncode == 0, done.stdout
    assert len(lines(done, "ok")) == 4
    repeated, adaptive = lines(done, "again")
    assert "fgsm" in repeated
    assert "adaptive attacked" in adaptive


def test_the_key_decides_the_sample_and_is_fresh_by_default(run, call):
    run("--attacks=fgsm")
    first, again = (call("verify", "out", "--trust", "--attack=10", "--seed=7").stdout for _ in range(2))
    assert first == again
    keys = {re.search(r"key (\d+):", call("verify", "out", "--trust", "--attack=1").stdout)[1] for _ in range(2)}
    assert len(keys) == 2


def test_code_of_the_folder_is_not_run_unasked(finished, call):
    Path("model.py").write_text("from pathlib import Path\nPath('was-run').touch()\n")
    done = call("verify", "out", "--attack=5")
    assert done.returncode == 2
    assert "model.py (model)" in done.stderr
    assert not Path("was-run").exists()


def test_a_damaged_block_fails_and_the_other_cells_are_attacked(run, call):
    run("--attacks=fgsm,pgd(steps=5)", "--defense=none,bit_depth(bits=3)")
    made = load_run(Path("out"))
    ((key, _), *_) = made.keys(made.plan.cells[0])
    made.store.path(key).write_bytes(b"nothing")
    done = call("verify", "out", "--trust", "--attack=5", "--seed=1")
    assert done.returncode == 1
    assert f"{key}.parquet is damaged" in done.stdout
    assert sum("standing samples attacked again" in line for line in lines(done, "again")) == 3


@pytest.mark.parametrize("text", ["0", "-3", "0%", "101%", "5 %x", "many", "1.5", "", "nan%"])
def test_a_wrong_amount_is_wrong_usage(tmp_path, call, text):
    done = call("verify", tmp_path, f"--attack={text}")
    assert done.returncode == 2
    assert "such as 5%" in done.stderr


@pytest.mark.parametrize(
    ("text", "standing", "count"),
    [("5%", 100, 5), ("5%", 101, 6), ("5%", 0, 0), ("1%", 3, 1), ("50", 20, 20), ("7", 20, 7)],
)
def test_an_amount_is_at_least_one_sample_and_at_most_all(text, standing, count):
    assert Amount.parse(text).of(standing) == count
