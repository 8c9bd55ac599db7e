"""Rows from summaries are those of the simple way, sample by sample, for all kinds of cells, stored and read back or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import run_command, write_project

from builders import cell_info, result
from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.compare.broken_by import broken_by
from gauntlet.leaderboard.results.record import Flag
from gauntlet.leaderboard.results.summary import EFFORTS, summaries, summarise
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.evidence import LEAST_QUERIES
from gauntlet.leaderboard.rows.worst_case import row_key
from simple_rows import broken_by as simple_broken_by
from simple_rows import build_rows as simple

CASCADE = {"apgd": "white-box", "bpda": "bpda+eot", "square": "black-box", "hop": "decision-based"}
NEEDY = Flag("zero-gradient", "block", "no gradient: --attacks adaptive", needs=("black-box", "evidence"))
PLANTED = Flag("useless", "block", "flat", needs=("black-box",), evidence=(("planted-example: planted", 32.0),))


def plain(row):
    """The fields of a row as texts, in which NaN equals NaN."""
    fields = {name: getattr(row, name) for name in row.__dataclass_fields__ if name not in ("worst_case", "conditions")}
    return {name: repr(sorted(one) if isinstance(one, frozenset) else one) for name, one in fields.items()}


def assert_same(results, given=None):
    """The rows of `results` and what broke their samples are those of the simple way; `given`: the same as summaries."""
    given = given or results
    expected, found = simple.build_rows(results), build_rows(given)
    assert list(map(plain, found)) == list(map(plain, expected))
    for one, other in zip(found, expected, strict=True):
        assert one.conditions == other.conditions
        for name in ("id", "label", "correct", "robust", "success"):
            np.testing.assert_array_equal(getattr(one.worst_case, name), getattr(other.worst_case, name))
        assert one.worst_case.complete == other.worst_case.complete
        members = [r for r in results if row_key(r.cell) == one.key and not r.cell.corrupts]
        if members:
            assert broken_by(one.worst_case, members) == simple_broken_by.broken_by(other.worst_case, members)


def attacked(rng, cell, n=60, *, first=0, hardness=None, **changes):
    """A cell with random outcomes on the samples from `first` on."""
    hardness = rng.random(n) if hardness is None else hardness[first : first + n]
    correct = hardness < 0.9
    robust = correct & (rng.random(n) < 0.4 + 0.5 * (hardness < 0.3))
    passes = rng.choice([0.0, 0.5, 1, 299, 300, 1000, 2000], n)
    columns = {
        "correct": correct,
        "label": np.arange(first, first + n) % 4,
        "forwards": passes,
        "backwards": passes / 2,
    }
    if cell.randomised:
        scored = np.where(correct, rng.integers(0, 21, n) / 20, 1.0)
        robust = correct & (scored < 0.5)
        columns |= {"wrong_share": rng.integers(0, 21, n) / 20, "wrong_share_scored": scored}
    broken = correct & ~robust
    labels = list(cell.techniques)
    if any(labels):
        fell = rng.integers(0, len(labels), n)
        columns["stage"] = [labels[at] if gone else "" for at, gone in zip(fell, broken, strict=True)]
        reach = np.where(broken, fell, rng.integers(1, len(labels), n))
        columns["faced"] = [
            " ".join(labels[: at + 1]) if right else "" for at, right in zip(reach, correct, strict=True)
        ]
    if cell.proves:
        columns["certified"] = robust & (rng.random(n) < 0.3)
    if cell.corrupts:
        wrong = rng.random((n, 5)) < 0.3
        columns["severities"] = [" ".join(str(s + 1) for s in range(5) if row[s]) for row in wrong]
        columns["wrong_share"] = wrong.mean(1)
        columns["wrong_share_scored"] = wrong.any(1).astype(float)
        robust = correct & ~wrong.any(1)
    return result(robust, cell, first=first, **(columns | {"blocks": 3} | changes))


def made_up(seed, *, randomised=False, uneven=False):
    """Two models under every kind of cell; `uneven`: cells cover different samples."""
    rng = np.random.default_rng(seed)
    hardness = rng.random(100)
    results = []
    for model in ("net", "other"):
        for eps in ("0.1", "0.5"):

            def cell(attack, kind="white-box", model=model, eps=eps, **changes):
                spec = f"{attack}:steps=9"
                given = {"attack_spec": spec, "attack_kind": kind, "randomised": randomised, "techniques": {"": kind}}
                return cell_info(model, attack, threat=f"Linf:{eps}", suite="adaptive", **(given | changes))

            first = int(rng.integers(0, 9)) if uneven else 0
            flags = (NEEDY, PLANTED) if rng.random() < 0.5 else (NEEDY,)
            results += [
                attacked(rng, cell("fgsm"), hardness=hardness),
                attacked(rng, cell("naive", "naive"), hardness=hardness, first=first),
                attacked(rng, cell("pgd"), hardness=hardness, first=first),
                attacked(rng, cell("pgd", seed=1), hardness=hardness),
                attacked(rng, cell("square", "black-box"), hardness=hardness),
                attacked(rng, cell("hop", "decision-based"), hardness=hardness),
                attacked(rng, cell("cascade", techniques=CASCADE), hardness=hardness, flags=flags),
                attacked(rng, cell("again", "transfer", role="replay"), hardness=hardness, first=first),
                attacked(rng, cell("proof", "certificate", techniques={}), hardness=hardness, first=first),
                attacked(rng, cell("fmn", minimum_norm=True), hardness=hardness),
                attacked(rng, cell("fog", "corruption", severities=(1, 2, 3, 4, 5)), hardness=hardness),
                attacked(rng, cell("fog", "corruption", severities=(1, 2, 3, 4, 5), seed=1), hardness=hardness),
                attacked(rng, cell("snow", "corruption", severities=(1, 2, 3, 4, 5)), hardness=hardness, first=first),
            ]
    return results


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("randomised", [False, True])
@pytest.mark.parametrize("uneven", [False, True])
def test_rows_are_those_of_the_simple_way(seed, randomised, uneven):
    assert_same(made_up(seed, randomised=randomised, uneven=uneven))


@pytest.mark.parametrize("seed", range(3))
def test_cells_that_failed_or_are_not_finished_give_the_rows_of_the_simple_way(seed):
    rng = np.random.default_rng(seed)
    results = made_up(seed)
    for number, how in zip(rng.permutation(len(results))[:12].tolist(), "abcabcabcabc", strict=True):
        whole = results[number]
        if how == "a":
            results[number] = replace(whole, blocks=whole.blocks[:1])
        elif how == "b":
            results[number] = replace(whole, blocks=())
        else:
            results[number] = result(whole.blocks[0].samples.robust, whole.cell, error="out of memory")
    assert_same(results)


def test_a_model_with_classes_missing_gives_the_rows_of_the_simple_way():
    cells = [replace(one, cell=replace(one.cell, classes=("cat", "dog", "owl", "elk"))) for one in made_up(5)]
    assert_same(cells)


def test_a_summary_of_a_summary_is_itself_and_an_effort_it_does_not_keep_is_refused():
    one = summarise(made_up(0)[0])
    assert summaries([one]) == [one]
    assert set(LEAST_QUERIES.values()) <= set(EFFORTS)
    with pytest.raises(ValueError, match="passes=17 must be one of"):
        one.took(17)


CONFIG = """
data = "data.npz"
model = ["model.py:build", "worse.py:build"]
checks = "none"
out = "out"

[[group]]
attacks = ["gauntlet:fast", "fgsm", "fmn(steps=5)", "corruption.fog", "certificate", "replay"]
threat = "Linf:0.1"

[[group]]
defense = ["none", "input_noise"]
attacks = "pgd(steps=3)"
threat = ["Linf:0.1", "Linf:0.2"]
"""
WORSE = """
from pathlib import Path

import model


def build():
    net = model.build()
    net.linear.weight.data[3] = 0
    return net
"""


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The run of a small project with attacks, replays, certificates, corruptions and a randomised defense."""
    folder = write_project(tmp_path_factory.mktemp("kinds"), count=110)
    (folder / "worse.py").write_text(WORSE)
    (folder / "gauntlet.toml").write_text(CONFIG)
    done = run_command(folder, "run")
    assert "cells" in done.stdout, done.stderr
    return folder / "out"


def test_rows_of_a_stored_run_are_those_of_the_simple_way_read_afresh_and_from_summaries(stored):
    run = load_run(stored)
    results = run.results()
    kinds = {(r.cell.role, r.cell.randomised) for r in results if r.blocks}
    assert {role for role, _ in kinds} >= {"attack", "replay", "certificate", "corruption"}
    assert True in {randomised for _, randomised in kinds}
    assert_same(results)
    assert_same(results, run.summaries(anew=True))
    assert_same(results, run.summaries())
