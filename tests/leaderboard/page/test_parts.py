"""The parts of a page that are plain data: axes, steps, the frontier, agreement, pictures."""

from __future__ import annotations

import base64
import io
import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from builders import bits, cell_info, result
from gauntlet.leaderboard.page.agreement import agreement
from gauntlet.leaderboard.page.chart import Axis, Chart, band, steps
from gauntlet.leaderboard.page.charts import frontier
from gauntlet.leaderboard.page.details import row_details
from gauntlet.leaderboard.page.pictures import LARGEST, picture_columns
from gauntlet.leaderboard.page.row_page import attack_lines
from gauntlet.leaderboard.pictures.eps_curve import eps_curve
from gauntlet.leaderboard.pictures.examples import ExampleColumn
from gauntlet.leaderboard.results.summary import summaries
from gauntlet.leaderboard.rows.closest_examples import BrokenSample
from gauntlet.leaderboard.rows.worst_case import row_key


def corners(path):
    """The corners of a path of relative commands."""
    x, y = map(int, re.match(r"M(-?\d+) (-?\d+)", path).groups())
    found = [(x, y)]
    for command, by in re.findall(r"([hv])(-?\d+)", path):
        x, y = (x + int(by), y) if command == "h" else (x, y + int(by))
        found.append((x, y))
    return found


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0, 100, False, ["0", "20", "40", "60", "80", "100"]),
        (0, 0.15, False, ["0", "0.025", "0.05", "0.075", "0.1", "0.125", "0.15"]),
        (1, 1000, True, ["1", "10", "100", "1000"]),
        (90, 1100, True, ["100", "200", "500", "1000"]),
        (130, 400, True, ["150", "200", "250", "300", "350", "400"]),
    ],
)
def test_ticks_are_round_and_few(low, high, log, expected):
    assert [text for _, text in Axis("x", low, high, log).ticks] == expected


@pytest.mark.parametrize(("low", "high"), [(2.4, 15.5), (24_000, 155_000), (1.01, 9.9), (1e6, 4e6), (0.0012, 0.0051)])
def test_texts_of_ticks_do_not_touch(low, high):
    ticks = Chart("", "", Axis("x", low, high, log=True), Axis("y", 0, 100)).x_ticks
    assert len(ticks) > 2
    for (at, text), (after, beside) in pairwise(ticks):
        assert float(after) - float(at) > 7 * (len(text) + len(beside)) / 2


def test_steps_hold_each_height_to_the_next_value_and_are_never_slanted():
    x, y = Axis("eps", 0, 1), Axis("share", 0, 100)
    found = corners(steps(x, y, [0.0, 0.25, 0.5], [100.0, 60.0, 20.0]))
    assert found == [(46, 10), (142, 10), (142, 110), (237, 110), (237, 210), (428, 210)]


def test_a_band_goes_along_the_upper_ends_and_back_along_the_lower_ends():
    x, y = Axis("eps", 0, 1), Axis("share", 0, 100)
    path = band(x, y, [0.0, 0.5], [80.0, 20.0], [100.0, 60.0])
    assert path.endswith("z")
    assert corners(path) == [(46, 10), (237, 10), (237, 110), (428, 110), (428, 210), (237, 210), (237, 60), (46, 60)]


def test_the_frontier_has_the_points_that_none_beats_in_both():
    points = [(1.0, 10.0), (2.0, 30.0), (3.0, 20.0), (3.0, 50.0), (4.0, 50.0), (0.5, 5.0)]
    assert frontier(points) == [(0.5, 5.0), (1.0, 10.0), (2.0, 30.0), (3.0, 50.0)]


def test_a_curve_is_the_nearest_example_of_the_minimum_norm_attacks():
    def cell(name, distances):
        return result(np.zeros(4, bool), cell_info("net", name, minimum_norm=True), distance=np.array(distances))

    other = result(np.zeros(4, bool), cell_info("net", "pgd"), distance=np.full(4, 0.01))
    curve = eps_curve([other, cell("fmn", [0.1, 0.3, np.nan, 0.2]), cell("ddn", [0.2, 0.1, 0.4, np.nan])])
    assert curve.attacks == ("fmn", "ddn")
    assert curve.eps.tolist() == [0.0, 0.1, 0.2, 0.4]
    assert curve.standing.tolist() == [4, 2, 1, 0]
    assert eps_curve([other]) is None


def test_the_confusion_counts_what_the_attacks_left_under_the_clean_prediction():
    label = np.array([0, 0, 1, 1])
    made = result(bits(4, 1), label=label, prediction=np.array([0, 1, 0, 1]), correct=np.array([1, 1, 1, 0], bool))
    found = row_details([made]).confusion
    assert found.counts == ((1, 1, 0), (1, 0, 1), (0, 0, 0))
    assert sorted(found.largest) == [("0", "1", 1, 2), ("1", "0", 1, 2), ("1", "2", 1, 2)]


def test_a_rejected_clean_image_is_taken_for_no_class():
    label = np.array([0, 1, 2])
    made = result(
        bits(3, 3),
        cell_info(rejects=True),
        label=label,
        prediction=np.array([0, 1, 2]),
        correct=np.array([1, 0, 1], bool),
        clean_prediction=np.array([0, -1, 2]),
    )
    found = row_details([made]).confusion
    assert found.counts == ((1, 0, 0), (0, 0, 0), (0, 0, 1))
    assert (found.largest, found.rejects) == ((), True)


def test_of_many_classes_only_the_most_frequent_confusions_are_kept():
    label = np.repeat([3, 90], 10)
    names = tuple(f"class {place}" for place in range(100))
    prediction = np.array([*[7] * 4, *[3] * 6, *[5] * 3, *[90] * 7])
    made = result(prediction == label, cell_info(classes=names), label=label, prediction=prediction)
    found = row_details([made]).confusion
    assert (found.names, found.counts) == ((), ())
    assert found.largest == (("class 3", "class 7", 4, 10), ("class 90", "class 5", 3, 10))


def test_agreement_counts_shared_and_lone_samples_over_rows_and_seeds():
    results = [
        result(np.array([0, 0, 0, 1, 1], bool), cell_info("a", "pgd")),
        result(np.array([1, 1, 1, 0, 1], bool), cell_info("a", "pgd", seed=1)),
        result(np.array([0, 1, 0, 1, 0], bool), cell_info("a", "square")),
        result(np.array([0, 1, 1, 1, 1], bool), cell_info("b", "pgd")),
        result((), cell_info("b", "square"), error="failed", expected=5),
    ]
    rows = {}
    for one in summaries(results):
        rows.setdefault(row_key(one.cell), []).append(one)
    found = agreement(list(rows), rows)
    assert found.labels == ("pgd", "square")
    # pgd breaks 0 to 3 of row a, square 0, 2 and 4; in row b square did not finish.
    assert [[(one.successes, one.n) for one in line] for line in found.shared] == [[(5, 5), (2, 4)], [(2, 3), (3, 3)]]
    assert found.alone == (3, 1)
    assert agreement(list(rows)[1:], rows) is None


def test_attacks_that_are_not_shown_count_where_an_attack_is_alone():
    cells = [result(bits(4, 3), cell_info("net", f"attack-{number}")) for number in range(17)]
    cells[0] = result(bits(4, 0), cell_info("net", "attack-0"))
    cells[16] = result(bits(4, 2), cell_info("net", "attack-16"))
    rows = {row_key(cells[0].cell): summaries(cells)}
    found = agreement(list(rows), rows)
    assert (len(found.labels), found.attacks) == (15, 17)
    assert found.alone == (2, *[0] * 14)


def test_seeds_of_an_attack_are_alone_together():
    cells = [
        result(np.array([0, 0, 1, 1], bool), cell_info("a", "pgd")),
        result(np.array([0, 0, 0, 1], bool), cell_info("a", "pgd", seed=1)),
        result(np.array([1, 0, 1, 0], bool), cell_info("a", "square")),
    ]
    assert [line.alone for line in attack_lines(summaries(cells))] == [1, 2, 1]


def test_pictures_are_small_and_magnify_the_change():
    clean = np.full((3, 200, 100), 0.5, np.float32)
    changed = clean.copy()
    changed[0, :, :50] += 0.1
    sample = BrokenSample("s1", 1, 2, 0.1, "pgd", 0)
    (made,) = picture_columns([ExampleColumn(sample, clean, changed)], ("cat", "dog"))
    assert (made.label, made.prediction) == ("dog", "2")

    def pixels(address):
        assert address.startswith("data:image/png;base64,")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))

    assert pixels(made.clean).shape == (LARGEST, LARGEST // 2, 3)
    change = pixels(made.perturbation)
    assert change[10, 2].tolist() == [255, 128, 128]
    assert change[10, -3].tolist() == [128, 128, 128]
