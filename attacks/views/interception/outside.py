"""What leaves torch as arrays, lists and numbers, and where it comes back."""

from __future__ import annotations

import torch
from torch import Tensor

from gauntlet.attacks.views.interception.soft import Soft, with_identity_gradient

ARRAYS = frozenset({"numpy", "__array__", "tolist"})
LEAVING = ARRAYS | {"item", "__float__", "__int__", "__index__", "__format__"}
COMING_BACK = frozenset({"tensor", "as_tensor", "asarray", "from_numpy", "new_tensor"})
"""By the names of the functions of torch."""


class Outside:
    """The tensors that have left torch during a pass, with their stand-ins."""

    def __init__(self) -> None:
        self._left: list[Soft] = []

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._left)

    def clear(self) -> None:
        """Let go of the tensors."""
        self._left.clear()

    def leave(self, stand_in: Soft) -> None:
        """Keep the stand-in of a tensor of which an array, a list or a number is made."""
        self._left.append(stand_in)

    def continued(self, value: Tensor) -> Soft | None:
        """What goes on in a tensor that was made outside: the latest that left with its shape, or is it put together of several.

        Dimensions of length 1 do not count: arrays of grey images lose and gain them.
        """
        size = _size(value)
        for one in reversed(self._left):
            number = one.number
            if number.shape == value.shape or (_size(number) == size and number.dim() and value.dim()):
                if not value.dim() and bool(number.detach() != value):
                    continue  # A constant.
                return _as(value, one)
        count = value.shape[0] if value.dim() else 0
        return self._stacked(value, count) or self._stacked(value, value.numel())

    def _stacked(self, value: Tensor, count: int) -> Soft | None:
        """The latest `count` that left, if they have the shape of parts of the value."""
        parts = self._left[-count:]
        if count < 2 or len(parts) < count or count * parts[0].number.numel() != value.numel():
            return None
        part = _size(parts[0].number)
        if any(_size(one.number) != part for one in parts) or part not in ((), _size(value[0])):
            return None
        number = torch.stack([one.number.reshape(part) for one in parts])
        classes = [one.classes.reshape(-1, one.classes.shape[-1]) for one in parts if one.classes is not None]
        same = len(classes) == count and len({one.shape for one in classes}) == 1
        return _as(value, Soft(number, torch.cat(classes).view(*number.shape, -1) if same else None))


def _size(tensor: Tensor) -> tuple[int, ...]:
    return tuple(length for length in tensor.shape if length != 1)


def _as(value: Tensor, one: Soft) -> Soft:
    number = one.number.reshape(value.shape).to(value.device)
    if value.is_floating_point():
        number = number.to(value.dtype)
    classes = None if one.classes is None else one.classes.reshape(*value.shape, one.classes.shape[-1])
    return Soft(with_identity_gradient(number, value.detach().to(number.dtype)), classes)
