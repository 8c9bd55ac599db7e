"""A plan held against the conditions that a baseline stores: what is looser or different is named with both values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders import baseline, baseline_cell, cell_info
from gauntlet.leaderboard.gate.baseline import diff
from gauntlet.leaderboard.gate.baseline_file import read_baseline, write_baseline
from gauntlet.leaderboard.gate.conditions import RunConditions, condition_fields, read_conditions
from gauntlet.leaderboard.gate.plan_policy import content_deviations, plan_deviations, version_deviations
from gauntlet.leaderboard.gate.policy import Policy, policy_fields

PLANNED = cell_info(attack="pgd", attack_spec="PGD(steps=40)", suite="quick", data="digits", model="net")
CONDITIONS = RunConditions(
    attacks={"pgd Linf:0.15 in quick": "PGD(steps=40)"},
    code={"pgd Linf:0.15 in quick": "c0de"},
    checks="default",
    versions={"gauntlet": "0.2.0", "verifier": "3", "PGD": "1"},
)
BASE = baseline(baseline_cell([True, False]), policy=policy_fields(Policy()) | condition_fields(CONDITIONS))
OLD = baseline(baseline_cell([True, False]), policy=policy_fields(Policy()))


def found(*planned, checks="default", free=(), base=BASE):
    return list(plan_deviations(base, planned, checks=checks, free=free))


def test_the_conditions_come_back_from_a_file(tmp_path):
    write_baseline(tmp_path / "b.json", BASE)
    assert read_conditions(read_baseline(tmp_path / "b.json").policy) == CONDITIONS
    assert found(PLANNED, base=read_baseline(tmp_path / "b.json")) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 7}, "the seed is 0 in the baseline and 7 here"),
        ({"threat": "Linf:0.1", "eps": 0.1}, "the threat model of pgd is Linf:0.15 in the baseline and Linf:0.1 here"),
        ({"data": "digits[100]"}, "the data set of pgd is digits in the baseline and digits[100] here"),
        ({"suite": "custom"}, "the suite of pgd is quick in the baseline and custom here"),
        ({"attack_spec": "PGD(steps=1)"}, "the attack pgd is 'PGD(steps=40)' in the baseline and 'PGD(steps=1)' here"),
        (
            {"attack": "fgsm"},
            "net × none × pgd Linf:0.15 is in the baseline and not planned here; here are net × none × fgsm Linf:0.15",
        ),
        (
            {"model": "other"},
            "net × none × pgd Linf:0.15 is in the baseline and not planned here; here are other × none × pgd Linf:0.15",
        ),
        (
            {"attack_kind": "naive"},
            "net × none × pgd Linf:0.15 is in the baseline and not planned here",
        ),
    ],
)
def test_what_differs_is_named_with_both_values_unless_an_option_chose_it(change, says):
    other = replace(PLANNED, **change)
    assert found(other) == [says]
    assert found(other, free=("seed", "cells")) == []
    assert found(other, base=OLD) == []


def test_fewer_checks_are_looser_and_more_are_free():
    assert found(PLANNED, checks="none") == ["checks is 'default' in the baseline and 'none' here"]
    assert found(PLANNED, checks="none", free=("checks",)) == []
    assert found(PLANNED, checks="all") == []


def test_more_attacks_are_free_and_what_many_cells_share_is_said_once():
    assert found(PLANNED, replace(PLANNED, attack="fgsm"), replace(PLANNED, model="more")) == []
    models = [baseline_cell([True], model=name) for name in ("a", "b", "c")]
    base = replace(BASE, cells=tuple(models))
    assert found(*(replace(PLANNED, model=name, seed=3) for name in ("a", "b", "c")), base=base) == [
        "the seed is 0 in the baseline and 3 here"
    ]


def test_versions_that_both_sides_know_must_be_the_same():
    now = {"gauntlet": "0.3.0", "verifier": "3", "PGD": "2", "New": "1"}
    assert list(version_deviations(BASE, now)) == [
        "the version of gauntlet is 0.2.0 in the baseline and 0.3.0 here",
        "the version of PGD is 1 in the baseline and 2 here",
    ]
    assert list(version_deviations(BASE, {"gauntlet": "0.2.0"})) == []
    assert list(version_deviations(OLD, now)) == []


def test_other_images_and_other_code_of_an_attack_are_named_once_a_cell_is_prepared():
    assert list(content_deviations(BASE, PLANNED, data="data", code="c0de")) == []
    assert list(content_deviations(BASE, PLANNED, data="other", code="f00d")) == [
        "the images, labels or ids of digits are data… in the baseline and other… here",
        "the code of pgd Linf:0.15 in quick is c0de… in the baseline and f00d… here",
    ]
    # A cell that is not judged is held to the data all the same.
    naive = replace(PLANNED, attack="naive", attack_kind="naive")
    assert len(list(content_deviations(BASE, naive, data="other", code=""))) == 1
    assert list(content_deviations(OLD, PLANNED, data="other", code="")) == []


def test_a_changed_condition_is_a_difference_between_two_baselines():
    newer = replace(CONDITIONS, versions={**CONDITIONS.versions, "gauntlet": "0.3.0"})
    new = replace(BASE, policy=policy_fields(Policy()) | condition_fields(newer))
    assert diff(BASE, new) == ["Policy: versions gauntlet 0.2.0 → 0.3.0."]
