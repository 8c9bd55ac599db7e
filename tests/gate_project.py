"""A project whose gate is tested: its model, the run that is accepted, its configuration, and how its errors are read."""

from __future__ import annotations

import subprocess
from pathlib import Path

MODEL = '''
"""Somebody's network. Its weights lie beside it."""

from pathlib import Path

import torch

from gauntlet.bench.models.cnn import cnn


def build():
    model = cnn()
    model.load_state_dict(torch.load(Path(__file__).with_name("weights.pt"), weights_only=True))
    return model.eval()
'''

FAILING = (
    MODEL.replace(
        "    return model.eval()",
        "    model.register_forward_pre_hook(refuse)\n    return model.eval()",
    )
    + '''

def refuse(module, given):
    """Nobody attacks this network."""
    if given[0].requires_grad:
        raise OSError("no gradients here")
'''
)

CUT = '''

_first = build


class Cut(torch.nn.Module):
    """Gradients are cut for a part of the images."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        part = x.mean((1, 2, 3), keepdim=True) > 0.33
        return self.net(torch.where(part, x.detach(), x))


def build():
    return Cut(_first()).eval()
'''

RUN = ("run", "--model=model.py:build", "--data=digits", "--samples=200", "--threat=Linf:0.15", "--out=out")

ATTACK = "--attacks=pgd(steps=10)"

BASELINE = Path("bench", "baselines", "custom.json")

PROJECT = f"""
model = "model.py:build"
data = "digits"
samples = "200"
threat = "Linf:0.15"
attacks = "pgd(steps=10)"
out = "out"

[gate]
baseline = "{BASELINE.as_posix()}"
"""
"""The configuration of the same run, with its gate."""

FROM = "--baseline-from=HEAD^"


def configure(old="", new=""):
    """Write the configuration, with `new` in place of `old`."""
    assert old in PROJECT
    Path("gauntlet.toml").write_text(PROJECT.replace(old, new) if old else PROJECT, encoding="utf-8")


def git(*arguments):
    """Run git in the working folder, as somebody."""
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True, capture_output=True)


def assert_told(done, code, *words):
    """An expected error: its exit code, one message with the words, and no traceback."""
    assert done.returncode == code, done.stdout + done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
