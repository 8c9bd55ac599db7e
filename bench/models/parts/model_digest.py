"""The digest of a model's parameters and buffers, which is part of every cache key."""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

_QUANTISED = ("torch.ao.", "torch.nn.quantized", "torchao.")
_PACKED = "__torch__.torch.classes."
"""How the graph of a script shows that it holds objects of C++ classes, as packed weights are."""
_NOTES = (".debug_pkl", "serialization_id")


def model_digest(module: nn.Module) -> str:
    """sha256 over names, dtypes, shapes and bytes of all parameters and buffers, and over what else decides the answers.

    That is the operations of TorchScript and of exported graphs, and the packed weights of quantised layers.
    """
    digest = hashlib.sha256()
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, tensor in tensors:
        _add(digest, name, tensor)
    for name, one in module.named_modules():
        if isinstance(one, fx.GraphModule):
            digest.update(f"{name}\0{one.code}\0".encode())
        if type(one).__module__.startswith(_QUANTISED):
            _add_packed(digest, name, one)
        if isinstance(one, torch.jit.ScriptModule):
            if _PACKED in str(one.inlined_graph):
                digest.update(_archive(one))
            for kind, value in _operations(one.inlined_graph):
                if isinstance(value, Tensor):
                    _add(digest, kind, value)
                else:
                    # The text of another object has its address.
                    plain = (
                        value if isinstance(value, bool | int | float | str | list | tuple) else type(value).__name__
                    )
                    digest.update(f"{kind}\0{plain!r}\0".encode())
    return digest.hexdigest()


def _add(digest: Any, name: str, tensor: Tensor) -> None:
    digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
    raw = tensor.detach().cpu().contiguous().reshape(-1)
    digest.update(raw.view(torch.uint8).numpy().tobytes() if raw.numel() else b"")


def _add_packed(digest: Any, name: str, layer: nn.Module) -> None:
    """Add what a quantised layer saves beside parameters and buffers: packed weights, scales and zero points."""
    own: dict[str, Any] = {}
    layer._save_to_state_dict(own, f"{name}.", keep_vars=False)
    left = [*own.items()]
    while left:
        key, value = left.pop(0)
        if isinstance(value, list | tuple):
            left[:0] = [(f"{key}.{place}", part) for place, part in enumerate(value)]
        elif isinstance(value, Tensor):
            if value.is_quantized:
                digest.update(f"{key}\0{value.dtype}\0{value.qscheme()}\0".encode())
                _add(digest, key, value.int_repr())
                value = value.dequantize()
            _add(digest, key, value)
        else:
            digest.update(f"{key}\0{value!r}\0".encode())


def _archive(module: nn.Module) -> bytes:
    """A digest of a saved script without its notes on source files: packed weights are nowhere else."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(module, buffer)
    digest = hashlib.sha256()
    with zipfile.ZipFile(buffer) as archive:
        for name in archive.namelist():
            if not name.endswith(_NOTES):
                digest.update(name.partition("/")[2].encode() + b"\0" + archive.read(name))
    return digest.digest()


def _operations(graph: Any) -> Iterator[tuple[str, Any]]:
    """The kinds of a graph's operations in order, with the values of constants: a frozen module has its weights there."""
    for node in graph.nodes():
        constant = node.kind() == "prim::Constant" and node.hasAttribute("value")
        yield node.kind(), node.output().toIValue() if constant else None
        for block in node.blocks():
            yield from _operations(block)
