"""Pictures: what is drawn, read back from the figures' artists, and `gauntlet show` with pictures and samples."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders import cell_info, result
from gauntlet.leaderboard.pictures.canvas import PicturesMissingError, plain, png, style
from gauntlet.leaderboard.pictures.confusion import confusion_figure, confusion_matrix
from gauntlet.leaderboard.pictures.curves import accuracy_against_cost, accuracy_against_eps, standing
from gauntlet.leaderboard.pictures.examples import ExampleColumn, examples_figure, spread_over_classes
from gauntlet.leaderboard.pictures.sweep_curves import SweepPoint, accuracy_against_setting
from gauntlet.leaderboard.results.record import CellResult
from gauntlet.leaderboard.rows.closest_examples import BrokenSample, closest_examples
from gauntlet.leaderboard.stats.proportions import Proportion


def attacked(robust, *, attack="pgd", seed=0, costs=None, minimum_norm=False, **columns):
    """A cell of the samples s0, s1, …, all correct when clean; `costs` are their passes."""
    cell = cell_info(attack=attack, attack_spec=attack, threat="Linf:0.1", seed=seed, minimum_norm=minimum_norm)
    half = np.full(len(robust), 1.0) if costs is None else np.asarray(costs) / 2
    return result(robust, cell, forwards=half, backwards=half, **columns)


def minimum(distance, *, eps=0.1, attack="fmn"):
    distance = np.asarray(distance, float)
    robust = ~(distance <= eps)
    return attacked(attack=attack, robust=robust, distance=distance, minimum_norm=True)


def line(figure, name):
    (axes, *_) = figure.axes
    (found,) = [one for one in axes.get_lines() if one.get_label() == name]
    return found


def value_at(drawn, x):
    """The height of a drawn step function at x, as a reader would see it."""
    assert drawn.get_drawstyle() == "steps-post"
    places, heights = drawn.get_data()
    return heights[np.searchsorted(places, x, side="right") - 1]


# Robust accuracy against eps


def test_a_sample_falls_at_its_distance_and_stands_where_none_was_found():
    x, counts = standing(np.array([0.2, 0.1, np.nan, 0.2, 0.3]), np.array([1, 1, 1, 1, 0], bool))
    assert x.tolist() == [0, 0.1, 0.2]
    assert counts.tolist() == [4, 3, 1]


def test_a_sample_that_falls_at_no_cost_leaves_two_steps_at_zero_of_which_the_last_counts():
    x, counts = standing(np.array([0.0, 1.0]), np.array([True, True]))
    assert x.tolist() == [0, 0, 1]
    assert counts.tolist() == [2, 1, 0]


def test_robust_accuracy_against_eps_is_the_share_of_larger_distances_and_never_interpolated():
    distance = np.array([0.05, 0.1, 0.1, 0.3, np.nan])
    drawn = line(accuracy_against_eps([minimum(distance)], "net"), "fmn")
    for eps in (0.0, 0.049, 0.05, 0.07, 0.0999, 0.1, 0.2, 0.2999, 0.3, 0.31):
        expected = 100 * np.mean(np.isnan(distance) | (distance > eps))
        assert value_at(drawn, eps) == pytest.approx(expected), eps


def test_the_curve_of_several_minimum_norm_attacks_has_their_worst_case():
    cells = [minimum([0.1, 0.4, np.nan]), minimum([0.2, 0.3, np.nan], attack="ddn")]
    drawn = line(accuracy_against_eps(cells, "net"), "worst case of these")
    assert [value_at(drawn, eps) for eps in (0.05, 0.1, 0.3)] == pytest.approx([100, 200 / 3, 100 / 3])


def test_attacks_at_a_fixed_eps_are_points_with_their_interval():
    fixed = attacked(attack="pgd", robust=[True, True, False, False])
    (axes,) = accuracy_against_eps([minimum([0.05, 0.2, 0.3, 0.4]), fixed], "net").axes
    (container,) = axes.containers
    points, _, (bars,) = container.lines
    assert points.get_xdata().tolist() == [0.1]
    assert points.get_ydata().tolist() == [50]
    low, high = Proportion(2, 4).interval
    assert bars.get_segments()[0][:, 1].tolist() == pytest.approx([100 * low, 100 * high])


def test_without_a_minimum_norm_attack_there_is_no_curve_against_eps():
    assert accuracy_against_eps([attacked(robust=[True, False])], "net") is None


# Robust accuracy against cost


def test_robust_accuracy_against_cost_counts_the_samples_that_still_stand_after_so_many_passes():
    cell = attacked(robust=[False, False, False, True], costs=[2, 10, 10, 80])
    figure = accuracy_against_cost([cell], "net")
    drawn = line(figure, "pgd")
    assert [value_at(drawn, b) for b in (1, 2, 9.9, 10, 80)] == [100, 75, 75, 25, 25]
    assert figure.axes[0].get_xscale() == "log"
    ends = [one for one in figure.axes[0].get_lines() if one is not drawn]
    assert [(end.get_xdata().tolist(), end.get_ydata().tolist()) for end in ends] == [([80], [25])]


def test_two_seeds_of_one_attack_are_told_apart():
    cells = [attacked(robust=[True, False], seed=seed) for seed in (0, 1)]
    labels = [one.get_text() for one in accuracy_against_cost(cells, "net").axes[0].get_legend().get_texts()]
    assert labels == ["pgd, seed 0", "pgd, seed 1"]


def test_no_results_give_no_curve():
    empty = CellResult(attacked(robust=[True]).cell, ())
    assert accuracy_against_cost([empty], "net") is None


# Confusion under attack


def test_the_confusion_is_of_the_closest_example_of_the_attacks_that_broke_a_sample():
    label = [0, 0, 1, 2]
    far = attacked(attack="pgd", label=label, robust=[0, 1, 0, 1], distance=[0.1, np.nan, 0.1, np.nan],
                 prediction=[1, 0, 2, 2])  # fmt: skip
    near = attacked(attack="fmn", label=label, robust=[0, 1, 1, 1], distance=[0.05, 0.3, np.nan, np.nan],
                  prediction=[2, 1, 1, 2])  # fmt: skip
    assert confusion_matrix([far, near]).tolist() == [[1, 0, 1], [0, 0, 1], [0, 0, 1]]
    broken = closest_examples([far, near]).broken
    assert {name: (one.attack, one.cell, one.distance) for name, one in broken.items()} == {
        "s0": ("fmn", 1, 0.05),
        "s2": ("pgd", 0, 0.1),
    }


def test_a_sample_that_is_wrong_when_clean_stands_under_its_clean_prediction():
    cell = attacked(label=[0, 1], robust=[True, False], distance=[np.nan, np.nan])
    samples = cell.blocks[0].samples
    samples.clean_prediction[1] = 0
    assert confusion_matrix([cell]).tolist() == [[1, 0], [1, 0]]


def test_a_sample_whose_clean_image_is_rejected_is_left_out():
    cell = attacked(label=[0, 1, 2], robust=[True] * 3, clean_prediction=np.array([0, -1, 2]), correct=[1, 0, 1])
    assert confusion_matrix([cell]).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]
    shown = CellResult(replace(cell.cell, rejects=True), cell.blocks)
    assert "rejected clean images are left out" in confusion_figure([shown], "net").axes[0].get_xlabel()


def test_the_confusion_picture_shows_shares_as_colours_and_counts_as_text():
    cell = attacked(label=[0, 0, 0, 0, 1], robust=[1, 1, 1, 0, 1])
    figure = confusion_figure([cell], "net")
    (image,) = figure.axes[0].get_images()
    assert image.get_array().tolist() == [[75, 25], [0, 100]]
    assert [text.get_text() for text in figure.axes[0].texts] == ["3\n75 %", "1\n25 %", "1\n100 %"]


def test_the_confusion_of_many_classes_is_not_filled_with_text():
    cell = attacked(label=np.arange(60), robust=np.ones(60))
    figure = confusion_figure([cell], "net")
    assert not list(figure.axes[0].texts)
    assert len(figure.axes[0].get_xticks()) <= 25


# Examples


def broken(name, label):
    return BrokenSample(name, label, label + 1, 0.1, "pgd", 0)


def test_examples_are_spread_over_the_classes_in_the_order_of_the_samples():
    candidates = [broken("a", 3), broken("b", 3), broken("c", 0), broken("d", 3), broken("e", 7)]
    assert [one.id for one in spread_over_classes(candidates, 4)] == ["c", "a", "b", "e"]
    assert [one.id for one in spread_over_classes(candidates, 2)] == ["c", "a"]
    assert [one.id for one in spread_over_classes(candidates)] == ["c", "a", "b", "d", "e"]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_column_shows_the_clean_image_the_scaled_perturbation_and_the_example_with_both_labels(channels):
    generator = np.random.default_rng(0)
    clean = generator.random((channels, 6, 5))
    change = np.zeros_like(clean)
    change[0, 1, 2], change[0, 3, 4] = 0.1, -0.05
    figure = examples_figure([ExampleColumn(broken("s7", 4), clean, clean + change)], "net")
    top, middle, bottom = figure.axes
    assert "label 4" in top.get_title()
    assert "s7" in top.get_title()
    assert bottom.get_title() == "prediction 5"
    shown = [np.asarray(axes.get_images()[0].get_array()) for axes in (top, middle, bottom)]
    if channels == 1:
        np.testing.assert_allclose(shown[0], clean[0])
        np.testing.assert_allclose(shown[1], change[0], atol=1e-12)
        assert middle.get_images()[0].get_clim() == pytest.approx((-0.1, 0.1))
    else:
        np.testing.assert_allclose(shown[0], np.moveaxis(clean, 0, -1))
        np.testing.assert_allclose(shown[1], 0.5 + np.moveaxis(change, 0, -1) / 0.2)
        np.testing.assert_allclose(shown[2], np.moveaxis(clean + change, 0, -1))


def test_images_of_two_shapes_are_refused_with_their_sample():
    with pytest.raises(ValueError, match="'s1' has shape"):
        examples_figure([ExampleColumn(broken("s1", 0), np.zeros((1, 4, 4)), np.zeros((1, 5, 5)))], "net")
    with pytest.raises(ValueError, match="broke nothing"):
        examples_figure([], "net")


# Settings


def test_settings_are_drawn_at_their_values_with_intervals_and_against_cost():
    marks = [SweepPoint(steps, Proportion(robust, 100), 2 * steps) for steps, robust in ((5, 80), (10, 60), (40, 55))]
    left, right = accuracy_against_setting({"": marks}, "steps", "pgd", joined=True).axes
    for axes, x in ((left, [5, 10, 40]), (right, [10, 20, 80])):
        points, _, (bars,) = axes.containers[0].lines
        assert points.get_xdata().tolist() == x
        assert points.get_ydata().tolist() == pytest.approx([80, 60, 55])
        assert bars.get_segments()[1][:, 1].tolist() == pytest.approx(
            [100 * bound for bound in Proportion(60, 100).interval]
        )
    assert left.get_xscale() == "log"
    assert [text.get_text() for text in left.get_xticklabels()] == ["5", "10", "40"]


def test_28_lines_and_49_markers_are_told_apart():
    assert len({(style(number)["color"], style(number)["linestyle"]) for number in range(28)}) == 28
    assert len({(style(number)["color"], style(number)["marker"]) for number in range(49)}) == 49


def test_words_are_drawn_side_by_side():
    marks = [SweepPoint(loss, Proportion(5, 10), 3.0) for loss in ("ce", "cw")]
    left, _ = accuracy_against_setting({"": marks}, "loss", "pgd", joined=False).axes
    assert left.get_xticks().tolist() == [0, 1]
    assert left.containers[0].lines[0].get_linestyle() == "None"


# Files


def test_a_picture_is_a_wide_png_that_is_the_same_each_time():
    first, second = (png(confusion_figure([attacked(label=[0, 1], robust=[1, 0])], "net")) for _ in range(2))
    assert first == second
    with Image.open(io.BytesIO(first)) as image:
        assert image.format == "PNG"
        assert 800 <= image.width <= 2000


@pytest.mark.parametrize("name", ["a$x_1$b$", "_hidden", "名前", "line\nbreak", "\x1b[31m", "x" * 300])
def test_hostile_names_are_drawn_as_text(name):
    cell = attacked(attack=name, robust=[True, False])
    figure = accuracy_against_cost([cell], name)
    assert len(figure.axes[0].get_legend().get_texts()) == 1
    assert png(figure)[:4] == b"\x89PNG"
    assert "\n" not in plain(name)


def test_without_matplotlib_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(PicturesMissingError, match=re.escape("pip install 'robust-gauntlet[pictures]'")):
        accuracy_against_cost([attacked(robust=[True])], "net")


def test_matplotlib_is_imported_when_a_picture_is_drawn_and_pyplot_never():
    code = (
        "import sys\nfrom gauntlet.leaderboard.pictures import confusion, curves, examples, sweep_curves\n"
        "from gauntlet.leaderboard.pictures.canvas import new_figure, png\nprint('matplotlib' in sys.modules)\n"
        "figure = new_figure(2, 2)\nfigure.add_subplot()\npng(figure)\nprint('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


# gauntlet show


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """A project with a run of a fixed and a minimum-norm attack."""
    folder = tiny.write_project(tmp_path_factory.mktemp("pictures"))
    options = ("--model=model.py:build", "--data=data.npz", "--threat=Linf:0.1", "--attacks=fgsm,fmn(steps=20)")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert tiny.run_here("run", *options, "--out=out") == 0
    return folder


ROW = Path("out/pictures/model.build__none__Linf-0.1")


def test_show_pictures_writes_four_pictures_a_row(finished, call, monkeypatch):
    monkeypatch.chdir(finished)
    done = call("show", "out", "--pictures")
    assert done.returncode == 0, done.stderr
    names = ("confusion", "examples", "robust-against-cost", "robust-against-eps")
    assert sorted(path.name for path in ROW.iterdir() if "sample" not in path.name) == [f"{name}.png" for name in names]
    for name in names:
        assert f"written: {ROW / name}.png" in done.stdout


def test_a_picture_that_cannot_be_drawn_says_why_and_the_others_are_drawn(finished, call, monkeypatch):
    monkeypatch.chdir(finished)
    done = call("show", "out", "--pictures", "--attack=fgsm")
    assert done.returncode == 0, done.stderr
    assert "not drawn: robust-against-eps.png: no minimum-norm attack" in done.stdout
    (finished / "data.npz").rename(finished / "away.npz")
    try:
        done = call("show", "out", "--pictures")
    finally:
        (finished / "away.npz").rename(finished / "data.npz")
    assert done.returncode == 0, done.stderr
    assert "not drawn: examples.png: data file 'data.npz' does not exist" in done.stdout
    assert f"written: {ROW / 'confusion.png'}" in done.stdout


def test_images_that_are_not_those_of_the_run_are_not_shown_as_such(finished, call, monkeypatch, tiny):
    monkeypatch.chdir(finished)
    before = (finished / "data.npz").read_bytes()
    with np.load("data.npz") as arrays:
        np.savez_compressed("data.npz", images=1 - arrays["images"], labels=arrays["labels"])
    try:
        done = call("show", "out", "--pictures")
    finally:
        (finished / "data.npz").write_bytes(before)
    assert "has changed since the run" in done.stdout


def test_show_sample_tells_what_became_of_it_under_each_attack(finished, call, monkeypatch):
    monkeypatch.chdir(finished)
    from gauntlet.bench.run.run_folder import load_run

    run = load_run(Path("out"))
    samples = run.result(run.plan.cells[1]).blocks[0].samples
    place = int(np.flatnonzero(samples.correct & ~samples.robust)[0])
    name = str(samples.id[place])
    done = call("show", "out", "--sample", name, "--pictures")
    assert done.returncode == 0, done.stderr
    (told,) = [text for text in done.stdout.splitlines() if text.strip().startswith("fmn")]
    assert f"label {samples.label[place]}, clean correct" in told
    assert f"adversarial {samples.prediction[place]} at Linf {samples.distance[place]:.4g}, not robust" in told
    assert f"margin {samples.margin[place]:.4g}" in told
    picture = next(text.partition("written: ")[2] for text in done.stdout.splitlines() if "written" in text)
    assert Path(picture).is_file()
    assert f"picture: {picture}" in call("show", "out", "--sample", name).stdout


def test_a_randomised_model_shows_the_probability_of_success_with_its_interval(tiny, tmp_path, call, monkeypatch):
    monkeypatch.chdir(tiny.write_project(tmp_path, count=4))
    options = ("--model=model.py:build", "--data=data.npz", "--threat=Linf:0.3", "--attacks=fgsm")
    assert call("run", *options, "--defense=input_noise", "--out=out").returncode == 0
    from gauntlet.bench.run.run_folder import load_run

    run = load_run(Path("out"))
    samples = run.result(run.plan.cells[0]).blocks[0].samples
    told = call("show", "out", "--sample", str(samples.id[0])).stdout
    wrong = Proportion(round(20 * float(samples.wrong_share_scored[0])), 20)
    low, high = wrong.interval
    assert f"wrong in {100 * wrong.estimate:.1f} [{100 * low:.1f}, {100 * high:.1f}] % of 20 fresh draws" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model=x"], ["--pictures and --sample", "add one"]),
        (["--sample=nobody"], ["'nobody'", "ids are those of the data", "--sample"]),
        (["--pictures", "--attack=x"], ["attack 'x'", "--attack"]),
    ],
)
def test_wrong_options_of_show_name_the_way_out(finished, call, monkeypatch, arguments, words):
    monkeypatch.chdir(finished)
    done = call("show", "out", *arguments)
    assert done.returncode == 2
    for word in words:
        assert word in done.stderr
