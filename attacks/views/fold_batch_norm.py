"""Batch normalisation folded into the layer before it: in evaluation mode both are one affine map.

The arithmetic is torch's (`torch.nn.utils.fusion`). The pairs that can be folded are found by observing a pass and not with
torch.fx: symbolic tracing fails on the wrappers around every model here, which inspect its output, and fixes random numbers and
type checks in the graph. An observed model keeps its own `forward`, and the two modules of a pair are replaced.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

from gauntlet.attacks.views.guard import guarded

_PAIRS: dict[tuple[type[nn.Module], type[nn.Module]], Callable[[Any, Any], nn.Module]] = {
    (nn.Conv2d, nn.BatchNorm2d): fuse_conv_bn_eval,
    (nn.Conv1d, nn.BatchNorm1d): fuse_conv_bn_eval,
    (nn.Linear, nn.BatchNorm1d): fuse_linear_bn_eval,
}
"""By exact type: a subclass, such as that of a parametrisation, may compute something else."""
_DECISIONS = frozenset({"__bool__", "__int__", "__float__", "__index__", "item", "equal", "allclose"})
"""Functions that return a value of a tensor to Python, on which a model can branch."""


def fold_batch_norm(model: nn.Module, example: Tensor) -> nn.Module | None:
    """A copy of `model` in which batch normalisation is part of the convolution or linear layer before it.

    None if nothing can be folded. `example` (N, ...) are a few inputs on which the model is observed. A pair is folded only if
    both are in evaluation mode, the normalisation has running statistics, neither has hooks or parametrisations or is registered
    or called twice, and only the normalisation uses the layer's output. A model that reads a value of a tensor is not folded,
    since it may branch on other inputs. Other uses of layers, such as reading their weights, are not noticed: compare both
    models before the copy is used. `model` is unchanged.

    Errors of the model on `example`, and of copying it, are raised.
    """
    copied = copy.deepcopy(model)
    names = _names(copied)
    pairs = _watched(copied, example, list(names))
    for layer, norm in pairs:
        fuse = _PAIRS[type(layer), type(norm)]
        with torch.no_grad():
            _exchange(copied, names[layer], fuse(layer, _affine(norm)))
        _exchange(copied, names[norm], nn.Identity().eval())
    return copied if pairs else None


def _names(model: nn.Module) -> dict[nn.Module, str]:
    """Layers and normalisations that are plain and registered once, with their names; without the model itself."""
    registered = list(model.named_modules(remove_duplicate=False))
    count = Counter(module for _, module in registered)
    return {module: name for name, module in registered if name and count[module] == 1 and _plain(module)}


def _plain(module: nn.Module) -> bool:
    kinds = {kind for pair in _PAIRS for kind in pair}
    hooks = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)
    ready = not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) or module.running_mean is not None
    return type(module) in kinds and ready and not module.training and not any(hooks)


class _Watch(TorchFunctionMode):
    """Counts the functions that use each tensor of `outputs`, and notices values that reach Python."""

    def __init__(self) -> None:
        super().__init__()
        # The tensors are kept, so that no later tensor gets their identity.
        self.outputs: dict[int, tuple[Tensor, nn.Module]] = {}
        self.uses: Counter[int] = Counter()
        self.decides = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.decides |= getattr(func, "__name__", "") in _DECISIONS
        # Functions that return no tensor, such as a shape, do not pass the values on.
        if any(isinstance(one, Tensor) for one in tree_iter(result)):
            self.uses.update(id(one) for one in tree_iter((args, kwargs)) if id(one) in self.outputs)
        return result


def _watched(model: nn.Module, example: Tensor, modules: Sequence[nn.Module]) -> list[tuple[nn.Module, nn.Module]]:
    """The pairs of `modules` that can be folded, by a pass on `example`."""
    watch, calls = _Watch(), Counter[nn.Module]()
    found: list[tuple[nn.Module, nn.Module, int]] = []

    def called(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        calls[module] += 1
        layer = watch.outputs.get(id(args[0]), (None, None))[1] if args else None
        # A normalisation takes the second axis, a linear layer makes the last.
        if (
            layer is not None
            and (type(layer), type(module)) in _PAIRS
            and (args[0].ndim == 2 or type(layer) is not nn.Linear)
        ):
            found.append((layer, module, id(args[0])))
        watch.outputs[id(output)] = (output, module)

    handles = [module.register_forward_hook(called) for module in modules]
    try:
        with guarded(model, 0), torch.no_grad(), watch:
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    if watch.decides:
        return []
    once = [(layer, norm) for layer, norm, made in found if watch.uses[made] == 1]
    return [(layer, norm) for layer, norm in once if calls[layer] == calls[norm] == 1]


def _exchange(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _affine(norm: Any) -> nn.Module:
    """`norm` with scale and shift, which torch's fusion with a linear layer needs."""
    if norm.weight is None:
        norm.weight = nn.Parameter(torch.ones_like(norm.running_var))
        norm.bias = nn.Parameter(torch.zeros_like(norm.running_var))
    return cast("nn.Module", norm)
