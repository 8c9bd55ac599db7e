"""Compiled forms: batches of fixed sizes, agreement with the model, and every reason not to use one."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

from gauntlet.attacks.views import compiled
from gauntlet.attacks.views.backward_modes import LeakyMode
from gauntlet.attacks.views.compiled import SIZES, Compiled, CompileError, compiled_form, faster_compiled, parts_of
from gauntlet.attacks.views.fast_model import FastModel, choose_form
from gauntlet.attacks.views.tf32 import TF32


def network():
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
    return nn.Sequential(*layers).eval().requires_grad_(False)


def images(count=8):
    return torch.rand(count, 1, 5, 5, generator=torch.Generator().manual_seed(1))


def logits_and_gradients(model, x):
    x = x.clone().requires_grad_()
    logits = model(x)
    return logits.detach(), torch.autograd.grad(logits.square().sum(), x)[0]


@pytest.fixture
def seen(monkeypatch):
    """In place of the compiler: the model as it is, and the batch sizes that it was given."""
    sizes = []

    def fake(model, **settings):
        def call(x):
            sizes.append(len(x))
            return model(x)

        return call

    monkeypatch.setattr(torch, "compile", fake)
    return sizes


@pytest.mark.parametrize("count", [*range(1, 70), 127, 128, 129, 255, 256, 257, 300, 1000, 1024])
def test_a_batch_is_cut_into_parts_of_few_sizes(count):
    parts = parts_of(count)
    assert set(parts) <= set(SIZES)
    assert sum(parts) - parts[-1] < count <= sum(parts)
    empty = sum(parts) - count
    assert 2 * empty <= parts[-1] or parts[-1] == min(SIZES)
    # As many calls as full parts of the sizes need, and one more where the rest is filled up.
    assert len(parts) <= count // 256 + 3 + 2


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40, 100, 300])
def test_padding_changes_neither_logits_nor_gradients(count, seen):
    model, x = network(), images(count)
    form = Compiled(model)
    for one, other in zip(logits_and_gradients(form, x), logits_and_gradients(model, x), strict=True):
        torch.testing.assert_close(one, other)
    assert seen == parts_of(count)
    assert form(x[:0]).shape == (0, 3)


def test_a_mode_that_replaces_operations_sees_them(seen):
    model, x = network(), images()
    with LeakyMode():
        wanted = logits_and_gradients(model, x)
        found = logits_and_gradients(Compiled(model), x)
    assert seen == []
    assert torch.equal(found[1], wanted[1])
    assert not torch.equal(found[1], logits_and_gradients(model, x)[1])


@pytest.mark.parametrize("layout", [False, True])
def test_a_compiled_form_has_the_name_and_the_answers_of_the_form(layout, seen):
    model = network()
    form = choose_form(model, images(), layout=layout, precision="float32")
    made = compiled_form(form, images(), 100)
    assert made.form == ("compiled+channels_last" if layout else "compiled")
    assert set(seen) == {64}
    assert not isinstance(form.module, Compiled)
    for one, other in zip(*(logits_and_gradients(each.module, images(20)) for each in (made, form)), strict=True):
        torch.testing.assert_close(one, other)


def test_what_is_compiled_lies_within_precision_and_layout(seen):
    full = FastModel(network(), "")
    made = compiled_form(FastModel(TF32(network()), "tf32", full), images(), 64)
    assert isinstance(made.module, TF32)
    assert isinstance(made.module.model, Compiled)
    assert (made.form, made.full) == ("compiled+tf32", full)


def refused(monkeypatch, call, message):
    monkeypatch.setattr(torch, "compile", lambda model, **settings: lambda x: call(model, x))
    with pytest.raises(CompileError, match=message) as caught:
        compiled_form(FastModel(network(), ""), images(), 16)
    assert "\n" not in str(caught.value)


def test_where_the_compiler_fails_the_first_line_says_why(monkeypatch):
    def fails(model, x):
        raise RuntimeError("\nNo working C++ compiler found in ['g++']\n\nSet TORCHDYNAMO_VERBOSE=1\n")

    refused(monkeypatch, fails, "^RuntimeError: No working C\\+\\+ compiler found in \\['g\\+\\+'\\]$")


def test_other_logits_are_refused(monkeypatch):
    refused(monkeypatch, lambda model, x: model(x) * 1.01, "logits would differ by")


def test_other_gradients_are_refused(monkeypatch):
    refused(monkeypatch, lambda model, x: model(x).detach() + 0 * model(x), "gradients would differ")
    refused(monkeypatch, lambda model, x: model(x.detach()), "gradients would differ")


@pytest.mark.parametrize(("seconds", "message"), [((1.0, 1.0), "1.00 times as fast"), ((1.0, 2.0), "0.50 times")])
def test_a_form_that_is_not_faster_is_refused(seconds, message, monkeypatch, seen):
    times = iter(seconds)
    monkeypatch.setattr(compiled, "_seconds", lambda model, batch: next(times))
    with pytest.raises(CompileError, match=message):
        faster_compiled(FastModel(network(), ""), images(), 64)


def test_a_form_that_is_faster_is_taken(monkeypatch, seen):
    times = iter((2.0, 1.0))
    monkeypatch.setattr(compiled, "_seconds", lambda model, batch: next(times))
    assert faster_compiled(FastModel(network(), ""), images(), 64).form == "compiled"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_the_compiler_itself_gives_the_same_answers():
    model = network()
    made = compiled_form(FastModel(model, ""), images(), 16)
    for count in (3, 20):
        for one, other in zip(
            *(logits_and_gradients(each, images(count)) for each in (made.module, model)), strict=True
        ):
            torch.testing.assert_close(one, other)
