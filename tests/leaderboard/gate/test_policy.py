"""The policy that a baseline stores: it comes back from its file, and a configuration may only tighten it."""

from __future__ import annotations

import json

import pytest

from builders import baseline
from gauntlet.leaderboard.gate.baseline import BaselineError, diff
from gauntlet.leaderboard.gate.baseline_file import read_baseline, write_baseline
from gauntlet.leaderboard.gate.policy import Policy, deviations, policy_fields, read_policy

BASE = Policy(margin=0.03, alpha=0.04, min_robust={"cnn.*": 0.5}, max_passes_ratio=1.2)


def found(**given):
    rules = {"margin": 0.03, "alpha": 0.04, "min_robust": {"cnn.*": 0.5}, "max_passes_ratio": 1.2}
    return list(deviations(policy_fields(BASE), Policy(**(rules | given))))


def test_it_comes_back_from_a_file(tmp_path):
    for policy in (BASE, Policy(), Policy(min_robust=0.4, allow_undecided=True)):
        write_baseline(tmp_path / "b.json", baseline(policy=policy_fields(policy)))
        stored = read_baseline(tmp_path / "b.json").policy
        assert policy_fields(read_policy(stored)) == policy_fields(policy)
        assert not list(deviations(stored, policy))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"margin": 0.5}, "margin is 0.03 in the baseline and 0.5 here"),
        ({"alpha": 0.05}, "alpha is 0.04 in the baseline and 0.05 here"),
        ({"alpha": 1e-9}, "alpha is 0.04 in the baseline and 1e-09 here"),
        ({"max_passes_ratio": 2.0}, "max_passes_ratio is 1.2 in the baseline and 2.0 here"),
        ({"max_memory_ratio": 9.0}, "max_memory_ratio is 1.5 in the baseline and 9.0 here"),
        ({"allow_undecided": True}, "allow_undecided is False in the baseline and True here"),
        ({"min_robust": None}, "min_robust of 'cnn.*' is 0.5 in the baseline and none here"),
        ({"min_robust": {"cnn.*": 0.4}}, "min_robust of 'cnn.*' is 0.5 in the baseline and 0.4 here"),
        ({"min_robust": {"net": 0.9}}, "min_robust of 'cnn.*' is 0.5 in the baseline and none here"),
    ],
)
def test_what_is_looser_is_named_with_both_values(given, says):
    assert found(**given) == [says]


@pytest.mark.parametrize(
    "given", [{}, {"margin": 0.01}, {"max_passes_ratio": 1.1}, {"min_robust": {"cnn.*": 0.6, "net": 0.1}}]
)
def test_what_is_equal_or_stricter_is_free(given):
    assert found(**given) == []


def test_a_baseline_of_an_earlier_version_binds_nothing():
    assert list(deviations({}, Policy(margin=0.9))) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"margin": "0.02"},
        {"margin": 2.0},
        {"alpha": True},
        {"min_robust": [0.5]},
        {"min_robust": {"a": "b"}},
        {"new": 1},
    ],
)
def test_a_policy_that_cannot_be_read_is_damage(tmp_path, wrong):
    path = tmp_path / "b.json"
    write_baseline(path, baseline(policy=policy_fields(Policy())))
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"policy": fields["policy"] | wrong}))
    with pytest.raises(BaselineError, match=r"b\.json is damaged"):
        read_baseline(path)


def test_a_changed_policy_is_a_difference_between_two_baselines():
    old, new = (baseline(policy=policy_fields(Policy(margin=margin))) for margin in (0.02, 0.05))
    assert diff(old, new) == ["Policy: margin 0.02 → 0.05."]
