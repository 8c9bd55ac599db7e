"""Gates look at flags: a block that the baseline does not have, and a rise with masked gradients."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from builders import baseline, baseline_cell, bits, cell_info, result
from gauntlet.leaderboard.gate.baseline import BaselineError, baseline_of, diff
from gauntlet.leaderboard.gate.baseline_file import baseline_digest, read_baseline, write_baseline
from gauntlet.leaderboard.gate.formats import github_annotations, to_json
from gauntlet.leaderboard.gate.judge import judge
from gauntlet.leaderboard.gate.policy import Policy
from gauntlet.leaderboard.gate.trace import Trace, sample_order
from gauntlet.leaderboard.results.record import Flag, Stats
from gauntlet.leaderboard.stats.paired import drop_p_value

N = 1000
OLD = baseline_cell(np.arange(N) < 700, blocks={}, masked=0)
ZERO = {"zero-gradient": "Gradients are zero: --attacks adaptive."}


def flipped(lost, gained, **changes):
    """The baseline's cell with other weights and these flips."""
    robust = OLD.robust.copy()
    robust[:lost], robust[700 : 700 + gained] = False, True
    return replace(OLD, robust=robust, **({"weights": "after"} | changes))


def only(report):
    (verdict,) = report.verdicts
    return verdict


@pytest.mark.parametrize("test", ["fixed", "sequential"])
@pytest.mark.parametrize(
    ("lost", "gained", "weights"),
    [(0, 0, "after"), (80, 0, "after"), (0, 80, "after"), (0, 80, "before"), (45, 36, "after")],
    ids=["same", "dropped", "risen", "risen, same weights", "undecided"],
)
def test_a_block_that_the_baseline_does_not_have_fails_whatever_accuracy_did(test, lost, gained, weights):
    plain = flipped(lost, gained, weights=weights)
    report = judge(baseline(OLD, test=test), baseline(replace(plain, blocks=ZERO)), Policy(allow_undecided=True))
    found, without = only(report), only(judge(baseline(OLD, test=test), baseline(plain), Policy()))
    assert (found.verdict, found.flags) == ("masked", ("zero-gradient",))
    assert "zero-gradient blocks the row: Gradients are zero: --attacks adaptive" in found.sentence
    assert ("the drop is significant" in found.sentence) == (without.verdict == "regressed")
    assert (report.passed, report.state) == (False, "failed")
    assert report.summary == "Gate failed: 1 masked."
    # The figures are those that it would have without the flag.
    for name in ("lost", "gained", "n", "p_value", "upper", "baseline_robust", "robust", "lost_at"):
        assert getattr(found, name) == getattr(without, name)
    assert github_annotations(report)[0].startswith("::error title=Robustness masked")
    assert json.loads(to_json(report, baseline(OLD), Policy(), exit_code=1))["verdicts"][0]["flags"] == [
        "zero-gradient"
    ]


def test_a_block_that_the_baseline_has_is_named_and_changes_no_verdict():
    old = replace(OLD, blocks=dict.fromkeys(ZERO, ""))
    held = only(judge(baseline(old), baseline(flipped(0, 0, blocks=ZERO)), Policy()))
    assert (held.verdict, held.flags) == ("held", ())
    assert "blocked as the baseline is: zero-gradient" in held.sentence
    assert only(judge(baseline(old), baseline(flipped(80, 0, blocks=ZERO)), Policy())).verdict == "regressed"
    another = only(judge(baseline(old), baseline(flipped(0, 0, blocks=ZERO | {"planted": "Missed."})), Policy()))
    assert (another.verdict, another.flags) == ("masked", ("planted",))


def test_a_block_that_is_gone_is_no_obstacle():
    assert only(judge(baseline(replace(OLD, blocks=ZERO)), baseline(flipped(0, 0)), Policy())).verdict == "held"


def test_a_baseline_that_records_no_flags_counts_as_without_and_the_sentence_says_the_way_out():
    old = replace(OLD, blocks=None, masked=None)
    found = only(judge(baseline(old), baseline(flipped(0, 0, blocks=ZERO)), Policy()))
    assert found.verdict == "masked"
    assert "does not record flags" in found.sentence
    assert "gauntlet baseline accept" in found.sentence
    assert only(judge(baseline(old), baseline(flipped(0, 0, masked=9)), Policy())).verdict == "held"


@pytest.mark.parametrize("test", ["fixed", "sequential"])
@pytest.mark.parametrize(
    ("before", "now", "gained", "verdict"),
    [
        (0, 40, 80, "suspicious"),
        (30, 60, 80, "suspicious"),
        (0, 5, 80, "suspicious"),
        (0, 4, 80, "held"),
        (30, 36, 80, "held"),
        (700, 780, 80, "held"),
        (40, 0, 80, "held"),
        (0, 40, 0, "held"),
        (None, 40, 80, "held"),
        (0, None, 80, "held"),
    ],
)
def test_a_rise_with_more_masked_samples_is_suspicious_whatever_the_weights(test, before, now, gained, verdict):
    old = replace(OLD, masked=before, blocks={})
    report = judge(baseline(old, test=test), baseline(flipped(0, gained, masked=now)), Policy())
    found = only(report)
    assert found.verdict == verdict
    assert report.passed == (verdict == "held")
    if verdict == "suspicious":
        assert "robustness rose with masked gradients" in found.sentence
        assert f"samples that stand with masked gradients: {before} of 700 → {now} of {700 + gained}" in found.sentence
        assert "improved" not in found.sentence
        if test == "fixed":
            assert found.p_value == drop_p_value(gained, 0)


# What a baseline records


def made(*results, **changes):
    given = {"suite": "quick", "commit": "", "reason": "", "created": ""}
    return baseline_of(results, **(given | changes))


def test_the_blocks_of_a_cell_are_those_that_stand_on_its_row():
    needs = Flag("zero-gradient", "block", "Zero.", needs=("bpda", "black-box"))
    warn = Flag("converged", "warn", "A little.")
    pgd = result(bits(50, 20), cell_info(techniques={"": "white-box"}), flags=[needs, warn])
    other = result(bits(50, 30), cell_info("other"))
    flagged, plain = made(pgd, other).cells
    assert (flagged.blocks, flagged.lifted) == ({"zero-gradient": "Zero."}, ())
    assert (plain.blocks, plain.lifted) == ({}, ())
    adaptive = cell_info(attack="adaptive", techniques={"a": "bpda", "b": "black-box"})
    answer = result(bits(50, 20), adaptive, forwards=[300] * 50)
    assert [(cell.blocks, cell.lifted) for cell in made(pgd, answer).cells] == [({}, ("zero-gradient",))] * 2


def test_a_flag_of_one_attack_and_flags_from_comparing_attacks_are_those_of_every_cell_of_the_row():
    planted = Flag("planted", "block", "Missed.")
    pgd = result(bits(50, 40), cell_info(techniques={"": "white-box"}), flags=[planted])
    fgsm = result(bits(50, 20), cell_info(attack="fgsm", attack_spec="fgsm", techniques={"": "white-box"}))
    expected = ["planted", "single-step-beats-iterative"]
    assert [list(cell.blocks) for cell in made(pgd, fgsm).cells] == [expected] * 2


def test_masked_samples_are_added_up_and_unknown_if_a_block_does_not_say():
    two = result(bits(50, 20), blocks=2)
    counted = [replace(block, stats=Stats(1.0, 1.0, masked=number)) for number, block in enumerate(two.blocks, 3)]
    assert made(replace(two, blocks=tuple(counted))).cells[0].masked == 7
    assert made(replace(two, blocks=(counted[0], two.blocks[1]))).cells[0].masked is None


def test_flags_are_read_back_and_the_digest_stays(tmp_path):
    cell = replace(OLD, blocks=ZERO, lifted=("planted", "zero-gradient"), masked=4)
    unknown = replace(OLD, model="unknown", blocks=None, masked=None)
    write_baseline(tmp_path / "b.json", baseline(cell, unknown))
    found = read_baseline(tmp_path / "b.json")
    assert [one.blocks for one in found.cells] == [{"zero-gradient": ""}, None]
    assert [(one.lifted, one.masked) for one in found.cells] == [(("planted", "zero-gradient"), 4), ((), None)]
    assert baseline_digest(found) == baseline_digest(baseline(cell, unknown))


def test_a_file_of_a_version_that_did_not_record_flags_is_read(tmp_path):
    write_baseline(tmp_path / "b.json", baseline(OLD))
    fields = json.loads((tmp_path / "b.json").read_text())
    del fields["cells"][0]["flags"]
    (tmp_path / "b.json").write_text(json.dumps(fields))
    (cell,) = read_baseline(tmp_path / "b.json").cells
    assert (cell.blocks, cell.lifted, cell.masked) == (None, (), None)


@pytest.mark.parametrize(
    "wrong",
    [{"blocks": "x"}, {"blocks": [1]}, {"lifted": None}, {"masked": -1}, {"masked": True}, {"masked": "3"}],
)
def test_damaged_flags_are_refused_with_the_way_out(tmp_path, wrong):
    write_baseline(tmp_path / "b.json", baseline(OLD))
    fields = json.loads((tmp_path / "b.json").read_text())
    fields["cells"][0]["flags"] |= wrong
    (tmp_path / "b.json").write_text(json.dumps(fields))
    with pytest.raises(BaselineError, match=r"b\.json is damaged \((blocks|lifted|masked)=.*baseline accept"):
        read_baseline(tmp_path / "b.json")


def test_the_differences_of_two_baselines_name_new_and_removed_blocks():
    (came,) = diff(baseline(OLD), baseline(replace(OLD, blocks=ZERO)))
    (went,) = diff(baseline(replace(OLD, blocks=ZERO)), baseline(OLD))
    assert "blocked now by zero-gradient" in came
    assert "no longer blocked by zero-gradient" in went
    assert diff(baseline(replace(OLD, blocks=None)), baseline(replace(OLD, blocks=ZERO))) == []


def test_a_flag_that_the_baselines_attacks_answered_is_new_where_all_attacks_ran_and_not_in_an_early_gate():
    old, new = replace(OLD, lifted=("zero-gradient",)), flipped(0, 0, blocks=ZERO)
    assert only(judge(baseline(old), baseline(new), Policy())).verdict == "masked"
    order = sample_order(old)[:200]
    bits_seen = {"before": old.robust[order], "now": new.robust[order], "order": order}
    names = (
        "key",
        "n",
        "spec",
        "weights",
        "data_digest",
        "forwards",
        "backwards",
        "peak_memory_mib",
        "seconds",
        "device",
    )
    same = {name: getattr(new, name) for name in (*names, "randomised", "masked")}
    trace = Trace(**same, **bits_seen, replay="")
    early = only(judge(baseline(old, test="sequential"), baseline(new), Policy(), [trace]))
    assert early.verdict == "held"
    planted = replace(new, blocks={"planted": "Missed."})
    assert only(judge(baseline(old, test="sequential"), baseline(planted), Policy(), [trace])).verdict == "masked"
