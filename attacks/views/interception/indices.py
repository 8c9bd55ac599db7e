"""Stand-ins for indices: the largest entries, votes, one-hot codes, tables, and what is put at their places."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gauntlet.attacks.views.interception.call import Call, Result
from gauntlet.attacks.views.interception.soft import Soft, expected, largest, step, weights_of, with_identity_gradient


def first_of(call: Call) -> Result:
    """`argmax` and `argmin`, and `max`, `min` along a dimension."""
    dim, kept = call.given(1, "dim"), call.given(2, "keepdim", False)
    x = call.x
    if dim is None:
        if call.name not in ("argmax", "argmin"):
            return None
        # Of all entries.
        x, dim, kept = x.flatten(), 0, False
    scores = (x if "max" in call.name else -x).movedim(dim, -1)
    index = call.value if isinstance(call.value, Tensor) else call.value[1]
    flat = index.squeeze(dim) if kept else index
    soft = largest(scores, flat, call.width)
    if kept:
        assert soft.classes is not None
        place = dim if dim >= 0 else dim - 1
        soft = Soft(soft.number.unsqueeze(dim), soft.classes.unsqueeze(place))
    if isinstance(call.value, Tensor):
        return soft
    return (call.value[0] if call.value[0].requires_grad else None), soft


def ranked(call: Call) -> Result:
    """`topk`, `sort` and `argsort`: every place has the weights of the largest entry, which is enough for votes."""
    alone = isinstance(call.value, Tensor)
    index = call.value if alone else call.value[1]
    x = call.x
    if call.name == "topk":
        dim, up = call.given(2, "dim", -1), call.given(3, "largest", True)
    else:
        dim, up = call.given(1, "dim", -1), bool(call.given(2, "descending", False))
    scores = (x if up else -x).movedim(dim, -1)
    if dim not in (-1, x.dim() - 1):
        return None
    one = largest(scores, index[..., 0], call.width)
    assert one.classes is not None
    weights = one.classes.unsqueeze(-2).expand(*index.shape, scores.shape[-1])
    soft = Soft(expected(weights, index), weights, (scores, -1))
    return soft if alone else ((call.value[0] if call.value[0].requires_grad else None), soft)


def middle(call: Call) -> Result:
    """`kthvalue`, `median`: of counts or indices, the mean stands in."""
    if not isinstance(call.value, tuple):
        return None
    dim = call.given(2 if call.name == "kthvalue" else 1, "dim", -1)
    soft = call.soft(call.given(0, "input"))
    if soft is None:
        return None
    return _vote(call, soft, dim)


def most_frequent(call: Call) -> Result:
    """The mean of the weights of the votes."""
    soft = call.soft(call.given(0, "input"))
    return None if soft is None else _vote(call, soft, call.given(1, "dim", -1))


def _vote(call: Call, soft: Soft, dim: int) -> Result:
    value, kept = call.value[0], bool(call.settings.get("keepdim", False))
    if soft.classes is None:
        mean = soft.number.mean(dim, keepdim=kept)
        return Soft(with_identity_gradient(mean, value.to(mean.dtype))), None
    place = dim if dim >= 0 else dim - 1
    weights = soft.classes.mean(place, keepdim=kept)
    return Soft(expected(weights, value), weights), None


def counted(call: Call) -> Result:
    """`bincount`: the sum of the indices' weights."""
    soft = call.soft(call.given(0, "input"))
    if soft is None or call.given(1, "weights") is not None:
        return None
    counts = weights_of(soft, len(call.value), call.width).sum(0)
    return Soft(with_identity_gradient(counts, call.value.to(counts.dtype)))


def histogram(call: Call) -> Result:
    """`histc`: the sum of the indices' weights, where bins are classes; else each number's weights on the bins near it."""
    soft, bins = call.soft(call.given(0, "input")), call.given(1, "bins", 100)
    low, high = call.given(2, "min", 0), call.given(3, "max", 0)
    if soft is not None and soft.classes is not None and (low, high) == (0, bins - 1):
        weights = weights_of(soft, bins, call.width)
    else:
        x = call.x.flatten()
        low, high = (x.detach().amin(), x.detach().amax()) if low == high else (low, high)
        places = (x[:, None] - low) * bins / (high - low) - torch.arange(bins, device=x.device) - 0.5
        weights = torch.softmax(-places.square() / call.width, -1)
    counts = weights.flatten(0, -2).sum(0)
    return with_identity_gradient(counts, call.value.to(counts.dtype))


def different(call: Call) -> Result:
    """`unique` with counts: of indices, the sum of the weights on each that occurs."""
    soft, value = call.soft(call.given(0, "input")), call.value
    if soft is None or soft.classes is None or not isinstance(value, tuple) or not call.settings.get("return_counts"):
        return None
    counts = soft.classes.flatten(0, -2).sum(0)[value[0].long()]
    return *[None] * (len(value) - 1), Soft(with_identity_gradient(counts, value[-1].to(counts.dtype)))


def unbound(call: Call) -> Result:
    """`unbind` and iteration along the first dimension: the parts of what stands in."""
    soft = call.soft(call.given(0, "input"))
    if soft is None or call.given(1, "dim", 0) != 0:
        return None
    classes = [None] * len(call.value) if soft.classes is None else soft.classes.unbind()
    return tuple(Soft(*parts) for parts in zip(soft.number.unbind(), classes, strict=True))


def one_hot(call: Call) -> Result:
    """The index's weights."""
    soft = call.soft(call.given(0, "input"))
    if soft is None:
        return None
    weights = weights_of(soft, call.value.shape[-1], call.width)
    return Soft(with_identity_gradient(weights, call.value.to(weights.dtype)))


def looked_up(call: Call) -> Result:
    """`embedding(index, table)`, `table[index]` and `index_select` along the first dimension."""
    if call.name == "embedding":
        index, table = call.args[0], call.given(1, "weight")
    else:
        table, index = call.args[0], call.args[-1]
        if call.name == "index_select" and call.given(1, "dim") != 0:
            return None
    soft = call.soft(index) if isinstance(index, Tensor) else None
    if soft is None or index.dtype == torch.bool:
        return None
    return _entries(call, soft, table)


def gathered(call: Call) -> Result:
    """`gather` and `take_along_dim` along the last dimension: the entries of the table, by the index's weights."""
    table, dim, index = call.args[0], call.given(1, "dim"), call.given(2, "index")
    if call.name == "take_along_dim":
        index, dim = call.given(1, "indices"), call.given(2, "dim")
    soft = call.soft(index)
    if soft is None or soft.classes is None or dim not in (-1, table.dim() - 1) or not table.is_floating_point():
        return None
    if soft.classes.shape[-1] != table.shape[-1]:
        return None
    mixed: Tensor = (soft.classes * call.real(table).unsqueeze(-2)).sum(-1)
    return mixed


def _entries(call: Call, soft: Soft, table: Tensor) -> Result:
    weights, value = weights_of(soft, table.shape[0], call.width), call.value
    if table.is_floating_point():
        mixed: Tensor = torch.tensordot(weights, call.real(table).to(weights.dtype), dims=1)
        return mixed
    if table.dim() == 1:
        # Labels by index.
        labels = functional.one_hot(table.long().clamp_min(0)).to(weights.dtype)
        return Soft(expected(weights @ labels, value), weights @ labels)
    return None


def scattered(call: Call) -> Result:
    """A constant put at the places of an index along the last dimension."""
    index, source = call.given(2, "index"), call.given(3, "src", call.settings.get("value"))
    soft, base = call.soft(index), call.x
    dim = call.given(1, "dim")
    if soft is None or dim not in (-1, base.dim() - 1):
        return None
    weights = _places(call, soft, index, base.shape[-1])
    new = source if not isinstance(source, Tensor) else call.real(source).mean(-1, keepdim=True)
    mixed: Tensor = base.to(weights.dtype) * (1 - weights) + weights * new
    return mixed


def assigned(call: Call) -> Result:
    """`x[mask] = new` and `x[rows, index] = new`."""
    base, key, new = call.x, call.args[1], call.real(call.args[2])
    if isinstance(key, tuple):
        soft = call.soft(key[-1]) if isinstance(key[-1], Tensor) else None
        if soft is None or len(key) != 2 or base.dim() != 2 or soft.number.dim() != 1:
            return None
        weights = weights_of(soft, base.shape[1], call.width)
        new = new[:, None] if isinstance(new, Tensor) and new.dim() == 1 else new
        return base.to(weights.dtype) * (1 - weights) + weights * new
    soft = call.soft(key) if isinstance(key, Tensor) and key.dtype == torch.bool else None
    if soft is None or (isinstance(new, Tensor) and new.dim()):
        return None
    mask = soft.number.view(*key.shape, *[1] * (base.dim() - key.dim()))
    filled: Tensor = base * (1 - mask) + mask * new
    return filled


def _places(call: Call, soft: Soft, index: Tensor, count: int) -> Tensor:
    """Whether each of `count` places is in an index (…, k)."""
    if soft.order is not None and soft.order[0].shape[-1] == count:
        scores, wanted = soft.order[0], index.shape[-1]
        if wanted < count:
            best = scores.topk(wanted + 1, -1).values
            edge = best[..., -2:].mean(-1, keepdim=True)
            return step(scores - edge, (scores > edge), call.batch, call.width)
    return weights_of(soft, count, call.width).sum(-2).clamp(0, 1)
