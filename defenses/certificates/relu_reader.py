"""Conversion of a module to a ReLU network, by tracing the operations of a pass over a few images.

The trace records ATen operations, not modules, so that wrappers, functional code, in-place ReLUs and hooks are supported. The
pass must be a chain: every operation takes the result of the previous operation and constants. A model that reads a value from
a tensor, on which it could branch, or that draws random numbers is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from gauntlet.defenses.certificates.relu_network import Affine, Network, UnsupportedModelError, as_double, forward_error
from gauntlet.defenses.certificates.relu_operations import READERS, UNIT, AtenCall
from gauntlet.defenses.certificates.value_reads import ValueReads

_EXAMPLES = 17
"""Number of images of the pass, unlikely as the width of a layer, so that a reshape across samples is noticed."""
_SAME = frozenset({"clone", "alias", "detach", "lift_fresh", "view", "_unsafe_view", "reshape", "squeeze", "unsqueeze"})
"""Operations that do not change values, nor their order if they do not mix samples."""
_RELU = frozenset({"relu", "relu_", "clamp_min", "clamp_min_"})
_KINDS = "linear and convolutional layers, ReLU, batch normalisation, average pooling and arithmetic with constants"


def network(model: nn.Module, images: Tensor) -> Network:
    """Convert `model` in eval mode from a pass over some of the images (N, …), and compare both on them.

    The images keep dtype and device. Each map's `rounding` covers summation in any order and fused multiplication, and TF32
    if it is enabled on CUDA; it does not cover convolutions by Winograd or Fourier transforms.

    Raises UnsupportedModelError that names an unsupported operation, and if the results differ. Errors of the model are raised.
    """
    few = (
        images[torch.arange(_EXAMPLES) % len(images)] if len(images) else images.new_zeros(_EXAMPLES, *images.shape[1:])
    )
    few = few.detach().clone()
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise UnsupportedModelError(
            "the model has a TorchScript module, whose operations cannot be seen: give the Python module it was made from"
        )
    watch = _Watch(few)
    frozen = copy.deepcopy(model).requires_grad_(False).eval()
    with torch.no_grad(), torch.autocast(few.device.type, enabled=False), watch, ValueReads(watch.followed):
        logits = frozen(few)
    if logits is not watch.last:
        raise UnsupportedModelError(
            f"the model returns {type(logits).__name__}, which is not the result of its last operation: return the logits"
        )
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise UnsupportedModelError(
            f"the model gives shape {tuple(logits.shape[1:])} a sample: logits (N, K) of at least 2 classes are needed"
        )
    net = Network(tuple(map(tuple, watch.stages)), (*watch.widths, logits.shape[1]))
    draw = torch.rand(few.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    compare(net, frozen, torch.cat([few, draw.to(few)]))
    return net


def compare(net: Network, model: nn.Module, points: Tensor) -> None:
    """Raise UnsupportedModelError where `model` and `net` differ at points (N, …) by more than rounding explains.

    That catches dependence on other state, such as Python objects, and mistakes of the conversion.
    """
    with torch.no_grad(), torch.autocast(points.device.type, enabled=False):
        true = as_double(model(points))
    x = as_double(points).flatten(1)
    values = net.values(x)
    error = forward_error(net, [x.abs(), *values[:-1]])
    if not ((values[-1] - true).abs() <= error).all():
        raise UnsupportedModelError(
            "the model computes something else than its traced operations: look for state that changes between passes, for "
            "branches that depend on the image or the batch, and for weights that are not finite"
        )


class _Watch(TorchDispatchMode):
    """Traces the chain of operations from `images`, and converts each to an affine map of its stage."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.last = images
        self.stages: list[list[Affine]] = [[]]
        self.widths = [images.shape[1:].numel()]
        # Kept alive, so that no later tensor reuses an id.
        self.followed: dict[int, Tensor] = {id(images): images}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Otherwise torch loads its compiler at the first operation, which takes two seconds.
        return False

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise UnsupportedModelError(
                f"the model draws random numbers ({_name(func)}): no bound holds for all of them"
            )
        inputs = [value for value in tree_iter((args, kwargs)) if id(value) in self.followed]
        result = func(*args, **kwargs)
        if inputs:
            self._follow(func, args, kwargs, inputs, result)
        return result

    def _follow(self, func: Any, args: Any, kwargs: dict[str, Any], inputs: list[Tensor], result: Any) -> None:
        name, x = _name(func), inputs[0]
        out = result[0] if isinstance(result, tuple) else result
        if len(inputs) > 1 or x is not self.last:
            raise UnsupportedModelError(
                f"the model uses a result twice (at {name}): residual connections and branches are not supported, only "
                "chains of layers"
            )
        if not isinstance(out, Tensor):
            raise UnsupportedModelError(
                f"the model reads a value out of a tensor ({name}): it may compute something else on other images"
            )
        if name not in (_RELU | _SAME | READERS.keys()):
            raise UnsupportedModelError(
                f"the model computes {name}, for which no bound is known: only {_KINDS} have one"
            )
        if out.dtype not in UNIT:
            raise UnsupportedModelError(f"the model computes {name} in {out.dtype}: bounds need float32 or float64")
        if out.ndim < 2 or len(out) != len(x):
            raise UnsupportedModelError(
                f"the model's {name} maps shape {tuple(x.shape)} to {tuple(out.shape)}, across samples: put nn.Flatten() "
                "before linear layers"
            )
        before, after = x.shape[1:], out.shape[1:]
        if name in _RELU:
            if args[1:] not in ((), (0,)) or kwargs:
                raise UnsupportedModelError(f"the model's {name} cuts at other values than 0: only ReLU has a bound")
            self.widths.append(after.numel())
            self.stages.append([])
        elif name not in _SAME and not (name == "_to_copy" and UNIT[out.dtype] <= UNIT.get(x.dtype, 0)):
            self.stages[-1].append(READERS[name](AtenCall(name, args, kwargs, x, before, after, out.dtype)))
        self.last = out
        self.followed[id(out)] = out


def _name(func: Any) -> str:
    return str(func.overloadpacket.__name__)
