"""Runs on 8-bit images: examples are 8-bit images, too, and a results folder holds them as differences."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from builders import slow_unless
from gauntlet.bench.run.run_folder import load_run
from gauntlet.bench.verify.rounded_examples import _near
from gauntlet.leaderboard.results.errors import DamagedBlockError
from gauntlet.leaderboard.results.pack_index import packed_blocks
from gauntlet.leaderboard.results.store import Store
from run_tables import same_blocks, same_tables

NET = """
import torch
from torch import nn


def build():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 10)).eval()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    return net
"""
EPS = 8 / 255
OPTIONS = ("--model=net.py:build", "--data=data.npz", "--device=cpu", "--checks=none")
COUNT = 150


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a linear model, and 8-bit images that it classifies as they are labelled."""
    import torch

    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    scope = {}
    exec(NET, scope)
    images = np.random.default_rng(1).integers(0, 256, (COUNT, 3, 8, 8), dtype=np.uint8)
    labels = scope["build"]()(torch.from_numpy(images) / 255).argmax(1).numpy()
    np.savez("data.npz", images=images, labels=labels)
    return images


def examples(out):
    store = Store(Path(out))
    for key in store.stored_keys():
        samples = store.read(key, adversarial=True).samples
        for name, image, distance in zip(samples.id, samples.adversarial, samples.distance, strict=True):
            if image is not None:
                yield name, image, distance


@pytest.mark.parametrize(
    ("threat", "attack"),
    [
        ("Linf:8/255", "pgd(steps=10)"),
        slow_unless(False, "L2:0.5", "pgd(steps=10)"),
        slow_unless(False, "L2:0.2", "apgd(steps=10)"),
        ("L1:4", "apgd(steps=10)"),
    ],
)
def test_examples_within_the_ball_are_8_bit_images_and_still_break(here, call, threat, attack):
    done = call("run", *OPTIONS, f"--threat={threat}", f"--attacks={attack}", "--out=out")
    assert done.returncode == 0, done.stderr
    found = list(examples("out"))
    assert len(found) > 50
    eps = EPS if threat.startswith("Linf") else float(threat.partition(":")[2])
    eighths = [
        image
        for _, image, _ in found
        if np.array_equal(np.rint(image * 255).astype(np.float32) / np.float32(255), image)
    ]
    assert len(eighths) > 0.8 * len(found)
    assert max(distance for _, _, distance in found) <= eps * (1 + 1e-6)
    verified = call("verify", "out", "--trust")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_the_folder_has_the_clean_images_once_for_all_cells(here, call):
    for out, attacks in (("one", "fgsm"), ("two", "fgsm,pgd(steps=10)")):
        assert call("run", *OPTIONS, f"--attacks={attacks}", f"--out={out}").returncode == 0
    files = {out: sorted(path.name for path in Path(out, "clean").rglob("*.parquet")) for out in ("one", "two")}
    assert files["one"] == files["two"]
    assert len(files["one"]) == 2
    store = Store(Path("two"))
    for key in store.stored_keys():
        broken = sum(image is not None for image in store.read(key, adversarial=True).samples.adversarial)
        group = pq.read_metadata(store.path(key)).row_group(0)
        columns = {group.column(number).path_in_schema: group.column(number) for number in range(group.num_columns)}
        assert "clean" not in columns
        # 192 values take half as many bytes, as floats they took 768.
        assert columns["difference"].total_compressed_size < 110 * broken


def test_minimum_norm_examples_and_those_of_other_images_are_stored_exactly(here, call):
    assert call("run", *OPTIONS, "--threat=L2:0.5", "--attacks=ddn(steps=50)", "--out=least").returncode == 0
    assert any(not np.array_equal(np.rint(image * 255) / 255, image) for _, image, _ in examples("least"))
    assert not Path("least/clean").exists()
    data = np.load("data.npz")
    np.savez("data.npz", images=(data["images"] / 255 * 0.99 + 0.001).astype(np.float32), labels=data["labels"])
    assert call("run", *OPTIONS, "--attacks=fgsm", "--out=floats").returncode == 0
    assert list(examples("floats"))
    assert not Path("floats/clean").exists()


def test_merging_packing_and_unpacking_keep_examples_without_model_or_data(here, call):
    assert call("run", *OPTIONS, "--attacks=fgsm,pgd(steps=10)", "--out=out").returncode == 0
    Path("net.py").unlink()
    Path("data.npz").unlink()
    assert call("merge", "joined", "out").returncode == 0
    same_blocks("out", "joined")
    shutil.copytree("out", "packed")
    assert call("pack", "packed").returncode == 0
    assert len(packed_blocks(Path("packed"))) == 4
    same_blocks("out", "packed")
    assert call("merge", "again", "packed").returncode == 0
    same_blocks("out", "again")
    store = Store(Path("packed"))
    other = Store(Path("bytes"))
    for key in store.stored_keys():
        other.add(key, store.content(key))
    same_blocks("out", "bytes")


def test_a_missing_or_altered_clean_image_is_damage_of_the_examples_alone(here, call):
    assert call("run", *OPTIONS, "--attacks=fgsm", "--out=out").returncode == 0
    store = Store(Path("out"))
    files = sorted(Path("out/clean").rglob("*.parquet"))
    shutil.copyfile(files[0], files[1])
    files[0].unlink()
    for key in store.stored_keys():
        store.read(key)
        with pytest.raises(DamagedBlockError):
            store.read(key, adversarial=True)
    # A run computes such blocks again, and the clean images with them.
    again = call("run", *OPTIONS, "--attacks=fgsm", "--out=out", "--fresh")
    assert again.returncode == 0, again.stderr
    assert call("leaderboard", "out").returncode == 0
    fresh = call("run", *OPTIONS, "--attacks=fgsm", "--out=new")
    assert fresh.returncode == 0
    same_tables("new", "out")
    same_blocks("new", "out")


def test_collecting_removes_clean_images_that_no_block_needs(here, call):
    assert call("run", *OPTIONS, "--attacks=fgsm", "--out=out").returncode == 0
    whole = load_run(Path("out")).folder
    assert call("run", *OPTIONS, "--attacks=fgsm", "--samples=0:100", "--out=out").returncode == 0
    shutil.rmtree(whole)
    files = set(Path("out/clean").rglob("*.parquet"))
    assert call("gc", "out", "--history", "--dry-run").returncode == 0
    assert set(Path("out/clean").rglob("*.parquet")) == files
    # Which clean images a damaged block needs is not known: none is removed.
    run = load_run(Path("out"))
    ((key, _), *_) = run.keys(run.plan.cells[0])
    content = run.store.path(key).read_bytes()
    run.store.path(key).write_bytes(content[:-40])
    damaged = call("gc", "out", "--history")
    assert damaged.returncode == 0, damaged.stderr
    assert set(Path("out/clean").rglob("*.parquet")) == files
    run.store.path(key).write_bytes(content)
    assert call("gc", "out", "--history").returncode == 0
    assert len(set(Path("out/clean").rglob("*.parquet"))) == len(files) - 1
    assert list(examples("out"))


@pytest.mark.parametrize("norm", ["L2", "L1"])
@pytest.mark.parametrize("step", [1, 2])
def test_rounding_keeps_the_norm_below_eps_and_near_it(norm, step):
    import torch

    from gauntlet.attacks.ops.threat import ThreatModel
    from gauntlet.bench.verify.verifier import Verifier

    generator = torch.Generator().manual_seed(3)
    clean = torch.randint(60, 196, (40, 3, 16, 16), generator=generator)
    change = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    # Of some images few coordinates change, and by much.
    change = torch.where((torch.arange(40) % 2 == 0).view(-1, 1, 1, 1) | (change > 1.5), change, 0.0)
    size = change.flatten(1).norm(p=2 if norm == "L2" else 1, dim=1)
    eps = 0.6 if norm == "L2" else 4.0
    points = (clean / 255 + change * (eps / size).view(-1, 1, 1, 1)).to(torch.float32)
    labels = torch.zeros(40, dtype=torch.int64)
    verify = Verifier(
        torch.nn.Identity(), clean / 255, labels, [str(n) for n in range(40)], ThreatModel(norm, eps), seed=0
    )
    near = _near(verify, points, clean.to(torch.int16), step)
    levels = (near.to(torch.float64) * 255 - clean).flatten(1)
    assert torch.equal(levels.round().remainder(step), torch.zeros_like(levels))
    reached = levels.norm(p=2 if norm == "L2" else 1, dim=1) / 255
    assert bool((reached <= eps).all())
    assert bool((reached > 0.98 * eps).all()), reached.min()
    # No coordinate goes farther than to one of the two levels beside it.
    assert float((levels - (points.to(torch.float64) * 255 - clean).flatten(1)).abs().max()) < step
