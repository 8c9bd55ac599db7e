"""Functions with a backward pass of their own, whose `apply` was bound before the pass, so that no call of it was seen."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction


def trusted(kind: type) -> bool:
    """Whether a function of torch or of ours keeps its backward pass."""
    return kind.__module__.startswith(("torch.", "gauntlet.attacks", "gauntlet.defenses"))


def join_custom(value: Tensor) -> list[str]:
    """In the graph of `value`, give such functions the identity as backward pass where they keep the shape. Their names."""
    found = []
    nodes, known = [value.grad_fn], set()
    while nodes:
        node: Any = nodes.pop()
        if node is None or node in known:
            continue
        known.add(node)
        nodes += [one for one, _ in node.next_functions]
        # `Function.apply` makes a class of node for each function, with the function's class in it.
        kind = getattr(node, "_forward_cls", None)
        if isinstance(node, BackwardCFunction) and kind is not None and not trusted(kind):
            node.register_hook(_passed_on)
            found.append(kind.__name__)
    return found


def _passed_on(inner: tuple[Tensor | None, ...], outer: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """The gradients of a function's arguments: that of its value for the first one of the same shape."""
    (gradient, *_), given = outer, list(inner)
    if gradient is None:
        return inner
    for place, one in enumerate(given):
        if one is not None and one.shape == gradient.shape:
            given[place] = gradient
            break
    return tuple(given)
