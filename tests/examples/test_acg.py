"""The example of an attack: ACG against a plain loop, what `check_rule` says of it, and what docs/extending.md says."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import shutil
import sys
import textwrap

import pytest
import torch
from torch import nn

from builders import ROOT
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.solver import Task, Verification, solve
from gauntlet.bench.registries import ATTACKS
from gauntlet.testing import check_rule

EXAMPLE = ROOT / "examples" / "acg" / "acg.py"
GUIDE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SECTION = GUIDE.partition("## An attack, step by step")[2].partition("\n## ")[0]


@pytest.fixture(autouse=True)
def registry_as_before(monkeypatch):
    """Attacks that a test registers are forgotten after it."""
    for name in ("_entries", "_registrants", "_problems"):
        monkeypatch.setattr(ATTACKS, name, dict(getattr(ATTACKS, name)))


@pytest.fixture
def acg(monkeypatch):
    spec = importlib.util.spec_from_file_location("acg", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "acg", module)
    spec.loader.exec_module(module)
    return module


def test_the_example_is_short_and_imports_only_the_public_interface():
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 70
    names = set()
    for node in ast.walk(ast.parse(EXAMPLE.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert {name for name in names if name.startswith("gauntlet")} == {"gauntlet", "gauntlet.ops"}


def test_check_rule_passes_it(acg):
    report = check_rule(acg.ACG(steps=10, restarts=2))
    assert len(report.properties) == 4


def reference(model, clean, label, eps, steps):
    """The iterates of one image (1, C, H, W), by the paper's algorithm 1 with the authors' choices, as a plain loop."""
    lower, upper = (clean - eps).clamp(0, 1), (clean + eps).clamp(0, 1)

    def evaluated(x):
        x = x.clone().requires_grad_()
        logits = model(x)[0]
        loss = torch.cat([logits[:label], logits[label + 1 :]]).max() - logits[label]
        (gradient,) = torch.autograd.grad(loss, x)
        return float(loss.detach()), gradient

    period, shorter, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    x, size = (lower + upper) / 2, 2 * eps
    path, losses = [x], []
    gradient_before = direction_before = None
    best, best_then, halved, last = (-float("inf"), None), None, True, 0
    for step in range(steps):
        loss, gradient = evaluated(x)
        losses.append(loss)
        direction = gradient
        if direction_before is not None:
            change = gradient_before - gradient
            below = float((direction_before * change).sum())
            beta = max(float((gradient * change).sum()) / below, 0) if below else 0
            direction = gradient + beta * direction_before
        if loss > best[0]:
            best = loss, (x, gradient, direction)
        if step == last + period:
            rises = sum(losses[i + 1] > losses[i] for i in range(last, step))
            halve = rises <= 0.75 * period or (not halved and best[0] <= best_then)
            if halve:
                size /= 2
                x, gradient, direction = best[1]
            halved, best_then, last = halve, best[0], step
            period = max(period - shorter, least)
        gradient_before, direction_before = gradient, direction
        x = torch.minimum(torch.maximum(x + size * direction.sign(), lower), upper)
        path.append(x)
    return torch.cat(path)


def test_its_iterates_are_those_of_a_plain_loop(acg):
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)).double()
    for parameter in model.requires_grad_(False).parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    images = (1.4 * torch.rand(12, 1, 6, 6, generator=generator, dtype=torch.float64) - 0.2).clamp(0, 1)
    labels, steps, eps, paths = model(images).argmax(1), 40, 0.3, []

    class Watched(acg.ACG):
        def start(self, oracle):
            state = super().start(oracle)
            paths.append(state.x)
            return state

        def step(self, state, oracle):
            state = super().step(state, oracle)
            paths.append(state.x)
            return state

    def never(points, samples, attempt):
        no = torch.zeros(len(points), dtype=torch.bool)
        return Verification(no, no, no)

    task = Task(images, labels, [str(i) for i in range(12)], ThreatModel("Linf", eps), 0, "acg")
    assert len(list(solve(Watched(steps=steps), model, task, never))) == 12
    path = torch.stack(paths)
    for sample in range(12):
        expected = reference(model, images[sample : sample + 1], int(labels[sample]), eps, steps)
        torch.testing.assert_close(path[:, sample], expected, rtol=0, atol=1e-12)


# --- docs/extending.md ---


def test_the_code_of_the_guide_is_the_code_of_the_example():
    code = EXAMPLE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", SECTION, flags=re.DOTALL)
    assert len(blocks) >= 5
    for block in blocks:
        for part in re.split(r"\n *\.\.\.\n", block):
            text = textwrap.dedent(part).strip("\n")
            assert text in code or textwrap.indent(text, "    ") in code or textwrap.indent(text, " " * 8) in code, text


def test_the_commands_of_the_guide_run(tmp_path, monkeypatch, call):
    shutil.copytree(EXAMPLE.parent, tmp_path / "examples" / "acg")
    monkeypatch.chdir(tmp_path)
    commands = [shlex.split(line)[1:] for line in re.findall(r"^gauntlet .*$", SECTION, flags=re.MULTILINE)]
    assert len(commands) >= 2
    for command in commands:
        done = call(*command)
        assert done.returncode == 0, (command, done.stderr)


def test_the_guide_shows_what_check_rule_says(acg):
    shown = SECTION.partition("print(gauntlet.testing.check_rule(acg.ACG(steps=10, restarts=2)))")[2]
    shown = textwrap.dedent(shown.partition("\n\n")[2].partition("\n\n")[0]).split()
    said = str(check_rule(acg.ACG(steps=10, restarts=2))).split()
    # Another processor may round otherwise, and break a sample more or less.
    assert [re.sub(r"\d", "0", word) for word in shown] == [re.sub(r"\d", "0", word) for word in said]
