"""Cells whose results are kept nowhere: the same outcomes as with a store, and no files."""

from __future__ import annotations

import tempfile

import pytest
import torch

import gauntlet
from builders import network
from gauntlet.bench import api
from gauntlet.bench.run import in_memory
from gauntlet.bench.run.evaluation import CellFailedError
from gauntlet.bench.run.in_memory import run_in_memory
from gauntlet.bench.worker.attack_blocks import attack_blocks


@pytest.fixture
def images():
    return torch.rand(120, 1, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model():
    return network(16, 12, 3).eval()


@pytest.mark.parametrize(
    "attacks", ["fgsm, pgd(steps=4)", "gauntlet:fast", pytest.param("gauntlet", marks=pytest.mark.slow)]
)
def test_the_figures_are_those_of_an_evaluation_with_a_store(model, images, attacks, tmp_path):
    labels = model(images).argmax(1)
    settings = {"threat": "Linf:0.1", "attacks": attacks, "seed": 3, "checks": "none"}
    free, stored = (
        gauntlet.evaluate(model, images, labels, **settings, **more) for more in ({}, {"store": tmp_path / "kept"})
    )
    assert 0 < free.robust.sum() < free.correct.sum()
    assert free.robust.tolist() == stored.robust.tolist()
    assert torch.equal(free.adversarials, stored.adversarials)
    assert torch.equal(free.distance, stored.distance)
    columns = ["attack", "result", "forwards_per_sample", "backwards_per_sample"]
    assert free.per_attack[columns].equals(stored.per_attack[columns])
    assert [flag.name for flag in free.flags] == [flag.name for flag in stored.flags]


def test_no_file_is_written_without_a_store_but_for_replays(model, images, monkeypatch, tmp_path):
    labels = model(images).argmax(1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    gauntlet.evaluate(model, images, labels, threat="Linf:0.1", attacks="fgsm", checks="none")
    with pytest.raises(FileNotFoundError):
        gauntlet.evaluate(model, images, labels, threat="Linf:0.1", attacks="fgsm, replay", checks="none")


def test_an_attack_that_fails_is_named(model, images):
    labels = model(images).argmax(1)
    model.register_forward_pre_hook(_refuse)
    with pytest.raises(CellFailedError, match="attack 'fgsm' failed: RuntimeError: only so far"):
        gauntlet.evaluate(model, images, labels, threat="Linf:0.1", attacks="fgsm", checks="none")


def _refuse(module, arguments):
    if arguments[0].requires_grad:
        raise RuntimeError("only so far")


def test_the_model_is_checked_once(model, images):
    sizes = []
    labels = model(images).argmax(1)
    model.register_forward_pre_hook(lambda module, arguments: sizes.append(len(arguments[0])))
    gauntlet.evaluate(model, images, labels, threat="Linf:0.1", attacks="fgsm", checks="none")
    # The first 64 images; the attack has all 120 in a batch, and the verifier sixteen.
    assert sizes.count(64) == 1
    assert max(sizes) == 120


def test_what_was_decided_before_a_failure_is_in_the_result(images, model, monkeypatch):
    labels = model(images).argmax(1)
    finished = []

    def failing(prepared, blocks, settings):
        for record in attack_blocks(prepared, blocks, settings):
            if finished:
                raise RuntimeError("the device is gone")
            finished.append(record.key)
            yield record

    results = []
    monkeypatch.setattr(in_memory, "attack_blocks", failing)
    monkeypatch.setattr(api, "run_in_memory", lambda *given: results.append(run_in_memory(*given)) or results[-1])
    with pytest.raises(CellFailedError, match="the device is gone"):
        gauntlet.evaluate(model, images, labels, threat="Linf:0.1", attacks="pgd(steps=2)", checks="none")
    assert [record.key for record in results[-1].blocks] == finished
