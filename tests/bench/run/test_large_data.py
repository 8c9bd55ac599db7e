"""Runs on data that do not fit into memory at once, and how tables call data that were prepared."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from gauntlet.bench.config.schema import load_config
from gauntlet.bench.data.samples import lazy_images as images_module
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.run.engine import Engine
from gauntlet.bench.run.tables import write_leaderboard
from gauntlet.bench.worker import attack_blocks as runner
from gauntlet.leaderboard.report.leaderboard_csv import read_leaderboard

MODEL = """
import torch

class Bands(torch.nn.Module):
    def forward(self, x):
        bands = torch.stack([x[:, channel].mean((1, 2)) for channel in range(3)], 1)
        return torch.cat([20 * bands, bands.new_full((len(x), 7), -20.0)], 1)

def build():
    return Bands().eval()
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a model that answers with the brightest colour, and 350 photos of three colours."""
    (tmp_path / "model.py").write_text(MODEL)
    generator = np.random.default_rng(0)
    for number in range(350):
        pixels = generator.integers(0, 200, (10, 12, 3), dtype=np.uint8)
        pixels[..., number % 3] += np.uint8(generator.integers(0, 40))
        path = tmp_path / f"photos/{('0r', '1g', '2b')[number % 3]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def engine_of(**options):
    given = {
        "model": ["model.py:build"],
        "attacks": ["pgd(steps=3)"],
        "threat": ["Linf:0.05"],
        "checks": "none",
        **options,
    }
    config = load_config(given, folder=options.get("folder"))
    return Engine(make_plan(config), config, command="gauntlet run")


def run(project, out, data="photos(resize=8)", **options):
    engine = engine_of(folder=project, data=data, out=out, **options)
    (cell,) = engine.run.plan.cells
    return engine, engine.cell(cell)


def verdicts(result):
    return [(record.key, record.samples.id.tolist(), record.samples.robust.tolist()) for record in result.blocks]


def test_a_set_that_is_attacked_a_few_blocks_at_a_time_gives_what_it_gives_at_once(project, monkeypatch):
    engine, whole = run(project, "whole")
    assert engine.workbench.data(engine.run.plan.cells[0].data).images.data_ptr()
    assert 0 < np.mean([record.samples.robust.mean() for record in whole.blocks]) < 1
    seen, attack = [], runner._attack
    monkeypatch.setattr(
        runner, "_attack", lambda prepared, some, *rest: seen.append(len(some)) or attack(prepared, some, *rest)
    )
    image = 3 * 8 * 9 * 4
    for most, groups in ((210 * image, [2, 2]), (1, [1, 1, 1, 1]), (250 * image, [2, 2])):
        seen.clear()
        for module in (runner, images_module):
            monkeypatch.setattr(module, "MEMORY_LIMIT", most)
        engine, parts = run(project, f"parts-{most}")
        assert not hasattr(engine.workbench.data(engine.run.plan.cells[0].data).images, "data_ptr")
        assert seen == groups
        assert verdicts(parts) == verdicts(whole)
        # Their examples are in the store, and not in memory.
        assert all(one is None for record in parts.blocks for one in record.samples.adversarial)
        held = engine.run.result(parts.cell and engine.run.plan.cells[0], adversarial=True)
        assert any(one is not None for record in held.blocks for one in record.samples.adversarial)


def test_tables_say_how_images_were_prepared_and_other_pixels_have_other_keys(project):
    titles, keys = [], []
    for settings in ("resize=8", "resize=8, interpolation=bicubic", "resize=8, crop=6"):
        engine, result = run(project, "out", f"photos({settings})", samples="stratified:30")
        assert result.error is None
        titles.append(result.cell.data)
        keys += [record.key for record in result.blocks]
        files = write_leaderboard(engine.run, engine.run.results())
        assert read_leaderboard(files.leaderboard_csv)["data"].tolist() == [titles[-1]]
        assert titles[-1].partition("[")[0] in files.markdown.read_text()
    assert titles == [
        "photos(resize=8, interpolation=bilinear)[stratified:30]",
        "photos(resize=8, interpolation=bicubic)[stratified:30]",
        "photos(resize=8, crop=6, interpolation=bilinear)[stratified:30]",
    ]
    assert len(set(keys)) == len(keys)


def test_the_folder_of_a_set_is_not_in_its_name_or_key_unless_two_are_compared(project):
    pixels = np.random.default_rng(0).integers(0, 200, (30, 3, 32, 32), dtype=np.uint8)
    pixels[range(30), np.arange(30) % 3] += 50
    for name in ("a", "b"):
        np.savez(project / f"{name}.npz", images=pixels, labels=np.arange(30) % 3)
    first, second = (run(project, "out", f"cifar10/robustbench-20@{name}.npz") for name in ("a", "b"))
    assert first[1].cell.data == second[1].cell.data == "cifar10/robustbench-20"
    assert [record.cached for record in second[1].blocks] == [True]


LIMITED = """
import json, resource, sys
from pathlib import Path
from gauntlet.bench.config.schema import load_config
from gauntlet.bench.run.engine import Engine
from gauntlet.bench.planning.plan import make_plan

def result(samples):
    options = {"model": ["model.py:build"], "data": sys.argv[1], "samples": samples, "attacks": ["fgsm"],
               "threat": ["Linf:0.05"], "out": f"out-{samples}", "precision": "float32"}
    config = load_config(options, folder=Path.cwd())
    engine = Engine(make_plan(config), config, command="gauntlet run")
    return engine.cell(engine.run.plan.cells[0])

result("500")
taken = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData:")) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (taken + int(sys.argv[3]) * 2**20,) * 2)
found = result(sys.argv[2])
assert found.error is None, found.error
print(sum(len(record.samples) for record in found.blocks))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a process's data are limited as Linux does it")
@pytest.mark.parametrize("megabytes", [pytest.param(1400, id="enough"), pytest.param(200, id="too-little")])
def test_fifty_thousand_images_are_attacked_within_a_memory_limit(tmp_path, megabytes):
    """At once they would take 2,458 MB, their examples as much again, and what the attack and the verifier make of them more.

    That a limit below what a part of them takes is not enough shows that it limits.
    """
    count = 50_000
    (tmp_path / "model.py").write_text(MODEL)
    pixels = np.random.default_rng(0).integers(0, 200, (count, 8, 8, 3), dtype=np.uint8)
    pixels[range(count), ..., np.arange(count) % 3] += 40
    for label in range(3):
        (tmp_path / f"x/c{label}").mkdir(parents=True)
    for number in range(count):
        Image.fromarray(pixels[number]).save(tmp_path / f"x/c{number % 3}/{number:05d}.png", compress_level=0)
    command = [sys.executable, "-c", LIMITED, "x(resize=64)", str(count), str(megabytes)]
    done = subprocess.run(command, check=False, timeout=1800, capture_output=True, text=True, cwd=tmp_path)
    if megabytes == 200:
        assert done.returncode != 0
        assert "memory" in done.stderr.lower()
    else:
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) == count
