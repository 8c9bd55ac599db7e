"""`examples/slurm`: the two jobs' shell, run as Slurm runs it, with the variables that it sets."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builders import ROOT
from gauntlet.leaderboard.report.cells_csv import read_cells

EXAMPLE = ROOT / "examples" / "slurm"


@pytest.fixture
def jobs(tmp_path):
    """A copy of the example with a smaller plan, and `gauntlet` on the path."""
    if not EXAMPLE.is_dir():
        pytest.skip("the examples are not part of an installation")
    shutil.copytree(EXAMPLE, tmp_path / "jobs")
    plan = tmp_path / "jobs" / "gauntlet.toml"
    plan.write_text(plan.read_text().replace("pgd(steps=20)", "pgd(steps=2)").replace("0:400", "0:250"))
    command = tmp_path / "bin" / "gauntlet"
    command.parent.mkdir()
    command.write_text(
        f'#!/bin/bash\nexec {sys.executable} -c "from gauntlet.bench.cli.main import main; main()" "$@"\n'
    )
    command.chmod(0o755)
    return tmp_path / "jobs"


def submitted(folder, job, **variables):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GAUNTLET_", "SLURM_"))}
    path = f"{folder.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", job],
        cwd=folder,
        env={**kept, "PATH": path, "SLURM_CPUS_PER_TASK": "1", "CUDA_VISIBLE_DEVICES": "", **variables},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_array_and_the_collecting_job_are_the_run(jobs):
    for task in (1, 2):
        array = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "1"}
        said = submitted(jobs, "shards.sbatch", **array)
        assert f"shard {task}/2: " in said
        assert "left to the run without a shard, which needs all blocks: 2 cells of replay" in said
    # A shard that the user's shell names is not the collecting job's.
    said = submitted(jobs, "collect.sbatch", GAUNTLET_SHARD="1/2")
    assert "4 cells: 2 answered from the store" in said
    cells = read_cells(Path(jobs, "gauntlet-results", "cells.csv"))
    assert cells["n"].tolist() == [250] * 4


def test_the_readme_names_the_jobs_and_every_option_of_slurm_is_a_directive(jobs):
    text = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    for job in ("shards.sbatch", "collect.sbatch"):
        assert job in text
        lines = (EXAMPLE / job).read_text(encoding="utf-8").splitlines()
        # Slurm reads directives up to the first command only.
        first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
        assert all(re.match(r"#SBATCH --[a-z-]+(=\S+)?$", line) for line in lines[:first] if line.startswith("#SBATCH"))
        assert not any(line.startswith("#SBATCH") for line in lines[first:])
