"""Automatic BPDA: values stay the model's own, bit for bit, and gradients go through what has none."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from builders import Function, Wrapped
from gauntlet.attacks.ops.losses import cw
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.solving.oracle import Oracle
from gauntlet.attacks.solving.slots import new_slots
from gauntlet.attacks.views.backward_modes import backward_mode
from gauntlet.attacks.views.interception.mode import InterceptionMode

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(5, 6, generator=GENERATOR)
WEIGHT = torch.randn(6, 4, generator=GENERATOR)
CODES = torch.randn(24, 4, generator=GENERATOR)
EXAMPLES, THEIR_LABELS = torch.rand(4, 6, generator=GENERATOR), torch.tensor([2, 0, 1, 3])


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


BOUND = Reversed.apply


def scores(x):
    return x @ WEIGHT


def in_place(x):
    made = torch.zeros(len(x), 4)
    made[torch.arange(len(x)), scores(x).argmax(1)] = 1.0
    return made


def without_autograd(x):
    with torch.no_grad():
        return scores(x)


def inference(x):
    with torch.inference_mode():
        return scores(x)


def masked(x):
    changed = x.clone()
    changed[x < 0.5] = 0
    return scores(changed)


def changed(x, without):
    with without():
        values = scores(x).relu_()
        values += 1
        values[values > 2] = 2
    return values


def detached_and_changed(x):
    return scores(x).detach().sigmoid_().mul_(2).relu_().sub_(1)


def moved_by_an_optimiser(x):
    point = x.detach().clone().requires_grad_(True)
    optimiser = torch.optim.SGD([point], lr=0.1, momentum=0.9)
    with torch.enable_grad():
        for _ in range(3):
            optimiser.zero_grad()
            scores(point).square().sum().backward()
            optimiser.step()
    return scores(point.detach())


def winners(x):
    values = scores(x)
    return values * torch.zeros_like(values).scatter(1, values.topk(2, dim=1).indices, 1.0)


def votes(x):
    labels = torch.stack([(scores(x) * factor + place).argmax(1) for place, factor in enumerate((1, 2, 0.5))])
    return functional.one_hot(labels.mode(0).values, 4).float()


def counted_votes(x):
    labels = torch.stack([(scores(x) * factor + place).argmax(1) for place, factor in enumerate((1, 2, 0.5))], 1)
    return torch.stack([torch.bincount(row, minlength=4) for row in labels]).float()


def codes(x):
    places = torch.bucketize(x, torch.tensor([0.3, 0.5, 0.7]))
    return functional.one_hot(places, 4).float().flatten(1) @ CODES


def logarithms(x):
    return torch.nan_to_num((3000 * scores(x)).softmax(1).log(), neginf=-1e4).clamp(-30, 0)


def neighbours(x):
    nearest = torch.cdist(x, EXAMPLES).topk(3, dim=1, largest=False).indices
    return functional.one_hot(THEIR_LABELS[nearest], 4).sum(1).float()


OPERATIONS = {
    "round": lambda x: scores(x).round(),
    "round to decimals": lambda x: torch.round(scores(x), decimals=1),
    "floor division": lambda x: scores(x // 0.1 * 0.1),
    "sign": lambda x: scores(x).sign(),
    "detach": lambda x: scores(x.detach()),
    "data": lambda x: scores(x.data),
    "no_grad": without_autograd,
    "inference_mode": inference,
    "changes in place under no_grad": lambda x: changed(x, torch.no_grad),
    "changes in place in inference mode": lambda x: changed(x, torch.inference_mode),
    "changes in place after detach": detached_and_changed,
    "an optimiser": moved_by_an_optimiser,
    "softmax of logits": lambda x: functional.softmax(scores(x), dim=1),
    "logarithms of a saturated softmax": logarithms,
    "saturated clamp": lambda x: functional.hardtanh(100 * scores(x)),
    "comparison": lambda x: (scores(x) > 0).float(),
    "comparison in a product": lambda x: scores(x * (x > 0.3)),
    "comparison that is counted": lambda x: (x[:, :, None] > torch.linspace(0, 1, 4)).sum(1).float(),
    "where": lambda x: scores(torch.where(x > 0.5, x, torch.zeros(()))),
    "masked assignment": masked,
    "any": lambda x: torch.stack([(x > 0.7).any(1), (x > 0.8).any(1), ~(x > 0.8).any(1)], 1).float(),
    "logic": lambda x: ((scores(x) > 0) & (scores(x) < 1) | (scores(x) > 2)).float(),
    "uint8": lambda x: scores((255 * x).to(torch.uint8).float() / 255),
    "thermometer": lambda x: (x[..., None] > torch.linspace(0, 1, 5)[1:]).float().flatten(1) @ CODES,
    "one-hot codes": codes,
    "labels": lambda x: functional.one_hot(scores(x).argmax(1), 4).float(),
    "labels one by one": lambda x: torch.stack([(scores(x).argmax(1) == k).float() for k in range(4)], 1),
    "labels, assigned": in_place,
    "labels, scattered": lambda x: torch.zeros(len(x), 4).scatter_(1, scores(x).argmax(1, keepdim=True), 1.0),
    "embedding": lambda x: functional.embedding(scores(x).argmax(1), CODES[:4]),
    "votes": votes,
    "counted votes": counted_votes,
    "nearest neighbours": neighbours,
    "winners": winners,
    "quantile": lambda x: (scores(x) > scores(x).kthvalue(2, dim=1, keepdim=True).values).float(),
    "numpy": lambda x: torch.from_numpy(np.round(scores(x).detach().numpy(), 1)),
    "a list": lambda x: torch.tensor(scores(x).tolist()),
    "a function with a false gradient": lambda x: scores(Reversed.apply(x)),
    "one that was bound before": lambda x: scores(BOUND(BOUND(x))),
}  # fmt: skip


def intercepted(function, images=IMAGES, width=1.0):
    """The value, and the gradient of a weighted sum of it, at each image; None where there is no gradient."""
    x = images.clone().requires_grad_()
    with InterceptionMode(len(x), width) as mode:
        value = mode.output(function(x.clone()))
    weights = torch.arange(1.0, 1 + value.shape[1]) ** 2
    gradient = torch.autograd.grad((value * weights).sum(), x)[0] if value.requires_grad else None
    return value.detach(), gradient


@pytest.mark.parametrize("width", [1.0, 0.25])
@pytest.mark.parametrize("name", OPERATIONS)
def test_values_are_exact_and_every_image_has_a_gradient(name, width):
    value, gradient = intercepted(OPERATIONS[name], width=width)
    assert torch.equal(value, OPERATIONS[name](IMAGES))
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient.any(1).all()


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_image_changes_the_gradient_of_another(name):
    _, together = intercepted(OPERATIONS[name])
    for row in range(len(IMAGES)):
        _, alone = intercepted(OPERATIONS[name], IMAGES[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("labels", lambda x: functional.softmax(scores(x), dim=1)),
        ("labels, scattered", lambda x: functional.softmax(scores(x), dim=1)),
        ("counted votes", lambda x: functional.softmax(scores(x), dim=1)),
        ("votes", lambda x: functional.softmax(scores(x), dim=1)),
        ("comparison", lambda x: torch.sigmoid(scores(x))),
        ("comparison that is counted", lambda x: torch.sigmoid(9 * (x[:, :, None] - torch.linspace(0, 1, 4))).sum(1)),
        ("uint8", scores),
        ("logarithms of a saturated softmax", scores),
        ("a function with a false gradient", lambda x: scores(2 * x)),
        ("one that was bound before", lambda x: scores(4 * x)),
        (
            "nearest neighbours",
            lambda x: functional.softmax(-9 * torch.cdist(x, EXAMPLES), 1) @ torch.eye(4)[THEIR_LABELS],
        ),
    ],
)
def test_the_gradient_leads_where_that_of_a_smooth_twin_leads(name, twin):
    _, found = intercepted(OPERATIONS[name])
    x = IMAGES.clone().requires_grad_()
    wanted = torch.autograd.grad((twin(x) * torch.arange(1.0, 5) ** 2).sum(), x)[0]
    assert functional.cosine_similarity(found, wanted, dim=1).mean() > 0.7


def test_a_remainder_is_a_constant_for_wide_stand_ins_and_a_line_for_narrow_ones():
    value, found = intercepted(lambda x: scores(x - x % 0.1))
    _, wanted = intercepted(scores)
    assert torch.equal(value, scores(IMAGES - IMAGES % 0.1))
    assert torch.equal(found, wanted)
    _, found = intercepted(lambda x: scores(torch.frac(x)), width=0.25)
    assert torch.equal(found, wanted)


def test_smooth_operations_keep_their_gradient():
    for function in (
        torch.exp,
        lambda x: functional.softmax(x[:, None], dim=-1)[:, 0],
        torch.relu,
        lambda x: x.amax(1, True),
    ):
        value, found = intercepted(function)
        x = IMAGES.clone().requires_grad_()
        (true,) = torch.autograd.grad((function(x) * torch.arange(1.0, 1 + value.shape[1]) ** 2).sum(), x)
        assert torch.equal(value, function(IMAGES))
        assert torch.equal(found, true)


def test_logarithms_of_distributions_hide_no_gradient():
    for factor, named in ((1, set()), (3000, {"softmax"})):
        with InterceptionMode(len(IMAGES), record=True) as mode:
            (factor * scores(IMAGES.clone().requires_grad_())).softmax(1).log()
        assert set(mode.seen.values()) == named


def test_everything_that_was_replaced_is_named_with_its_line_and_nothing_stays_patched():
    before = (
        torch.from_numpy,
        torch.autograd.Function.__dict__["apply"],
        torch.autograd.grad_mode.inference_mode.__enter__,
    )

    def function(x):
        return functional.one_hot(scores(x).argmax(1), 4).float()

    with InterceptionMode(5, record=True) as mode:
        function(IMAGES.clone().requires_grad_())
    ((place, name),) = ((place, name) for place, name in mode.seen.items() if name == "argmax")
    assert place.rpartition(":")[0] == __file__
    with pytest.raises(KeyError), InterceptionMode(5):
        raise KeyError
    after = (
        torch.from_numpy,
        torch.autograd.Function.__dict__["apply"],
        torch.autograd.grad_mode.inference_mode.__enter__,
    )
    assert after == before
    assert name == "argmax"


def test_a_model_that_raises_or_changes_its_parameters_in_place_works_as_without():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.seen = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            with torch.no_grad():
                self.seen += 1
            return scores(x)

    model = Counting()
    value, gradient = intercepted(model)
    assert torch.equal(value, scores(IMAGES))
    assert gradient.any(1).all()
    assert model.seen.item() == 1
    with pytest.raises(ZeroDivisionError), backward_mode("through", 5) as completed:
        completed(Function(lambda x: 1 / 0)(IMAGES))


def test_passes_of_several_threads_leave_nothing_patched():
    before = (
        torch.from_numpy,
        torch.autograd.Function.__dict__["apply"],
        torch.autograd.grad_mode.inference_mode.__enter__,
    )
    first, entered = threading.Event(), threading.Event()

    def holding():
        with InterceptionMode(5):
            first.set()
            # The other thread waits for this one, and so never gets here before it has ended.
            entered.wait(0.2)

    def following():
        first.wait()
        with InterceptionMode(5):
            entered.set()

    threads = [threading.Thread(target=run) for run in (holding, following)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = (
        torch.from_numpy,
        torch.autograd.Function.__dict__["apply"],
        torch.autograd.grad_mode.inference_mode.__enter__,
    )
    assert after == before


def test_what_a_model_caches_keeps_no_graph():
    class Caching(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(4))
            self.last = None

        def forward(self, x):
            self.last = scores(x).detach()
            with torch.no_grad():
                self.mean = self.last.mean(0)
            return (scores(x) > 0).float()

    model = Caching().eval()
    images, labels = IMAGES[:, None, None], torch.zeros(5, dtype=torch.int64)
    slots = new_slots(labels, images, labels, labels, torch.empty(5, 0), labels, labels)
    flat = Wrapped(model, before=lambda x: x.flatten(1))
    oracle = Oracle(flat, ThreatModel("Linf", 0.1), slots, minimum_norm=False, backward="through")
    assert oracle.gradient(images, cw).gradient.any()
    assert model.last.grad_fn is None
    assert model.mean.grad_fn is None
    copy.deepcopy(model)
