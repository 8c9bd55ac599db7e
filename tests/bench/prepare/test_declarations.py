"""What a model hides, declared by its user or measured once: the same attack at nearly the same passes."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import gauntlet
from gauntlet.bench.cli.main import cli
from gauntlet.bench.config.schema import load_config
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.run.engine import Engine
from gauntlet.leaderboard.results import cell_summary as cells

MODELS = """
import torch
from torch import nn

import gauntlet


class Counted(nn.Module):
    def __init__(self, before):
        super().__init__()
        self.net = gauntlet.load_model("cnn.trades_digits").module
        self.before, self.passes = before, 0
        self.eval()

    def forward(self, x):
        self.passes += len(x)
        return self.net(self.before(x))


def noisy():
    return Counted(lambda x: x + 0.1 * torch.randn_like(x))


def rounded():
    return Counted(lambda x: (7 * x).round() / 7)


def plain():
    return Counted(lambda x: x)
"""

pytestmark = pytest.mark.usefixtures("imports_are_undone")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "nets.py").write_text(MODELS, encoding="utf-8")
    return tmp_path


def run(folder, model, attack, *, out="out", samples=20):
    """The result of a cell, and the images that passed through the model."""
    options = {"model": [f"{folder}/nets.py:{model}"], "attacks": [attack], "samples": str(samples), "device": "cpu"}
    config = load_config({**options, "data": "digits", "out": str(folder / out)}, folder=folder)
    engine = Engine(make_plan(config), config)
    (cell,) = engine.run.plan.cells
    result = engine.cell(cell)
    assert result.error is None, result.error
    return result, engine.workbench.model(cell.model).module.model.passes


@pytest.mark.parametrize(
    "attack", ["pgd(steps=10)", "gauntlet:fast", pytest.param("adaptive()", marks=pytest.mark.slow)]
)
def test_undeclared_noise_is_attacked_as_if_it_were_declared_at_nearly_the_same_passes(folder, attack):
    measured, passes = run(folder, "noisy", attack)
    declared, fewest = run(folder, "noisy(randomised=True)", attack, out="declared")
    assert measured.cell.randomised
    assert fewest <= passes <= 1.5 * fewest
    assert cells.outcomes(measured).robust.tolist() == cells.outcomes(declared).robust.tolist()


def test_randomness_is_measured_once_and_stored(folder):
    run(folder, "noisy", "fgsm")
    (found,) = (folder / "out" / "measured").glob("*")
    stored = [json.loads(path.read_text()) for path in found.glob("*.json")]
    assert [one["randomised"] for one in stored if "randomised" in one] == [True]
    for path in found.glob("*.json"):
        path.write_text(path.read_text().replace('"randomised": true', '"randomised": false'))
    # The stored measurement counts, whatever a new one would say.
    result, _ = run(folder, "noisy", "noise")
    assert not result.cell.randomised


def test_a_declared_model_is_attacked_by_bpda_and_flagged_until_that_answers(folder):
    naive, _ = run(folder, "rounded", "pgd(steps=20)")
    through, _ = run(folder, "rounded(not_differentiable=True)", "pgd(steps=20)")
    assert naive.cell.techniques == {"": "white-box"}
    assert through.cell.techniques == {"": "bpda"}
    robust = [int(cells.outcomes(one).robust.sum()) for one in (naive, through)]
    assert robust[1] < robust[0]
    assert "non-differentiable-defense" in {flag.name for flag in cells.flags(through)}


def test_the_run_says_what_it_measured(folder, monkeypatch):
    monkeypatch.chdir(folder)
    options = ["--data=digits", "--samples=10", "--device=cpu", "--attacks=fgsm", "--out=out"]
    measured = CliRunner().invoke(cli, ["run", "--model=nets.py:noisy", *options])
    line = "measured: nets.noisy answers the same image differently; it is attacked as if --randomised were given"
    assert line in measured.output
    declared = CliRunner().invoke(cli, ["run", "--model=nets.py:noisy", "--randomised", *options])
    assert "measured:" not in declared.output
    plain = CliRunner().invoke(cli, ["run", "--model=nets.py:plain", *options])
    assert "measured:" not in plain.output


def test_only_an_attack_that_adapts_is_said_to_treat_useless_gradients_as_declared(folder, monkeypatch):
    monkeypatch.chdir(folder)
    options = ["--data=digits", "--samples=4", "--device=cpu", "--attacks=naive,adaptive,replay", "--out=out"]
    done = CliRunner().invoke(cli, ["run", "--model=nets.py:rounded", "--checks=none", *options])
    told = [line for line in done.output.splitlines() if line.startswith("measured:")]
    assert told == [
        "measured: gradients of nets.rounded are of no use; adaptive attacks it as if --not-differentiable were given"
    ]


class Rounded(nn.Module):
    """A network behind rounding."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.eval()

    def forward(self, x):
        return self.net((7 * x).round() / 7)


def test_evaluate_takes_declarations():
    data = gauntlet.load_data("digits", samples="20")
    model = Rounded(gauntlet.load_model("cnn.standard_digits").module)
    ask = partial(gauntlet.evaluate, model, data.images, data.labels, threat="Linf:0.15", attacks="pgd(steps=10)")
    assert ask(not_differentiable=True).robust_accuracy < ask().robust_accuracy
    assert "randomised-defense" in {flag.name for flag in ask(randomised=True).flags}
    assert torch.equal(ask(randomised=True).robust, ask().robust)
