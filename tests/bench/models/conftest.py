"""A factory of models in a file, and weights for it."""

import pytest
import torch

from datafiles import write_modules
from gauntlet.bench.registry.import_file import import_object

FACTORY = """
from torch import nn
def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.BatchNorm1d(5))
made = build()
number = 3
def with_argument(depth): ...
def text(): return 'net'
"""


@pytest.fixture
def factory(tmp_path):
    return f"{write_modules(tmp_path / 'user', net=FACTORY)}/net.py:build"


@pytest.fixture
def trained(factory):
    model = import_object(factory)()
    with torch.no_grad():
        model[1].weight.fill_(0.25)
    return model.eval()
