"""The number of slots on a GPU, with memory and times that a fake reports: growth, its ends, and how it is remembered."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gauntlet
from gauntlet.bench.prepare import prepare
from gauntlet.bench.prepare.slots import MOST, PassCost, device_probe, grown

OUT = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"
TOTAL = 1000


def fake(seconds=lambda n: 0.01, used=lambda n: 0, limit=10**9):
    """A probe, and the sizes that it was asked for. Above `limit` memory runs out."""
    asked = []

    def probe(count):
        asked.append(count)
        if count > limit:
            raise RuntimeError(OUT)
        return PassCost(seconds(count), used(count), TOTAL)

    return probe, asked


def test_slots_grow_until_throughput_stops_growing():
    # A launch takes as long as 100 images.
    probe, asked = fake(seconds=lambda n: max(1.0, n / 100))
    assert grown(probe, 32) == 128
    assert asked == [32, 64, 128, 256]


def test_slots_grow_until_four_fifths_of_the_memory_are_used():
    probe, _ = fake(used=lambda n: 100 + 5 * n)
    # 100 + 5 · 128 is 740 of 1,000 bytes, the next one 1,380.
    assert grown(probe, 32) == 128
    probe, _ = fake(used=lambda n: 25 * n)
    assert grown(probe, 32) == 32
    probe, _ = fake(used=lambda n: 25 * n + 1)
    assert grown(probe, 32) == 16


def test_slots_stop_growing_where_memory_runs_out():
    probe, asked = fake(limit=100)
    assert grown(probe, 32) == 64
    assert asked == [32, 64, 128]


def test_slots_are_halved_where_memory_runs_out_at_once():
    probe, asked = fake(limit=10)
    assert grown(probe, 32) == 8
    assert asked == [32, 16, 8]


def test_slots_have_an_upper_end():
    probe, _ = fake()
    assert grown(probe, 32) == MOST


def test_a_single_image_that_does_not_fit_and_other_errors_are_raised():
    probe, _ = fake(limit=0)
    with pytest.raises(RuntimeError, match="can't allocate"):
        grown(probe, 32)

    def wrong(count):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        grown(wrong, 32)


def test_a_cpu_is_not_probed():
    def read():
        raise AssertionError("no image is read")

    assert device_probe(nn.Flatten(), torch.device("cpu"), read) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_reports_what_passes_use_and_draws_nothing():
    device = torch.device("cuda")
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 32 * 32, 10)).to(device)
    state = torch.cuda.get_rng_state()
    probe = device_probe(model, device, lambda: torch.zeros(1, 3, 32, 32))
    small, large = probe(16), probe(4096)
    assert 0 < small.used < large.used < large.total
    assert min(small.seconds, large.seconds) > 0
    assert grown(probe, 32) >= 32
    assert torch.equal(torch.cuda.get_rng_state(), state)


class Watched(nn.Module):
    """A linear model that notes its batch sizes, and for which memory runs out above `limit`."""

    def __init__(self, limit=10**9):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(16, 3)
        self.limit, self.sizes, self.failed = limit, [], 0

    def __deepcopy__(self, memo):
        return self

    def forward(self, images):
        self.sizes.append(len(images))
        if len(images) > self.limit:
            self.failed += 1
            raise RuntimeError(OUT)
        return self.linear(images.flatten(1))


def images():
    torch.manual_seed(1)
    return torch.rand(200, 1, 4, 4), torch.arange(200) % 3


def evaluate(model, **settings):
    x, _ = images()
    with torch.no_grad():
        y = model.linear(x.flatten(1)).argmax(1)
    model.sizes.clear()
    asked = {"threat": "Linf:0.02", "attacks": ["pgd(steps=3)", "fgsm"], "checks": "none", "seed": 0}
    return gauntlet.evaluate(model.eval(), x, y, **{**asked, **settings})


@pytest.fixture
def probed(monkeypatch):
    """Slots are probed as on a GPU: throughput grows up to 40 of 32, 64, …; the sizes that were asked for."""
    probe, asked = fake(used=lambda n: 10 * n)
    monkeypatch.setattr(prepare, "device_probe", lambda model, device, read: probe)
    monkeypatch.setattr("gauntlet.bench.executors.executable.RunSettings.slots", lambda self, image: 10)
    return asked


def test_slots_are_measured_once_for_all_cells_and_runs_and_change_no_verdict(probed, tmp_path):
    plain = evaluate(Watched(), batch_size=7)
    assert not probed
    model = Watched()
    first = evaluate(model, store=tmp_path)
    assert probed == [10, 20, 40, 80, 160]
    assert 0 < first.robust.float().mean() < 1
    assert 80 in model.sizes
    assert max(model.sizes) <= 80
    again = evaluate(model, store=tmp_path, attacks="pgd(steps=4)")
    assert probed == [10, 20, 40, 80, 160]
    assert len(again.robust) == 200
    assert torch.equal(plain.robust, first.robust)


def test_a_batch_size_by_name_is_obeyed(probed, tmp_path):
    model = Watched()
    evaluate(model, store=tmp_path)
    evaluate(model, store=tmp_path / "other", batch_size=90)
    assert 90 in model.sizes
    assert max(model.sizes) == 90


def test_what_is_left_when_memory_runs_out_is_remembered(probed):
    model = Watched(limit=70)
    both = evaluate(model)
    # Where the first cell ran out of memory, the second one does not try again.
    assert model.failed == 1
    assert torch.equal(both.robust, evaluate(Watched(), batch_size=7).robust)
