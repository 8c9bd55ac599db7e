"""`gauntlet stages` on small networks and few images."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from gauntlet.bench.cli.main import cli
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.strength.build_cascade import BuildConfig, build_cascade
from gauntlet.bench.strength.cascade_trials import other_images, run_candidates
from gauntlet.bench.strength.conditions import choose_conditions

CHOOSING, HELD_OUT = "cnn.standard_digits Linf:0.15", "cnn.gauss_digits Linf:0.15"
CANDIDATES = ("apgd(steps=5, loss=cw)", "apgd-t(steps=5)", "square(queries=5)")


def condition(name):
    (one,) = choose_conditions((name,))
    return one


def test_stages_are_chosen_on_training_images():
    data = other_images("cnn.standard_digits", None, 7)
    assert data.ids == load_data("digits-train", samples=7).ids
    assert not set(data.ids) & set(load_data("digits").ids)


def test_trials_are_of_what_the_first_stages_leave():
    data = load_data("digits-train", samples=40)
    begin, *trials = run_candidates(CANDIDATES, condition(CHOOSING), data, None)
    assert [one.name for one in trials] == list(CANDIDATES)
    assert 0 < begin.broken.sum() < len(begin.broken)
    assert (begin.nearness[~begin.broken] > 0).all()
    assert (begin.nearness < 1).all()
    for one in trials:
        assert not (one.broken & begin.broken).any()
        assert (one.passes[begin.broken] == 0).all()
        assert (one.passes[~begin.broken] > 0).all()
        assert (one.nearness <= begin.nearness).all()
    # Nine targets of five steps break a sample at once or go on: more passes for what stands than APGD's.
    standing = ~(begin.broken | trials[0].broken | trials[1].broken)
    assert (trials[0].passes[standing] == 11).all()
    assert (trials[1].passes[standing] == 9 * 11).all()
    assert (trials[2].passes[standing] == 5).all()


def test_attacks_of_another_norm_and_whole_libraries_are_no_candidates():
    data = load_data("digits-train", samples=5)
    assert [one.name for one in run_candidates(["ddn"], condition(CHOOSING), data, None)] == ["begin"]
    with pytest.raises(ValueError, match="no native attack"):
        list(run_candidates(["torchattacks.PGD"], condition(CHOOSING), data, None))


def test_the_report_has_the_stages_and_what_they_leave_on_the_other_half():
    lines = []
    setup = BuildConfig(choose_conditions((CHOOSING, HELD_OUT)), CANDIDATES, samples=100, least_gain=0.0)
    report = build_cascade(setup, lines.append)
    assert f"Linf: chosen on {CHOOSING}" in report
    assert "| begin |" in report
    (tested,) = (line for line in report.splitlines() if "held out" in line)
    assert tested.startswith(f"{HELD_OUT}, held out: ")
    chosen = [name for name in CANDIDATES if f"| {name} |" in report]
    assert chosen
    # Candidates that were not chosen are not run on the other half.
    assert {line.split(", ", 1)[1].rpartition(":")[0] for line in lines if line.startswith(HELD_OUT)} == {
        "begin",
        *chosen,
    }


def test_the_command_says_where_no_network_is_for_choosing():
    done = CliRunner().invoke(cli, ["stages", HELD_OUT, "--samples", "5", "--candidates", "square(queries=5)"])
    assert done.exit_code == 0, done.output
    assert "Linf: no network to choose by" in done.output
