"""A block about gradients is answered by an attack that shows that it works: it finds what was planted in this pipeline."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import gauntlet
from builders import Wrapped
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.checks.evidence import TESTS, gather, to_answer, with_evidence
from gauntlet.bench.checks.subject import Subject, fired, passed
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.leaderboard.results.record import Flag

BLOCK = Flag("zero-gradient", "block", "No gradient.", needs=("bpda", "black-box"))
WARNING = Flag("flat-logits", "warn", "Flat.")
BOTH = frozenset({"bpda", "black-box", "white-box"})


def test_only_attacks_that_answer_a_block_are_tested():
    assert to_answer([WARNING, BLOCK], BOTH)
    assert not to_answer([WARNING, BLOCK], frozenset({"bpda"}))
    assert not to_answer([WARNING, Flag("batch-dependent", "block", "Nothing lifts it.")], BOTH)
    assert not to_answer([], BOTH)
    assert not to_answer([Flag("randomised-defense", "block", "Random.", needs=("eot",))], BOTH | {"eot"})
    assert to_answer([Flag("zero-gradient", "block", "No.", needs=("eot", "bpda"))], BOTH | {"eot"})


def test_what_the_tests_found_is_in_the_flag_that_they_answer():
    tested = with_evidence([BLOCK, WARNING], BOTH, [passed("planted-example", "Found.", planted=32, missed=1)])
    assert [flag.name for flag in tested] == ["zero-gradient", "flat-logits"]
    assert tested[0].evidence == (("planted-example: planted", 32), ("planted-example: missed", 1))
    assert tested[1] == WARNING


@pytest.mark.parametrize(("randomised", "tests"), [(False, list(TESTS)), (True, ["planted-example"])])
def test_random_points_are_no_evidence_of_a_randomised_pipeline(randomised, tests):
    loaded = gauntlet.load_model("cnn.standard_digits").module
    data = gauntlet.load_data("digits", samples="8")
    pipeline = DefendedModel(loaded, differentiable=True, randomised=randomised)
    subject = Subject(pipeline, data.images, data.labels, data.ids, ThreatModel("Linf", 0.15))
    assert [finding.check for finding in gather(subject)] == tests


def test_a_failed_test_blocks_by_itself_and_no_technique_lifts_it():
    missed = fired("planted-example", "block", "Missed.", evidence={"missed": 9.0})
    *_, flag = with_evidence([BLOCK], BOTH, [missed])
    assert flag.name == "planted-example"
    assert flag.stands(BOTH | {"decision-based", "transfer"})


def test_labels_are_attacked_and_the_attack_shows_on_planted_examples_that_it_works():
    def labels(logits):
        return nn.functional.one_hot(logits.argmax(1), 10).float()

    data = gauntlet.load_data("digits", samples="24")
    model = Wrapped(gauntlet.load_model("cnn.standard_digits").module, after=labels)
    found = gauntlet.evaluate(model, data, threat="Linf:0.15", attacks="adaptive")
    (flag,) = (flag for flag in found.flags if flag.name == "unavailable-gradients")
    assert set(flag.lifted_by) == {"bpda", "black-box", "decision-based"}
    assert re.search(r"\(hidden by argmax in test_evidence\.py:\d+[,)]", flag.message)
    figures = dict(flag.evidence)
    assert figures["planted-example: planted"] >= 20
    assert figures["planted-example: missed"] <= 0.05 * figures["planted-example: planted"]
    assert found.robust_accuracy <= 0.2
    assert torch.equal(found.correct, torch.ones(24, dtype=torch.bool))
