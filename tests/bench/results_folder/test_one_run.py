"""One of several runs of a results folder: verified and shown by its id, and hidden by no other one unsaid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import run_here, write_project

RUN = ("run", "--model=model.py:build", "--data=data.npz", "--checks=none", "--out=out")


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """A folder with two runs: the suite `adaptive` at a radius that breaks nothing, then one attack; and the first run's id."""
    folder = write_project(tmp_path_factory.mktemp("two"), count=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_here(*RUN, "--attacks=adaptive", "--threat=Linf:0.0001") == 0
        first = json.loads(Path("out/latest-run.json").read_text(encoding="utf-8"))["run"]
        assert run_here(*RUN, "--attacks=fgsm", "--threat=Linf:0.1") == 0
    return folder, first


def test_an_older_run_is_verified_and_shown_by_its_id(two_runs, call, monkeypatch):
    folder, first = two_runs
    monkeypatch.chdir(folder)
    for command in (("show", "out"), ("verify", "out", "--trust")):
        latest, older = call(*command), call(*command, "--run", first[:6])
        assert latest.returncode == older.returncode == 0, older.stderr
        assert "× fgsm" in latest.stdout
        assert "× fgsm" not in older.stdout
        assert "× certificate" in older.stdout
    refused = call("verify", "out", "--trust", "--run", "nothing")
    assert refused.returncode == 2
    assert first in refused.stderr


def test_verification_does_not_call_a_certificate_or_a_replay_of_nothing_robust(two_runs, call, monkeypatch):
    folder, first = two_runs
    monkeypatch.chdir(folder)
    lines = call("verify", "out", "--trust", "--run", first).stdout.splitlines()
    (proof,) = [line for line in lines if "× certificate" in line]
    (replay,) = [line for line in lines if "× replay" in line]
    assert "not broken by its search, no proof was made again" in proof
    assert "nothing was replayed" in replay
    assert "robust" not in proof + replay
    assert all("robust" in line for line in lines if "× naive" in line or "× adaptive" in line)


def test_a_run_with_other_preprocessing_under_the_same_name_is_said(project, call):
    assert call(*RUN, "--attacks=fgsm", "--threat=Linf:0.1").returncode == 0
    assert call(*RUN, "--attacks=fgsm", "--threat=Linf:0.1", "--mean=0.05", "--std=0.9").returncode == 0
    told = call("leaderboard", "out").stdout
    assert "model.build: run " in told
    assert "evaluated other settings under this name" in told
    assert "other weights" not in told
