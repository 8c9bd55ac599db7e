"""What is checked of a worker's messages: whatever it sends, no record counts that was not asked for or is not whole."""

from __future__ import annotations

import dataclasses
import json
from io import BytesIO
from pathlib import Path

import pytest

from gauntlet.bench.config.schema import load_config
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.run.cell_runner import prepare_cell
from gauntlet.bench.run.engine import Engine
from gauntlet.bench.run.plan_engine import planned
from gauntlet.bench.worker.messages import BlockRecord, PreparedCell, Tried, decode, encode
from gauntlet.bench.worker.request import Request
from gauntlet.leaderboard.results.block_file import from_file, to_bytes
from gauntlet.leaderboard.results.record import CellError

ASKED = {"model": ["model.py:build"], "data": "data.npz", "threat": ["Linf:0.1"], "attacks": ["fgsm"]}


@pytest.fixture
def engine(project):
    config = load_config(ASKED, folder=Path.cwd())
    return Engine(make_plan(config), config, command="gauntlet run")


class Timed:
    """A worker that notes when time is allowed, and for what it is used."""

    def __init__(self, worker):
        self.watch, self.device, self.versions, self.noted = None, worker.device, {}, []
        self._worker = worker

    def allow(self, seconds):
        self.noted.append(seconds)

    def work(self, request):
        self.noted.append(request.described.partition(" ")[0])
        yield from self._worker.work(request)


def test_preparing_takes_none_of_the_time_that_is_allowed_for_the_attack(engine):
    engine.config = dataclasses.replace(engine.config, timeout=60.0)
    engine.worker = worker = Timed(engine.worker)
    (cell,) = engine.run.plan.cells
    assert engine.cell(cell).error is None
    # Measurements that were stored meanwhile are taken by preparing once more.
    at = worker.noted.index("checking")
    assert worker.noted[0] == worker.noted[at - 1] == 60.0
    assert set(worker.noted[1 : at - 1]) == {"preparing"}
    assert worker.noted[-1] == "attacking"
    assert 60.0 not in worker.noted[at:]


class Altering:
    """A worker whose messages are changed on their way."""

    def __init__(self, worker, kind, change):
        self.watch, self.device, self.versions = None, worker.device, {}
        self._worker, self._kind, self._change = worker, kind, change

    def allow(self, seconds):
        pass

    def close(self):
        pass

    def work(self, request):
        for message in self._worker.work(request):
            if isinstance(message, self._kind):
                yield from self._change(message)
            else:
                yield message


def block(message, **changes):
    return dataclasses.replace(message, blocks=(dataclasses.replace(message.blocks[0], **changes),))


PREPARED = {
    "another cell": lambda m: dataclasses.replace(m, cell=dataclasses.replace(m.cell, model="other")),
    "another threat": lambda m: dataclasses.replace(m, cell=dataclasses.replace(m.cell, eps=0.01)),
    "a path as a key": lambda m: block(m, key="../../../x"),
    "a path as the name of a measurement": lambda m: dataclasses.replace(m, measured={"../x": {"form": ""}}),
    "a block twice": lambda m: dataclasses.replace(m, blocks=(*m.blocks, *m.blocks)),
    "a sample twice": lambda m: block(m, ids=(m.blocks[0].ids[0],) * m.blocks[0].size),
    "fewer ids than samples": lambda m: block(m, ids=m.blocks[0].ids[1:]),
    "no samples": lambda m: block(m, size=0, ids=(), indices=()),
    "a digest of other data": lambda m: dataclasses.replace(m, data="0" * 64),
    "another message": lambda m: Tried(),
}


@pytest.mark.parametrize("name", PREPARED)
def test_a_prepared_cell_that_is_not_the_requested_one_is_an_error(engine, name):
    engine.worker = Altering(engine.worker, PreparedCell, lambda message: [PREPARED[name](message)])
    (cell,) = engine.run.plan.cells
    found = engine.prepare(cell)
    assert isinstance(found, CellError), found
    assert found.kind == "WorkerMessageError"
    assert not list(Path("gauntlet-results").rglob("x*"))
    assert not Path("gauntlet-results/store").exists()


@pytest.mark.parametrize("blocks", [((0, 1),), ((3, 2),), ((2,), (3,)), ()])
def test_a_block_of_other_samples_than_those_of_the_request_is_an_error(engine, blocks):
    (cell,) = engine.run.plan.cells
    asked = Request(cell, blocks=((2, 3),))
    *_, other = engine.worker.work(Request(cell, blocks=blocks))
    _, right = prepare_cell(asked, engine.work, engine.run.store.measurements)
    assert [block.indices for block in right.blocks] == [(2, 3)]
    worker = Altering(engine.worker, PreparedCell, lambda message: [other])
    _, found = prepare_cell(asked, worker.work, engine.run.store.measurements)
    assert "other samples than those of the request" in found.message


def test_an_answer_without_a_message_is_an_error_of_the_cell(engine):
    engine.worker = Altering(engine.worker, PreparedCell, lambda message: [])
    (cell,) = engine.run.plan.cells
    found = engine.prepare(cell)
    assert (found.kind, found.message) == (
        "WorkerMessageError",
        f"the worker sent no answer while preparing {cell.info.title}",
    )
    with pytest.raises(RuntimeError, match="the worker sent no answer while"):
        planned(Altering(engine.worker, object, lambda message: []), engine.config)


WRONG_TYPES = {
    "a key": lambda f: f["prepared"]["blocks"][0].update(key=["x"]),
    "an id": lambda f: f["prepared"]["blocks"][0]["ids"].__setitem__(0, 7),
    "indices": lambda f: f["prepared"]["blocks"][0]["indices"].__setitem__(0, "0"),
    "a size": lambda f: f["prepared"]["blocks"][0].update(size=True),
    "blocks": lambda f: f["prepared"].update(blocks=[7]),
    "the cell": lambda f: f["prepared"]["cell"].update(eps="0.1"),
    "the classes of the cell": lambda f: f["prepared"]["cell"].update(classes=[1, 2]),
    "measurements": lambda f: f["prepared"].update(measured=[]),
    "a measurement": lambda f: f["prepared"].update(measured={"x": 1}),
    "notes": lambda f: f["prepared"].update(notes=[["x"]]),
    "published figures": lambda f: f["prepared"].update(published=[{"model": 1, "data": "x"}]),
    "a digest": lambda f: f["prepared"].update(data=None),
}


@pytest.mark.parametrize("name", WRONG_TYPES)
def test_a_field_of_another_type_is_no_message(engine, name):
    (cell,) = engine.run.plan.cells
    *_, message = engine.work(Request(cell))
    text, _ = encode(message)
    assert decode(text, b"") == message
    fields = json.loads(text)
    WRONG_TYPES[name](fields)
    with pytest.raises(TypeError):
        decode(json.dumps(fields), b"")


@pytest.mark.parametrize(
    "text",
    [
        '{"record": {"key": ["x"]}}',
        '{"progress": {"samples": "1"}}',
        '{"tried": {"broken": [1]}}',
        '{"tried": {"broken": [], "forwards": "1"}}',
        '{"drawn": {"reason": 1}}',
        '{"error": {"kind": 1, "message": "", "traceback": "", "provenance": {}}}',
        '{"error": {"kind": "", "message": "", "traceback": "", "provenance": []}}',
        '{"planned": {"cells": [], "skipped": [1]}}',
    ],
)
def test_no_message_has_a_field_of_another_type(text):
    with pytest.raises(TypeError):
        decode(text, b"")


def forged(message, **changes):
    record = from_file(BytesIO(message.content), adversarial=True)
    return BlockRecord(message.key, to_bytes(dataclasses.replace(record, **changes)))


def forged_samples(message, **changes):
    samples = from_file(BytesIO(message.content), adversarial=True).samples
    return forged(message, samples=dataclasses.replace(samples, **{k: make(samples) for k, make in changes.items()}))


RECORDS = {
    "a key that was not asked for": lambda m: [BlockRecord("0" * 64, m.content)],
    "a path as a key": lambda m: [BlockRecord("../../../x", m.content)],
    "the record of another key": lambda m: [forged(m, key="0" * 64)],
    "the record of another cell": lambda m: [
        forged(m, cell=dataclasses.replace(from_file(BytesIO(m.content)).cell, eps=1.0))
    ],
    "other samples": lambda m: [forged_samples(m, id=lambda samples: samples.id[::-1].copy())],
    "robust bits that contradict their shares": lambda m: [forged_samples(m, robust=lambda samples: samples.correct)],
    "damaged bytes": lambda m: [BlockRecord(m.key, m.content[:-40])],
    "no bytes": lambda m: [BlockRecord(m.key, b"")],
    "nothing": lambda m: [],
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_that_is_not_the_requested_one_is_an_error_and_not_stored(engine, name):
    engine.worker = Altering(engine.worker, BlockRecord, RECORDS[name])
    (cell,) = engine.run.plan.cells
    result = engine.cell(cell)
    assert result.error is not None
    assert not result.blocks
    assert not list(Path("gauntlet-results").rglob("*.parquet"))
    assert engine.run.store.read_error(cell.name) == result.error


def test_a_record_that_comes_twice_is_an_error_and_the_first_stands(engine):
    engine.worker = Altering(engine.worker, BlockRecord, lambda message: [message, message])
    (cell,) = engine.run.plan.cells
    result = engine.cell(cell)
    assert "was not due" in result.error.message
    assert len(result.blocks) == 1
