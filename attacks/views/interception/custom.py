"""Functions with a backward pass of their own, and hooks on gradients: what they claim is replaced.

The gradient of what a function's forward pass does stands in. Where `apply` was bound before the pass, no call of it is seen:
gradients then pass on unchanged if the shape is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction, Function


def trusted(kind: type) -> bool:
    """Whether a function of torch or of ours keeps its backward pass."""
    return kind.__module__.startswith(("torch.", "gauntlet.attacks", "gauntlet.defenses"))


class _Context:
    """What `forward` is given in place of a node of the graph: it may keep what it wants."""

    def __init__(self, args: Sequence[Any]) -> None:
        self.needs_input_grad = tuple(isinstance(one, Tensor) and one.is_floating_point() for one in args)
        self.saved_tensors: tuple[Tensor, ...] = ()

    def save_for_backward(self, *saved: Tensor) -> None:
        self.saved_tensors = saved

    def save_for_forward(self, *saved: Tensor) -> None:
        self.saved_tensors = saved

    def mark_dirty(self, *args: Tensor) -> None:
        """Autograd sees changes in place by itself."""

    def mark_non_differentiable(self, *args: Tensor) -> None:
        """That is decided by the operations."""

    def set_materialize_grads(self, value: bool) -> None:
        """There is no backward pass of its own."""


def opened(kind: type[Function], args: Sequence[Any], settings: Mapping[str, Any]) -> Any:
    """The value of a function, by its forward pass as ordinary code that autograd follows. Raises what that code raises."""
    if kind.setup_context is not Function.setup_context:
        return kind.forward(*args, **settings)
    return kind.forward(_Context(args), *args, **settings)


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


def while_active(hook: Callable[..., Any], active: Callable[[], bool]) -> Callable[..., Any]:
    """A hook on gradients that changes none after the pass; those that the model takes itself, during the pass, it does."""

    def wrapped(*given: Any) -> Any:
        return hook(*given) if active() else None

    return wrapped
