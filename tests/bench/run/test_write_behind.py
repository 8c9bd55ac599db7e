"""Writing behind the attack: order, overlap, errors, interrupts, and what is left behind."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest
import torch
from torch import nn

import gauntlet
from gauntlet.bench.run.evaluation import CellFailedError
from gauntlet.bench.run.write_behind import MOST, write_behind
from gauntlet.bench.worker import work
from gauntlet.bench.worker.attack_blocks import attack_blocks
from gauntlet.leaderboard.results.errors import WriteError
from gauntlet.leaderboard.results.store import Store


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


class Small(nn.Module):
    """A linear model that is interrupted at a call, if `stop` says so."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(16, 3)
        self.calls, self.stop = 0, 10**9

    def __deepcopy__(self, memo):
        return self

    def forward(self, images):
        self.calls += 1
        if self.calls > self.stop:
            raise KeyboardInterrupt
        return self.linear(images.flatten(1))


def evaluate(model, store):
    """Four blocks, attacked one after the other."""
    torch.manual_seed(1)
    x = torch.rand(400, 1, 4, 4)
    with torch.no_grad():
        y = model.linear(x.flatten(1)).argmax(1)
    return gauntlet.evaluate(
        model.eval(),
        x,
        y,
        threat="Linf:0.02",
        attacks="pgd(steps=3)",
        checks="none",
        seed=0,
        store=store,
        batch_size=25,
    )


def blocks(store):
    return {path.name: path.read_bytes() for path in store.rglob("*.parquet")}


def test_a_full_disk_ends_the_run_with_its_message_and_the_same_call_finishes_it(tmp_path, monkeypatch):
    whole = evaluate(Small(), tmp_path / "whole")
    add, tried = Store.add, []

    def full(self, key, block):
        tried.append(key)
        if len(tried) == 2:
            raise WriteError.of(self.path(key), OSError(28, "No space left on device"))
        return add(self, key, block)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "add", full)
        with pytest.raises(WriteError, match=r"No space left on device.*free disk space"):
            evaluate(Small(), tmp_path / "part")
    kept = blocks(tmp_path / "part")
    assert 1 <= len(kept) < 4
    finished = evaluate(Small(), tmp_path / "part")
    assert blocks(tmp_path / "part").items() >= kept.items()
    assert blocks(tmp_path / "part").keys() == blocks(tmp_path / "whole").keys()
    assert torch.equal(finished.robust, whole.robust)
    assert not writers()


def test_an_interrupt_keeps_every_block_that_was_finished(tmp_path, monkeypatch):
    model, finished = Small(), []

    def noted(*arguments):
        for record in attack_blocks(*arguments):
            finished.append(record.key)
            # Within the attack on the next block.
            model.stop = model.calls + 1 if len(finished) == 2 else model.stop
            yield record

    monkeypatch.setattr(work, "attack_blocks", noted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, tmp_path)
    assert len(finished) == 2
    assert {path.stem for path in tmp_path.rglob("*.parquet")} == set(finished)
    assert not writers()


def test_a_block_that_cannot_be_encoded_is_an_error_of_its_cell(tmp_path, monkeypatch):
    def fails(record):
        raise ValueError("no such type of column")

    monkeypatch.setattr(work, "to_bytes", fails)
    with pytest.raises(CellFailedError, match="ValueError: no such type of column"):
        evaluate(Small(), tmp_path)
    assert not blocks(tmp_path)
    assert not writers()
