"""Attacks of a library that is not installed: refused before anything runs, left out where a wildcard means them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gauntlet.bench.planning import plan

RUN = ("run", "--model=model.py:build", "--data=data.npz", "--threat=Linf:0.1", "--checks=none")


@pytest.fixture
def without_torchattacks(monkeypatch):
    version = plan.package_version
    monkeypatch.setattr(plan, "package_version", lambda name: "absent" if name == "torchattacks" else version(name))


def test_an_attack_of_a_missing_library_is_wrong_usage(project, call, without_torchattacks):
    done = call(*RUN, "--attacks=fgsm,torchattacks.PGD(steps=2)")
    assert done.returncode == 2
    assert "'torchattacks.PGD' is one of torchattacks, which is not installed: pip install torchattacks" in done.stderr
    assert not Path("gauntlet-results").exists()


def test_a_wildcard_leaves_attacks_of_a_missing_library_out(project, call, without_torchattacks):
    done = call(*RUN, "--attacks=[ft][go][sr][mc]*")
    assert done.returncode == 0, done.stderr
    assert "'torchattacks.PGD' is one of torchattacks, which is not installed" in done.stdout + done.stderr
    assert "× fgsm" in done.stdout + done.stderr
