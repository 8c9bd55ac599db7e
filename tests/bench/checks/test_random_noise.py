"""Random points around what an attack left: when its short stages suffice, and when all of it has to run."""

from __future__ import annotations

from dataclasses import replace

import pytest

import gauntlet
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.solving.cascade import Cascade
from gauntlet.attacks.solving.solver import Stage
from gauntlet.attacks.solving.wrapped_rule import WrappedRule
from gauntlet.bench.checks import hidden_masks as masks
from gauntlet.bench.checks.effort import random_noise
from gauntlet.bench.checks.subject import Subject
from gauntlet.bench.executors.native import NativeExecutable
from gauntlet.defenses.pipeline.defended_model import DefendedModel

SMALL, LARGE = ThreatModel("Linf", 0.01), ThreatModel("Linf", 0.5)
IDLE = PGD(steps=1, random_start=False, step_size=1e-6)
FIRST = Stage("first", IDLE)


class Watched(WrappedRule):
    """A rule that notes how many samples it faces."""

    def __init__(self, rule):
        super().__init__(rule)
        self.counts = []

    @property
    def faced(self):
        return sum(self.counts)

    def start(self, oracle):
        self.counts.append(len(oracle.labels))
        return super().start(oracle)


def subject(threat, *stages, name="cnn.standard_digits"):
    data = gauntlet.load_data("digits", samples="8")
    model = getattr(masks, name)() if name in masks.MASKS else gauntlet.load_model(name).module
    pipeline = DefendedModel(model, differentiable=True, randomised=False).eval()
    attack = NativeExecutable("cascade", Cascade(stages))
    return Subject(pipeline, data.images[:], data.labels, data.ids, threat, attack=attack)


def search(rule, technique="black-box"):
    return Stage("search", rule, technique=technique)


def test_where_points_break_nothing_that_short_stages_left_the_others_do_not_run():
    later = Watched(IDLE)
    found = random_noise(subject(SMALL, FIRST, search(later)), 500)
    assert found.result == "passed"
    assert dict(found.evidence)["standing"] >= 7
    assert "short stages" in found.sentence
    assert later.faced == 0


def test_where_points_break_samples_the_whole_attack_runs_on_these_alone():
    later = Watched(IDLE)
    found = random_noise(subject(LARGE, FIRST, search(later)), 500)
    assert found.result == "fired"
    assert later.faced == dict(found.evidence)["broken_by_noise"] > 0
    strong = random_noise(subject(LARGE, FIRST, search(PGD(steps=40, loss="cw"))), 500)
    assert strong.result == "passed"
    assert dict(strong.evidence)["broken_by_noise"] == 0


@pytest.mark.parametrize(
    ("name", "technique"), [("cnn.standard_digits", "decision-based"), ("quantised_input", "black-box")]
)
def test_where_later_stages_break_much_they_run_before_points_are_tried(name, technique):
    later = Watched(IDLE)
    found = random_noise(subject(SMALL, FIRST, search(later, technique), name=name), 100)
    assert later.faced >= dict(found.evidence)["standing"] > 0
    assert "short stages" not in found.sentence


def test_a_single_rule_is_run_as_it_is():
    rule = Watched(IDLE)
    one = subject(SMALL, FIRST)
    found = random_noise(replace(one, attack=NativeExecutable.of(rule)), 100)
    assert rule.faced == dict(found.evidence)["standing"]
    assert "short stages" not in found.sentence
