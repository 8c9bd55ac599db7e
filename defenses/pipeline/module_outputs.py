"""Outputs of submodules in a forward pass, recorded by hooks that are there for the length of the pass."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gauntlet.attacks.views.interception.soft import with_identity_gradient


class EnoughError(BaseException):
    """All outputs that are needed are there, so that the pass ends. No Exception: a model that retries must not catch it."""


@contextmanager
def recorded_outputs(
    model: nn.Module,
    images: Tensor,
    paths: Sequence[str],
    links: Sequence[str] = (),
    *,
    needed: Mapping[str, int] | None = None,
    linked: list[str] | None = None,
    keep: Callable[[Tensor], bool] = lambda output: True,
) -> Iterator[dict[str, list[Tensor]]]:
    """The floating outputs (rows, …) of each call of the submodules at `paths`, in the order in which they end.

    `links`: submodules whose input, where it has the shape of the images and no gradient, gets that of the images; those where
    this happened are added to `linked`. `needed`: the number of rows of each path after which the pass ends with `EnoughError`.
    `keep`: which outputs are kept. Calls from other threads are not recorded.
    """
    seen: dict[str, list[Tensor]] = {}
    own, left = threading.get_ident(), dict(needed or {})

    def record(path: str, output: Any) -> None:
        tensor = first_tensor(output)
        if threading.get_ident() != own or tensor is None or not keep(tensor):
            return
        # In the order of the latest calls. A copy, since the model may go on in place.
        seen[path] = [*seen.pop(path, []), tensor.clone()]
        if path in left:
            left[path] -= len(tensor)
            if all(rows <= 0 for rows in left.values()):
                raise EnoughError

    def link(path: str, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        x = given[0] if given else None
        if threading.get_ident() != own or not isinstance(x, Tensor) or not torch.is_grad_enabled():
            return None
        if x.requires_grad or x.shape != images.shape or not x.is_floating_point():
            return None
        if linked is not None and path not in linked:
            linked.append(path)
        return (with_identity_gradient(images.to(x.dtype), x), *given[1:])

    modules = dict(model.named_modules())
    with ExitStack() as stack:
        for path in links:
            hook = _bound(link, path)
            stack.callback(modules[path].register_forward_pre_hook(lambda _, given, hook=hook: hook(given)).remove)
        for path in paths:
            hook = _bound(record, path)
            stack.callback(modules[path].register_forward_hook(lambda _, given, output, hook=hook: hook(output)).remove)
        yield seen


def first_tensor(output: Any) -> Tensor | None:
    """The floating tensor with rows that a module returns, alone, first in a tuple or list, or as `logits`."""
    if isinstance(output, list | tuple) and output:
        output = output[0]
    elif not isinstance(output, Tensor):
        output = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", None)
    usable = isinstance(output, Tensor) and output.dim() > 0 and output.is_floating_point() and output.numel() > 0
    return output if usable else None


def _bound(function: Callable[[str, Any], Any], path: str) -> Callable[[Any], Any]:
    return lambda value: function(path, value)
