"""A damaged list of a cell's blocks: a sentence that names the file, the other cells are shown, and a run mends it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gauntlet.bench.run.run_folder import load_run

RUN = (
    "run",
    "--model=model.py:build",
    "--data=data.npz",
    "--threat=Linf:0.1",
    "--attacks=fgsm,pgd(steps=2)",
    "--out=out",
)


@pytest.fixture(scope="module")
def honest(tiny, tmp_path_factory):
    folder = tiny.write_project(tmp_path_factory.mktemp("honest"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert tiny.run_here(*RUN) == 0
    return folder


def lists():
    """The lists of the two cells, in the order of the plan."""
    run = load_run(Path("out"))
    return [run.folder / "cells" / f"{cell.name}.json" for cell in run.plan.cells]


def edited(change):
    def damage(file, other):
        fields = json.loads(file.read_text())
        change(fields)
        file.write_text(json.dumps(fields))

    return damage


DAMAGES = {
    "empty": lambda file, other: file.write_bytes(b""),
    "cut off": lambda file, other: file.write_bytes(file.read_bytes()[:40]),
    "zeros": lambda file, other: file.write_bytes(bytes(200)),
    "no text": lambda file, other: file.write_bytes(b"\xff\xfe\x00\x01"),
    "nested deeply": lambda file, other: file.write_text("[" * 100_000),
    "a number": lambda file, other: file.write_text("5"),
    "a list of numbers": lambda file, other: file.write_text("[5, 20]"),
    "a number for a key": lambda file, other: file.write_text("[[5, 20]]"),
    "no keys": lambda file, other: file.write_text("{}"),
    "a path for a key": lambda file, other: file.write_text('[["../../secret", 20]]'),
    "no count": lambda file, other: file.write_text(json.dumps([["0" * 64]])),
    "a negative count": lambda file, other: file.write_text(json.dumps([["0" * 64, -1]])),
    "a truth value for a count": lambda file, other: file.write_text(json.dumps([["0" * 64, True]])),
    "that of another cell": lambda file, other: file.write_bytes(other.read_bytes()),
    "another count": edited(lambda fields: fields["blocks"][0].__setitem__(1, 29)),
    "another key": edited(lambda fields: fields["blocks"][0].__setitem__(0, "0" * 64)),
    "a block twice": edited(lambda fields: fields["blocks"].append(fields["blocks"][0])),
    "no blocks": edited(lambda fields: fields["blocks"].clear()),
    "a folder": lambda file, other: (file.unlink(), file.mkdir()),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_every_kind_of_damage_is_a_sentence_and_the_other_cell_is_shown(finished, call, kind):
    damaged, other = lists()
    DAMAGES[kind](damaged, other)
    shown = call("show", "out")
    assert shown.returncode == 1
    assert damaged.name in shown.stderr
    assert "run the same command again" in shown.stderr
    assert "fgsm: ERROR StoreError" in shown.stdout
    assert "pgd(steps=2): robust" in shown.stdout
    verified = call("verify", "out", "--trust")
    assert verified.returncode == 1
    assert any(line.startswith("FAILED") and damaged.name in line for line in verified.stdout.splitlines())
    assert any(line.startswith("ok") and "pgd" in line for line in verified.stdout.splitlines())
    for command in ("leaderboard", "compare"):
        done = call(command, "out")
        assert done.returncode in (1, 2)
        assert damaged.name in done.stderr
        assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("kind", [kind for kind in DAMAGES if kind != "a folder"])
def test_a_run_mends_it_and_computes_nothing_anew(finished, call, kind):
    before = call("show", "out").stdout
    damaged, other = lists()
    DAMAGES[kind](damaged, other)
    assert call(*RUN).returncode == 0
    assert call("show", "out").stdout == before


def test_a_list_of_an_earlier_version_is_read(finished, call):
    """Without a digest, as a bare list."""
    before = call("show", "out").stdout
    for file in lists():
        file.write_text(json.dumps(json.loads(file.read_text())["blocks"]))
    assert call("show", "out").stdout == before
    assert call("verify", "out", "--trust").returncode == 0
