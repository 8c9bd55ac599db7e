"""The smooth stand-in of each operation that has no useful gradient, by its name in torch."""

from __future__ import annotations

from gauntlet.attacks.views.interception import indices, numbers, quantised
from gauntlet.attacks.views.interception.call import Rule

RULES: dict[str, Rule] = {
    **dict.fromkeys(("round", "floor", "ceil", "trunc", "fix", "sign", "sgn"), numbers.rounded),
    **dict.fromkeys(("floor_divide", "floordiv"), numbers.divided),
    **dict.fromkeys(("div", "divide"), numbers.divided_and_rounded),
    "heaviside": numbers.heaviside,
    "count_nonzero": numbers.counted,
    "dequantize": numbers.rounded,
    **dict.fromkeys(("quantize_per_tensor", "quantize_per_channel", "quantize_per_tensor_dynamic"), numbers.quantised),
    **dict.fromkeys(quantised.LAYERS, quantised.quantised_layer),
    **dict.fromkeys(quantised.ARITHMETIC, quantised.quantised_arithmetic),
    **dict.fromkeys(("remainder", "fmod", "frac"), numbers.remaining),
    "softmax": numbers.normalised,
    **dict.fromkeys(numbers.LOGARITHMS, numbers.logarithm),
    "nan_to_num": numbers.clamped,
    **dict.fromkeys(("sigmoid", "tanh"), numbers.saturated),
    **dict.fromkeys(("clamp", "clip", "hardtanh", "relu6", "hardsigmoid", "clamp_min", "clamp_max"), numbers.clamped),
    **dict.fromkeys(("gt", "ge", "greater", "greater_equal"), numbers.greater(1.0)),
    **dict.fromkeys(("lt", "le", "less", "less_equal"), numbers.greater(-1.0)),
    **dict.fromkeys(("eq", "ne"), numbers.equals),
    **dict.fromkeys(
        ("logical_and", "logical_or", "logical_xor", "and", "or", "xor", "iand", "ior", "ixor"), numbers.logical
    ),
    **dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor"), numbers.logical),
    **dict.fromkeys(("rshift", "irshift", "bitwise_right_shift"), numbers.shifted),
    **dict.fromkeys(("lshift", "ilshift", "bitwise_left_shift"), numbers.shifted),
    **dict.fromkeys(("logical_not", "bitwise_not", "invert"), numbers.negated),
    **dict.fromkeys(("any", "all"), numbers.any_or_all),
    **dict.fromkeys(("int", "long", "short", "char", "byte", "bool", "to", "type", "type_as"), numbers.cast),
    **dict.fromkeys(("float", "double", "half", "bfloat16"), numbers.cast),
    **dict.fromkeys(("argmax", "argmin", "max", "min"), indices.first_of),
    **dict.fromkeys(("topk", "sort", "argsort"), indices.ranked),
    **dict.fromkeys(("kthvalue", "median"), indices.middle),
    "mode": indices.most_frequent,
    "bincount": indices.counted,
    "histc": indices.histogram,
    **dict.fromkeys(("unique", "_return_output", "_unique_impl"), indices.different),
    "unbind": indices.unbound,
    "one_hot": indices.one_hot,
    **dict.fromkeys(("embedding", "getitem", "index_select"), indices.looked_up),
    **dict.fromkeys(("bucketize", "searchsorted"), numbers.bucket),
    **dict.fromkeys(("gather", "take_along_dim"), indices.gathered),
    "where": numbers.chosen,
    "masked_fill": numbers.filled,
    "scatter": indices.scattered,
    "setitem": indices.assigned,
}
"""By the name of the function without a trailing underscore."""
