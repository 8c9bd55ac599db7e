"""Whatever happens to the files of a results folder, commands say so in a sentence, or say what is true."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from store_damage import damage, figures, fresh_copy

import gauntlet
from gauntlet.bench.run.run_folder import load_run

N = 120
DEFAULT = range(8)
SLOW = range(8, 330)


def run_of(folder, out="out"):
    """The command over 8-bit images that lie in a folder: its examples are differences from files of clean images."""
    return (
        "run",
        "--model=cnn.fast_digits,cnn.pgd_digits",
        f"--data={folder / 'data.npz'}",
        f"--samples={N}",
        "--threat=Linf:0.1",
        "--attacks=fgsm,pgd(steps=3)",
        f"--out={out}",
    )


@pytest.fixture(scope="module")
def honest(tiny, tmp_path_factory):
    """A folder with two blocks in each of four cells, another one to compare with, and what is true of each cell."""
    folder = tmp_path_factory.mktemp("honest")
    digits = gauntlet.load_data("digits", samples=N)
    images = (digits.images * 255).round().to(torch.uint8)
    np.savez(folder / "data.npz", images=images.numpy(), labels=digits.labels.numpy())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert tiny.run_here(*run_of(folder)) == 0
        assert tiny.run_here(*run_of(folder, "other")) == 0
        assert list(Path("out/clean").rglob("*.parquet"))
        run = load_run(Path("out"))
        true = {}
        for result in run.results():
            blocks = [block.samples for block in result.blocks]
            assert len(blocks) == 2
            for some in (*itertools.combinations(blocks, 1), blocks):
                count = sum(len(one) for one in some)
                share = sum(int(one.robust.sum()) for one in some) / count
                true.setdefault(result.cell.title, {}).setdefault(count, set()).add(share)
    return folder, true


def untrue(shown, true):
    """Figures that are shown and not true: of whole cells, or of those blocks of them that are there."""
    return {
        (title, percent, n)
        for title, _, percent, n in figures(shown)
        if not any(f"{100 * share:.1f}" == percent for share in true.get(title, {}).get(n, ()))
    }


def untrue_table(path, true):
    """The same, of cells.csv."""
    table = pd.read_csv(path)
    wrong = []
    for row in table[table["robust_accuracy"].notna()].to_dict("records"):
        title = f"{row['model']} × {row['defense']} × {row['attack']}"
        shares = true.get(title, {}).get(row["n"], ())
        if not any(abs(share - row["robust_accuracy"]) < 1e-9 for share in shares):
            wrong.append((title, row["robust_accuracy"], row["n"], row["status"]))
    return wrong


def check(call, true, *arguments):
    """Run a command on the damaged folder: what it prints is a sentence or true."""
    done = call(*arguments)
    said = done.stdout + done.stderr
    assert done.returncode in (0, 1, 2), (arguments, done.returncode, said)
    assert "Traceback" not in said, (arguments, said)
    if done.returncode:
        assert re.search(r"\w+ \w+ \w+", said), (arguments, said)
    shown = "\n".join(
        line.removeprefix("ok").strip() for line in done.stdout.splitlines() if not line.startswith("FAILED")
    )
    assert not untrue(shown, true), (arguments, said)
    return done


def withstands(number, honest, call, folder):
    template, true = honest
    out = fresh_copy(template / "out", folder / "out")
    done = damage(out, number)
    before = call("compare", str(template / "other"), "--format=csv").stdout.replace(",other,", ",out,")
    try:
        check(call, true, "show", "out")
        check(call, true, "verify", "out")
        compared = check(call, true, "compare", "out", "--format=csv")
        if compared.returncode == 0 and f",{N}," in compared.stdout:
            assert compared.stdout == before
        if check(call, true, "leaderboard", "out").returncode == 0:
            assert not untrue_table(out / "cells.csv", true)
        ran = check(call, true, *run_of(template))
        if ran.returncode == 0:
            assert not untrue_table(out / "cells.csv", true)
            assert (pd.read_csv(out / "cells.csv")["n"] == N).all()
            # Nothing that tables are made of stays damaged. Examples are read by `verify` alone, which names their block.
            assert check(call, true, "show", "out").returncode == 0
            verified = check(call, true, "verify", "out")
            assert (
                verified.returncode == 0
                or "do not match their digest" in verified.stdout
                or ".parquet" in verified.stdout
            )
    except BaseException as problem:
        raise AssertionError(f"damage {number}: {done}: {type(problem).__name__}: {problem}") from problem


@pytest.mark.parametrize("number", DEFAULT)
def test_random_damage_gives_sentences_and_no_wrong_figure(number, honest, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    withstands(number, honest, call, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", SLOW)
def test_322_random_damages_give_sentences_and_no_wrong_figure(number, honest, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    withstands(number, honest, call, tmp_path)
