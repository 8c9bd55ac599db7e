"""Sweeps: what is asked for, where robust accuracy stops falling (planted outcomes), and `gauntlet sweep`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from gauntlet.bench.sweep.convergence import PointOutcome, along_budget, along_choice, along_eps, verdicts
from gauntlet.bench.sweep.grid import SweepError, grid, parse_axis
from gauntlet.bench.sweep.report import sweep_figure, sweep_frame, sweep_markdown
from gauntlet.leaderboard.stats.proportions import Proportion

N = 200


def outcome(point, robust, *, passes=10.0):
    robust = np.asarray(robust, bool)
    return PointOutcome(point, np.ones(len(robust), bool), robust, (Proportion.of(robust),), passes, passes, 1.0)


def first(count, n=N):
    """The first so many of n samples stand."""
    return np.arange(n) < count


def line(axis, counts, attack="pgd"):
    """Outcomes along one axis, of which each breaks all that the earlier ones break."""
    points = grid(attack, "Linf:0.1", [parse_axis(axis)])
    return [outcome(point, first(count)) for point, count in zip(points, counts, strict=True)]


# What is asked for


def test_an_axis_is_read_with_its_values_as_an_attack_takes_them():
    assert parse_axis("steps=20,5,10").values == (5, 10, 20)
    assert parse_axis("steps=5,10").kind == "budget"
    assert parse_axis("loss=cw,ce").values == ("cw", "ce")
    assert parse_axis("loss=cw,ce").kind == "choice"
    assert parse_axis("step_size=0.1,0.05").values == (0.05, 0.1)
    assert parse_axis("step_size=0.1,0.05").kind == "choice"
    assert parse_axis("random_start=True,False").kind == "choice"
    assert parse_axis("eps=8/255,0.01").values == (0.01, 8 / 255)


@pytest.mark.parametrize("text", ["steps", "steps=", "steps=5", "steps=5,5", "=5,6", "eps=0,1", "steps=5,(", "a b=1,2"])
def test_an_axis_that_is_no_axis_is_refused_with_its_text(text):
    with pytest.raises(SweepError, match="--over"):
        parse_axis(text)


def test_the_grid_has_every_combination_with_the_settings_that_stay():
    points = grid("pgd(loss=cw)", "Linf:0.1", [parse_axis("steps=5,10"), parse_axis("restarts=1,2")])
    assert [point.attack for point in points] == [
        f"pgd(loss='cw', restarts={restarts}, steps={steps})" for steps in (5, 10) for restarts in (1, 2)
    ]
    assert {point.threat for point in points} == {"Linf:0.1"}
    assert points[1].values == {"steps": 5, "restarts": 2}


def test_eps_sweeps_the_threat_model_and_keeps_its_goal():
    points = grid("pgd", "Linf:0.5:target=3", [parse_axis("eps=0.1,8/255")])
    assert [point.threat for point in points] == ["Linf:8/255:target=3", "Linf:0.1:target=3"]
    assert [point.attack for point in points] == ["pgd", "pgd"]


def test_a_sweep_that_cannot_be_is_refused():
    steps = parse_axis("steps=5,10")
    with pytest.raises(SweepError, match="in --attack"):
        grid("pgd(steps=3)", "Linf:0.1", [steps])
    with pytest.raises(SweepError, match="twice"):
        grid("pgd", "Linf:0.1", [steps, steps])
    with pytest.raises(SweepError, match="nothing to sweep"):
        grid("pgd", "Linf:0.1", [])
    with pytest.raises(SweepError, match="fewer values"):
        grid("pgd", "Linf:0.1", [parse_axis("a=" + ",".join(map(str, range(40)))), parse_axis("b=" + ",".join(map(str, range(40))))])  # fmt: skip # noqa: E501


# Where it stops falling


def test_it_has_converged_from_the_first_value_that_no_larger_one_beats_significantly():
    found = along_budget(line("steps=5,10,20,40,80", [180, 160, 140, 101, 100]), "steps")
    assert (found.converged, found.start, found.more) == (True, 40, 1)
    assert found.sentence.startswith("converged from steps=40 on: 1 more of 200 (0.5 % [0.0, 2.8]) broken by steps=80")


def test_a_last_step_that_breaks_significantly_more_has_not_converged():
    found = along_budget(line("steps=5,10,20,40", [180, 160, 140, 130]), "steps")
    assert (found.converged, found.start, found.more) == (False, None, 10)
    assert "not converged: the last step, steps=20 to 40, still broke 10 more of 200" in found.sentence


def test_five_samples_that_only_the_larger_budget_breaks_are_significant_and_four_are_not():
    assert (
        binomtest(5, 5, 0.5, alternative="greater").pvalue < 0.05 < binomtest(4, 4, 0.5, alternative="greater").pvalue
    )
    assert along_budget(line("steps=10,20", [100, 95]), "steps").converged is False
    assert along_budget(line("steps=10,20", [100, 96]), "steps").converged is True


def test_many_small_gains_that_add_up_are_not_convergence():
    counts = [120, 116, 112, 108, 104]
    found = along_budget(line("steps=10,20,40,80,160", counts), "steps")
    assert (found.converged, found.start) == (True, 80)
    assert along_budget(line("steps=10,20,40,60", [120, 110, 104, 98]), "steps").converged is False


def test_nothing_gained_by_less_than_a_doubling_is_no_evidence():
    found = along_budget(line("steps=10,40,50", [150, 100, 100]), "steps")
    assert found.converged is False
    assert "sweep steps further (robust accuracy stopped falling above half of steps=50)" in found.sentence


def test_gains_are_counted_on_the_same_samples_and_not_as_differences_of_shares():
    few, many = grid("pgd", "Linf:0.1", [parse_axis("steps=10,20")])
    # As many robust samples, but others: 3 are gained and 3 lost.
    robust = first(100)
    other = robust.copy()
    other[[0, 1, 2]], other[[150, 151, 152]] = False, True
    found = along_budget([outcome(few, robust), outcome(many, other)], "steps")
    assert (found.converged, found.more) == (True, 3)


def test_nothing_more_broken_says_so():
    found = along_budget(line("steps=10,20,40", [100, 100, 100]), "steps")
    assert found.sentence == "converged from steps=10 on: no more of 200 samples are broken up to steps=40"


def test_a_choice_names_the_strongest_and_what_the_others_break_besides():
    ce, cw = line("loss=ce,cw", [100, 90])
    found = along_choice([ce, cw], "loss")
    assert (found.converged, found.start, found.more) == (None, "cw", 0)
    cw.robust[0], ce.robust[0] = True, False
    assert along_choice([ce, cw], "loss").more == 1


def test_an_attack_that_loses_samples_at_a_larger_eps_is_told():
    points = grid("pgd", "Linf", [parse_axis("eps=0.1,0.2")])
    assert along_eps([outcome(points[0], first(100)), outcome(points[1], first(50))]).more == 0
    rising = along_eps([outcome(points[0], first(100)), outcome(points[1], first(103))])
    assert rising.more == 3
    assert "3 of 200 samples are broken at Linf:0.1 but not at Linf:0.2" in rising.sentence
    assert "has not reached 0" in rising.sentence
    assert "reached" not in along_eps([outcome(points[0], first(9)), outcome(points[1], first(0))]).sentence


def test_each_budget_is_judged_with_the_others_at_their_largest():
    axes = [parse_axis("steps=10,20"), parse_axis("restarts=1,2")]
    points = grid("pgd", "Linf:0.1", axes)
    robust = {(10, 1): 150, (20, 1): 120, (10, 2): 101, (20, 2): 100}
    outcomes = [outcome(point, first(robust[tuple(point.values.values())])) for point in points]
    steps, restarts = verdicts(outcomes, axes)
    assert (steps.axis, steps.converged, steps.start, steps.more) == ("steps", True, 10, 1)
    assert steps.sentence.startswith("with restarts=2, converged from steps=10")
    assert (restarts.axis, restarts.converged, restarts.more) == ("restarts", False, 20)


def test_every_eps_is_judged_by_itself():
    axes = [parse_axis("eps=0.1,0.2"), parse_axis("steps=10,20")]
    points = grid("pgd", "Linf", axes)
    outcomes = [outcome(point, first(count)) for point, count in zip(points, (100, 100, 60, 20), strict=True)]
    small, large, eps = verdicts(outcomes, axes)
    assert (small.converged, large.converged, eps.axis) == (True, False, "eps")
    assert small.sentence.startswith("Linf:0.1: ")


# The report


def test_the_table_has_a_column_for_each_axis_and_stable_types():
    axes = [parse_axis("steps=10,20"), parse_axis("loss=ce,cw"), parse_axis("step_size=0.1,0.2")]
    outcomes = [outcome(point, first(100)) for point in grid("pgd", "Linf:0.1", axes)]
    frame = sweep_frame(outcomes, axes)
    assert {name: str(frame[name].dtype) for name in ("steps", "loss", "step_size", "n", "robust_accuracy")} == {
        "steps": "Int64", "loss": "string", "step_size": "float64", "n": "Int64", "robust_accuracy": "float64"}  # fmt: skip
    assert frame["steps"].tolist() == [10] * 4 + [20] * 4
    interval = Proportion(100, N).interval
    assert frame.loc[0, ["robust_low", "robust_high"]].tolist() == pytest.approx(list(interval))
    assert list(sweep_frame([], axes).dtypes) == list(frame.dtypes)


def test_the_report_gives_verdicts_table_errors_and_the_command():
    outcomes = line("steps=10,20", [100, 99])
    text = sweep_markdown(
        "pgd on n|t", outcomes, [along_budget(outcomes, "steps")], ["steps=40: boom"], "gauntlet sweep x"
    )
    assert "pgd on n\\|t" in text
    assert "- converged from steps=10 on: 1 more" in text
    assert "| steps=20 | Linf:0.1 | 49.5 [42.4, 56.6] | 200 | 10.0 / 10.0 | 1.0 |" in text
    assert "- steps=40: boom" in text
    assert "gauntlet sweep x" in text


def test_the_picture_runs_along_the_budget_with_a_series_for_each_other_value():
    axes = [parse_axis("loss=ce,cw"), parse_axis("steps=10,20")]
    outcomes = [outcome(point, first(80 + i)) for i, point in enumerate(grid("pgd", "Linf:0.1", axes))]
    left, _ = sweep_figure("pgd", outcomes, axes).axes
    assert left.get_xlabel() == "steps"
    drawn = {container.get_label(): container.lines[0] for container in left.containers}
    assert set(drawn) == {"loss=ce", "loss=cw"}
    assert drawn["loss=cw"].get_xdata().tolist() == [10, 20]
    assert drawn["loss=cw"].get_ydata().tolist() == pytest.approx([41, 41.5])


# gauntlet sweep


SWEEP = ("sweep", "--model=model.py:build", "--data=data.npz", "--threat=Linf:0.1", "--attack=pgd", "--out=out")


def test_a_sweep_runs_verdicts_and_files_and_resumes_from_the_store(project, call):
    arguments = (*SWEEP, "--over=steps=1,2,4", "--over=restarts=1,2", "--seeds=2")
    done = call(*arguments)
    assert done.returncode == 0, done.stderr
    frame = pd.read_csv("out/sweep.csv")
    assert frame["steps"].tolist() == [1, 1, 2, 2, 4, 4]
    assert (frame["n"] == 30).all()
    assert (frame["seeds"] == 2).all()
    assert (frame["robust_accuracy"] <= frame["seed_least"] + 1e-12).all()
    assert len(done.stderr.splitlines()) == 12
    assert "(stored)" not in done.stderr
    told = [text for text in done.stdout.splitlines() if "converged" in text]
    assert len(told) == 2
    for text in told:
        assert text.partition(":")[0] in Path("out/sweep.md").read_text(encoding="utf-8")
    assert Path("out/sweep.png").read_bytes()[:4] == b"\x89PNG"
    again = call(*arguments)
    assert again.stderr.count("(stored)") == 12
    assert again.stdout == done.stdout


def test_a_sweep_shares_its_results_with_a_run_in_the_same_folder(project, call):
    assert call(*SWEEP, "--over=steps=1,3").returncode == 0
    run = ("run", *SWEEP[1:4], "--attacks=pgd(steps=3)", "--out=out")
    assert "(stored)" in call(*run).stderr


def test_an_eps_sweep_needs_only_the_norm(project, call):
    done = call(*SWEEP[:3], "--threat=Linf", "--attack=pgd(steps=2)", "--over=eps=0.05,1/2", "--out=out")
    assert done.returncode == 0, done.stderr
    assert pd.read_csv("out/sweep.csv")["threat"].tolist() == ["Linf:0.05", "Linf:0.5"]
    assert "robust accuracy falls from" in done.stdout


TIRED = """

class Tired(Means):
    passes = 0

    def forward(self, x):
        if x.requires_grad:
            Tired.passes += 1
            if Tired.passes > 20:
                raise RuntimeError("tired after 20 gradients")
        return super().forward(x)


def build():
    return Tired().eval()
"""


def test_a_setting_that_fails_is_told_and_the_others_are_shown(tiny, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tiny.write_project(tmp_path, text=tiny.MODEL + TIRED))
    done = call(*SWEEP, "--over=steps=1,2,100")
    assert done.returncode == 1
    assert "PROBLEM steps=100: RuntimeError: tired after 20 gradients" in done.stderr
    assert pd.read_csv("out/sweep.csv")["steps"].tolist() == [1, 2]
    assert "tired after 20 gradients" in Path("out/sweep.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--over=steps=5",), ("--over", "two different values", "has 5")),
        (("--over=steps=5,7,5",), ("--over", "the value 5 twice")),
        (("--over=steps=5,1+",), ("--over", "the value '1+' of steps is not a number")),
        (("--over=eps=0.1,little",), ("--over", "the value 'little' of eps is not a number")),
        (("--over=stps=5,6",), ("no setting 'stps'", "steps")),
        (("--over=steps=1,2", "--model=cnn.*"), ("--model", "(model.py:build, cnn.*)", "one")),
        (("--over=steps=1,2", "--threat=L2:1"), ("--threat names 2", "L2:1", "one")),
        (("--over=steps=1,2", "--defense=none", "--defense=jpeg"), ("--defense names 2", "(none, jpeg)", "one")),
        (("--over=steps=1,2", "--seeds=0"), ("--seeds 0", "at least 1")),
        (("--over=steps=1,2", "--attack=standard"), ("unknown attack 'standard'",)),
    ],
)
def test_wrong_options_of_sweep_are_named(project, call, arguments, words):
    done = call(*SWEEP, *arguments)
    assert done.returncode == 2
    for word in words:
        assert word in done.stderr
    assert not Path("out").exists()
