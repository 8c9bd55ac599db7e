"""Which part of a run a shard is, by what is written and by what Slurm sets."""

from __future__ import annotations

import pytest

from gauntlet.bench.config.shard import Shard

ARRAY = {
    "SLURM_ARRAY_TASK_ID": "6",
    "SLURM_ARRAY_TASK_COUNT": "3",
    "SLURM_ARRAY_TASK_MIN": "4",
    "SLURM_ARRAY_TASK_STEP": "2",
}


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("cell", ["a", "b", "0123"])
def test_each_block_belongs_to_one_shard_and_all_have_as_many(count, cell):
    owned = [[block for block in range(20) if Shard(number, count).owns(cell, block)] for number in range(1, count + 1)]
    assert sorted(block for several in owned for block in several) == list(range(20))
    assert max(map(len, owned)) - min(map(len, owned)) <= 1


def test_cells_of_one_block_are_spread():
    cells = [f"cell {number}" for number in range(400)]
    counts = [sum(Shard(number, 4).owns(cell, 0) for cell in cells) for number in (1, 2, 3, 4)]
    assert sum(counts) == 400
    assert min(counts) > 60


@pytest.mark.parametrize(
    ("text", "environment", "shard"),
    [
        ("1/1", {}, Shard(1, 1)),
        ("3/8", ARRAY, Shard(3, 8)),
        ("auto", ARRAY, Shard(2, 3)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "2"}, Shard(1, 2)),
        ("auto", {**ARRAY, "SLURM_ARRAY_TASK_ID": "8"}, Shard(3, 3)),
    ],
)
def test_a_shard_is_read(text, environment, shard):
    assert Shard.parse(text, environment) == shard


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "1/0", "a/b", "-1/2", "1/2/3", "", "1.0/2", "1/1000000000000"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(ValueError, match=r"shard .* is not understood: write I/N"):
        Shard.parse(text, {})


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "needs SLURM_ARRAY_TASK_ID, which Slurm sets"),
        ({"SLURM_ARRAY_TASK_ID": "1"}, "needs SLURM_ARRAY_TASK_COUNT"),
        ({**ARRAY, "SLURM_ARRAY_TASK_ID": "x"}, "are no task of an array"),
        ({**ARRAY, "SLURM_ARRAY_TASK_STEP": "0"}, "are no task of an array"),
        ({**ARRAY, "SLURM_ARRAY_TASK_ID": "5"}, "is none of the 3 tasks from 4 in steps of 2"),
        ({**ARRAY, "SLURM_ARRAY_TASK_ID": "10"}, "is none of the 3 tasks"),
    ],
)
def test_what_slurm_did_not_set_is_named(environment, words):
    with pytest.raises(ValueError, match=words):
        Shard.parse("auto", environment)
