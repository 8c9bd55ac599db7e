"""`gauntlet verify` runs the checks again: a flag that was taken out of a record is found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.results.block_file import to_bytes

ROUNDED = """
import torch
from model import build as plain


class Rounded(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = plain()

    def forward(self, x):
        return self.inner(torch.round(x * 4) / 4)


def build():
    return Rounded().eval()
"""
RUN = ("run", "--model=rounded.py:build", "--data=data.npz", "--threat=Linf:0.1", "--attacks=fgsm", "--out=out")


@pytest.fixture
def masked(project, call):
    Path("rounded.py").write_text(ROUNDED)
    assert call(*RUN).returncode == 0
    return project


def edit_flags(change):
    """Write other flags into the blocks, under digests that fit, and into the measurements, as a forger would."""
    for path in Path("out/measured").glob("*/*.json"):
        measured = json.loads(path.read_text())
        del measured["digest"]
        if "flags" in measured:
            path.write_text(json.dumps({**measured, "flags": []}))
    run = load_run(Path("out"))
    for key, _ in run.keys(run.plan.cells[0]):
        record = run.store.read(key, adversarial=True)
        assert any(flag.severity == "block" for flag in record.flags)
        run.store.path(key).write_bytes(to_bytes(replace(record, flags=change(record.flags))))


def test_the_flags_of_an_honest_folder_are_found_again(masked, call):
    done = call("verify", "out", "--trust")
    assert done.returncode == 0, done.stdout
    assert "flags derived again" in done.stdout


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda flags: (), id="taken out"),
        pytest.param(lambda flags: tuple(replace(flag, severity="warn") for flag in flags), id="softened"),
    ],
)
def test_a_flag_that_was_taken_out_or_softened_is_a_failure(masked, call, change):
    edit_flags(change)
    done = call("verify", "out", "--trust")
    assert done.returncode == 1
    assert "blocks, and is not in the record" in done.stdout
    assert "gradient" in done.stdout


def test_a_flag_that_accuses_more_than_is_found_is_no_failure(masked, call):
    edit_flags(lambda flags: (*flags, replace(flags[0], name="an-older-check")))
    assert call("verify", "out", "--trust").returncode == 0


def test_a_run_without_checks_has_none_to_derive(masked, call):
    assert call(*RUN[:-1], "--out=other", "--checks=none").returncode == 0
    assert call("verify", "other", "--trust").returncode == 0
