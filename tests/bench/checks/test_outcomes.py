"""Cross-checks of results: each fires on tampered records and is silent on those of honest models."""

from __future__ import annotations

from dataclasses import replace

import pytest

import gauntlet
from builders import cell_info, result
from gauntlet.bench.checks import outcomes
from gauntlet.bench.checks.subject import Subject
from gauntlet.bench.config.schema import Config, DataRef, Group, ModelRef
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.run.engine import Engine
from gauntlet.leaderboard.rows import crosschecks
from gauntlet.leaderboard.rows.crosschecks import cross_flags

WAYS = {"margin": "white-box", "probe": "probe"}


def cell(robust, *, techniques=None, attack="pgd", kind="white-box", eps=0.15, **columns):
    """A finished cell whose samples are all correct when clean."""
    info = cell_info(
        "m", attack, attack_spec=f"{attack}: …", threat=f"Linf:{eps:g}", attack_kind=kind, techniques=techniques or {}
    )
    return result(robust, info, **columns)


def bits(n, *fallen):
    return [i not in fallen for i in range(n)]


def names(*arguments):
    return {flag.name for flag in cross_flags(*arguments)}


def test_a_stage_without_gradients_that_breaks_what_gradients_left_is_noticed():
    stage = ["margin", "probe", "probe", "probe", *[""] * 16]
    (flag,) = cross_flags([cell(bits(20, 0, 1, 2, 3), stage=stage, techniques=WAYS, attack="gauntlet")])
    assert flag.name == "black-box-beats-white-box"
    assert flag.severity == "block"
    assert flag.needs == ("black-box",)
    assert flag.samples == ("s1", "s2", "s3")
    assert dict(flag.evidence) == {"samples": 3, "broken": 4, "n": 20}
    assert flag.stands({"white-box", "probe"})
    assert not flag.stands({"black-box"})


def test_a_search_that_finds_few_of_what_is_broken_warns_and_does_not_block():
    stage = ["probe"] * 3 + ["margin"] * 57 + [""] * 40
    (flag,) = cross_flags([cell(bits(100, *range(60)), stage=stage, techniques=WAYS)])
    assert flag.severity == "block"
    stage = ["probe"] * 3 + ["margin"] * 58 + [""] * 39
    (flag,) = cross_flags([cell(bits(100, *range(61)), stage=stage, techniques=WAYS)])
    assert (flag.severity, flag.needs) == ("warn", ())
    assert "of 61 broken samples these are few" in flag.message


def test_two_samples_next_to_the_boundary_are_no_sign():
    stage = ["margin", "probe", "probe", *[""] * 17]
    assert names([cell(bits(20, 0, 1, 2), stage=stage, techniques=WAYS)]) == set()


def test_three_of_very_many_samples_are_no_sign():
    stage = ["probe"] * 4 + [""] * 2996
    assert names([cell(bits(3000, *range(4)), stage=stage, techniques=WAYS)]) == set()


def test_what_another_attack_by_gradients_breaks_too_is_no_sign():
    stage = ["margin", "probe", "probe", "probe", *[""] * 16]
    row = [cell(bits(20, 0, 1, 2, 3), stage=stage, techniques=WAYS, attack="gauntlet"), cell(bits(20, 1, 2, 3))]
    assert names(row) == set()


def test_a_stage_without_gradients_that_comes_first_proves_nothing():
    techniques = dict(reversed(WAYS.items()))
    stage = ["margin", "probe", "probe", "probe", *[""] * 16]
    assert names([cell(bits(20, 0, 1, 2, 3), stage=stage, techniques=techniques)]) == set()


@pytest.mark.parametrize("kind", ["black-box", "decision-based", "transfer"])
def test_an_attack_of_its_own_without_gradients_and_replayed_examples_count_as_well(kind):
    row = [cell(bits(20, 0)), cell(bits(20, 5, 6, 7), attack="other", kind=kind)]
    (flag,) = cross_flags(row)
    assert flag.samples == ("s5", "s6", "s7")
    # There is nothing to compare with where no gradient was followed.
    assert names(row[1:]) == set()


def test_the_same_accuracy_on_other_samples_is_noticed():
    row = [cell(bits(20, 0, 1, 2)), cell(bits(20, 5, 6, 7), attack="square", kind="black-box")]
    assert names(row) == {"black-box-beats-white-box"}


def test_a_single_step_that_beats_many_is_noticed():
    single = cell(bits(20, 0, 1, 2, 3), attack="fgsm")
    assert names([single, cell(bits(20, 0), attack="pgd")]) == {"single-step-beats-iterative"}
    assert names([single, cell(bits(20, 0, 1, 2, 3, 4), attack="pgd")]) == set()
    assert names([single]) == set()


def test_accuracy_that_rises_with_eps_is_noticed_in_the_row_of_the_larger():
    small, large = cell(bits(20, 0, 1, 2, 3), eps=0.1), cell(bits(20, 9), eps=0.2)
    (flag,) = cross_flags([large], [small])
    assert flag.name == "rises-with-eps"
    assert flag.needs == ()
    assert dict(flag.evidence)["rise"] == 3
    assert dict(flag.evidence)["smaller_eps"] == 0.1
    assert names([small], [large]) == set()
    assert names([cell(bits(20, 0, 1, 2, 3, 4), eps=0.2)], [small]) == set()


def test_more_than_the_most_frequent_class_cannot_stand_where_every_image_can_be_grey():
    labels = [0] * 12 + [1] * 8
    assert names([cell(bits(20, 0), eps=0.5, label=labels)]) == {"above-chance-at-grey"}
    assert names([cell(bits(20, *range(12, 20)), eps=0.5, label=labels)]) == set()
    assert names([cell(bits(20, 0), eps=0.49, label=labels)]) == set()


def test_a_model_that_may_reject_may_reject_the_grey_image():
    made = cell(bits(20), eps=0.5, label=[0, 1] * 10)
    assert names([made]) == {"above-chance-at-grey"}
    assert names([replace(made, cell=replace(made.cell, rejects=True))]) == set()


def test_all_samples_may_stand_at_grey_behind_a_detector_that_rejects_it():
    data = gauntlet.load_data("digits", samples="12")
    model = gauntlet.load_model("cnn.trades_digits").module
    for defense, fires in (("confidence_detector(confidence=0.9)", False), ("none", True)):
        found = gauntlet.evaluate(
            model, data, threat="Linf:0.5", attacks="noise(draws=1)", defense=defense, checks="none"
        )
        assert ("above-chance-at-grey" in {flag.name for flag in found.flags}) == fires, (defense, found)


def test_cells_that_failed_are_not_finished_or_certify_play_no_part():
    strong = cell(bits(20, 0, 1, 2), attack="square", kind="black-box")
    short = replace(strong, expected=40)
    certificate = cell(bits(20), attack="certificate", kind="certificate", eps=0.5)
    assert names([cell(bits(20)), short]) == set()
    assert names([certificate]) == set()
    assert names([]) == set()


def test_cells_of_several_rows_are_refused():
    with pytest.raises(ValueError, match="cells of several rows"):
        cross_flags([cell(bits(5)), cell(bits(5), eps=0.3)])


# On results of real attacks.


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Results, with their examples, and the subject that they are of, by model, defense and threat model."""

    def run(
        model, threat, defense="none", attacks=("fgsm", "pgd(steps=20)", "gauntlet:fast", "square(queries=100)"), n=60
    ):
        groups = (Group((ModelRef(model),), (defense,), attacks, (threat,), DataRef("digits", str(n))),)
        config = Config(groups, device="cpu", out=tmp_path_factory.mktemp("run"))
        engine = Engine(make_plan(config), config, command="test")
        for one in engine.run.plan.cells:
            assert engine.cell(one).error is None
        row = tuple(engine.run.result(one, adversarial=True) for one in engine.run.plan.cells)
        prepared = engine.workbench.prepare(engine.run.plan.cells[0])
        data = prepared.data
        return Subject(
            prepared.defended,
            data.images,
            data.labels,
            list(data.ids),
            prepared.cell.threat,
            card=prepared.card,
            row=row,
        )

    return run


@pytest.mark.slow
@pytest.mark.parametrize("model", ["cnn.standard_digits", "cnn.trades_digits"])
def test_real_results_of_honest_models_are_silent(ran, model):
    large, small = ran(model, "Linf:0.15").row, ran(model, "Linf:0.1").row
    assert cross_flags(large, small) == ()


def test_a_masked_model_is_given_away_by_search(ran):
    one = ran("gauntlet.bench.checks.hidden_masks:scaled_logits", "Linf:0.15", attacks=("pgd", "square(queries=300)"))
    assert outcomes.black_box_beats_white_box(one).result == "fired"


def test_most_examples_of_an_honest_model_survive_eight_bits(ran):
    one = ran("cnn.standard_digits", "Linf:0.15", attacks=("pgd(steps=20)",), n=40)
    found = outcomes.survival_of_rounding(one)
    assert found.result == "reported"
    assert dict(found.evidence)["share"] > 0.6
    assert dict(found.evidence)["examples"] > 20
    assert outcomes.invalid_candidates(one).result == "passed"
    (only,) = one.row
    tampered = [replace(block, stats=replace(block.stats, candidates_rejected=4)) for block in only.blocks]
    found = outcomes.invalid_candidates(replace(one, row=(replace(only, blocks=tuple(tampered)),)))
    assert found.result == "fired"
    assert found.flag.severity == "warn"


def test_without_cells_the_checks_of_outcomes_do_not_apply():
    data = gauntlet.load_data("digits")
    from gauntlet.attacks.ops.threat import ThreatModel
    from gauntlet.defenses.pipeline.defended_model import DefendedModel

    module = DefendedModel(gauntlet.load_model("cnn.trades_digits").module, differentiable=True, randomised=False)
    one = Subject(module, data.images[:4], data.labels[:4], list(data.ids[:4]), ThreatModel("Linf", 0.5))
    for check in (
        outcomes.black_box_beats_white_box,
        outcomes.single_step_beats_iterative,
        outcomes.rises_with_eps,
        outcomes.above_chance_at_grey,
        outcomes.invalid_candidates,
        outcomes.survival_of_rounding,
    ):
        assert check(one).result == "not applicable"


def test_the_least_count_and_share_are_those_that_are_documented():
    assert (crosschecks.MIN_SAMPLES, crosschecks.MIN_SHARE) == (3, 0.002)
