"""Several workers as one: every block once, whatever becomes of a worker. The workers here are made up."""

from __future__ import annotations

import itertools
import threading
from collections import Counter

import pytest

from gauntlet.bench.cluster import shared_request, worker_pool
from gauntlet.bench.cluster.worker_pool import MAX_RETRIES, WorkerPool
from gauntlet.bench.config.schema import ConfigError, load_config
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.worker.messages import BlockRecord, Failure, PreparedCell, Progress
from gauntlet.bench.worker.process_worker import ENDED
from gauntlet.bench.worker.request import Request, StoredLogits

KEYS = tuple(f"{number:064x}" for number in range(12))
DIED = Failure(ENDED, "the worker ended with signal 9 (SIGKILL)", "", {})


class Worker:
    """A worker that answers as `answer(worker, request)` says."""

    def __init__(self, number, answer, versions=None):
        self.number, self.answer, self.watch = number, answer, None
        self.device, self.versions = "made up", versions or {"gauntlet": "1"}
        self.interrupted = threading.Event()
        self.closed, self.limit = False, None

    def work(self, request):
        yield from self.answer(self, request)

    def allow(self, seconds):
        self.limit = seconds

    def interrupt(self):
        self.interrupted.set()

    def close(self):
        self.closed = True


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    config = load_config({"model": "cnn.standard_digits", "attacks": "fgsm"}, folder=tmp_path_factory.mktemp("none"))
    return make_plan(config).cells[0]


@pytest.fixture
def pool(monkeypatch):
    """A function that makes a pool of workers with this answer."""
    monkeypatch.setattr(worker_pool, "_LOOK", 0.01)
    pools = []

    def make(answer, count=2, **given):
        numbers = itertools.count()
        workers = []

        def one():
            worker = given["make"](next(numbers)) if "make" in given else Worker(next(numbers), answer)
            workers.append(worker)
            return worker

        pools.append(WorkerPool(one, given.get("capacity", lambda: count)))
        pools[-1].workers = workers
        return pools[-1]

    yield make
    for one in pools:
        one.close()
        assert all(worker.closed for worker in one.workers)


def prepared(request):
    return PreparedCell(request.cell.info, ())


def answered(worker, request):
    yield prepared(request)
    for number, key in enumerate(request.run, 1):
        worker.watch(number / len(request.run))
        yield BlockRecord(key, key.encode())
        yield Progress(1)


def keys(messages):
    return Counter(message.key for message in messages if isinstance(message, BlockRecord))


def test_every_block_comes_once_and_all_workers_have_some(pool, cell):
    both = threading.Barrier(2, timeout=20)
    had = Counter()

    def answer(worker, request):
        if worker.number not in had:
            had[worker.number] += 1
            both.wait()
        had[worker.number] += len(request.run)
        yield from answered(worker, request)

    shares = []
    workers = pool(answer)
    workers.watch = shares.append
    messages = list(workers.work(Request(cell, run=KEYS)))
    assert keys(messages) == Counter(KEYS)
    assert sum(isinstance(message, PreparedCell) for message in messages) == 1
    assert sum(message.samples for message in messages if isinstance(message, Progress)) == len(KEYS)
    assert sorted(had) == [0, 1]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


def test_what_a_dead_worker_had_is_done_once_more_but_for_what_came(pool, cell):
    asked, lock, died = Counter(), threading.Lock(), []

    def answer(worker, request):
        with lock:
            asked.update(request.run)
            kills = KEYS[0] in request.run and not died
            died.extend([worker] * kills)
        for number, message in enumerate(answered(worker, request)):
            # After the prepared cell, the first block and its progress.
            if kills and number == 3:
                yield DIED
                return
            yield message

    messages = list(pool(answer).work(Request(cell, run=KEYS)))
    assert died
    assert keys(messages) == Counter(KEYS)
    assert not any(isinstance(message, Failure) for message in messages)
    assert asked[KEYS[0]] == 1, "the block that came is not done again"
    assert {asked[key] for key in KEYS[1:6]} == {2}
    assert {asked[key] for key in KEYS[6:]} == {1}


def test_a_worker_that_dies_after_its_answer_has_answered(pool, cell):
    calls = []

    def answer(worker, request):
        calls.append(request)
        yield from answered(worker, request)
        yield DIED

    assert keys(pool(answer).work(Request(cell, run=KEYS[:4]))) == Counter(KEYS[:4])
    assert list(pool(answer).work(Request(cell))) == [prepared(Request(cell))]
    assert len(calls) == 2 + 1


def test_code_that_kills_every_worker_is_a_failure_in_the_end(pool, cell):
    tried = []

    def answer(worker, request):
        tried.append(worker)
        yield DIED

    assert list(pool(answer, 1).work(Request(cell))) == [DIED]
    assert len(tried) == 1 + MAX_RETRIES


def test_an_exception_is_the_last_message_and_is_not_tried_again(pool, cell):
    failure = Failure("ValueError", "no such layer", "", {})
    other = threading.Event()
    asked = []

    def answer(worker, request):
        asked.append(request)
        if KEYS[0] in request.run:
            assert other.wait(20)
            yield failure
            return
        if KEYS[6] in request.run:
            other.set()
        yield from answered(worker, request)

    messages = list(pool(answer).work(Request(cell, run=KEYS)))
    assert messages[-1] == failure
    assert set(KEYS[6:]) == set(keys(messages)), "what the other worker has finished is kept"
    assert sum(KEYS[0] in request.run for request in asked) == 1


def test_nothing_is_attacked_before_the_model_gave_the_stored_logits(pool, cell):
    failure = Failure("StoredResultError", "does not reproduce", "", {})

    def answer(worker, request):
        assert not request.run
        yield prepared(request)
        yield failure

    request = Request(cell, run=KEYS, expected=StoredLogits(0, ((0.0, 1.0),)))
    assert list(pool(answer).work(request)) == [prepared(request), failure]

    seen = []

    def same(worker, request):
        seen.append((bool(request.run), request.expected is None))
        yield from answered(worker, request)

    assert keys(pool(same).work(request)) == Counter(KEYS)
    assert seen[0] == (False, False)
    assert set(seen[1:]) == {(True, True)}


def test_two_requests_are_worked_on_at_once(pool, cell):
    both = threading.Barrier(2, timeout=20)

    def answer(worker, request):
        both.wait()
        yield prepared(request)

    workers, ended = pool(answer), []
    threads = [threading.Thread(target=lambda: ended.extend(workers.work(Request(cell)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == [prepared(Request(cell))] * 2


def test_workers_of_other_versions_are_not_used(pool, cell, caplog):
    used = set()

    def answer(worker, request):
        used.add(worker.number)
        yield from answered(worker, request)

    def make(number):
        return Worker(number, answer, {"gauntlet": "1" if number == 0 else "2"})

    workers = pool(None, capacity=lambda: 1, make=make)
    assert workers.versions == {"gauntlet": "1"}
    workers._capacity = lambda: 2
    while workers.size == 1 and not caplog.text:
        list(workers.work(Request(cell)))
    assert keys(workers.work(Request(cell, run=KEYS))) == Counter(KEYS)
    assert used == {0}


def test_a_machine_that_joins_gets_work(pool, cell, monkeypatch):
    monkeypatch.setattr(shared_request, "_MOST", 4)
    joined = threading.Event()
    capacity = [1]

    def answer(worker, request):
        if worker.number == 1:
            joined.set()
        elif request.run:
            # The first worker waits until the second one is at work.
            capacity[0] = 2
            assert joined.wait(20)
        yield from answered(worker, request)

    messages = list(pool(answer, capacity=lambda: capacity[0]).work(Request(cell, run=KEYS)))
    assert keys(messages) == Counter(KEYS)
    assert joined.is_set()


def test_workers_that_cannot_start_are_wrong_usage(pool, cell):
    class Broken(Worker):
        @property
        def device(self):
            raise ConfigError("device 'cuda' is not available")

        @device.setter
        def device(self, value):
            pass

    workers = pool(None, make=lambda number: Broken(number, None))
    with pytest.raises(ConfigError, match="is not available"):
        _ = workers.device
    (failure,) = workers.work(Request(cell))
    assert (failure.usage, failure.kind) == (True, "ConfigError")


def test_a_stop_keeps_what_has_arrived(pool, cell):
    begun, stop = threading.Event(), threading.Event()

    def answer(worker, request):
        yield from itertools.islice(answered(worker, request), 2)
        begun.set()
        worker.interrupted.wait(20)
        yield DIED

    workers, got = pool(answer, 1), []

    def run():
        messages = workers.work(Request(cell, run=KEYS))
        got.append(next(messages))
        assert stop.wait(20)
        try:
            got.extend(iter(lambda: next(messages), None))
        except KeyboardInterrupt:
            got.append("stopped")

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(20)
    closing = threading.Thread(target=workers.close)
    closing.start()
    stop.set()
    closing.join()
    thread.join()
    assert [type(one) for one in got] == [PreparedCell, BlockRecord, str]


def test_a_request_that_is_left_ends_its_worker_and_no_other(pool, cell):
    begun, finish = threading.Event(), threading.Event()

    def answer(worker, request):
        yield prepared(request)
        if request.run:
            begun.set()
            worker.interrupted.wait(20)
            yield DIED
        else:
            finish.wait(20)

    workers = pool(answer)
    left = workers.work(Request(cell, run=KEYS[:1]))
    next(left)
    assert begun.wait(20)
    other = workers.work(Request(cell))
    next(other)
    left.close()
    finish.set()
    assert list(other) == []
    assert sum(worker.interrupted.is_set() for worker in workers.workers) == 1


def test_an_exception_that_nobody_expected_is_a_failure_and_the_worker_goes_on(pool, cell):
    def answer(worker, request):
        if request.run:
            raise OverflowError("int too large to convert to float")
        yield prepared(request)

    workers = pool(answer, 1)
    (failure,) = workers.work(Request(cell, run=KEYS))
    assert (failure.kind, failure.message) == ("OverflowError", "int too large to convert to float")
    assert "in answer" in failure.traceback
    assert list(workers.work(Request(cell))) == [prepared(Request(cell))]


def test_the_time_limit_holds_between_two_tasks_as_well(pool, cell):
    limits = []

    class Asked(Worker):
        @property
        def versions(self):
            limits.append(self.limit)
            return {"gauntlet": "1"}

        @versions.setter
        def versions(self, value):
            pass

    workers = pool(None, capacity=lambda: 1, make=lambda number: Asked(number, answered))
    workers.allow(5.0)
    for _ in range(2):
        list(workers.work(Request(cell)))
    # The first look was perhaps before the limit was given.
    assert limits[1] == 5.0


def test_a_worker_that_ended_counts_no_more_once_its_machine_is_gone(pool, cell):
    capacity, looked, joined = [2], threading.Semaphore(0), threading.Event()

    def look():
        looked.release()
        return capacity[0]

    def make(number):
        if number == 2:
            joined.set()
        return Worker(number, answered, {"gauntlet": "2" if number == 1 else "1"})

    def two_looks():
        while looked.acquire(blocking=False):
            pass
        for _ in range(2):
            assert looked.acquire(timeout=20)

    workers = pool(None, capacity=look, make=make)
    assert workers.versions
    while workers.size == 2:
        list(workers.work(Request(cell)))
    two_looks()
    assert not joined.is_set(), "a machine whose worker is of no use is not tried again"
    capacity[0] = 1
    two_looks()
    capacity[0] = 2
    assert joined.wait(20)
