"""TF32 on any machine: the factors of convolutions and matrix products are rounded to 10 bits, in passes forward and back."""

from __future__ import annotations

import copy
from contextlib import contextmanager

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from gauntlet.attacks.views import fast_model
from gauntlet.attacks.views.tf32 import assumed_tf32

_PRODUCTS = {
    nn.functional.linear,
    nn.functional.conv1d,
    nn.functional.conv2d,
    nn.functional.conv3d,
    torch.matmul,
    torch.bmm,
}
_DROPPED = 13
"""Bits of the 23 of a float32 that TF32 does not have."""


def rounded(x):
    """float32 rounded to 10 bits after the first, to the nearest."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + (1 << (_DROPPED - 1))) & ~((1 << _DROPPED) - 1)).view(torch.float32)


class _Factor(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return rounded(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return rounded(gradient)


class _Rounding(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func not in _PRODUCTS:
            return func(*args, **(kwargs or {}))
        left, right, *rest = args
        return _Product.apply(func(_Factor.apply(left), _Factor.apply(right), *rest, **(kwargs or {})))


class RoundedFactors(nn.Module):
    """Stands in for the form in TF32."""

    def __init__(self, model):
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.training = model.training

    def forward(self, images):
        with _Rounding():
            return self.model(images)


@contextmanager
def emulated_tf32():
    """`--precision tf32` computes as a GPU would."""
    before, fast_model.TF32 = fast_model.TF32, RoundedFactors
    try:
        with assumed_tf32():
            yield
    finally:
        fast_model.TF32 = before
