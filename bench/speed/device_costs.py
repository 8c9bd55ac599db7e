"""What passes and operations cost on a GPU that is not here: published figures of the device, and stated assumptions.

A pass of n images takes the larger of the time to launch its kernels and n times the time of an image: its multiplications, and
the bytes that the layers between convolutions and matrix products move through memory. An operation of an attack takes the larger
of one launch and the time to move its images through memory. Nothing here was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Form = Literal["float32", "default", "tf32", "bf16"]
"""The arithmetic of a pass: float32; PyTorch's default, convolutions in TF32 and the rest in float32; TF32; bfloat16."""


@dataclass(frozen=True)
class Call:
    """A pass of a batch through the model."""

    images: int
    backward: bool
    """Whether the gradient with respect to the images was computed, too."""
    form: Form


@dataclass(frozen=True)
class DeviceCosts:
    """A GPU."""

    name: str
    flops: Mapping[Form, float]
    """Published dense operations a second; `default` is made of two of them."""
    bandwidth: float
    """Published bytes a second."""
    utilisation: Mapping[Form, float]
    """Assumed share of `flops` that passes reach."""
    memory_share: float
    """Assumed share of `bandwidth` that elementwise operations reach."""
    launch: float
    """Assumed seconds to launch a kernel from Python, without CUDA graphs."""
    source: str


@dataclass(frozen=True)
class NetworkCosts:
    """A network, as far as its passes are priced."""

    name: str
    multiplications: float
    """Of an image's forward pass; an operation is half of one. The backward pass to the images takes as many."""
    convolved: float
    """Share of them in convolutions, which PyTorch computes in TF32 by default; matrix products it does not."""
    kernels: int
    """Of a forward pass, one an operation of the eager network. The backward pass to the images is assumed to have as many."""
    layers: int
    """Convolutions and linear layers. Under autocast each is assumed to need two more kernels, for casts."""
    pixels: int
    """Of an image, over all channels."""
    source: str
    moved: float = 0.0
    """Bytes that the other layers (normalisation, activation, addition) read and write in an image's forward pass in float32. In
    bfloat16 half as many, and as many again in the backward pass to the images."""

    def launch_time(self, call: Call, device: DeviceCosts) -> float:
        """Seconds to launch the kernels of a pass."""
        kernels = self.kernels + (2 * self.layers if call.form == "bf16" else 0)
        return kernels * (2 if call.backward else 1) * device.launch

    def image_time(self, call: Call, device: DeviceCosts) -> float:
        """Seconds of an image in a large batch."""
        parts: dict[Form, float] = {call.form: 1.0}
        if call.form == "default":
            parts = {"tf32": self.convolved, "float32": 1 - self.convolved}
        share = sum(part / _rate(device, form) for form, part in parts.items())
        traffic = self.moved * (0.5 if call.form == "bf16" else 1.0) / (device.bandwidth * device.memory_share)
        return (2 * self.multiplications * share + traffic) * (2 if call.backward else 1)


H200 = DeviceCosts(
    name="H200",
    flops={"float32": 67e12, "tf32": 494.5e12, "bf16": 989e12},
    bandwidth=4.8e12,
    utilisation={"float32": 0.7, "tf32": 0.4, "bf16": 0.4},
    memory_share=0.8,
    launch=5e-6,
    source="NVIDIA's H200 data sheet (SXM; its TF32 and bfloat16 figures are halved, since they are with sparsity)",
)
DEVICES = {"h200": H200}

_COUNTED = "counted on bench/speed/networks.py, tests/bench/speed/test_counted_costs.py"
NETWORKS = (
    NetworkCosts("WRN-28-10, 32×32", 5.24e9, 1.0, 92, 29, 3 * 32 * 32, _COUNTED, 50.9e6),
    NetworkCosts("ResNet-50, 224×224", 4.09e9, 1.0, 174, 54, 3 * 224 * 224, _COUNTED, 238e6),
    NetworkCosts("ViT-S/16, 224×224", 4.60e9, 0.013, 137, 50, 3 * 224 * 224, f"{_COUNTED}; attention fused", 74e6),
    NetworkCosts("small CNN, 8×8", 0.282e6, 0.82, 9, 5, 64, "counted on the models cnn.*", 17.2e3),
)


def call_seconds(call: Call, network: NetworkCosts, device: DeviceCosts) -> float:
    """Seconds of a pass."""
    return max(network.launch_time(call, device), call.images * network.image_time(call, device))


def passes_seconds(calls: Mapping[Call, int], network: NetworkCosts, device: DeviceCosts) -> float:
    """Seconds of passes, by how often each was made."""
    return sum(count * call_seconds(call, network, device) for call, count in calls.items())


def operations_seconds(operations: Mapping[float, int], network: NetworkCosts, device: DeviceCosts) -> float:
    """Seconds of operations outside the model, by the bytes that each reads and writes for a pixel of one image of the batch."""
    rate = device.bandwidth * device.memory_share
    return sum(count * max(device.launch, moved * network.pixels / rate) for moved, count in operations.items())


def assumptions(device: DeviceCosts, networks: Iterable[NetworkCosts]) -> str:
    """The constants as Markdown, with their sources."""
    head = [
        f"Constants for {device.name}. Rates: {device.source}: "
        + ", ".join(f"{form} {rate / 1e12:g} TFLOP/s" for form, rate in device.flops.items())
        + f", {device.bandwidth / 1e12:g} TB/s. Assumed: passes reach "
        + ", ".join(f"{100 * share:g} % in {form}" for form, share in device.utilisation.items())
        + f"; elementwise operations reach {100 * device.memory_share:g} % of the bandwidth; a launch takes "
        f"{device.launch * 1e6:g} µs; a backward pass to the images has the multiplications, "
        "traffic and kernels of a forward pass (counted: 1.0 to 1.5 times the traffic), and bfloat16 half the traffic; "
        "autocast adds two kernels for each convolution or linear layer; PyTorch's default takes TF32 for convolutions alone.",
        "",
        "| network | multiplications an image | in convolutions | other layers move | kernels forward "
        "| launch, forward + backward "
        "| an image, forward + backward: float32 / default / TF32 / bf16 | source |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    forms: tuple[Form, ...] = ("float32", "default", "tf32", "bf16")
    for one in networks:
        calls = [Call(1, True, form) for form in forms]
        times = " / ".join(f"{one.image_time(call, device) * 1e6:.3g} µs" for call in calls)
        head.append(
            f"| {one.name} | {one.multiplications:.3g} | {100 * one.convolved:.3g} % | {one.moved / 1e6:.3g} MB "
            f"| {one.kernels} "
            f"| {one.launch_time(calls[1], device) * 1e3:.2f} ms | {times} | {one.source} |"
        )
    return "\n".join(head)


def _rate(device: DeviceCosts, form: Form) -> float:
    return device.flops[form] * device.utilisation[form]
