"""A store that other code may write into: what counts is what was found at first, and what was stored since."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

from builders import record, samples
from gauntlet.leaderboard.results.block_file import to_bytes
from gauntlet.leaderboard.results.errors import DamagedBlockError, StoreError
from gauntlet.leaderboard.results.held import Timing
from gauntlet.leaderboard.results.record import CellError
from gauntlet.leaderboard.results.sealed_json import sealed
from gauntlet.leaderboard.results.store import Store

FOUND, MADE, PLANTED = (record(samples(bits)) for bits in ([True, False], [False, True, True], [True, True]))


@pytest.fixture
def held(tmp_path):
    """A store that holds one block which was there before."""
    Store(tmp_path).write(FOUND)
    return Store.holding(tmp_path)


def weaker(block):
    """The same block with every sample robust: another outcome under the same key."""
    return dataclasses.replace(record(samples([True] * len(block.samples))), key=block.key)


def test_blocks_of_before_and_of_this_process_are_read(held):
    assert held.write(MADE)
    assert not held.write(MADE)
    for block in (FOUND, MADE):
        assert held.has(block.key)
        np.testing.assert_array_equal(held.read(block.key).samples.robust, block.samples.robust)
    assert held.stored_keys() == sorted([FOUND.key, MADE.key])


def test_a_block_that_appears_later_is_not_there(held):
    Store(held.root).write(PLANTED)
    assert not held.has(PLANTED.key)
    assert PLANTED.key not in held.stored_keys()
    with pytest.raises(DamagedBlockError, match="was replaced"):
        held.read(PLANTED.key)


@pytest.mark.parametrize("block", [FOUND, MADE])
def test_a_block_that_is_replaced_is_not_read(held, block):
    held.write(MADE)
    held.path(block.key).write_bytes(to_bytes(weaker(block)))
    Store(held.root).read(block.key)
    with pytest.raises(DamagedBlockError, match="was replaced"):
        held.read(block.key)


def test_a_planted_block_of_another_outcome_is_put_aside_for_the_one_that_was_made(held):
    Store(held.root).write(weaker(MADE))
    assert held.write(MADE)
    assert list(held.root.glob("damaged/*"))
    for store in (held, Store(held.root)):
        np.testing.assert_array_equal(store.read(MADE.key).samples.robust, MADE.samples.robust)


def test_a_planted_block_that_is_damaged_is_put_aside_too(held):
    held.path(MADE.key).parent.mkdir(parents=True, exist_ok=True)
    held.path(MADE.key).write_bytes(b"no block")
    assert held.write(MADE)
    np.testing.assert_array_equal(Store(held.root).read(MADE.key).samples.robust, MADE.samples.robust)


def test_the_same_block_of_another_process_stays_and_this_ones_counts(held):
    other = dataclasses.replace(MADE, provenance={"time": "earlier"})
    Store(held.root).write(other)
    assert held.write(dataclasses.replace(MADE, provenance={"time": "mine"}))
    assert held.has(MADE.key)
    assert held.read(MADE.key).provenance["time"] == "mine"
    assert Store(held.root).read(MADE.key).provenance["time"] == "earlier"
    assert not list(held.root.glob("damaged/*"))


def test_a_block_that_was_damaged_before_is_noticed_and_computed_again(tmp_path):
    Store(tmp_path).write(FOUND)
    content = Store(tmp_path).path(FOUND.key).read_bytes()
    Store(tmp_path).path(FOUND.key).write_bytes(content[:-20])
    held = Store.holding(tmp_path)
    assert held.has(FOUND.key)
    with pytest.raises(DamagedBlockError):
        held.read(FOUND.key)
    held.set_aside(FOUND.key)
    assert not held.has(FOUND.key)
    assert held.write(FOUND)
    np.testing.assert_array_equal(held.read(FOUND.key).samples.robust, FOUND.samples.robust)


def test_errors_and_timings_are_those_of_this_process(held):
    error = CellError(FOUND.cell, "RuntimeError", "no")
    held.write_error("cell", error)
    held.note_timing(FOUND.key, Timing(1.0, 2.0, "now"))
    shutil.rmtree(held.root / "errors")
    (held.root / "timings" / FOUND.key[:2] / f"{FOUND.key}.json").write_text("{}")
    assert held.read_error("cell") == error
    assert held.timing(FOUND.key) == Timing(1.0, 2.0, "now")
    held.clear_error("cell")
    Store(held.root).write_error("cell", error)
    assert held.read_error("cell") is None


def test_errors_of_before_stay_until_their_cell_succeeds_and_later_files_change_none(tmp_path):
    error = CellError(FOUND.cell, "RuntimeError", "no")
    for name in ("one", "two.shard-1-of-2", "two.shard-2-of-2"):
        Store(tmp_path).write_error(name, error)
    (tmp_path / "errors" / "damaged.json").write_text("{")
    held = Store.holding(tmp_path)
    shutil.rmtree(tmp_path / "errors")
    Store(tmp_path).write_error("later", error)
    assert [held.read_error(name) for name in ("one", "two", "later", "damaged")] == [error, error, None, None]
    for name in ("one", "two"):
        held.clear_error(name)
        assert held.read_error(name) is None


def test_measurements_of_before_and_of_this_process_count_and_no_file_that_appears_later(held):
    Store(held.root).measurements.settle("pipeline", "before", {"flags": [["zero-gradient"]]})
    again = Store.holding(held.root).measurements
    for key in ("before", "made", "planted"):
        path = held.root / "measured" / "pipeline" / f"{key}.json"
        path.write_text(sealed({"flags": []}, f"pipeline/{key}"))
    assert again.of_cell("pipeline") == {"before": {"flags": [["zero-gradient"]]}}
    assert again.settle("pipeline", "before", {"flags": []}) == {"flags": [["zero-gradient"]]}
    assert again.settle("pipeline", "made", {"flags": [["noise"]]}) == {"flags": [["noise"]]}
    assert again.of_cell("pipeline").keys() == {"before", "made"}
    # What this process measured stands in the place of what was planted.
    assert Store(held.root).measurements.of_cell("pipeline")["made"] == {"flags": [["noise"]]}


def test_machines_that_share_a_folder_may_agree_on_the_measurement_that_was_stored_first(tmp_path):
    one, other = (Store.holding(tmp_path, measured=False).measurements for _ in range(2))
    assert one.settle("pipeline", "key", {"form": "float32"}) == {"form": "float32"}
    assert other.settle("pipeline", "key", {"form": "bf16"}) == {"form": "float32"}
    assert other.of_cell("pipeline") == {"key": {"form": "float32"}}


def test_a_measurement_that_was_damaged_before_is_an_error_of_its_pipeline_alone(tmp_path):
    for name in ("damaged", "whole"):
        Store(tmp_path).measurements.settle(name, "key", {"form": "float32"})
    (tmp_path / "measured" / "damaged" / "key.json").write_text("{}")
    measurements = Store.holding(tmp_path).measurements
    assert measurements.of_cell("whole") == {"key": {"form": "float32"}}
    with pytest.raises(StoreError, match=r"key\.json is damaged"):
        measurements.of_cell("damaged")


def test_failures_and_measurements_are_read_while_other_cells_add_theirs(held):
    class Name(str):
        """A name that another one joins while it is looked at."""

        __slots__ = ()

        def startswith(self, *given):
            held.held.errors[f"{self}-beside"] = None
            return super().startswith(*given)

    class Measured(dict):
        @property
        def __class__(self):
            held.measurements.settle("pipeline", "beside", {"form": "bf16"})
            return dict

    error = CellError(FOUND.cell, "ValueError", "no such layer")
    held.held.errors.update({Name("one"): error, Name("two"): None})
    assert held.read_error("three") is None
    assert held.read_error("one") == error
    held.measurements.settle("pipeline", "key", Measured(form="float32"))
    held.measurements.settle("pipeline", "other", Measured(form="float32"))
    assert {"key", "other"} <= held.measurements.of_cell("pipeline").keys()
    assert "beside" in held.measurements.of_cell("pipeline")
