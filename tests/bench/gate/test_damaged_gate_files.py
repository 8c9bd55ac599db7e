"""Random damages of what a gate reads: baselines, artifacts, configurations. No wrong figure, no traceback, a clear error."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gate_project import ATTACK, BASELINE, RUN
from gauntlet.bench.gate.artifact import ArtifactError, unpack
from gauntlet.leaderboard.gate.baseline import BaselineError
from gauntlet.leaderboard.gate.baseline_file import baseline_digest, read_baseline
from gauntlet.leaderboard.results.errors import StoreError

COUNTS = [10, pytest.param(300, marks=pytest.mark.slow)]
PROJECT = f"""
model = "model.py:build"
data = "digits"
samples = "200"
threat = "Linf:0.15"
attacks = ["pgd(steps=10)"]
seed = 0
out = "out"

[gate]
baseline = "{BASELINE.as_posix()}"
margin = 0.02
alpha = 0.05
early = false
min_robust = {{"model.*" = 0.5}}
"""


def damaged(content, drawn):
    """The content with one of: bytes replaced, digits replaced, a part lost, doubled, exchanged or inserted, or the end lost."""
    data = bytearray(content)
    start, end = sorted(int(at) for at in drawn.integers(0, len(data) + 1, 2))
    end = min(end, start + int(drawn.integers(1, 65)))
    kind = int(drawn.integers(0, 7))
    if kind == 0:
        at = int(drawn.integers(0, len(data)))
        data[at] ^= int(drawn.integers(1, 256))
    elif kind == 1:
        digits = [at for at, value in enumerate(data) if 48 <= value <= 57]
        at = digits[int(drawn.integers(0, len(digits)))]
        data[at] = 48 + (data[at] - 48 + int(drawn.integers(1, 10))) % 10
    elif kind == 2:
        del data[start:end]
    elif kind == 3:
        data[start:start] = data[start:end]
    elif kind == 4:
        data[start:start] = drawn.integers(0, 256, end - start).astype(np.uint8).tobytes()
    elif kind == 5:
        data[start:end] = data[start:end][::-1]
    else:
        del data[start:]
    return bytes(data)


def damages(content, count, seed):
    """So many different damages of the content."""
    drawn = np.random.default_rng(seed)
    made = 0
    while made < count:
        data = damaged(content, drawn)
        if data != content:
            made += 1
            yield data


@pytest.mark.parametrize("count", COUNTS)
def test_a_damaged_baseline_is_refused_or_judges_the_same(here, count):
    whole = read_baseline(BASELINE)
    refused = 0
    for data in damages(BASELINE.read_bytes(), count, 1):
        BASELINE.write_bytes(data)
        try:
            found = read_baseline(BASELINE)
        except BaselineError as error:
            refused += str(BASELINE) in str(error)
            continue
        # What differs is for readers alone: commit, reason, date, and blanks.
        told = {name: getattr(whole, name) for name in ("commit", "reason", "created")}
        assert baseline_digest(replace(found, **told)) == baseline_digest(whole), data
    assert refused > 0.8 * count


@pytest.mark.parametrize("count", COUNTS)
def test_a_gate_with_a_damaged_baseline_says_so_or_gives_the_same_verdict(here, call, count):
    whole = call("gate", "out", BASELINE)
    content = BASELINE.read_bytes()
    # Judging takes longer than reading.
    for data in damages(content, count // 5, 2):
        BASELINE.write_bytes(data)
        done = call("gate", "out", BASELINE)
        assert "Traceback" not in done.stdout + done.stderr
        assert (done.returncode, str(BASELINE) in done.stderr) == (2, True) or verdict(done) == verdict(whole)


def verdict(done):
    return [line for line in done.stdout.splitlines() if line.startswith(("HELD", "Gate"))]


@pytest.fixture
def packed(here, call):
    """The baseline with its artifact: the file, and what the baseline says of it."""
    assert call("baseline", "accept", "out", "--reason=artifact", "--artifact").returncode == 0
    ref = read_baseline(BASELINE).artifact
    return BASELINE.with_name(ref.file), ref


@pytest.mark.parametrize("count", COUNTS)
def test_a_damaged_artifact_is_refused_by_its_digest(packed, count):
    file, ref = packed
    for number, data in enumerate(damages(file.read_bytes(), count, 3)):
        file.write_bytes(data)
        with pytest.raises(ArtifactError, match="is not the artifact that the baseline names"):
            unpack(file, ref, Path(f"a{number}"))
        assert not Path(f"a{number}").exists()


@pytest.mark.parametrize("count", COUNTS)
def test_a_damaged_artifact_under_a_digest_that_fits_gives_whole_blocks_or_an_error(packed, count):
    file, ref = packed
    whole = unpack(file, ref, Path("whole"))
    kept = {key: whole.store.read(key, adversarial=True) for keys in whole.blocks.values() for key in keys}
    refused = 0
    for number, data in enumerate(damages(file.read_bytes(), count, 4)):
        damaged_file = Path(f"{number}.zip")
        damaged_file.write_bytes(data)
        folder = Path(f"a{number}")
        try:
            found = unpack(damaged_file, replace(ref, sha256=sha256_of(damaged_file)), folder)
            for keys in found.blocks.values():
                for key in keys:
                    block = found.store.read(key, adversarial=True)
                    assert (block.samples.robust == kept[key].samples.robust).all()
        except (ArtifactError, StoreError) as error:
            refused += folder.name in str(error) or damaged_file.name in str(error)
        shutil.rmtree(folder, ignore_errors=True)
        damaged_file.unlink()
    assert refused > 0.5 * count


@pytest.mark.parametrize("count", COUNTS)
def test_a_damaged_configuration_is_an_error_a_policy_or_changes_no_figure(here, call, count):
    file = Path("gauntlet.toml")
    file.write_text(PROJECT, encoding="utf-8")
    assert call("baseline", "accept", "out", "--reason=with a floor").returncode == 0
    whole = call("gate", "out")
    assert whole.returncode == 0
    for data in damages(PROJECT.encode(), count, 5):
        file.write_bytes(data)
        done = call("gate", "out")
        assert "Traceback" not in done.stdout + done.stderr
        if done.returncode == 2:
            assert done.stderr.startswith(("error: ", "Usage: ")), done.stderr
        elif "POLICY" in done.stdout:
            assert done.returncode == 1
        else:
            assert figures(done) == figures(whole), data


def figures(done):
    """Both shares and the number of samples: what no configuration changes."""
    return [line.partition("; drop")[0].partition(" (")[2] for line in done.stdout.splitlines() if "seed 0:" in line]


def sha256_of(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("count", COUNTS)
def test_a_damaged_report_changes_no_verdict_and_never_reads_as_passed(here, call, states, count):
    torch.save(states[1], "weights.pt")
    assert call(*RUN, ATTACK, f"--gate={BASELINE}").returncode == 1
    file = Path("out/gate.json")
    content = file.read_bytes()
    whole = verdict(call("gate", "out", BASELINE))
    for number, data in enumerate(damages(content, count, 6)):
        # What action.yml looks for.
        assert b'\n "passed": true,\n' not in data
        file.write_bytes(data)
        if number % 5 == 0:
            assert verdict(call("gate", "out", BASELINE)) == whole
            assert json.loads(file.read_text(encoding="utf-8"))["passed"] is False


@pytest.mark.parametrize("count", COUNTS)
def test_a_damaged_trace_of_a_gate_that_stopped_early_is_named_or_gives_the_same_verdict(here, call, count):
    assert call("baseline", "accept", "out", "--reason=early", "--test=sequential").returncode == 0
    call(*RUN, ATTACK, f"--gate={BASELINE}", "--gate-early", "--seed=3", "--out=early")
    (file,) = Path("early/runs").glob("*/gate/*.json")
    content = file.read_bytes()
    whole = call("gate", "early", BASELINE)
    assert "seed 3" in whole.stdout
    for data in damages(content, count, 7):
        file.write_bytes(data)
        done = call("gate", "early", BASELINE)
        assert "Traceback" not in done.stdout + done.stderr
        assert file.name in done.stdout + done.stderr or done.stdout == whole.stdout, data
        assert done.returncode in (whole.returncode, 2, 3)
