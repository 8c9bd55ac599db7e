"""docs/checks.md lists the checks that there are."""

from __future__ import annotations

from builders import ROOT
from gauntlet.bench.checks.catalog import CHECKS

MEASURED_ALWAYS = {"batch-dependent", "coarse-logits"}
"""Flags of loading and preparing, which no diagnosis runs apart."""


def documented():
    text = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8").partition("\n## The checks\n")[2]
    lines = text.partition("\n## ")[0].splitlines()
    firsts = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    return [name for name in firsts if name not in ("check", "---")]


def test_every_check_is_documented_once_and_no_other():
    names = documented()
    assert len(names) == len(set(names))
    assert set(names) == {check.name for check in CHECKS} | MEASURED_ALWAYS


def test_the_two_that_no_diagnosis_runs_are_named():
    text = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
    assert all(name in text.partition("## The checks\n")[2].partition("### ")[0] for name in MEASURED_ALWAYS)
