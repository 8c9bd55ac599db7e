"""How often the host would wait for a GPU, counted on the CPU.

A program runs ahead of a GPU: operations are queued, and the host goes on. It waits where it needs a value (`bool(x.any())`,
`x.tolist()`), where the size of a result depends on values (`nonzero`, a boolean index), and where it copies its own numbers to
the device without `non_blocking`. Each wait leaves the GPU without work until the next operation is queued.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

_READS = frozenset(
    {"item", "tolist", "numpy", "cpu", "__array__", "__bool__", "__int__", "__float__", "__complex__", "__index__"}
)
"""Methods of a tensor that give the host its values."""
_VALUES = frozenset(
    {
        "_local_scalar_dense",
        "nonzero",
        "equal",
        "allclose",
        "is_nonzero",
        "masked_select",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
        "unique_dim_consecutive",
        "bincount",
    }
)
"""Operations that end in a number, or whose result has a size that depends on values."""
_MASKED = frozenset({"index", "index_put", "index_put_", "_index_put_impl_"})
_FACTORIES = frozenset({"tensor", "as_tensor", "asarray", "new_tensor"})
_TORCH = str(Path(torch.__file__).parent)


@dataclass
class Synchronisations:
    """The waits so far."""

    by_line: Counter[str] = field(default_factory=Counter)
    """By the innermost line outside torch, `file:line`."""

    @property
    def total(self) -> int:
        """Their number."""
        return self.by_line.total()


@contextmanager
def counted_synchronisations() -> Iterator[Synchronisations]:
    """A context that counts the operations that would wait for a GPU if all tensors were there.

    Tensors that were made outside, or with a `device`, stand for those on the GPU. Copies by `cpu()`, tensors without a
    `device`, and what is computed of these alone belong to the host. What NumPy computes is not seen. A wait counts once.
    """
    count = Synchronisations()
    state = _State(count)
    with _Functions(state), _Operations(state):
        yield count


@dataclass
class _State:
    count: Synchronisations
    host: WeakIdKeyDictionary = field(default_factory=WeakIdKeyDictionary)
    muted: bool = False

    def wait(self) -> None:
        if not self.muted:
            self.count.by_line[_line()] += 1


class _Functions(TorchFunctionMode):
    """Knows the host's tensors, and counts what does not arrive as an operation: `tolist`, `cpu`, copies to the device."""

    def __init__(self, state: _State) -> None:
        super().__init__()
        self.state = state

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        settings, state, name = kwargs or {}, self.state, getattr(func, "__name__", "")
        tensors = [one for one in tree_leaves((args, settings)) if isinstance(one, Tensor)]
        ours = all(one in state.host for one in tensors)
        moved = name == "to" and _names_device(args[1:], settings)
        before, muted = state.count.total, state.muted
        state.muted = muted or (ours and bool(tensors))
        try:
            result = func(*args, **settings)
        finally:
            state.muted = muted
        if tensors and ours:
            if moved and not settings.get("non_blocking", False):
                state.wait()
        elif name in _READS or (name == "to" and _to_host(args[1:], settings)):
            if state.count.total == before:
                state.wait()
            if name in ("cpu", "to"):
                # On a GPU it is a copy as well.
                result = result.clone()
                state.host[result] = True
            return result
        elif name in _FACTORIES and not (args and isinstance(args[0], Tensor) and name != "new_tensor"):
            if name == "new_tensor" or settings.get("device") is not None:
                state.wait()
        elif name in ("__getitem__", "__setitem__") and _listed(args[1]):
            state.wait()
        if ours and not moved and settings.get("device") is None:
            for one in tree_leaves(result):
                if isinstance(one, Tensor):
                    state.host[one] = True
        return result


class _Operations(TorchDispatchMode):
    def __init__(self, state: _State) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.state = state

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        settings, name = kwargs or {}, func.overloadpacket.__name__
        sized = name == "repeat_interleave" and settings.get("output_size") is None
        if name in _VALUES or sized or (name in _MASKED and _by_mask(args)):
            self.state.wait()
        return func(*args, **settings)


def _by_mask(args: Sequence[Any]) -> bool:
    """Whether an index is boolean. A single number is written to a mask without its size."""
    if len(args) > 2 and args[2].dim() == 0:
        return False
    return any(isinstance(one, Tensor) and one.dtype in (torch.bool, torch.uint8) for one in args[1])


def _listed(index: Any) -> bool:
    """Whether an index has numbers of the host, which are copied to the device."""
    return any(isinstance(one, list | np.ndarray) for one in (index if isinstance(index, tuple) else (index,)))


def _names_device(args: Sequence[Any], settings: Mapping[str, Any]) -> bool:
    return any(isinstance(one, str | torch.device | Tensor) for one in (*args, settings.get("device")))


def _to_host(args: Sequence[Any], settings: Mapping[str, Any]) -> bool:
    return "cpu" in [one for one in (*args, settings.get("device")) if isinstance(one, str)]


def _line() -> str:
    frame = sys._getframe(2)
    while frame.f_back is not None and (
        frame.f_code.co_filename == __file__ or frame.f_code.co_filename.startswith((_TORCH, "<"))
    ):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
