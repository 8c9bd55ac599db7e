"""Gaps in a forward pass that no operation of torch shows: false backward passes, hooks, arrays and numbers outside torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from builders import Function
from gauntlet.attacks.ops.losses import cw
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.oracle import AttackError, Oracle
from gauntlet.attacks.solving.slots import new_slots
from gauntlet.attacks.views.interception.mode import InterceptionMode

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(5, 6, generator=GENERATOR)
WEIGHT = torch.randn(6, 4, generator=GENERATOR)
WEIGHTS = torch.arange(1.0, 5) ** 2


class FalseLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(weight)
        ctx.mark_non_differentiable()
        return x @ weight

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros(len(gradient), 6), None


class FalseSquare(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x.square(), x + 1

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.size = len(inputs[0])

    @staticmethod
    def backward(ctx, *gradients):
        return -1e-12 * gradients[0].sign()


class FalseLevels(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(np.round(4 * x.numpy()) / 4)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.flip(0)


def scores(x):
    return x @ WEIGHT


def hooked(x):
    values = x * 1
    if values.requires_grad:
        values.register_hook(lambda gradient: -gradient)
    return scores(values)


class Hooked(nn.Linear):
    def __init__(self):
        super().__init__(6, 4, bias=False)
        self.weight = nn.Parameter(WEIGHT.T.clone(), requires_grad=False)
        self.register_full_backward_hook(lambda module, inner, outer: (torch.zeros_like(inner[0]),))
        self.register_full_backward_pre_hook(lambda module, outer: (outer[0].flip(0),))


def shifted(x):
    return scores((((255 * x).to(torch.uint8) >> 4) << 4).float())


def row_by_row(x):
    return scores(torch.from_numpy(np.stack([np.round(row.detach().numpy(), 1) for row in x])))


def number_by_number(x):
    return torch.tensor([[round(float(value), 1) for value in row] for row in scores(x)])


def without_an_axis(x):
    return scores(torch.from_numpy(np.round(x[:, None].numpy(), 1).squeeze(1)))


def into_another(x):
    made = torch.empty(len(x), 6)
    torch.round(x.detach() * 5, out=made)
    return scores(made / 5)


def quantised(x):
    return scores(torch.quantize_per_tensor(x, 0.2, 0, torch.quint8).dequantize())


def written(x):
    return torch.tensor([[float(f"{value:.1f}") for value in row] for row in scores(x)])


TABLE = torch.randn(5, 4, generator=GENERATOR)

GAPS = {
    "a function of another shape": (lambda x: FalseLinear.apply(x, WEIGHT), scores),
    "a function without context": (lambda x: scores(FalseSquare.apply(x)[0]), lambda x: scores(x.square())),
    "the second value of a function": (lambda x: scores(FalseSquare.apply(x)[1]), scores),
    "a function that leaves torch": (lambda x: scores(FalseLevels.apply(x)), scores),
    "a hook of a tensor": (hooked, scores),
    "hooks of a module": (lambda x: Hooked()(x), scores),
    "shifted bytes": (shifted, lambda x: scores(255 * x)),
    "bits": (lambda x: scores(((255 * x).byte() & 0xF0).float()), lambda x: scores(255 * x)),
    "whole numbers": (lambda x: scores(((255 * x).int() // 32 * 32).float()), lambda x: scores(255 * x)),
    "arrays row by row": (row_by_row, scores),
    "arrays without an axis": (without_an_axis, scores),
    "a number for each value": (number_by_number, scores),
    "a text for each value": (written, scores),
    "new_tensor": (lambda x: scores(x.new_tensor(np.round(x.detach().numpy(), 1))), scores),
    "a tensor that is given as out": (into_another, scores),
    "rounded division": (lambda x: scores(torch.div(x, 0.1, rounding_mode="floor") * 0.1), scores),
    "quantised tensors": (quantised, scores),
}


def gradient_of(function, mode=True):
    """The value, and the gradient of a weighted sum of it."""
    x = IMAGES.clone().requires_grad_()
    if mode:
        with InterceptionMode(len(x)) as intercepted:
            value = intercepted.output(function(x.clone()))
    else:
        value = function(x.clone())
    return value.detach(), torch.autograd.grad((value * WEIGHTS).sum(), x)[0]


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize("name", GAPS)
def test_the_gradient_is_that_of_the_function_without_the_gap(name):
    function, twin = GAPS[name]
    value, found = gradient_of(function)
    _, wanted = gradient_of(twin, mode=False)
    assert torch.equal(value, function(IMAGES))
    torch.testing.assert_close(found, wanted)


def test_a_hook_still_serves_the_gradients_that_the_model_takes_itself():
    def model(x):
        seen = []
        point = x * 1
        point.register_hook(lambda gradient: seen.append(gradient) or 2 * gradient)
        (slope,) = torch.autograd.grad(scores(point).square().sum(), x, retain_graph=True)
        return scores(point) + scores(slope.detach()) + scores(seen[0].detach())

    x = IMAGES.clone().requires_grad_()
    wanted = model(x.clone())
    value, _ = gradient_of(model)
    assert torch.equal(value, wanted.detach())


def test_labels_that_become_whole_numbers_one_by_one_keep_their_weights():
    def model(x):
        return functional.one_hot(torch.tensor([int(row.argmax()) for row in scores(x)]), 4).float()

    value, found = gradient_of(model)
    twin, wanted = gradient_of(lambda x: functional.one_hot(scores(x).argmax(1), 4).float())
    assert torch.equal(value, twin)
    torch.testing.assert_close(found, wanted)


def test_a_constant_is_not_taken_for_a_number_that_left():
    def model(x):
        least = float(x.amin())
        return scores(x) * torch.tensor(least + 3.0) + torch.tensor([1.0, 2, 3, 4])

    value, found = gradient_of(model)
    assert torch.equal(value, model(IMAGES))
    _, wanted = gradient_of(lambda x: scores(x) * (float(IMAGES.amin()) + 3), mode=False)
    torch.testing.assert_close(found, wanted)


def test_counts_of_labels_have_the_gradient_of_their_weights():
    def labels(x):
        return torch.stack([(scores(x) * factor + place).argmax(1) for place, factor in enumerate((1, 2, 0.5))], 1)

    def histograms(x):
        return torch.stack([torch.histc(row.float(), bins=4, min=0, max=3) for row in labels(x)])

    def one_hot(x):
        return functional.one_hot(labels(x), 4).sum(1).float()

    value, found = gradient_of(histograms)
    twin, wanted = gradient_of(one_hot)
    assert torch.equal(value, twin)
    torch.testing.assert_close(found, wanted)

    def different(x):
        made = torch.zeros(len(x), 4)
        for place, row in enumerate(labels(x)):
            values, counts = row.unique(return_counts=True)
            made[place, values] = counts.float()
        return made

    value, found = gradient_of(different)
    # Labels that do not occur have no place among the counts.
    _, wanted = gradient_of(lambda x: one_hot(x) * (one_hot(IMAGES) > 0))
    assert torch.equal(value, twin)
    torch.testing.assert_close(found, wanted)


def test_the_patches_of_hooks_end_with_the_pass():
    before = nn.Module._get_backward_hooks, nn.Module._get_backward_pre_hooks
    gradient_of(GAPS["hooks of a module"][0])
    assert (nn.Module._get_backward_hooks, nn.Module._get_backward_pre_hooks) == before


@pytest.mark.parametrize("to_array", [torch.Tensor.numpy, np.from_dlpack, np.asarray])
def test_an_attack_sees_no_gradient_where_the_model_only_takes_images_that_need_none(to_array):
    class Outside(nn.Module):
        def forward(self, x):
            return torch.from_numpy(to_array(x.flatten(1)) @ WEIGHT.numpy())

    images, labels = IMAGES[:, None, None], torch.zeros(5, dtype=torch.int64)
    slots = new_slots(labels, images, labels, labels, scores(IMAGES), labels, labels)
    threat = ThreatModel("Linf", 0.1)
    watched = Oracle(Outside(), threat, slots, minimum_norm=False, needs_gradient=False).gradient(images, cw)
    torch.testing.assert_close(watched.logits, scores(IMAGES))
    assert not watched.gradient.any()
    with pytest.raises(AttackError, match="no gradient reaches the input"):
        Oracle(Outside(), threat, slots, minimum_norm=False).gradient(images, cw)


def test_errors_of_the_model_itself_are_raised():
    images, labels = IMAGES[:, None, None], torch.zeros(5, dtype=torch.int64)
    slots = new_slots(labels, images, labels, labels, torch.empty(5, 0), labels, labels)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Oracle(
            Function(lambda x: x.flatten(1) @ WEIGHT[1:]), ThreatModel("Linf", 0.1), slots, minimum_norm=False
        ).gradient(images, cw)


@pytest.mark.parametrize(
    ("function", "twin"),
    [
        (lambda x: torch.heaviside(scores(x), torch.tensor(0.5)), lambda x: (scores(x) > 0).float()),
        (
            lambda x: torch.stack([torch.count_nonzero(x > edge, dim=1) for edge in (0.2, 0.4, 0.6, 0.8)], 1).float(),
            lambda x: torch.stack([(x > edge).sum(1) for edge in (0.2, 0.4, 0.6, 0.8)], 1).float(),
        ),
        (
            lambda x: TABLE[: len(x)].gather(1, scores(x).argmax(1, keepdim=True)).expand(-1, 4),
            lambda x: (functional.one_hot(scores(x).argmax(1), 4) * TABLE).sum(1, keepdim=True).expand(-1, 4),
        ),
    ],
)
def test_another_way_to_write_an_operation_has_the_same_gradient(function, twin):
    value, found = gradient_of(function)
    wanted_value, wanted = gradient_of(twin)
    torch.testing.assert_close(value, wanted_value)
    torch.testing.assert_close(found, wanted)
    assert found.any(1).all()


def test_an_assertion_about_the_image_hides_nothing_and_what_numbers_are_made_of_does():
    def checked(x):
        assert x.amin() >= 0
        assert bool((x <= 1).all())
        assert float(x.amax()) < 2
        return scores(x)

    def cut(x):
        assert x.amin() >= 0
        return scores(x * (x > 0.5))

    def labels(x):
        found = [int(row.argmax()) for row in scores(x)]
        return torch.tensor([[float(label == one) for label in range(4)] for one in found])

    names = []
    for function in (checked, cut, labels):
        x = IMAGES.clone().requires_grad_()
        with InterceptionMode(len(x), record=True) as mode:
            mode.output(function(x.clone()))
        names.append(list(mode.seen.values()))
    assert names == [[], ["gt"], ["argmax"]]
