"""`gauntlet run --shard`: parts of a run on several machines, which together are the run."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import gauntlet.bench.run.cell_runner as runner
from gauntlet.bench.cli.main import cli
from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.results.store import Store
from random_kills import events, start, was_killed
from run_tables import same_blocks, same_tables

ASK = ("--model=cnn.standard_digits,cnn.trades_digits", "--samples=0:350", "--device=cpu", "--checks=none")
SHORT = (*ASK, "--attacks=fgsm,pgd(steps=3)")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def gauntlet(*arguments, code=0, **environment):
    done = CliRunner(env={"GAUNTLET_SHARD": None, **environment}).invoke(cli, arguments)
    assert done.exit_code == code, (done.output, done.exc_info)
    return done.output


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "out"
    gauntlet("run", *SHORT, f"--out={folder}")
    return folder


def test_shards_of_one_folder_are_the_run(whole):
    for number in (2, 1, 3):
        said = gauntlet("run", *SHORT, f"--shard={number}/3")
        assert f"shard {number}/3: " in said
        assert "the same command without --shard makes the tables" in said
        assert not Path("gauntlet-results/leaderboard.csv").exists()
    assert Store(Path("gauntlet-results")).stored_keys() == Store(whole).stored_keys()
    assert len(list(Path("gauntlet-results").glob("runs/*/shards/*.json"))) == 3
    said = gauntlet("run", *SHORT)
    assert "4 cells: 4 answered from the store" in said
    same_tables("gauntlet-results", whole)
    # What the shards spent is part of what the cells cost.
    run = load_run(Path("gauntlet-results"))
    assert all(run.spent(cell).seconds["attack"] > 0 for cell in run.plan.cells)


def test_shards_with_folders_of_their_own_are_merged(whole):
    for number in (1, 2):
        gauntlet("run", *SHORT, f"--out=part{number}", GAUNTLET_SHARD=f"{number}/2")
    parts = [Store(Path(f"part{number}")).stored_keys() for number in (1, 2)]
    assert {*parts[0]} | {*parts[1]} == {*Store(whole).stored_keys()}
    assert not {*parts[0]} & {*parts[1]}
    # Each has a half of every cell, so that one large cell is divided, too.
    for number in (1, 2):
        run = load_run(Path(f"part{number}"))
        assert [len(run.result(cell).blocks) for cell in run.plan.cells] == [2] * 4
    gauntlet("merge", "joined", "part1", "part2")
    gauntlet("leaderboard", "joined")
    same_tables("joined", whole)


def test_verification_says_that_a_cell_is_unfinished():
    gauntlet("run", *SHORT, "--shard=1/2")
    said = gauntlet("verify", "gauntlet-results")
    assert "4 of 4 cells (4 of them unfinished), " in said
    gauntlet("run", *SHORT)
    assert "4 of 4 cells, " in gauntlet("verify", "gauntlet-results")


def test_a_shard_goes_on_and_leaves_others_alone():
    gauntlet("run", *SHORT, "--shard=1/2")
    before = set(Store(Path("gauntlet-results")).stored_keys())
    said = gauntlet("run", *SHORT, "--shard=1/2")
    assert "2 of 2 blocks stored, 2 of them before" in said
    assert set(Store(Path("gauntlet-results")).stored_keys()) == before


def test_replays_are_left_to_the_run_that_ends_the_work():
    ask = (*ASK, "--attacks=fgsm,replay")
    said = gauntlet("run", *ask, "--shard=1/2")
    assert "left to the run without a shard, which needs all blocks: 2 cells of replay" in said
    gauntlet("run", *ask, "--shard=2/2")
    assert "4 cells: 2 answered from the store" in gauntlet("run", *ask)


def test_what_is_measured_is_measured_by_the_first_shard(monkeypatch):
    ask = ("--model=cnn.standard_digits", "--samples=0:200", "--device=cpu", "--attacks=adaptive,fgsm")
    gauntlet("run", *ask, "--shard=1/2")
    files = {path: path.read_bytes() for path in Path("gauntlet-results/measured").rglob("*.json")}
    assert files
    gauntlet("run", *ask, "--shard=2/2")
    assert {path: path.read_bytes() for path in Path("gauntlet-results/measured").rglob("*.json")} == files


def test_a_failure_is_its_shards_until_the_cell_is_whole(monkeypatch):
    Path("net.py").write_text(
        "import os\nimport torch\n\n\nclass Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.layer = torch.nn.Linear(64, 10)\n        self.eval()\n\n    def forward(self, x):\n"
        "        if os.environ.get('FAILS'):\n            raise RuntimeError('the node is ill')\n"
        "        return self.layer(x.flatten(1))\n\n\ndef build():\n    torch.manual_seed(0)\n    return Net()\n"
    )
    ask = (
        "run",
        "--model=net.py:build,cnn.standard_digits",
        "--samples=0:200",
        "--device=cpu",
        "--checks=none",
        "--attacks=fgsm",
    )
    monkeypatch.setenv("FAILS", "1")
    failed = gauntlet(*ask, "--shard=1/2", code=1)
    assert "ERROR" in failed
    assert "PROBLEM" in failed
    (error,) = Path("gauntlet-results/errors").iterdir()
    assert error.name.endswith(".shard-1-of-2.json")
    monkeypatch.delenv("FAILS")
    gauntlet(*ask, "--shard=2/2")
    assert error.exists(), "another shard's success says nothing of it"
    gauntlet("leaderboard", "gauntlet-results")
    assert "the node is ill" in Path("gauntlet-results/leaderboard.md").read_text(encoding="utf-8")
    gauntlet(*ask)
    assert not list(Path("gauntlet-results/errors").iterdir())


def test_a_cell_that_cannot_be_prepared_and_a_shard_without_blocks_are_told_apart():
    Path("broken.py").write_text("def build():\n    raise RuntimeError('no weights here')\n", encoding="utf-8")
    broken = gauntlet("run", *ASK, "--attacks=noise", "--model=broken.py:build", "--shard=1/2", code=1)
    assert "shard 1/2: 4 of its 4 blocks are stored; 1 of the cells failed before their blocks were known" in broken
    said = [
        gauntlet(
            "run", "--samples=0:50", "--attacks=noise", "--model=cnn.ibp_digits", f"--shard={number}/2", "--out=few"
        )
        for number in (1, 2)
    ]
    counted = sorted(line for text in said for line in text.splitlines() if line.startswith("shard "))
    assert [line.partition(": ")[2].partition(" (")[0] for line in counted].count("none of the blocks is its own") == 1
    assert sum("1 of its 1 blocks are stored" in line for line in counted) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--shard=4/3",), "shard '4/3' is not understood: write I/N"),
        (("--shard=",), "--shard is empty: write I/N"),
        (("--shard=auto",), "needs SLURM_ARRAY_TASK_ID"),
        (("--shard=1/2", "--gate=b.json"), "--gate needs all of a run, and --shard=1/2 is a part"),
        (("--shard=1/2", "--profile"), "--profile needs all of a run"),
        (("--shard=1/2", "--allow-undecided"), "--allow-undecided needs all of a run"),
        (("--shard=", "--dry-run"), "--shard is empty: write I/N"),
        (("--shard=1/2", "--dry-run"), "--dry-run estimates all of a run"),
    ],
)
def test_what_a_shard_cannot_do_is_refused(arguments, words, monkeypatch, call):
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    refused = call("run", *SHORT, *arguments)
    assert refused.returncode == 2
    assert words in refused.stderr
    assert not Path("gauntlet-results").exists()


def test_a_shard_of_another_plan_is_the_latest_run():
    gauntlet("run", *SHORT)
    gauntlet("run", *ASK, "--attacks=noise", "--shard=1/2")
    assert [cell.attack.name for cell in load_run(Path("gauntlet-results")).plan.cells] == ["noise"] * 2


def test_a_configured_gate_is_said_not_to_be_applied_and_never_left_out_by_a_service(call, monkeypatch):
    Path("gauntlet.toml").write_text("[gate]\nbaseline = 'b.json'\n")
    ask = ("run", "--attacks=noise", "--samples=0:100", "--model=cnn.standard_digits", "--device=cpu", "--checks=none")
    done = call(*ask, "--shard=1/2")
    assert done.returncode == 0, done.stderr
    assert "Gate not applied: a shard judges nothing" in done.stderr
    monkeypatch.setenv("CI", "true")
    refused = call(*ask, "--shard=1/2")
    assert refused.returncode == 2
    assert "--shard=1/2 judges nothing, and the configuration has a gate: give --no-gate" in refused.stderr
    assert call(*ask, "--shard=1/2", "--no-gate").returncode == 0


def test_a_whole_run_anew_counts_its_own_seconds_alone():
    ask = (*ASK, "--attacks=noise")
    for number in (1, 2):
        gauntlet("run", *ask, f"--shard={number}/2")
    assert len(list(Path("gauntlet-results").glob("runs/*/spent/*.shard-*.json"))) == 4
    gauntlet("run", *ask, "--fresh")
    assert not list(Path("gauntlet-results").glob("runs/*/spent/*.shard-*.json"))


def test_a_shard_reads_its_own_blocks_alone(monkeypatch):
    gauntlet("run", *SHORT, "--shard=1/2")
    read = []
    stored = runner.stored_records

    def counted(blocks, store):
        found = stored(blocks, store)
        read.extend(found)
        return found

    monkeypatch.setattr(runner, "stored_records", counted)
    gauntlet("run", *SHORT, "--shard=2/2")
    assert read == []


@pytest.mark.slow
def test_shards_that_are_killed_lose_and_double_nothing(whole):
    clock, killed, out = random.Random(5), 0, Path("gauntlet-results")
    shards = [("run", *SHORT, f"--shard={number}/2") for number in (1, 2)]
    counts = [events(out, *shard) for shard in shards]
    shutil.rmtree(out)
    while killed < 30:
        both = [
            start(out, clock.randint(1, count), clock.uniform(0, 0.05), *shard)
            for shard, count in zip(shards, counts, strict=True)
        ]
        ends = [was_killed(process) for process in both]
        killed += sum(ends)
        if out.exists():
            same_blocks(out, whole, some=True)
        if not any(ends):
            for path in out.rglob("*.parquet"):
                if clock.random() < 0.5:
                    path.unlink()
    gauntlet("run", *SHORT)
    same_blocks("gauntlet-results", whole)
    same_tables("gauntlet-results", whole)
