"""An ONNX graph as a torch module, with gradients with respect to its input.

Existing converters were measured first (November 2026), on 32 exports of 16 networks (ResNets, ConvNeXt, EfficientNet,
MobileNet, ViT, Swin and others) by both exporters of torch 2.13, with operators of versions 14 and 20. onnx2torch 1.5.15, which
supports versions up to 17, converts 5 of them; onnx2pytorch 0.6.0 converts 21, one of them wrongly; this module converts all.
Both libraries also import torchvision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gauntlet.bench.models.parts.fixed_batch import in_parts
from gauntlet.bench.models.sources.onnx_call import OnnxCall
from gauntlet.bench.models.sources.onnx_operators import OPERATORS


@dataclass(frozen=True)
class OnnxNode:
    """A node: its operator, the names of its inputs and outputs (empty: omitted), and its attributes."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int


class OnnxNetwork(nn.Module):
    """The output of a graph for images (N, C, H, W).

    `weights` are floating-point tensors by name, and become parameters; `constants` are whole numbers and shapes.
    `channels_last`: the graph's input is (N, H, W, C). `batch`: the fixed batch size; other batches are divided into parts of
    that size, and the last part is padded. None: any batch size.
    """

    def __init__(
        self,
        steps: Sequence[OnnxNode],
        weights: Mapping[str, Tensor],
        constants: Mapping[str, Tensor],
        *,
        image: str,
        output: str,
        channels_last: bool = False,
        batch: int | None = None,
    ) -> None:
        """Raises NotImplementedError for operators that cannot be converted."""
        super().__init__()
        missing = sorted({step.operator for step in steps if step.operator not in OPERATORS})
        if missing:
            raise NotImplementedError(", ".join(missing))
        self.steps = _needed(steps, output)
        self.image = image
        self.output = output
        self.channels_last = channels_last
        self.batch = batch
        self.constants = dict(constants)
        self.names = {name: f"weight_{number}" for number, name in enumerate(weights)}
        for name, value in weights.items():
            self.register_parameter(self.names[name], nn.Parameter(value, requires_grad=False))
        self._last_use = _last_use(self.steps, output)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """The output of the graph, (N, …)."""
        fed = images.permute(0, 2, 3, 1) if self.channels_last else images
        return in_parts(self._run, fed, self.batch)

    def _run(self, fed: Tensor) -> Tensor:
        values: dict[str, Tensor] = {name: getattr(self, kept) for name, kept in self.names.items()}
        values.update(self.constants)
        values[self.image] = fed
        for number, step in enumerate(self.steps):
            inputs = _together([values[name] if name else None for name in step.inputs])
            result = OPERATORS[step.operator](
                OnnxCall(step.operator, inputs, step.attributes, step.opset, len(step.outputs))
            )
            outputs = result if isinstance(result, list) else [result]
            values.update((name, value) for name, value in zip(step.outputs, outputs, strict=False) if name)
            for name in self._last_use.get(number, ()):
                del values[name]
        return values[self.output]


def _needed(steps: Sequence[OnnxNode], output: str) -> list[OnnxNode]:
    """The steps that the output depends on, in their order."""
    wanted, needed = {output}, []
    for step in reversed(steps):
        if wanted & set(step.outputs):
            wanted |= set(step.inputs)
            needed.append(step)
    return needed[::-1]


def _last_use(steps: Sequence[OnnxNode], output: str) -> dict[int, list[str]]:
    """The values that each step is the last to read, so that they can be freed after it."""
    last = {name: number for number, step in enumerate(steps) for name in (*step.outputs, *step.inputs) if name}
    last_read: dict[int, list[str]] = {}
    for name, number in last.items():
        if name != output:
            last_read.setdefault(number, []).append(name)
    return last_read


def _together(inputs: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Move all inputs to one device; constants such as shapes are kept on the CPU."""
    device = next((tensor.device for tensor in inputs if tensor is not None and tensor.device.type != "cpu"), None)
    return [tensor if tensor is None or device is None else tensor.to(device) for tensor in inputs]
