"""Stand-ins for operations on numbers: rounding, saturation, comparisons, logic, casts, choices."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gauntlet.attacks.views.interception.call import Call, Result, Rule
from gauntlet.attacks.views.interception.soft import Soft, equal, spread, step, with_identity_gradient

_FOLLOWED = frozenset({"max", "min", "sort", "topk", "kthvalue", "median"})
"""Operations that keep a gradient of their values: what is made of their indices tells whether it is lost."""
_SATURATING = frozenset(
    {"softmax", "sigmoid", "tanh", "clamp", "clip", "hardtanh", "relu6", "clamp_min", "clamp_max", "nan_to_num"}
)
LOGARITHMS = ("log", "log2", "log10")
_FLAT = 1e-3
"""The slope below which an S-shaped function passes on nothing that attacks could follow."""


def rounded(call: Call) -> Result:
    """The number itself."""
    return call.x


def remaining(call: Call) -> Result:
    """Wide: a constant, so that x - x % step goes on as x. Narrow: the number itself, as between two jumps."""
    x = call.x
    return with_identity_gradient(0 * x if call.width >= 1 else x, call.value.detach())


def divided(call: Call) -> Result:
    """True division."""
    quotient: Tensor = call.x / call.real(call.given(1, "other"))
    return quotient


def divided_and_rounded(call: Call) -> Result:
    """True division, where the quotient is rounded."""
    return divided(call) if call.settings.get("rounding_mode") is not None else None


def heaviside(call: Call) -> Result:
    """A sigmoid."""
    return step(call.x, call.value, call.batch, call.width)


def counted(call: Call) -> Result:
    """`count_nonzero` of truth values: their sum."""
    soft, dim = call.soft(call.given(0, "input")), call.given(1, "dim")
    return None if soft is None else Soft(soft.number.sum(dim) if dim is not None else soft.number.sum())


def quantised(call: Call) -> Result:
    """The number itself, kept beside the quantised tensor."""
    x = call.x
    return Soft(with_identity_gradient(x, call.value.dequantize().to(x.dtype)))


def shifted(call: Call) -> Result:
    """Division or multiplication by a power of two."""
    factor = 2.0 ** call.real(call.given(1, "other"))
    moved: Tensor = call.x / factor if "r" in call.name.removeprefix("bitwise_")[:2] else call.x * factor
    return moved


def normalised(call: Call) -> Result:
    """The identity for a softmax of a matrix (N, K), as at the end of a classifier; attention layers keep their true gradient."""
    return call.x if call.x.dim() == 2 else None


def logarithm(call: Call) -> Result:
    """The identity for distributions in rows, as for the softmax before: 1/p is infinite where a probability is rounded to 0."""
    x = call.x
    if x.dim() != 2:
        return None
    rows = ((x >= 0).all(1) & ((x.detach().sum(1) - 1).abs() < _FLAT))[:, None]
    others: Tensor = getattr(torch, call.name)(torch.where(rows, 1.0, x))
    return torch.where(rows, x, others)


def saturated(call: Call) -> Result:
    """The identity for an S-shaped function at the end of a classifier, of (N, K); else the function as wide as its arguments."""
    x = call.x
    if x.dim() == 2:
        return x
    function: Result = getattr(torch, call.name)(x / (call.width * spread(x, call.batch)).clamp_min(1))
    return function


def hides(call: Call) -> bool:
    """Whether the operation takes the gradient from most of its arguments, as far as that depends on their values."""
    if call.name in _FOLLOWED:
        return False
    if call.name in LOGARITHMS:
        return False
    if call.name not in _SATURATING:
        return True
    value = call.value.detach()
    if call.name == "softmax":
        return value.dim() == 2 and bool((value.amax(1) > 1 - _FLAT).double().mean() > 0.5)
    if call.name == "sigmoid":
        slope = value * (1 - value)
    elif call.name == "tanh":
        slope = 1 - value.square()
    else:
        slope = (value == call.x.detach()).to(value.dtype)
    return bool((slope < _FLAT).double().mean() > 0.5)


def clamped(call: Call) -> Result:
    """The identity, outside the bounds too."""
    return call.x


def greater(sign: float) -> Rule:
    """A sigmoid of the difference, times `sign`."""

    def rule(call: Call) -> Result:
        return Soft(step(sign * _difference(call), call.value, call.batch, call.width))

    return rule


def _difference(call: Call) -> Tensor:
    other = call.real(call.given(1, "other"))
    difference: Tensor = call.x - (other.to(call.x.dtype) if isinstance(other, Tensor) else other)
    return difference


def equals(call: Call) -> Result:
    """A bump of the difference; of an index, its weight on the class."""
    truth = call.value if call.name == "eq" else ~call.value
    return Soft(_flip(_equality(call, truth)) if call.name == "ne" else _equality(call, truth))


def _equality(call: Call, truth: Tensor) -> Tensor:
    first, other = call.given(0, "input"), call.given(1, "other")
    soft = call.soft(first)
    if soft is not None and soft.classes is not None and call.soft(other) is None:
        # Which class it is: its weight.
        weights = soft.classes.expand(*truth.shape, soft.classes.shape[-1])
        places = torch.as_tensor(other, device=truth.device).expand(truth.shape).long()
        inside = (places >= 0) & (places < weights.shape[-1])
        weight = weights.gather(-1, places.clamp(0, weights.shape[-1] - 1)[..., None]).squeeze(-1) * inside
        return with_identity_gradient(weight, truth.to(weight.dtype))
    return equal(_difference(call), truth, call.batch, call.width)


def _flip(number: Tensor) -> Tensor:
    return 1 - number


def logical(call: Call) -> Result:
    """Products and sums of truth values; of integers, of which bits are kept or set, the number itself."""
    if call.value.dtype != torch.bool:
        return call.x
    first, other = call.x, call.real(call.given(1, "other"))
    if not isinstance(other, Tensor):
        return None
    first, other = first.to(torch.float32) if not first.is_floating_point() else first, other.to(first.dtype)
    kind = call.name.removeprefix("logical_").removeprefix("bitwise_").removeprefix("i")
    both = first * other
    return Soft({"and": both, "or": first + other - both, "xor": first + other - 2 * both}[kind])


def negated(call: Call) -> Result:
    """One minus the truth value."""
    return Soft(_flip(call.x)) if call.value.dtype == torch.bool else None


def any_or_all(call: Call) -> Result:
    """The largest or the smallest truth value."""
    dim = call.given(1, "dim")
    if dim is None:
        return Soft(call.x.amax() if call.name == "any" else call.x.amin())
    kept = call.given(2, "keepdim", False)
    return Soft(call.x.amax(dim, kept) if call.name == "any" else call.x.amin(dim, kept))


def cast(call: Call) -> Result:
    """Between numbers, and to truth values."""
    value: Tensor = call.value
    x = call.x
    if not x.is_floating_point() or value.requires_grad:
        return None
    if value.dtype == torch.bool and call.soft(call.given(0, "input")) is None:
        return Soft(_flip(equal(x, ~value, call.batch, call.width)))
    before = call.soft(call.given(0, "input"))
    number = with_identity_gradient(x, value.to(x.dtype)) if value.shape == x.shape else x
    if before is None or (value.is_floating_point() and before.classes is None):
        return number
    return replace(before, number=number)


def bucket(call: Call) -> Result:
    """The line from the first boundary to the last."""
    boundaries = call.given(1, "boundaries") if call.name == "bucketize" else call.given(0, "sorted_sequence")
    x = call.real(call.given(0, "input") if call.name == "bucketize" else call.given(1, "input"))
    if not isinstance(x, Tensor) or boundaries.dim() != 1 or len(boundaries) < 2:
        return Soft(step(x - boundaries, call.value, call.batch, call.width)) if len(boundaries) == 1 else None
    pace = (len(boundaries) - 1) / (boundaries[-1] - boundaries[0])
    number = pace.to(x.dtype) * x
    return Soft(with_identity_gradient(number, call.value.to(number.dtype)))


def chosen(call: Call) -> Result:
    """Both alternatives, weighted by the condition."""
    if len(call.args) < 3:
        return None
    condition, first, other = call.args[:3]
    soft = call.soft(condition)
    if soft is None:
        return None
    mixed: Tensor = soft.number * call.real(first) + (1 - soft.number) * call.real(other)
    return mixed


def filled(call: Call) -> Result:
    """Both alternatives, weighted by the mask."""
    soft = call.soft(call.given(1, "mask"))
    if soft is None:
        return None
    fill = call.real(call.given(2, "value"))
    mask = soft.number
    finite = fill if isinstance(fill, Tensor) or abs(fill) < 1e6 else 0.0
    return mask * finite + (1 - mask) * call.x
