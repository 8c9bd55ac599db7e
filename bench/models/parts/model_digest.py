"""The digest of a model's parameters and buffers, which is part of every cache key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def model_digest(module: nn.Module) -> str:
    """sha256 over names, dtypes, shapes and bytes of all parameters and buffers, and over the operations of TorchScript."""
    digest = hashlib.sha256()
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, tensor in tensors:
        _add(digest, name, tensor)
    for one in module.modules():
        if isinstance(one, torch.jit.ScriptModule):
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


def _operations(graph: Any) -> Iterator[tuple[str, Any]]:
    """The kinds of a graph's operations in order, with the values of constants: a frozen module has its weights there."""
    for node in graph.nodes():
        constant = node.kind() == "prim::Constant" and node.hasAttribute("value")
        yield node.kind(), node.output().toIValue() if constant else None
        for block in node.blocks():
            yield from _operations(block)
