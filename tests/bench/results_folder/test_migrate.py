"""`gauntlet migrate`, on a folder that version 0.1.0 wrote: two attacks, a certificate and a corruption on 24 digits."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.report.cells_csv import read_cells

ARCHIVE = Path(__file__).with_name("schema2.zip")


@pytest.fixture
def old(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "schema2"


def test_the_tables_are_those_of_the_version_that_wrote_it(old, call):
    then = pd.read_csv(old / "cells.csv").set_index("attack")
    refused = call("leaderboard", "schema2")
    assert refused.returncode != 0
    assert "schema 2" in refused.stderr
    assert "gauntlet migrate" in refused.stderr
    done = call("migrate", "schema2")
    assert done.returncode == 0, done.stderr
    assert "1 run, 4 blocks and 0 failures of cells lifted" in done.stdout
    assert call("leaderboard", "schema2").returncode == 0
    now = read_cells(old / "cells.csv").set_index("attack")
    assert set(now.index) == set(then.index)
    same = [name for name in then if name in now and name not in ("cached", "flags")]
    assert {"n", "robust_accuracy", "clean_accuracy", "seconds"} <= set(same)
    for name in same:
        left, right = then[name], now.loc[then.index, name]
        if left.dtype.kind == "f":
            right = pd.to_numeric(right.replace("", None))
            np.testing.assert_allclose(left.astype(float), right.astype(float), err_msg=name)


def test_records_have_the_fields_of_today(old, call):
    assert call("migrate", "schema2").returncode == 0
    run = load_run(old)
    found = {result.cell.attack: result for result in run.results()}
    assert found["pgd(steps=3)"].cell.techniques == {"": "white-box"}
    noise = found["corruption.gaussian_noise"]
    assert (noise.cell.role, noise.cell.severities) == ("corruption", (1, 2, 3, 4, 5))
    assert noise.blocks[0].cell.severities == (1, 2, 3, 4, 5)
    assert len(noise.blocks[0].samples.severities) == 24
    assert not noise.blocks[0].samples.stage
    assert found["certificate"].blocks[0].samples.certified is not None
    whole = run.result(run.plan.cells[1], adversarial=True).blocks[0].samples
    kept = np.array([image is not None for image in whole.adversarial])
    np.testing.assert_array_equal(kept, ~np.isnan(whole.distance))


def test_lifting_twice_changes_nothing(old, call):
    call("migrate", "schema2")
    files = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    again = call("migrate", "schema2")
    assert "0 runs, 0 blocks and 0 failures of cells lifted" in again.stdout
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == files


def test_a_damaged_block_is_named_and_left(old, call):
    victim = sorted(old.rglob("*.parquet"))[0]
    content = victim.read_bytes()[:-100]
    victim.write_bytes(content)
    done = call("migrate", "schema2")
    assert done.returncode == 1
    assert f"{victim.name} is damaged" in done.stdout
    assert "3 blocks" in done.stdout
    assert victim.read_bytes() == content


def test_a_failure_is_lifted(old, call):
    (block, *_) = json.loads((old / "runs").glob("*/run.json").__next__().read_text())["cells"]
    error = {"cell": block["info"], "kind": "OSError", "message": "no weights", "traceback": "", "provenance": {}}
    name = load_name(old)
    (old / "errors").mkdir()
    (old / "errors" / f"{name}.json").write_text(json.dumps(error))
    assert "1 failure of a cell lifted" in call("migrate", "schema2").stdout
    assert load_run(old).store.read_error(name).message == "no weights"


def load_name(old):
    return next((old / "runs").glob("*/cells/*.json")).stem


def test_other_folders_are_refused(old, call):
    refused = call("migrate", "nothing")
    assert refused.returncode == 2
    assert "nothing holds no runs" in refused.stderr
    plan = next((old / "runs").glob("*/run.json"))
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "schema": 1}))
    refused = call("migrate", "schema2")
    assert refused.returncode == 2
    assert "has schema 1" in refused.stderr
