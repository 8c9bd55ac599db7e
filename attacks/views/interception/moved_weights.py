"""The weights of an index after an operation that only moves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from gauntlet.attacks.views.interception.soft import Soft

_RESHAPING = frozenset(
    {"view", "reshape", "flatten", "squeeze", "unsqueeze", "ravel", "view_as", "reshape_as", "clone"}
)


def moved_weights(
    name: str,
    func: Callable[..., Any],
    args: Sequence[Any],
    settings: Mapping[str, Any],
    value: Tensor,
    classes: Tensor,
    soft: Callable[[Any], Soft | None],
) -> Tensor | None:
    """`classes` (…, K) of the first argument as weights of `value`, with its shape; None where the operation is no such.

    `soft`: the stand-in of an argument.
    """
    count = classes.shape[-1]
    if name in _RESHAPING:
        return classes.reshape(*value.shape, count)
    if name == "expand":
        return classes.expand(*value.shape, count)
    if name == "getitem":
        moved: Tensor = classes[args[1]]
        return moved if moved.shape == (*value.shape, count) else None
    if name in ("stack", "cat"):
        parts = [soft(one) for one in args[0]]
        weights = [one.classes for one in parts if one is not None and one.classes is not None]
        dim = args[1] if len(args) > 1 else settings.get("dim", 0)
        if len(weights) == len(args[0]) and all(one.shape[-1] == count for one in weights):
            joined: Tensor = func(weights, dim=dim if dim >= 0 else dim - 1)
            return joined
    return None
