"""The stopwatch: every second belongs to the innermost part that was open, and to it alone."""

from __future__ import annotations

import pytest

from gauntlet.bench.environment import stopwatch as stopwatches
from gauntlet.bench.environment.stopwatch import Stopwatch, measured_by, note_stages, process_age, timed, timed_steps
from gauntlet.leaderboard.results.spent import Spent


class Clock:
    """It stands still unless it is moved."""

    at = 100.0

    def move(self, seconds):
        self.at += seconds


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(stopwatches, "synchronised_time", lambda: made.at)
    return made


def test_a_part_within_another_counts_for_itself_alone(clock):
    watch = Stopwatch()
    with measured_by(watch):
        clock.move(1)
        with timed("attack"):
            clock.move(2)
            with timed("verify"):
                clock.move(4)
            clock.move(8)
    clock.move(16)
    assert watch.spent == Spent({"other": 1.0, "attack": 10.0, "verify": 4.0})


def test_a_part_that_fails_counts_up_to_its_failure(clock):
    @timed("load")
    def load():
        clock.move(3)
        raise RuntimeError("broken")

    watch = Stopwatch()
    with pytest.raises(RuntimeError, match="broken"), measured_by(watch):
        load()
    with measured_by(watch):
        clock.move(5)
    assert watch.spent.seconds == {"other": 5.0, "load": 3.0}


def test_what_is_done_between_two_steps_is_not_theirs(clock):
    def steps():
        for step in range(3):
            clock.move(10)
            yield step

    watch, seen = Stopwatch(), []
    with measured_by(watch):
        for step in timed_steps("attack", steps()):
            clock.move(1)
            seen.append(step)
    assert seen == [0, 1, 2]
    assert watch.spent.seconds == {"other": 3.0, "attack": 30.0}


def test_nothing_is_measured_without_a_stopwatch(clock):
    with timed("load"):
        clock.move(1)
    note_stages({"margin": 1.0})
    watch = Stopwatch()
    with measured_by(watch):
        note_stages({"margin": 1.0})
        note_stages({"margin": 2.0, "square": 4.0})
    assert watch.spent.stages == {"margin": 3.0, "square": 4.0}
    assert watch.spent.seconds == {"other": 0.0}


def test_seconds_of_two_runs_add_up():
    total = Spent({"load": 1.0, "attack": 2.0}, {"margin": 2.0}) + Spent({"attack": 4.0, "store": 8.0}, {"square": 4.0})
    assert total == Spent({"load": 1.0, "attack": 6.0, "store": 8.0}, {"margin": 2.0, "square": 4.0})


def test_a_process_knows_its_age_where_the_system_says_it():
    age = process_age()
    assert age is None or age > 0
