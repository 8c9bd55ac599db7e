"""Copies of parameters and buffers, by which guards undo writes: one copy and one comparison for all guards of a scope.

A write to a tensor raises its version counter, so that comparing counters, which costs no pass over the values, finds it. What
writes past the counter (`.data`, numpy, the running statistics of batch normalisation) is found by comparing values: at the end
of the scope, and after code of others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Table: TypeAlias = dict[str, Any]
Stamp: TypeAlias = tuple[int, int, torch.Size, torch.dtype, torch.device]
"""Version counter, address, shape, dtype and device of a tensor: another one means that the tensor was written to."""


@dataclass
class Copy:
    """A tensor, the value that it had, and its stamp with it; None if it has none, so that values are compared."""

    tensor: Tensor
    value: Tensor
    stamp: Stamp | None

    @classmethod
    def of(cls, tensor: Tensor) -> Copy:
        """A copy of the tensor as it is now."""
        return cls(tensor, tensor.detach().clone(), _stamp(tensor))

    @property
    def current(self) -> bool:
        """Whether the counter says that the tensor has this value."""
        return self.stamp is not None and self.stamp == _stamp(self.tensor)


@dataclass
class _Scope:
    tensors: dict[int, Tensor]
    copies: dict[int, Copy] = field(default_factory=dict)


_scopes: list[_Scope] = []


@contextmanager
def weights_kept(model: nn.Module) -> Iterator[None]:
    """Within the context all guards of the model share a copy of each parameter and buffer, made by the first of them.

    Values that were written past the version counters are restored at the end: of the outermost such context.
    """
    tensors = {id(tensor): tensor for table in tables(model) for tensor in table.values() if tensor is not None}
    if any(tensors.keys() <= scope.tensors.keys() for scope in _scopes):
        yield
        return
    scope = _Scope(tensors)
    _scopes.append(scope)
    try:
        yield
    finally:
        # By identity: generators may end in another order than they began.
        _scopes[:] = [other for other in _scopes if other is not scope]
        _restore(_different([copy for copy in scope.copies.values() if copy.current or copy.stamp is None]))


@contextmanager
def weights_restored(model: nn.Module, *, foreign: bool) -> Iterator[None]:
    """Restores identity and values of parameters and buffers afterwards.

    Within `weights_kept` of the model, or of one around it, version counters tell what was written; if code of others is run
    (`foreign`), and elsewhere, values are compared too, which waits for the device once.
    """
    named = [(table, name, one) for table in tables(model) for name, one in table.items() if one is not None]
    copies = {id(tensor): _copy(tensor) for _, _, tensor in named}
    try:
        yield
    finally:
        for table, name, tensor in named:
            # The tables of a TorchScript module have no `get`.
            if name not in table or table[name] is not tensor:
                table[name] = tensor
        counted = [copy for copy, _ in copies.values() if copy.stamp is not None and not copy.current]
        unsure = [
            one for one, shared in copies.values() if one.stamp is None or (one.current and (foreign or not shared))
        ]
        _restore([*counted, *_different(unsure)])


def tables(model: nn.Module) -> list[Table]:
    """The tables of parameters and of buffers of all submodules."""
    return [table for module in model.modules() for table in (module._parameters, module._buffers)]


def _copy(tensor: Tensor) -> tuple[Copy, bool]:
    """A copy of the tensor as it is now, and whether a scope keeps it."""
    scope = next((scope for scope in reversed(_scopes) if id(tensor) in scope.tensors), None)
    if scope is None:
        return Copy.of(tensor), False
    known = scope.copies.get(id(tensor))
    if known is None or not known.current:
        known = scope.copies[id(tensor)] = Copy.of(tensor)
    return known, True


def _different(copies: Iterable[Copy]) -> list[Copy]:
    """Those whose tensors have other values now. The host waits for the device once."""
    listed = list(copies)
    if not listed:
        return []
    first = listed[0].value.device
    flags = [_differs(copy).to(first) for copy in listed]
    return [copy for copy, differs in zip(listed, torch.stack(flags).tolist(), strict=True) if differs]


def _differs(copy: Copy) -> Tensor:
    """Whether the tensor has another value, as a tensor, so that the host need not wait."""
    tensor, value = copy.tensor.detach(), copy.value
    alike = (tensor.shape, tensor.dtype, tensor.device) == (value.shape, value.dtype, value.device)
    return (tensor != value).any() if alike else torch.tensor(True)


def _restore(copies: Iterable[Copy]) -> None:
    for copy in copies:
        tensor, value = copy.tensor, copy.value
        if (tensor.shape, tensor.dtype, tensor.device) != (value.shape, value.dtype, value.device):
            tensor.data = value.clone()
        else:
            with torch.inference_mode(tensor.is_inference()), torch.no_grad():
                tensor.copy_(value)
        copy.stamp = _stamp(tensor)


def _stamp(tensor: Tensor) -> Stamp | None:
    """None for tensors without a counter or an address, such as those of inference mode."""
    try:
        return tensor._version, tensor.data_ptr(), tensor.shape, tensor.dtype, tensor.device
    except (RuntimeError, NotImplementedError):
        return None
