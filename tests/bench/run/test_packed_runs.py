"""Runs that pack their cells: answered from packs, and repaired where a block of a pack is damaged."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import run_here, write_project

from gauntlet.bench.config.schema import load_config
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.run import engine as engine_module
from gauntlet.bench.run.engine import Engine

OPTIONS = {
    "model": ["model.py:build"],
    "data": "data.npz",
    "threat": ["Linf:0.1"],
    "attacks": ["fgsm"],
    "checks": "none",
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of 250 images in the working folder, whose cells are packed from two blocks on."""
    monkeypatch.chdir(write_project(tmp_path, count=250))
    monkeypatch.setattr(engine_module, "LEAST_BLOCKS", 2)


def run(notes=None):
    config = load_config(OPTIONS, folder=Path.cwd())
    engine = Engine(make_plan(config), config, command="gauntlet run", note=(notes if notes is not None else []).append)
    (cell,) = engine.run.plan.cells
    return engine.run, engine.cell(cell)


def verdicts(result):
    return [(block.key, block.samples.id.tolist(), block.samples.robust.tolist()) for block in result.blocks]


def test_a_cell_is_packed_at_its_end_and_answered_from_its_pack(project):
    first, made = run()
    assert not first.store.loose_keys()
    assert len(list((first.root / "packs").glob("*.parquet"))) == 1
    again, stored = run()
    assert verdicts(stored) == verdicts(made)
    assert all(block.cached for block in again.result(again.plan.cells[0]).blocks)
    assert not again.store.loose_keys()
    assert run_here("verify", first.root, "--trust") == 0


def test_a_damaged_block_of_a_pack_is_named_and_computed_again_as_a_file_of_its_own(project):
    first, made = run()
    (pack,) = (first.root / "packs").glob("*.parquet")
    group = pq.ParquetFile(pack).metadata.row_group(1)
    names = [group.column(number).path_in_schema for number in range(group.num_columns)]
    column = group.column(names.index("margin"))
    content = bytearray(pack.read_bytes())
    content[column.data_page_offset + column.total_compressed_size - 3] ^= 1
    pack.write_bytes(content)
    notes = []
    again, repaired = run(notes)
    assert verdicts(repaired) == verdicts(made)
    assert pack.name in notes[0]
    assert "computed again" in notes[0]
    assert again.store.loose_keys() == [made.blocks[1].key]
