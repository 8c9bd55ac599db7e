"""The constants of networks that are priced for a GPU, counted on the networks themselves."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gauntlet.bench.models.cnn import cnn
from gauntlet.bench.speed import device_costs
from gauntlet.bench.speed.device_costs import H200, Call, NetworkCosts
from gauntlet.bench.speed.networks import NETWORKS

PRODUCTS = ("convolution", "addmm", "mm", "bmm")


@dataclass
class Counted:
    kernels: int = 0
    multiplications: float = 0.0
    convolved: float = 0.0
    moved: float = 0.0


class Counting(TorchDispatchMode):
    """Counts kernels, multiplications, and the bytes of tensors that all other kernels read and write."""

    def __init__(self):
        super().__init__()
        self.count = Counted()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name, count = func.overloadpacket.__name__, self.count
        if func.is_view or "empty" in name:
            return out
        count.kernels += 1
        if name == "convolution":
            count.multiplications += out.numel() * args[1][0].numel()
            count.convolved += out.numel() * args[1][0].numel()
        elif name in PRODUCTS:
            count.multiplications += out.numel() * args[1 if name == "addmm" else 0].shape[-1]
        else:
            tensors = [one for one in tree_leaves((args, kwargs, out)) if isinstance(one, torch.Tensor)]
            count.moved += sum(one.numel() * one.element_size() for one in tensors)
        return out


def counted(build, shape):
    """The counts of an image: of two images less those of one, so that weights do not count."""
    with torch.device("meta"):
        model = build().eval().requires_grad_(False)
        counts = []
        for images in (1, 2):
            with Counting() as mode:
                model(torch.empty(images, *shape, requires_grad=True))
            counts.append(mode.count)
    one, two = counts
    return Counted(
        one.kernels,
        two.multiplications - one.multiplications,
        two.convolved - one.convolved,
        two.moved - one.moved,
    )


def priced(start):
    (costs,) = (one for one in device_costs.NETWORKS if one.name.startswith(start))
    return costs


@pytest.mark.parametrize("start", ["WRN-28-10", "ResNet-50", "small CNN"])
def test_the_constants_are_those_of_the_networks(start):
    costs = priced(start)
    build, shape = next(((one.build, one.shape) for one in NETWORKS if one.name == costs.name), (cnn, (1, 8, 8)))
    count = counted(build, shape)
    assert count.kernels == costs.kernels
    assert count.multiplications == pytest.approx(costs.multiplications, rel=0.005)
    assert count.convolved / count.multiplications == pytest.approx(costs.convolved, abs=0.01)
    assert count.moved == pytest.approx(costs.moved, rel=0.05)


def test_a_transformer_has_its_multiplications_with_those_of_attention():
    costs = priced("ViT-S")
    (network,) = (one for one in NETWORKS if one.name == costs.name)
    count = counted(network.build, network.shape)
    assert count.multiplications == pytest.approx(costs.multiplications, rel=0.005)
    assert count.convolved / count.multiplications == pytest.approx(costs.convolved, abs=0.001)
    # Counted where attention is made of single operations, which a fused kernel keeps to itself.
    assert costs.moved < count.moved


def test_traffic_adds_to_arithmetic_and_halves_in_bfloat16():
    costs = NetworkCosts("made up", 0.0, 1.0, 1, 1, 1, "a test", moved=2 * 4.8e12 * 0.8)
    assert costs.image_time(Call(1, False, "float32"), H200) == pytest.approx(2.0)
    assert costs.image_time(Call(1, True, "tf32"), H200) == pytest.approx(4.0)
    assert costs.image_time(Call(1, True, "bf16"), H200) == pytest.approx(2.0)
