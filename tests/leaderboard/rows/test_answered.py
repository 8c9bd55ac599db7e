"""A block is lifted by techniques that every sample that stands has faced, not by the names of stages."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders import bits, cell_info, record, result, samples
from gauntlet.leaderboard.report.markdown_writer import RunContext, markdown_report
from gauntlet.leaderboard.report.terminal import terminal_report
from gauntlet.leaderboard.results.block_file import AlteredError, from_file, to_bytes
from gauntlet.leaderboard.results.record import EVIDENCE, Flag
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.evidence import describe_evidence

FLAG = Flag("wrong", "block", "Search without gradients.", needs=("black-box",))
STAGES = {"margin": "white-box", "probe": "probe", "wide": "black-box"}


def row(faced, name="gauntlet", flag=FLAG):
    """The row of a cascade on four samples, of which the first two stand."""
    info = cell_info(attack=name, techniques=STAGES)
    (made,) = build_rows([result(bits(4, 2), info, flags=[flag], faced=faced)])
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
    (made,) = build_rows([cascade, result(bits(4, 3), search, forwards=[300] * 4)])
    assert made.rank == 1
    # Neither without passes nor with so few that it was a probe.
    for fewest in (0, 299):
        passes = {"forwards": [300, fewest, 300, 300], "backwards": [0] * 4}
        (made,) = build_rows([cascade, result(bits(4, 3), search, **passes)])
        assert made.rank is None


@pytest.mark.parametrize(("queries", "lifts"), [(1, False), (999, False), (1000, True)])
def test_a_search_by_decisions_of_its_own_is_evidence_from_a_thousand_queries_on(queries, lifts):
    flag = replace(FLAG, needs=("black-box", "decision-based", EVIDENCE))
    cascade = result(bits(4, 2), cell_info(techniques=STAGES), flags=[flag], faced=["margin probe wide"] * 4)
    search = cell_info(attack="hop_skip_jump", attack_spec="hop_skip_jump", techniques={"": "decision-based"})
    (made,) = build_rows([cascade, result(bits(4, 3), search, forwards=[queries] * 4, backwards=[0] * 4)])
    assert (made.rank == 1) == lifts


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
    if faced:
        table = pq.read_table(BytesIO(file))
        other = BytesIO()
        at = table.schema.get_field_index("faced")
        pq.write_table(table.set_column(at, "faced", pa.array(["margin", "margin", ""])), other)
        with pytest.raises(AlteredError, match="digest"):
            from_file(other)


SEARCHED = Flag("masked", "block", "Gradients are masked.", needs=("black-box", EVIDENCE))
FOUND = (("planted-example: missed", 1.0), ("planted-example: planted", 32.0))
EVERY_STAGE = {**STAGES, "last": "decision-based"}


def searched(stages, flag=SEARCHED, n=4, stand=2):
    """The row of a cascade with a last search by decisions that all samples face; `stages`: which broke each sample."""
    info = cell_info(attack="adaptive", techniques=EVERY_STAGE)
    faced = ["margin probe wide last"] * n
    (made,) = build_rows([result(bits(n, stand), info, flags=[flag], faced=faced, stage=tuple(stages))])
    return made


def test_techniques_without_evidence_lift_nothing_and_the_reason_says_what_to_declare():
    made = row(["margin probe wide"] * 4, name="adaptive", flag=SEARCHED)
    assert made.rank is None
    assert "Nothing shows that the attack works here" in made.unranked[0]
    assert "--attacks adaptive,hop_skip_jump" in made.unranked[0]
    assert "register that part as a defense, with a substitute" in made.unranked[0]


def test_planted_examples_that_were_found_lift_a_block_and_their_figures_are_shown():
    made = row(["margin probe wide"] * 4, flag=replace(SEARCHED, evidence=FOUND))
    assert made.rank == 1
    (flag,) = made.flags
    assert flag.lifted_by == ("black-box", "planted-example")
    assert describe_evidence(flag) == "the attack finds 31 of 32 planted examples"
    context = RunContext(("Linf:0.15",), "data")
    assert "black-box; the attack finds 31 of 32 planted examples" in markdown_report([made], [], context)
    lines = list(terminal_report([made], "command line", 140))
    assert any("(answered: masked): the attack finds 31 of 32 planted examples." in line for line in lines)


def test_a_twin_that_fell_and_carried_over_lifts_a_block():
    names = ("standing", "samples", "examples", "carried over", "missed")
    figures = tuple((f"twin: {name}", value) for name, value in zip(names, (1.0, 32.0, 31.0, 30.0, 0.0), strict=True))
    made = row(["margin probe wide"] * 4, flag=replace(SEARCHED, evidence=figures))
    assert [flag.lifted_by for flag in made.flags] == [("black-box", "carried over")]
    assert "30 of 31 of its examples break the pipeline" in describe_evidence(made.flags[0])


def test_a_quiet_search_by_decisions_is_evidence_and_its_bound_is_that_of_so_few_samples():
    made = searched(["", "", "margin", "margin"])
    assert made.rank == 1
    (flag,) = made.flags
    assert flag.lifted_by == ("black-box", "decision-based")
    # 0 of 2: the upper end of the exact interval is 1 - 0.025 ** (1 / 2).
    assert describe_evidence(flag).endswith(
        "breaks 0 of the last 2 samples that stood (95 %: at most 84 % of such samples)"
    )
    assert searched(["", "", "margin", "last"]).rank is None


@pytest.mark.parametrize(("broken", "lifts"), [(49, True), (51, False)])
def test_of_a_search_by_decisions_the_last_hundred_samples_count(broken, lifts):
    # 150 samples stood before the search, which broke one of them.
    stages = ["last" if number == broken else "" for number in range(150)]
    info = cell_info(attack="adaptive", techniques=EVERY_STAGE)
    robust = [not stage for stage in stages]
    faced = ["margin probe wide last"] * 150
    (made,) = build_rows([result(robust, info, flags=[SEARCHED], faced=faced, stage=tuple(stages))])
    assert (made.rank == 1) == lifts


def test_where_nothing_stands_there_is_nothing_to_show():
    assert searched(["margin", "margin", "margin", "last"], stand=0).rank == 1


def test_a_failed_test_is_answered_by_another_attack_of_the_row_that_passed_it():
    failed = Flag("planted-example", "block", "Missed.", needs=("planted-example",), evidence=(("missed", 20.0),))
    faced = ["margin probe wide"] * 4
    weak = result(bits(4, 3), cell_info(techniques=STAGES), flags=[SEARCHED, failed], faced=faced)
    (alone,) = build_rows([weak])
    assert {flag.name for flag in alone.flags if flag.stands(alone.answered)} == {"masked", "planted-example"}
    info = cell_info(attack="adaptive", attack_spec="adaptive", techniques=STAGES)
    strong = result(bits(4, 2), info, flags=[replace(SEARCHED, evidence=FOUND)], faced=faced)
    (made,) = build_rows([weak, strong])
    assert made.rank == 1
    text = markdown_report([made], [], RunContext(("Linf:0.15",), "data"))
    assert "another attack passed this test" in text


@pytest.mark.parametrize(("standing", "broken", "planted", "lifts"), [
    (6, 1, True, True),
    (6, 1, False, False),
    # Of 40 % of the samples as many more would break: too many.
    (80, 20, True, False),
    (80, 0, True, True),
])  # fmt: skip
def test_beside_planted_examples_a_search_may_have_found_few_of_few(standing, broken, planted, lifts):
    n, techniques = 200, {**STAGES, "last": "decision-based"}
    needs = ("black-box", "decision-based", EVIDENCE)
    flag = replace(SEARCHED, needs=needs, evidence=FOUND if planted else ())
    stages = ["last"] * broken + [""] * standing + ["margin"] * (n - standing - broken)
    robust = [not stage for stage in stages]
    faced = ["margin probe wide last"] * n
    info = cell_info(attack="adaptive", techniques=techniques)
    (made,) = build_rows([result(robust, info, flags=[flag], faced=faced, stage=tuple(stages))])
    assert (made.rank == 1) == lifts
