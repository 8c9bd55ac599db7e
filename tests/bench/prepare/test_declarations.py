"""What a model hides, declared by its user or measured once: the same attack at nearly the same passes."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import gauntlet
from builders import slow_unless
from gauntlet.bench.cli.main import cli
from gauntlet.bench.config.schema import load_config
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.run.engine import Engine
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.sealed_json import read_json, sealed, unsealed

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


def measured_as(path, **fields):
    """As if another machine had measured these fields so, where the stored measurement has them."""
    held = unsealed(read_json(path), f"{path.parent.name}/{path.stem}")
    changed = {name: value for name, value in fields.items() if name in held}
    path.write_text(sealed({**held, **changed}, f"{path.parent.name}/{path.stem}"))


@pytest.mark.parametrize(
    "attack", ["pgd(steps=10)", slow_unless(False, "gauntlet:fast"), slow_unless(False, "adaptive()")]
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
        measured_as(path, randomised=False)
    # The stored measurement counts, whatever a new one would say.
    result, _ = run(folder, "noisy", "noise")
    assert not result.cell.randomised


def test_useless_gradients_are_attacked_by_bpda_whether_declared_or_measured(folder):
    naive, _ = run(folder, "rounded", "naive", out="naive")
    declared, fewest = run(folder, "rounded(not_differentiable=True)", "pgd(steps=20)")
    measured, passes = run(folder, "rounded", "pgd(steps=20)", out="measured")
    assert naive.cell.techniques == {"": "naive"}
    assert declared.cell.techniques == measured.cell.techniques == {"": "bpda"}
    before, after, same = (cells.outcomes(one).robust.tolist() for one in (naive, declared, measured))
    assert sum(after) < sum(before)
    assert same == after
    assert fewest <= passes <= 1.5 * fewest
    assert "non-differentiable-defense" in {flag.name for flag in cells.flags(declared)}
    assert "unavailable-gradients" in {flag.name for flag in cells.flags(measured)}


def test_gradients_of_a_plain_model_are_its_own(folder):
    result, _ = run(folder, "plain", "pgd(steps=5)")
    assert result.cell.techniques == {"": "white-box"}
    assert "non-differentiable-defense" not in {flag.name for flag in cells.flags(result)}


def test_useless_gradients_are_measured_once_and_stored(folder):
    run(folder, "rounded", "fgsm")
    (found,) = (folder / "out" / "measured").glob("*")
    (path,) = [path for path in found.glob("*.json") if "no_gradient" in path.read_text()]
    assert json.loads(path.read_text())["no_gradient"] is True
    measured_as(path, no_gradient=False)
    # The stored measurement counts, whatever a new one would say.
    result, _ = run(folder, "rounded", "pgd(steps=3)")
    assert result.cell.techniques == {"": "white-box"}


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


@pytest.mark.parametrize(
    ("attacks", "treated"),
    [
        ("naive,fgsm", ("fgsm",)),
        slow_unless(False, "naive,fgsm,square(queries=20),adaptive,replay", ("fgsm", "adaptive")),
    ],
)
def test_attacks_that_treat_useless_gradients_as_declared_say_so(folder, monkeypatch, attacks, treated):
    monkeypatch.chdir(folder)
    options = [
        "--data=digits",
        "--samples=4",
        "--device=cpu",
        f"--attacks={attacks}",
    ]
    options.append("--out=out")
    done = CliRunner().invoke(cli, ["run", "--model=nets.py:rounded", *options])
    told = [line for line in done.output.splitlines() if line.startswith("measured:")]
    line = "measured: gradients of nets.rounded are of no use; {} attacks it as if --not-differentiable were given"
    assert told == [line.format(attack) for attack in treated]


class Rounded(nn.Module):
    """A network behind rounding."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.eval()

    def forward(self, x):
        return self.net((7 * x).round() / 7)


@pytest.mark.parametrize("samples", ["6", slow_unless(False, "20")])
def test_evaluate_takes_declarations(samples):
    data = gauntlet.load_data("digits", samples=samples)
    model = Rounded(gauntlet.load_model("cnn.standard_digits").module)
    ask = partial(gauntlet.evaluate, model, data.images, data.labels, threat="Linf:0.15", attacks="pgd(steps=10)")
    assert torch.equal(ask(not_differentiable=True).robust, ask().robust)
    assert ask().robust_accuracy < ask(attacks="naive").robust_accuracy
    assert "randomised-defense" in {flag.name for flag in ask(randomised=True).flags}
    assert torch.equal(ask(randomised=True).robust, ask().robust)
