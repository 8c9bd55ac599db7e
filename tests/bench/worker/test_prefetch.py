"""Images of the next group are read while the present one is worked with: order, memory, errors, and what is left behind."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
import torch

from gauntlet.bench.data.samples.in_memory import from_dataset
from gauntlet.bench.data.samples.lazy_images import Images
from gauntlet.bench.worker import prefetch
from gauntlet.bench.worker.prefetch import prefetched

CPU = torch.device("cpu")
PIXELS = np.random.default_rng(0).integers(0, 255, (40, 1, 2, 2), dtype=np.uint8)
GROUPS = [range(10), [12, 11, 10], range(20, 40)]


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("gauntlet-read")]


class Watched:
    """Reads images, notes in which thread, and says when a row is asked for."""

    def __init__(self, bad=None):
        self.bad, self.asked, self.threads = bad, [], set()
        self.reached = {row: threading.Event() for row in range(40)}
        self.images = Images(self.read, 40, (1, 2, 2))

    def read(self, rows):
        self.threads.add(threading.current_thread())
        self.asked.extend(rows)
        for row in rows:
            self.reached[row].set()
        if self.bad in rows:
            raise ValueError(f"image {self.bad} cannot be read")
        return PIXELS[rows]


@pytest.mark.parametrize("chunk", [3, 64])
@pytest.mark.parametrize("unread", [True, False])
def test_groups_come_in_order_with_their_images(chunk, unread, monkeypatch):
    monkeypatch.setattr(prefetch, "_CHUNK", chunk)
    whole = torch.from_numpy(PIXELS) / 255
    images = Watched().images if unread else whole
    found = list(prefetched(images, GROUPS, CPU))
    assert len(found) == len(GROUPS)
    for one, rows in zip(found, GROUPS, strict=True):
        assert torch.equal(one, whole[list(rows)])
    assert not readers()


def test_the_next_group_is_read_while_the_caller_has_the_present_one_and_no_further():
    watched = Watched()
    groups = prefetched(watched.images, GROUPS, CPU)
    next(groups)
    assert watched.reached[10].wait(60)
    assert not any(watched.reached[row].is_set() for row in GROUPS[2])
    next(groups)
    assert watched.reached[39].wait(60)
    groups.close()
    assert not readers()
    assert threading.main_thread() not in watched.threads


def test_a_single_group_needs_no_thread():
    watched = Watched()
    list(prefetched(watched.images, [range(40)], CPU))
    assert watched.threads == {threading.main_thread()}


def test_an_error_is_raised_where_its_group_is_asked_for():
    watched = Watched(bad=11)
    groups = prefetched(watched.images, GROUPS, CPU)
    next(groups)
    assert watched.reached[11].wait(60)
    with pytest.raises(ValueError, match="image 11 cannot be read"):
        next(groups)
    assert not readers()
    assert not watched.reached[20].is_set()


def test_closing_ends_a_thread_in_the_middle_of_a_group(monkeypatch):
    monkeypatch.setattr(prefetch, "_CHUNK", 1)
    stop, watched = threading.Event(), Watched()
    monkeypatch.setattr(prefetch, "Event", lambda: stop)

    def read(rows):
        found = Watched.read(watched, rows)
        if 20 in rows:
            stop.wait(60)
        return found

    groups = prefetched(Images(read, 40, (1, 2, 2)), [range(10), range(20, 40)], CPU)
    next(groups)
    assert watched.reached[20].wait(60)
    groups.close()
    assert not readers()
    assert not watched.reached[21].is_set()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_images_come_to_a_gpu_from_pinned_memory(device, monkeypatch):
    hosts, read = [], prefetch._read

    def watched(*arguments):
        hosts.append(read(*arguments))
        return hosts[-1]

    monkeypatch.setattr(prefetch, "_read", watched)
    found = list(prefetched(Watched().images, GROUPS, torch.device(device)))
    assert all(host.is_pinned() for host in hosts)
    for one, rows in zip(found, GROUPS, strict=True):
        assert one.device.type == "cuda"
        assert torch.equal(one.cpu(), torch.from_numpy(PIXELS[list(rows)]) / 255)


def test_a_data_set_of_the_user_is_read_by_the_calling_thread(monkeypatch):
    monkeypatch.setattr("gauntlet.bench.data.samples.in_memory.MEMORY_LIMIT", 0)
    threads = set()

    class Own(torch.utils.data.Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, row):
            threads.add(threading.current_thread())
            return torch.from_numpy(PIXELS[row]) / 255, row % 3

    data = from_dataset(Own())
    assert isinstance(data.images, Images)
    assert isinstance(data.images.take([3, 4]), Images)
    found = list(prefetched(data.images.take(range(40)), GROUPS, CPU))
    assert torch.equal(found[1], torch.from_numpy(PIXELS[[12, 11, 10]]) / 255)
    assert threads == {threading.main_thread()}


def test_two_threads_never_read_at_once():
    inside, most = 0, 0
    begun = threading.Barrier(4)

    def read(rows):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        os.sched_yield()
        inside -= 1
        return PIXELS[rows]

    images = Images(read, 40, (1, 2, 2))

    def use(part):
        begun.wait()
        for _ in range(200):
            part[[0, 1]]

    threads = [threading.Thread(target=use, args=(images.take(range(n, 40)),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
