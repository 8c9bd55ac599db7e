"""What an ONNX file may hold before any library runs it: known operators, data of its own folder, and sizes that fit.

The runtime is a large program in C++ that follows the file: it opens the files that tensors name, allocates what shapes claim,
and unrolls functions. So the description of the file is read first, by protobuf alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from gauntlet.bench.environment.size_limits import MOST_IN_MEMORY, check_size
from gauntlet.bench.models.sources.import_library import import_library

MOST_NODES: Final = 1_000_000
"""Largest number of nodes of a graph once its functions are unrolled."""
STANDARD: Final = ("", "ai.onnx", "ai.onnx.ml")
"""Domains of the standard's operators."""
RUNTIMES: Final = "com.microsoft"
"""The domain of onnxruntime's own operators, which quantised files use."""
_REFUSED: Final = frozenset({"EPContext"})
"""Operators of the runtime that read other files."""
_FILE: Final = 2**31
"""Largest size of a file: that of a protobuf message."""
_BITS: Final = {4: 16, 5: 16, 6: 32, 7: 64, 8: 64, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16}
"""Bits of an element by ONNX type, where they are not the default of `_element_bits`."""


class UnsafeFileError(ValueError):
    """A file holds what is not run; the message says what."""


def read_description(path: Path) -> Any:
    """The file's model, without the data of other files. Raises SizeLimitError, and what onnx raises for a damaged file."""
    check_size("it", path.stat().st_size, _FILE)
    return import_library("onnx", "onnx").load(str(path), load_external_data=False)


def check_description(proto: Any, folder: Path) -> None:
    """Raise UnsafeFileError or SizeLimitError for a model that no library is to run; `folder`: where its file is."""
    functions = {_identity(function, function.name): function for function in proto.functions}
    for node in _nodes(proto):
        _check_operator(node, functions)
    _check_unrolled(proto, functions)
    total = 0
    for tensor in _tensors(proto):
        total += _check_tensor(tensor, folder)
        check_size("the tensors that it holds and names", total, MOST_IN_MEMORY)


def check_shapes(proto: Any) -> None:
    """Raise SizeLimitError if a value within the graph is known to be larger than fits: a constant that is to be filled, say.

    `proto`: with its functions unrolled. Shapes that only running it shows are not known.
    """
    inference = import_library("onnx.shape_inference", "onnx")
    try:
        known = inference.infer_shapes(proto, data_prop=True)
    except Exception:
        # What cannot be inferred is for the runtime to refuse.
        return
    for value in known.graph.value_info:
        kind = value.type.tensor_type
        sides = [side.dim_value for side in kind.shape.dim if side.HasField("dim_value")]
        size = math.prod(max(side, 1) for side in sides) * _element_bits(kind.elem_type) // 8
        check_size(f"the value {value.name!r} of its graph", size, MOST_IN_MEMORY)


def operators(proto: Any) -> set[str]:
    """The operators of the graph itself, those of other domains as `domain.Name`."""
    return {
        node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}" for node in proto.graph.node
    }


def _nodes(proto: Any) -> Iterator[Any]:
    """All nodes: of the graph, of graphs within nodes, and of functions."""
    for nodes in (proto.graph.node, *(function.node for function in proto.functions)):
        yield from _within(nodes)


def _within(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _within(graph.node)


_Identity: TypeAlias = tuple[str, str, str]


def _identity(item: Any, name: str) -> _Identity:
    """Domain, name and overload, by which a node finds its function. The standard domain has two names."""
    domain = "" if item.domain == "ai.onnx" else item.domain
    # Files before IR version 10 have no overloads.
    return domain, name, getattr(item, "overload", "")


def _check_operator(node: Any, functions: Mapping[_Identity, Any]) -> None:
    domain, *_ = identity = _identity(node, node.op_type)
    if identity in functions:
        return
    if node.domain == RUNTIMES:
        if node.op_type in _REFUSED:
            raise UnsafeFileError(f"its operator {RUNTIMES}.{node.op_type} reads other files")
        return
    if node.domain not in STANDARD:
        raise UnsafeFileError(f"its operator {node.domain}.{node.op_type} is of no domain that is known")
    if not import_library("onnx.defs", "onnx").has(node.op_type, domain):
        raise UnsafeFileError(f"its operator {node.op_type} is not one of the standard, as the installed onnx knows it")


def _check_unrolled(proto: Any, functions: Mapping[_Identity, Any]) -> None:
    """Functions that call functions double at each level: a small file can unroll to more nodes than fit."""
    counts: dict[_Identity, int] = {}

    def count(nodes: Any, above: tuple[_Identity, ...]) -> int:
        total = 0
        for node in _within(nodes):
            name = _identity(node, node.op_type)
            if name in above:
                raise UnsafeFileError(f"its function {node.op_type} calls itself")
            if name in functions and name not in counts:
                counts[name] = count(functions[name].node, (*above, name))
            total += counts.get(name, 1)
            if total > MOST_NODES:
                raise UnsafeFileError(f"it has more than {MOST_NODES} nodes once its functions are unrolled")
        return total

    count(proto.graph.node, ())


def _tensors(proto: Any) -> Iterator[Any]:
    graphs = [proto.graph, *(attribute for node in _nodes(proto) for attribute in _graphs(node))]
    for graph in graphs:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in _nodes(proto):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (
                *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
                *attribute.sparse_tensors,
            ):
                yield from (sparse.values, sparse.indices)


def _graphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _check_tensor(tensor: Any, folder: Path) -> int:
    """The bytes that a tensor needs. Raises UnsafeFileError where they are not in a file of the folder."""
    if any(side < 0 for side in tensor.dims):
        raise UnsafeFileError(f"its tensor {tensor.name!r} has a negative side: {list(tensor.dims)}")
    size: int = math.prod(tensor.dims) * _element_bits(tensor.data_type) // 8
    check_size(f"its tensor {tensor.name!r}", size, MOST_IN_MEMORY)
    if tensor.data_location == 1:  # in another file
        _check_external({entry.key: entry.value for entry in tensor.external_data}, tensor.name, size, folder)
    return size


def _check_external(entries: Mapping[str, str], name: str, size: int, folder: Path) -> None:
    location = entries.get("location", "")
    file = folder / location
    outside = not location or Path(location).is_absolute() or ".." in Path(location).parts
    if outside or not file.resolve().is_relative_to(folder.resolve()):
        raise UnsafeFileError(f"its tensor {name!r} names a file outside its folder: {location!r}")
    if not file.is_file():
        raise UnsafeFileError(f"its tensor {name!r} is in {location!r}, which is not beside it")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    except ValueError:
        raise UnsafeFileError(f"its tensor {name!r} has no place in {location!r}: {dict(entries)}") from None
    there = file.stat().st_size
    if offset < 0 or length < 0 or offset + max(length, size) > there:
        raise UnsafeFileError(
            f"its tensor {name!r} takes {max(length, size)} bytes from byte {offset} on of {location!r}, which has {there}"
        )


def _element_bits(kind: int) -> int:
    """Bits of an element of an ONNX type: 32 for float32 and 8 for what is not listed, which is small."""
    return 32 if kind == 1 else _BITS.get(kind, 8 if kind < 17 else 4)
