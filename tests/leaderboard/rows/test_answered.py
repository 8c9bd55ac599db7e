"""A block is lifted by techniques that every sample that stands has faced, not by the names of stages."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import pytest

from builders import bits, cell_info, record, result, samples
from gauntlet.leaderboard.report.markdown_writer import RunContext, markdown_report
from gauntlet.leaderboard.results.block_file import from_file, intact, metadata_of, to_bytes
from gauntlet.leaderboard.results.record import Flag
from gauntlet.leaderboard.rows.build_rows import build_rows

FLAG = Flag("wrong", "block", "Search without gradients.", needs=("black-box",))
STAGES = {"margin": "white-box", "probe": "probe", "wide": "black-box"}


def row(faced, name="gauntlet"):
    """The row of a cascade on four samples, of which the first two stand."""
    info = cell_info(attack=name, techniques=STAGES)
    (made,) = build_rows([result(bits(4, 2), info, flags=[FLAG], faced=faced)])
    return made


def test_a_stage_that_few_samples_faced_lifts_nothing():
    made = row(["margin probe wide", "margin probe", "margin", "margin"])
    assert made.techniques == {"white-box", "probe", "black-box"}
    assert made.answered == {"white-box", "probe"}
    assert made.rank is None
    assert "black-box that every standing sample faces: --attacks adaptive" in made.unranked[0]


def test_after_the_adaptive_attack_a_search_is_the_remedy():
    made = row(["margin probe"] * 4, name="adaptive")
    remedy = "The figure needs a search without gradients that every standing sample faces: --attacks adaptive,square."
    assert made.unranked == (f"Search without gradients. {remedy}",)
    flag = replace(FLAG, needs=("black-box", "decision-based"))
    info = cell_info(attack="adaptive", techniques=STAGES)
    (made,) = build_rows([result(bits(4, 2), info, flags=[flag], faced=["margin probe wide"] * 4)])
    assert made.unranked[0].endswith("standing sample faces: --attacks adaptive,hop_skip_jump.")


def test_a_stage_that_every_standing_sample_faced_lifts_the_block():
    made = row(["margin probe wide", "margin probe wide", "margin", "margin"])
    assert made.answered == {"white-box", "probe", "black-box"}
    assert made.rank == 1
    assert [flag.lifted_by for flag in made.flags] == [("black-box",)]


def test_an_attack_of_its_own_answers_for_a_cascade_if_it_spent_passes_on_every_standing_sample():
    cascade = result(bits(4, 2), cell_info(techniques=STAGES), flags=[FLAG], faced=["margin probe"] * 4)
    search = cell_info(attack="square", attack_spec="square: …", techniques={"": "black-box"})
    (made,) = build_rows([cascade, result(bits(4, 3), search)])
    assert made.rank == 1
    (made,) = build_rows([cascade, result(bits(4, 3), search, forwards=[9, 0, 9, 9], backwards=[0] * 4)])
    assert made.rank is None


def test_nothing_is_answered_by_a_cell_that_is_not_finished():
    search = cell_info(attack="square", attack_spec="square: …", techniques={"": "black-box"})
    cascade = result(bits(4, 2), cell_info(techniques=STAGES), flags=[FLAG], faced=["margin probe"] * 4)
    (made,) = build_rows([cascade, result(bits(4, 3), search, expected=5)])
    assert made.answered == {"white-box", "probe"}


@pytest.mark.parametrize(
    ("stages", "answers"), [(["", "", "margin", "margin"], True), (["", "", "margin", "last"], False)]
)
def test_a_search_by_decisions_that_still_finds_examples_answers_nothing(stages, answers):
    flag = replace(FLAG, needs=("black-box", "decision-based"))
    techniques = {**STAGES, "last": "decision-based"}
    info = cell_info(attack="adaptive", techniques=techniques)
    faced = ["margin probe wide last"] * 4
    (made,) = build_rows([result(bits(4, 2), info, flags=[flag], faced=faced, stage=tuple(stages))])
    assert ("decision-based" in made.answered) == answers
    assert (made.rank == 1) == answers
    # What another attack breaks too is no sign of an unfinished search.
    other = result(bits(4, 2), cell_info(attack="square", attack_spec="square: …", techniques={"": "black-box"}))
    (made,) = build_rows([result(bits(4, 2), info, flags=[flag], faced=faced, stage=tuple(stages)), other])
    assert made.rank == 1


def test_a_flag_that_was_answered_is_no_standing_advice():
    lifted = markdown_report([row(["margin probe wide"] * 4)], [], RunContext(("Linf:0.15",), "data"))
    standing = markdown_report([row(["margin probe"] * 4)], [], RunContext(("Linf:0.15",), "data"))
    assert "Search without gradients." in standing
    assert "**wrong** (block;" in standing
    assert "Search without gradients." not in lifted
    assert "**wrong** (answered; " in lifted
    assert "faced attacks by black-box" in lifted
    assert "wrong" in standing.partition("## How")[0]
    assert "wrong" not in lifted.partition("## How")[0]


@pytest.mark.parametrize("faced", [(), ("margin", "margin wide", "")])
def test_the_stages_that_samples_faced_are_stored_under_the_digest(faced):
    made = record(samples(bits(3, 1), faced=faced))
    file = to_bytes(made)
    read = from_file(BytesIO(file), adversarial=True)
    assert tuple(read.samples.faced) == faced
    metadata = metadata_of(BytesIO(file))
    assert intact(read, metadata)
    if faced:
        other = replace(read, samples=replace(read.samples, faced=("margin", "margin", "")))
        assert not intact(other, metadata)
