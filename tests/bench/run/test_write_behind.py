"""Writing behind the attack: order, overlap, errors, interrupts, and what is left behind."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest

from gauntlet.bench.run.write_behind import MOST, write_behind


def writers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("gauntlet-write")]


def test_items_are_written_in_order_by_one_thread():
    written, threads = [], set()

    def write(number):
        threads.add(threading.current_thread())
        written.append(number)

    with write_behind(write) as put:
        for number in range(50):
            put(number)
    assert written == list(range(50))
    assert len(threads) == 1
    assert threading.main_thread() not in threads
    assert not writers()


def test_the_caller_goes_on_while_an_item_is_written_and_waits_where_too_many_are_due():
    release, going_on, largest = threading.Event(), threading.Event(), []

    def write(number):
        # Without overlap nobody would be there to say so.
        assert going_on.wait(60)
        largest.append(max(made) - number)

    made = []
    with write_behind(write) as put:
        for number in range(10):
            made.append(number)
            put(number)
            if number == MOST - 1:
                going_on.set()
    # The one that waits to be put is made already.
    assert max(largest) <= MOST
    assert not release.is_set()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_whatever_ends_the_context_all_items_are_written(error):
    written, ended = [], threading.Event()

    def write(number):
        assert ended.wait(60)
        written.append(number)

    def run():
        with write_behind(write) as put:
            for number in range(MOST):
                put(number)
            ended.set()
            raise error("in the middle of the next one")

    with pytest.raises(error, match="in the middle of the next one"):
        run()
    assert written == list(range(MOST))
    assert not writers()


def test_an_error_of_writing_is_raised_by_a_later_call():
    made = []

    def write(number):
        raise OSError(f"no space left for {number}")

    def run():
        with write_behind(write) as put:
            for number in range(100):
                put(number)
                made.append(number)

    with pytest.raises(OSError, match="no space left for 0"):
        run()
    assert len(made) <= MOST
    assert not writers()


def test_an_error_of_writing_the_last_item_is_raised_at_the_end():
    def write(number):
        if number == 3:
            raise OSError("no space left")

    def run():
        with write_behind(write) as put:
            for number in range(4):
                put(number)

    with pytest.raises(OSError, match="no space left"):
        run()


def test_an_error_of_the_caller_is_not_hidden_by_one_of_writing():
    ended = threading.Event()

    def write(number):
        assert ended.wait(60)
        raise OSError("no space left")

    def run():
        with write_behind(write) as put:
            put(0)
            ended.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    with suppress(OSError), write_behind(write) as put:
        put(1)
    assert not writers()
