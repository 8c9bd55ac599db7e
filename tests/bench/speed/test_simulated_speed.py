"""The simulated speed: what is recorded, what it is priced at, and what the command writes."""

from __future__ import annotations

from collections import Counter

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from gauntlet.attacks.views.fast_model import LowPrecision, full_float32
from gauntlet.bench.cli.main import cli
from gauntlet.bench.environment.stopwatch import timed
from gauntlet.bench.speed.device_costs import (
    H200,
    NETWORKS,
    Call,
    DeviceCosts,
    NetworkCosts,
    assumptions,
    operations_seconds,
    passes_seconds,
)
from gauntlet.bench.speed.record_calls import CallLog, Recorded, recorded_operations
from gauntlet.bench.speed.simulate import fastest_ratios

DEVICE = DeviceCosts(
    name="made up",
    flops={"float32": 1e6, "tf32": 4e6, "bf16": 8e6},
    bandwidth=1e6,
    utilisation={"float32": 1.0, "tf32": 0.5, "bf16": 0.5},
    memory_share=0.5,
    launch=0.001,
    source="a test",
)
NETWORK = NetworkCosts("made up", multiplications=500, convolved=0.5, kernels=10, layers=5, pixels=100, source="a test")


@pytest.mark.parametrize(
    ("call", "seconds"),
    [
        # An image's 1,000 operations take 1 ms in float32, 0.5 ms in TF32, 0.75 ms by default, half of each, and 0.25 ms in bf16.
        (Call(4, False, "float32"), 0.010),
        (Call(40, False, "float32"), 0.040),
        (Call(40, True, "float32"), 0.080),
        (Call(40, False, "default"), 0.030),
        (Call(40, False, "tf32"), 0.020),
        (Call(40, True, "bf16"), 0.040),
        (Call(400, False, "bf16"), 0.100),
    ],
)
def test_a_pass_costs_the_larger_of_its_launches_and_its_images(call, seconds):
    assert passes_seconds({call: 1}, NETWORK, DEVICE) == pytest.approx(seconds)
    assert passes_seconds({call: 3}, NETWORK, DEVICE) == pytest.approx(3 * seconds)


def test_an_operation_costs_a_launch_or_the_way_of_its_images_through_memory():
    # Half a million bytes a second reach 100 pixels: 5,000 bytes a pixel take a second.
    assert operations_seconds({0.0: 2, 5000.0: 1}, NETWORK, DEVICE) == pytest.approx(0.002 + 1)


class Small(nn.Module):
    """Two classes; the gradient reaches every pixel."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        return self.layer(x.flatten(1))


@pytest.fixture
def log():
    return CallLog(torch.Size([1, 2, 2]))


def test_passes_are_recorded_with_part_arithmetic_and_gradient(log):
    model = Recorded(Small().eval().requires_grad_(False), log)
    x = torch.rand(3, 1, 2, 2)
    with recorded_operations(log):
        with timed("attack"):
            points = x.clone().requires_grad_()
            torch.autograd.grad(model(points).sum(), points)
        with timed("verify"), full_float32():
            model(x)
        with timed("attack"):
            LowPrecision(model, torch.bfloat16)(x[:2])
    assert log.total("attack").calls == Counter({Call(3, True, "default"): 1, Call(2, False, "bf16"): 1})
    assert log.total("verify").calls == Counter({Call(3, False, "float32"): 1})
    assert sum(log.total().calls.values()) == 3


def test_a_second_pass_back_counts_as_a_forward_pass(log):
    model = Recorded(Small(), log)
    x = torch.rand(3, 1, 2, 2, requires_grad=True)
    logits = model(x)
    torch.autograd.grad(logits[:, 0].sum(), x, retain_graph=True)
    torch.autograd.grad(logits[:, 1].sum(), x)
    assert +log.total().calls == Counter({Call(3, True, "default"): 1, Call(3, False, "default"): 1})


def test_operations_between_passes_are_counted_and_those_of_the_model_are_not(log):
    model = Recorded(Small().eval().requires_grad_(False), log)
    x = torch.rand(3, 1, 2, 2, requires_grad=True)
    with recorded_operations(log):
        logits = model(x)
    assert sum(log.total().operations.values()) == 0
    with recorded_operations(log):
        (gradient,) = torch.autograd.grad(logits, x, torch.ones_like(logits))
        gradient.sign()
        bool((logits.detach() > 0).any())
    counted = log.total()
    # Reads and writes three images of four bytes a pixel.
    assert counted.operations[2 * 3 * 4] == 1
    assert counted.waits == 1


def test_ratios_are_to_the_fastest_peer():
    names = ["gauntlet", "gauntlet, bfloat16", "a", "b"]
    table = pd.DataFrame({"network": "n", "row": "r", "participant": names, "s": [1.0, 3.0, 2.0, 4.0]})
    assert fastest_ratios(table, "s") == {("n", "r", "gauntlet"): 0.5, ("n", "r", "gauntlet, bfloat16"): 1.5}
    assert fastest_ratios(table[:2], "s") == {}


def test_every_constant_has_a_source():
    text = assumptions(H200, NETWORKS)
    for network in NETWORKS:
        assert network.name in text
        assert network.source in text
    assert H200.source in text


def test_the_command_prices_what_it_records_and_says_so(tmp_path):
    arguments = ["speed", "PGD*", "--simulate=h200", "--samples=40", f"--out={tmp_path}"]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "speed-simulated.md").read_text(encoding="utf-8")
    assert text.startswith("# Simulated speed on H200: priced, not measured")
    table = pd.read_csv(tmp_path / "speed-simulated.csv")
    assert set(table["network"]) == {network.name for network in NETWORKS}
    assert set(table["participant"]) == {"gauntlet", "gauntlet, bfloat16", "torchattacks"}
    assert (table["simulated_whole_s"] > table["simulated_attack_s"]).all()
    assert (table["simulated_attack_s"] > table["simulated_passes_s"]).all()
    peer = table[table["participant"] == "torchattacks"]
    # One batch of at most 40 images, 20 steps forward and back.
    assert set(peer["calls"]) == {20}


def test_an_unknown_gpu_is_an_error(tmp_path):
    done = CliRunner().invoke(cli, ["speed", "--simulate=h300", f"--out={tmp_path}"])
    assert isinstance(done.exception, ValueError)
    assert "there are h200" in str(done.exception)
