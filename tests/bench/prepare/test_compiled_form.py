"""`--compile`: what a run does with it, with another compiler in place of torch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gauntlet
from gauntlet.attacks.views import compiled
from gauntlet.bench.prepare.fast_form import FormError, NotCompiledWarning, rebuilt_form


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(16, 3)

    def forward(self, images):
        return self.linear(images.flatten(1))


class OfTheBatch(Small):
    """Answers depend on the other images of a batch."""

    def forward(self, images):
        return super().forward(images - images.mean(0))


def evaluate(model, **settings):
    torch.manual_seed(1)
    x = torch.rand(60, 1, 4, 4)
    with torch.no_grad():
        y = model.eval()(x).argmax(1)
    asked = {"threat": "Linf:0.02", "attacks": "pgd(steps=3)", "checks": "none", "seed": 0}
    return gauntlet.evaluate(model, x, y, **{**asked, **settings})


@pytest.fixture
def compiler(monkeypatch):
    """Calls of compiled modules, which are as fast as `compiler.times` says: by default twice as fast."""

    class Compiler:
        calls = 0
        times = 2.0

    def fake(model, **settings):
        def call(x):
            Compiler.calls += 1
            return model(x)

        return call

    monkeypatch.setattr(torch, "compile", fake)
    seconds = lambda model, batch: 1 / Compiler.times if isinstance(model, compiled.Compiled) else 1.0  # noqa: E731
    monkeypatch.setattr(compiled, "_seconds", seconds)
    return Compiler


def test_a_faster_form_is_attacked_recorded_and_rebuilt(compiler, tmp_path):
    plain = evaluate(Small())
    assert compiler.calls == 0
    first = evaluate(Small(), compile=True, store=tmp_path)
    assert first.per_attack["precision"].tolist() == ["compiled"]
    assert torch.equal(first.robust, plain.robust)
    assert 0 < first.robust.float().mean() < 1
    before, compiler.times = compiler.calls, 0.1
    # The stored choice is taken, whatever is measured now.
    again = evaluate(Small(), compile=True, store=tmp_path, attacks="pgd(steps=4)")
    assert again.per_attack["precision"].tolist() == ["compiled"]
    assert compiler.calls > before


def test_a_form_that_is_not_faster_is_not_taken_and_a_warning_says_so(compiler):
    compiler.times = 0.9
    with pytest.warns(NotCompiledWarning, match=r"^not compiled: it would be 0\.90 times as fast; .* as it is$"):
        found = evaluate(Small(), compile=True)
    assert found.per_attack["precision"].tolist() == ["float32"]


def test_without_a_compiler_the_model_is_attacked_as_it_is(monkeypatch):
    def missing(model, **settings):
        def call(x):
            raise RuntimeError("No working C++ compiler found\nmore lines")

        return call

    monkeypatch.setattr(torch, "compile", missing)
    with pytest.warns(
        NotCompiledWarning, match=r"^not compiled: RuntimeError: No working C\+\+ compiler found; .* it is$"
    ):
        found = evaluate(Small(), compile=True)
    assert torch.equal(found.robust, evaluate(Small()).robust)
    with pytest.raises(FormError, match="cannot be made here: RuntimeError: No working"):
        rebuilt_form(Small().eval(), "compiled", torch.rand(8, 1, 4, 4), 64)


def test_a_model_whose_answers_depend_on_the_batch_is_not_padded(compiler):
    found = evaluate(OfTheBatch(), compile=True)
    assert found.per_attack["precision"].tolist() == ["float32"]
    assert compiler.calls == 0


def test_attacks_that_run_whole_do_not_take_it(compiler):
    found = evaluate(Small(), compile=True, attacks="naive")
    assert found.per_attack["precision"].tolist() == ["float32"]
    assert compiler.calls == 0
