"""The digest of a model's parameters and buffers, which is part of every cache key."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def model_digest(module: nn.Module) -> str:
    """sha256 over names, dtypes, shapes and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, tensor in tensors:
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        raw = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(raw.view(torch.uint8).numpy().tobytes() if raw.numel() else b"")
    return digest.hexdigest()
