"""The interface of a rule: its defaults, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch

from gauntlet.attacks.solving.rule import Rule


class Point(NamedTuple):
    x: torch.Tensor


class Silent(NamedTuple):
    best: torch.Tensor


class Minimal(Rule):
    def start(self, oracle):
        return Point(x=oracle.clean)

    def step(self, state, oracle):
        return state


@dataclass(frozen=True, kw_only=True)
class WithSettings(Minimal):
    steps: int
    restarts: int = 3


def test_budget_and_restarts_are_the_settings_of_those_names():
    rule = WithSettings(steps=7)
    assert (rule.budget, rule.total_restarts) == (7, 3)
    assert Minimal().total_restarts == 1
    assert not rule.minimum_norm
    assert rule.for_classes(2) is rule


def test_a_rule_without_steps_is_asked_for_its_budget():
    with pytest.raises(TypeError, match="Minimal has no setting `steps`: add it, or override `budget`"):
        Minimal().budget  # noqa: B018


def test_the_last_iterate_is_the_state_s_x_if_it_has_one():
    x = torch.zeros(2, 1, 1, 1)
    assert Minimal().last(Point(x=x)) is x
    assert Minimal().last(Silent(best=x)) is None


@pytest.mark.parametrize(("former", "name"), [("tries", "total_restarts"), ("roams", "leaves_ball")])
def test_a_rule_written_for_former_names_is_refused(former, name):
    with pytest.raises(TypeError, match=f"Old.{former} is called {name} in this version of Gauntlet: rename it"):
        type("Old", (Minimal,), {former: True})
