"""Targets of a threat model: how they are written, and the class that each sample is sent to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gauntlet.attacks.ops.threat import ThreatModel

CLASSES = 5


@pytest.mark.parametrize(
    ("text", "canonical", "target"),
    [
        ("Linf:8/255:target=3", "Linf:8/255:target=3", "3"),
        ("l2: 0.5 : Target = 03", "L2:0.5:target=3", "3"),
        ("L1:12:target=next", "L1:12.0:target=next", "next"),
        ("Linf:0.15:target=NEXT", "Linf:0.15:target=next", "next"),
        ("Linf:0.15:target=0", "Linf:0.15:target=0", "0"),
    ],
)
def test_a_target_is_read_and_written_so_that_it_reads_back(text, canonical, target):
    threat = ThreatModel.parse(text)
    assert threat.target == target
    assert str(threat) == canonical
    assert ThreatModel.parse(canonical) == threat


@pytest.mark.parametrize("target", [3, "3", np.int64(3), torch.tensor(3)])
def test_a_target_given_as_a_number_is_the_same_threat_model(target):
    assert str(ThreatModel("L2", 0.5, target)) == "L2:0.5:target=3"


def test_an_untargeted_threat_model_is_written_as_before_there_were_targets():
    threat = ThreatModel("Linf", 0.15)
    assert str(threat) == "Linf:0.15"
    # The settings of an adapter, which are in the keys of its stored results, show it.
    assert repr(threat) == "ThreatModel(norm='Linf', eps=0.15)"
    assert repr(ThreatModel("Linf", 0.15, "3")) == "ThreatModel(norm='Linf', eps=0.15, target='3')"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("Linf:0.1:", "target=CLASS or target=next or target=random"),
        ("Linf:0.1:3", "target=CLASS or target=next or target=random"),
        ("Linf:0.1:target", "target=CLASS or target=next or target=random"),
        ("Linf:0.1:target=", "target=CLASS or target=next or target=random"),
        ("Linf:0.1:goal=3", "target=CLASS or target=next or target=random"),
        ("Linf:0.1:target=-1", "target '-1'"),
        ("Linf:0.1:target=1.5", "target '1.5'"),
        ("Linf:0.1:target=cat", "target 'cat'"),
        ("Linf:target=3", "not a number"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused_with_the_way_out(text, match):
    with pytest.raises(ValueError, match=match):
        ThreatModel.parse(text)


def test_the_targets_of_labels_are_the_class_the_next_one_or_the_labels_themselves():
    labels = torch.arange(CLASSES)
    assert ThreatModel("L2", 1, "3").targets(labels, CLASSES).tolist() == [3] * CLASSES
    assert ThreatModel("L2", 1, "next").targets(labels, CLASSES).tolist() == [1, 2, 3, 4, 0]
    assert ThreatModel("L2", 1).targets(labels, CLASSES) is labels


def test_random_targets_are_other_classes_all_of_them_and_a_sample_s_own():
    labels, ids = torch.arange(2000) % CLASSES, [f"test/{i}" for i in range(2000)]
    threat = ThreatModel("L2", 1, "random")
    targets = threat.targets(labels, CLASSES, ids)
    assert (targets != labels).all()
    counts = torch.bincount((targets - labels) % CLASSES, minlength=CLASSES)[1:]
    # 500 are expected of each of the four others, with a standard deviation of 19.
    assert counts.min() > 400
    assert counts.max() < 600
    backwards = threat.targets(labels.flip(0), CLASSES, ids[::-1])
    assert torch.equal(backwards.flip(0), targets)
    with pytest.raises(ValueError, match="0 ids for 2000 labels"):
        threat.targets(labels, CLASSES)


def test_a_class_that_the_model_does_not_have_is_refused_by_its_number_and_theirs():
    with pytest.raises(ValueError, match=r"target 5 .*has 5: use 0 to 4"):
        ThreatModel("L2", 1, "5").targets(torch.arange(3), CLASSES)
