"""Reading of ONNX files: validation, shapes of input and output, and conversion of the graph to a torch module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gauntlet.bench.environment.size_limits import SizeLimitError
from gauntlet.bench.models.files.local_files import check_file
from gauntlet.bench.models.parts.errors import ModelError, short_error
from gauntlet.bench.models.sources.import_library import import_library
from gauntlet.bench.models.sources.onnx_network import OnnxNetwork, OnnxNode
from gauntlet.bench.models.sources.onnx_operators import OPERATORS
from gauntlet.bench.models.sources.onnx_safety import (
    UnsafeFileError,
    check_description,
    check_shapes,
    operators,
    read_description,
)

_FLOATS = {1: torch.float32, 11: torch.float64}
"""ONNX element types that have gradients and the precision that verification needs."""
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class OnnxFile:
    """A valid file, with the properties of its input and output."""

    path: Path
    proto: Any
    image: str
    output: str
    shape: tuple[int | None, ...]
    """Shape of the input, (N, C, H, W) or (N, H, W, C), with None for any size."""
    element: int
    """ONNX element type of the input."""

    @property
    def channels_last(self) -> bool:
        """Whether the input is (N, H, W, C), as in files from TensorFlow."""
        return self.shape[1] not in _CHANNELS and self.shape[3] in _CHANNELS

    @property
    def batch(self) -> int | None:
        """The fixed batch size; None for any."""
        return self.shape[0]

    @property
    def size(self) -> tuple[int | None, int | None, int | None]:
        """Channels, height and width, with None for any."""
        _, a, b, c = self.shape
        return (c, a, b) if self.channels_last else (a, b, c)


def read_onnx(path: Path) -> OnnxFile:
    """Read and check a file; no library has run it then. Raises ModelError that names the problem."""
    check_file(path, "ONNX file")
    onnx = import_library("onnx", "onnx")
    try:
        proto = read_description(path)
        check_description(proto, path.parent)
        onnx.load_external_data_for_model(proto, str(path.parent))
        onnx.checker.check_model(proto)
        if proto.functions:
            proto = import_library("onnx.inliner", "onnx").inline_local_functions(proto)
        check_shapes(proto)
    except (UnsafeFileError, SizeLimitError) as error:
        raise ModelError(f"ONNX file {str(path)!r} is refused, and nothing of it was run: {error}") from error
    except Exception as error:  # the parser and the checker raise their own errors
        raise ModelError(f"ONNX file {str(path)!r} is damaged, or not an ONNX file: {short_error(error)}") from error
    graph = proto.graph
    stored = {value.name for value in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    if len(inputs) != 1 or not graph.output:
        raise ModelError(
            f"ONNX file {str(path)!r} has {len(inputs)} inputs ({', '.join(value.name for value in inputs)}) and "
            f"{len(graph.output)} outputs: a classifier has one input, the images"
        )
    kind = inputs[0].type.tensor_type
    shape = tuple(
        value.dim_value if value.HasField("dim_value") and value.dim_value > 0 else None for value in kind.shape.dim
    )
    if len(shape) != 4:
        raise ModelError(
            f"ONNX file {str(path)!r} has an input of {len(shape)} dimensions, but images have 4: (N, C, H, W)"
        )
    return OnnxFile(path, proto, inputs[0].name, graph.output[0].name, shape, kind.elem_type)


def to_network(file: OnnxFile, *, batch: int | None) -> OnnxNetwork:
    """The graph as a torch module. Raises ModelError that names the operators that cannot be converted."""
    if file.element not in _FLOATS:
        raise ModelError(
            f"ONNX file {str(file.path)!r} has an input of another type than float32: export it with float32, or attack it "
            f"without gradients, as onnx-blackbox:{file.path}"
        )
    weights, constants, steps = _parts(file.proto)
    try:
        return OnnxNetwork(
            steps,
            weights,
            constants,
            image=file.image,
            output=_before_softmax(steps, file),
            channels_last=file.channels_last,
            batch=batch,
        )
    except NotImplementedError as error:
        raise unsupported_operator(file, error) from error


def check_convertible(file: OnnxFile) -> None:
    """Raise ModelError if the file has operators that cannot be converted: before a library runs it."""
    if missing := sorted(operators(file.proto) - {*OPERATORS, "Constant"}):
        raise unsupported_operator(file, NotImplementedError(", ".join(missing)))


def unsupported_operator(file: OnnxFile, error: NotImplementedError) -> ModelError:
    """The error for operators that cannot be converted."""
    return ModelError(
        f"ONNX file {str(file.path)!r} has operators not converted to torch: {error}; export it with others, or attack "
        f"it without gradients, as onnx-blackbox:{file.path}"
    )


def _parts(proto: Any) -> tuple[dict[str, Tensor], dict[str, Tensor], list[OnnxNode]]:
    """Floating-point weights, other constants, and the nodes."""
    numpy_helper = import_library("onnx.numpy_helper", "onnx")
    opsets = {item.domain: item.version for item in proto.opset_import}
    opset = opsets.get("", opsets.get("ai.onnx", 1))
    values = {item.name: _tensor(numpy_helper.to_array(item)) for item in proto.graph.initializer}
    steps = []
    for node in proto.graph.node:
        attributes = {item.name: _attribute(item, numpy_helper) for item in node.attribute}
        if node.op_type == "Constant" and not node.domain:
            values[node.output[0]] = _constant(attributes)
            continue
        name = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        steps.append(OnnxNode(name, tuple(node.input), tuple(node.output), attributes, opset))
    used = {name for step in steps for name in step.inputs}
    floating = {name: value for name, value in values.items() if value.is_floating_point() and name in used}
    # Single numbers are for shapes and limits; larger tensors are learnt weights.
    weights = {name: value for name, value in floating.items() if value.numel() > 1}
    return weights, {name: value for name, value in values.items() if name not in weights}, steps


def _attribute(attribute: Any, numpy_helper: Any) -> Any:
    helper = import_library("onnx.helper", "onnx")
    value = helper.get_attribute_value(attribute)
    return _tensor(numpy_helper.to_array(value)) if hasattr(value, "raw_data") else value


def _constant(attributes: Mapping[str, Any]) -> Tensor:
    (name, value), *_ = attributes.items()
    if isinstance(value, Tensor):
        return value
    kind = np.float32 if name.startswith("value_float") else np.int64
    return _tensor(np.asarray(value, dtype=kind))


def _tensor(array: Any) -> Tensor:
    # A copy, since arrays of onnx are read-only.
    return torch.from_numpy(np.array(array))


def _before_softmax(steps: list[OnnxNode], file: OnnxFile) -> str:
    """The name of the logits if the graph ends in a softmax, whose gradient vanishes for confident predictions."""
    last = next((step for step in steps if file.output in step.outputs), None)
    if last is not None and last.operator == "Softmax" and last.attributes.get("axis", -1) in (-1, 1):
        return last.inputs[0]
    return file.output
