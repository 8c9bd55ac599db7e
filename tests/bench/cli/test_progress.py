"""The bars of a run: they move with the work within a cell, and count finished samples."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from gauntlet.bench.cli.progress import progress_bars


@pytest.fixture
def bars():
    with progress_bars(4, Console(file=io.StringIO(), force_terminal=True, width=100)) as made:
        yield made


def cell(bars):
    """Completed samples of the cell's bar, and its count."""
    task = bars._progress.tasks[-1]
    return task.completed, task.fields["count"]


def cells(bars):
    task = bars._progress.tasks[0]
    return task.completed, task.fields["count"]


def test_a_bar_moves_with_the_work_between_finished_samples(bars):
    bars.begin("cnn × none × pgd", 100)
    assert cell(bars) == (0, "0/100")
    bars.work(0.25)
    assert cell(bars) == (25, "0/100")
    assert cells(bars) == (0.25, "0/4")
    bars.advance(40)
    assert cell(bars) == (40, "40/100"), "never less than what is finished"
    bars.work(0.75)
    assert cell(bars) == (75, "40/100")
    bars.end("robust 50.0 % of 100")
    assert cells(bars) == (1, "1/4")


def test_the_work_is_that_on_samples_that_were_not_stored(bars):
    bars.begin("cnn × none × pgd", 200)
    bars.advance(100)
    bars.work(0.5)
    assert cell(bars) == (150, "100/200")


def test_a_cell_of_unknown_size_and_one_without_work_have_bars_too(bars):
    bars.begin("[red]unknown[/]", None)
    bars.work(0.5)
    bars.advance(3)
    assert cell(bars) == (3, "3/?")
    bars.end("ERROR no data")
    bars.begin("torchattacks.PGD", 10)
    bars.advance(10)
    assert cell(bars) == (10, "10/10")
    assert cells(bars) == (2, "1/4")


def test_the_size_of_a_cell_may_become_known_once_it_is_prepared(bars):
    bars.begin("cnn × none × pgd", None)
    bars.total(200)
    assert cell(bars) == (0, "0/200")
    bars.advance(100)
    bars.work(0.5)
    assert cell(bars) == (150, "100/200")
    assert cells(bars) == (0.75, "0/4")
