"""A block about gradients is answered by an attack that shows that it works: it finds what was planted in this pipeline."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

import gauntlet
from builders import Wrapped
from gauntlet.attacks.fgsm import FGSM
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import PGD
from gauntlet.bench.checks.carry_over import carried_over
from gauntlet.bench.checks.evidence import TESTS, gather, is_tested, with_evidence
from gauntlet.bench.checks.subject import Subject, fired, passed
from gauntlet.bench.executors.native import NativeExecutable
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.leaderboard.results.record import EVIDENCE, Flag

BLOCK = Flag("zero-gradient", "block", "No gradient.", needs=("bpda", "black-box", EVIDENCE))
WARNING = Flag("flat-logits", "warn", "Flat.")
RANDOM = Flag("randomised-defense", "block", "Random.", needs=("eot",))
HOPELESS = Flag("batch-dependent", "block", "Nothing lifts it.")
LINF = ThreatModel("Linf", 0.25)


def labels_of(logits):
    return nn.functional.one_hot(logits.argmax(1), 10).float()


class Votes(nn.Module):
    """The votes of two networks, so that no single layer decides."""

    def __init__(self, *members):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.eval()

    def forward(self, images):
        return sum(labels_of(member(images)) for member in self.members)


def network(name="cnn.standard_digits"):
    return gauntlet.load_model(name).module


def subject(model, count=24, *, randomised=False, twin=None, attack=None):
    data = gauntlet.load_data("digits", samples=str(count))
    pipeline = DefendedModel(model, differentiable=True, randomised=randomised, twin=twin)
    return Subject(pipeline, data.images, data.labels, data.ids, LINF, attack=attack)


@pytest.mark.parametrize(
    ("flags", "tested"),
    [([], False), ([RANDOM], False), ([HOPELESS], False), ([WARNING], True), ([RANDOM, BLOCK], True)],
)
def test_an_attack_is_tested_where_a_check_fires_that_is_about_more_than_randomness(flags, tested):
    assert is_tested(subject(network(), 8), flags) == tested


def test_an_attack_on_labels_or_votes_is_tested_although_no_check_fires():
    assert is_tested(subject(Wrapped(network(), after=labels_of)), [])
    assert is_tested(subject(Votes(network(), network("cnn.pgd_digits"))), [])


def test_what_the_tests_found_is_in_the_flags_that_ask_for_it():
    found = [passed("planted-example", "Found.", planted=32, missed=1)]
    asking, warning, random = with_evidence([BLOCK, WARNING, RANDOM], found)
    figures = (("planted-example: planted", 32), ("planted-example: missed", 1))
    assert asking == replace(BLOCK, evidence=figures)
    assert warning == replace(WARNING, evidence=figures)
    assert random == RANDOM


def test_random_points_have_a_limit_over_all_samples_that_an_attack_left(monkeypatch):
    monkeypatch.setattr("gauntlet.bench.checks.evidence.POINTS", 60)
    model = gauntlet.load_model("cnn.trades_digits").module
    data = gauntlet.load_data("digits", samples="16")
    attack = NativeExecutable.of(FGSM())
    subject = Subject(
        DefendedModel(model, differentiable=True, randomised=False),
        data.images[:],
        data.labels,
        data.ids,
        ThreatModel("Linf", 0.15),
        attack=attack,
    )
    figures = dict(next(finding for finding in gather(subject) if finding.check == "random-noise").evidence)
    assert figures["standing"] > 6
    assert figures["draws"] == 60 // figures["standing"]


@pytest.mark.parametrize(("randomised", "tests"), [(False, list(TESTS)), (True, list(TESTS[:2]))])
def test_random_points_are_no_evidence_of_a_randomised_pipeline(randomised, tests):
    assert [finding.check for finding in gather(subject(network(), 8, randomised=randomised))] == tests


def test_a_failed_test_is_a_flag_that_only_another_attack_lifts_which_passes_it():
    missed = fired("planted-example", "block", "Missed.", needs=("planted-example",), evidence={"missed": 9.0})
    *_, flag = with_evidence([BLOCK], [missed])
    assert flag.name == "planted-example"
    assert flag.stands({"bpda", "black-box", "decision-based", "transfer", EVIDENCE})
    assert not flag.stands({"planted-example"})


def test_a_twin_that_falls_and_whose_examples_break_the_pipeline_is_evidence():
    bare = network()
    attack = NativeExecutable.of(PGD(steps=20, loss="cw"))
    (found,) = carried_over(subject(Wrapped(bare), twin=bare, attack=attack))
    assert found.result == "passed"
    figures = dict(found.evidence)
    assert figures["standing"] <= 1
    assert figures["carried over"] == figures["examples"] == figures["samples"] - figures["standing"]


def test_a_twin_whose_examples_do_not_carry_over_or_that_stands_is_no_evidence():
    bare, robust = network(), network("cnn.trades_digits")
    attack = NativeExecutable.of(PGD(steps=20, loss="cw"))
    (apart,) = carried_over(subject(Wrapped(robust), twin=bare, attack=attack))
    assert apart.result == "not applicable"
    assert "examples of the view break the pipeline" in apart.sentence
    (stands,) = carried_over(subject(Wrapped(robust), twin=robust, attack=attack))
    assert "stand in the view itself" in stands.sentence


def test_an_attack_that_misses_what_the_twin_s_examples_break_has_no_evidence():
    bare = network()
    lazy = NativeExecutable.of(PGD(steps=1, random_start=False, step_size=1e-6))
    (found,) = carried_over(subject(Wrapped(bare), twin=bare, attack=lazy))
    assert found.result == "not applicable"
    assert re.search(r"the attack misses \d+ of these", found.sentence)


def test_labels_are_attacked_and_the_attack_shows_on_planted_examples_that_it_works():
    data = gauntlet.load_data("digits", samples="12")
    model = Wrapped(network(), after=labels_of)
    found = gauntlet.evaluate(model, data, threat="Linf:0.15", attacks="adaptive")
    (flag,) = (flag for flag in found.flags if flag.name == "unavailable-gradients")
    assert set(flag.lifted_by) == {"bpda", "black-box", "decision-based", "planted-example"}
    assert re.search(r"\(hidden by argmax in test_evidence\.py:\d+[,)]", flag.message)
    figures = dict(flag.evidence)
    assert figures["planted-example: planted"] >= 10
    assert figures["planted-example: missed"] <= 0.05 * figures["planted-example: planted"]
    assert figures["unbounded-attack: standing"] == 0
    assert found.robust_accuracy <= 0.2
    assert torch.equal(found.correct, torch.ones(12, dtype=torch.bool))
    assert "planted examples" in repr(found)


def test_random_points_are_tried_after_a_weak_attack_on_a_vote_and_what_they_break_blocks_the_row():
    data = gauntlet.load_data("digits", samples="12")
    model = Votes(network(), network("cnn.gauss_digits"))
    found = gauntlet.evaluate(model, data, threat="Linf:0.3", attacks="square(queries=3)")
    flags = {flag.name: flag for flag in found.flags}
    assert "random-noise" in flags
    assert dict(flags["random-noise"].evidence)["broken_by_noise"] >= 1
    assert not any(flag.lifted_by for flag in found.flags)
    assert "not to be trusted" in repr(found)
