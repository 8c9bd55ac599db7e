"""Digests of objects in memory: they follow code and attributes, and nothing else."""

from __future__ import annotations

import functools
import sys

import numpy as np
import pytest
import torch
from torch import nn

from datafiles import write_modules
from gauntlet.bench.registry.import_file import import_object
from gauntlet.bench.registry.live_code import live_digest

pytestmark = pytest.mark.usefixtures("imports_are_undone")

TYPED = """
from torch import nn

GAIN = {gain}

def scaled(x):
    return x * GAIN{more}

class Typed(nn.Module):
    def forward(self, images):
        {name} = images.flatten(1)  # a comment
        return scaled({name})
"""


def typed(gain=1.0, more="", name="flat"):
    """A module whose class is in no file, as in a notebook."""
    names: dict = {"__name__": "typed"}
    exec(TYPED.format(gain=gain, more=more, name=name), names)
    return live_digest({"module": names["Typed"]()})


class Held(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value


def held(value):
    return live_digest({"module": Held(value)})


def test_code_that_was_typed_counts_with_what_it_names():
    assert typed() == typed() == typed(name="other")
    assert len({typed(), typed(gain=2.0), typed(more=" + x")}) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (0.1, 0.2),
        (1, 1.0),
        ("median", "mean"),
        ((1, 2), (2, 1)),
        ([1, 2], [1, 3]),
        ({"a": 1}, {"a": 2}),
        (np.zeros(3), np.ones(3)),
        (torch.zeros(3), torch.ones(3)),
        (nn.ReLU, nn.GELU),
        (torch.relu, torch.tanh),
        (functools.partial(max, 1), functools.partial(max, 2)),
        ([nn.Identity()], [nn.ReLU()]),
    ],
)
def test_what_a_module_holds_beside_its_weights_counts(one, other):
    assert held(one) == held(one)
    assert held(one) != held(other)


def test_paths_and_devices_do_not_count():
    assert held("/here/model.pt") == held("/there/model.pt")
    assert held("cpu") == held("cuda:0")
    assert held(torch.device("cpu")) == held(torch.device("meta"))


def test_what_a_function_carries_counts():
    def scaled(gain):
        return lambda x: x * gain

    assert held(scaled(1)) == held(scaled(1)) != held(scaled(2))


def test_a_hook_counts():
    module = Held(1)
    before = live_digest({"module": module})
    module.register_forward_hook(lambda module, images, output: output * 2)
    assert live_digest({"module": module}) != before


def test_hooks_of_other_models_do_not_count():
    def hooked():
        module = Held(1)
        module.register_forward_pre_hook(double)
        return live_digest({"module": module})

    def double(module, given):
        return tuple(2 * one for one in given)

    assert hooked() == hooked()


def test_a_helper_of_the_file_of_a_class_counts(tmp_path):
    text = "import part\nfrom torch import nn\n\nclass Net(nn.Module): ...\n"
    digests = []
    for part in ("GAIN = 1", "GAIN = 1  # a comment", "GAIN = 2"):
        write_modules(tmp_path, model=text, part=part)
        digests.append(live_digest({"module": import_object(f"{tmp_path}/model.py:Net")()}))
        sys.modules.pop("part", None)
    assert digests[0] == digests[1] != digests[2]


def test_an_object_that_refers_to_itself_comes_to_an_end():
    ring: list = [1]
    ring.append(ring)
    assert held(ring)
