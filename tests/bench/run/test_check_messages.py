"""What is checked of a worker's messages: whatever it sends, no record counts that was not asked for or is not whole."""

from __future__ import annotations

import dataclasses
from io import BytesIO
from pathlib import Path

import pytest

from gauntlet.bench.config.schema import load_config
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.run.engine import Engine
from gauntlet.bench.worker.messages import BlockRecord, PreparedCell, Tried
from gauntlet.leaderboard.results.block_file import from_file, to_bytes
from gauntlet.leaderboard.results.record import CellError

ASKED = {"model": ["model.py:build"], "data": "data.npz", "threat": ["Linf:0.1"], "attacks": ["fgsm"]}


@pytest.fixture
def engine(project):
    config = load_config(ASKED, folder=Path.cwd())
    return Engine(make_plan(config), config, command="gauntlet run")


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
