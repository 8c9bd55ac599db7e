"""Noticing that a model reads values of its input's tensors into Python, on which it could branch.

A trace of ATen operations does not see `tolist`, `numpy` and others, which read the memory of a tensor directly; calls of torch's
functions show them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

from gauntlet.defenses.certificates.relu_network import UnsupportedModelError

_METADATA = frozenset(
    {
        *("size", "stride", "dim", "ndimension", "numel", "nelement", "element_size", "storage_offset", "__len__"),
        *("is_contiguous", "is_floating_point", "is_complex", "is_signed", "is_inference", "is_conj", "is_neg"),
        *("get_device", "type", "is_same_size", "has_names", "__hash__", "can_cast"),
    }
)
"""Functions that return numbers or text, but no values."""
_PLAIN = (torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size)


class ValueReads(TorchFunctionMode):
    """Within this mode a function that takes values out of the tensors with these ids raises UnsupportedModelError.

    Such a function returns neither a tensor nor a fact such as a shape, or it returns a tensor that the trace, which adds to
    `followed` what it has seen, does not know.
    """

    def __init__(self, followed: Container[int]) -> None:
        super().__init__()
        self._followed = followed

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        reads = any(id(value) in self._followed for value in tree_iter((list(args), kwargs)))
        result = func(*args, **kwargs)
        if reads and self._holds_values(func, result):
            raise UnsupportedModelError(
                f"the model reads a value out of a tensor ({_name(func)}): it may compute something else on other images"
            )
        return result

    def _holds_values(self, func: Callable[..., Any], result: Any) -> bool:
        if result is None or isinstance(result, _PLAIN):
            return False
        tensors = [one for one in tree_iter(result) if isinstance(one, Tensor)]
        if tensors:
            return any(id(one) not in self._followed for one in tensors)
        name = getattr(func, "__name__", "")
        if name == "__get__":  # attributes are facts, but for the address of the memory
            return getattr(func, "__self__", None) is Tensor.__cuda_array_interface__
        return name not in _METADATA


def _name(func: Callable[..., Any]) -> str:
    return str(getattr(func, "__name__", func))
