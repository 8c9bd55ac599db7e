"""Inner views: networks behind wrappers, features before heads without parameters, and what is found of them."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from builders import Function, network, slow_unless
from gauntlet.attacks.ops.losses import cw
from gauntlet.attacks.views.backward_modes import backward_mode
from gauntlet.bench.registries import DEFENSES
from gauntlet.defenses.pipeline.defended_model import DefendedModel, defend
from gauntlet.defenses.pipeline.find_inner_views import find_inner_views
from gauntlet.defenses.pipeline.inner_view import InnerView, InnerViewModel, class_means, distances, in_units

CLASSES = 5


@pytest.fixture
def images():
    return torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class Wrapper(nn.Module):
    """Members, and a function of them and the images."""

    def __init__(self, forward, *members):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.function = forward
        self.eval()

    def forward(self, x):
        return self.function(self.members, x)


def pipeline(forward, *members):
    return DefendedModel(Wrapper(forward, *members), differentiable=True, randomised=False).eval()


def plain(seed=0, out=CLASSES):
    return network(16, 20, out, seed=seed)


def doubled(net):
    """The network with twice its logits."""
    net[3].weight.data *= 2
    net[3].bias.data *= 2
    return net


def labels_of(logits):
    """One-hot labels by a table, through Python's integers, which no interception sees."""
    rows = torch.eye(logits.shape[1]).tolist()
    return torch.tensor([rows[int(one)] for one in logits.argmax(1)])


def by_label(members, x):
    return labels_of(members[0](x))


def names(views):
    return [view.name for view in views]


def model_of(base, view):
    return InnerViewModel(base, view)


def test_the_view_of_a_wrapper_of_labels_is_the_networks_logits_bit_for_bit(images):
    net = plain()
    base = pipeline(by_label, net)
    (view,) = find_inner_views(base, images)
    assert view.name == "inner model.members.0"
    assert torch.equal(model_of(base, view)(images), net(images))


def test_the_gradient_of_a_view_is_that_of_the_network(images):
    net = plain().requires_grad_(False)
    base = pipeline(by_label, net)
    (view,) = find_inner_views(base, images)
    labels = net(images).argmax(1)
    wanted, found = (
        torch.autograd.grad(cw(one(x), labels).sum(), x)[0]
        for one in (net, model_of(base, view))
        for x in [images.clone().requires_grad_()]
    )
    assert torch.equal(found, wanted)


def test_of_a_vote_over_three_members_the_first_view_is_their_mean_with_equal_say(images):
    base = pipeline(lambda members, x: sum(labels_of(one(x)) for one in members), *(plain(seed) for seed in (0, 0, 0)))
    nets = base.model.members
    doubled(nets[1]), doubled(doubled(nets[2]))
    first, *single = find_inner_views(base, images)
    outputs = [net(images) for net in nets]
    assert first.name == "inner mean model.members.0, model.members.1, model.members.2"
    assert names(single) == [f"inner model.members.{i}" for i in range(3)]
    wanted = sum(one / one.std(1, keepdim=True, correction=0) for one in outputs) / 3
    assert torch.allclose(model_of(base, first)(images), wanted, atol=1e-6)
    assert all(torch.equal(model_of(base, view)(images), one) for view, one in zip(single, outputs, strict=True))


def test_binary_detectors_side_by_side_are_one_view_with_a_column_for_each_class(images):
    detectors = [plain(seed, out=1) for seed in range(CLASSES)]
    base = pipeline(lambda members, x: labels_of(torch.cat([one(x) for one in members], 1)), *detectors)
    (view,) = find_inner_views(base, images)
    assert view.join == "beside"
    assert torch.equal(model_of(base, view)(images), torch.cat([one(images) for one in detectors], 1))


def test_of_detectors_that_say_yes_and_no_the_difference_is_shown(images):
    detectors = [plain(seed, out=2) for seed in range(CLASSES)]
    base = pipeline(
        lambda members, x: labels_of(torch.stack([one(x)[:, 1] - one(x)[:, 0] for one in members], 1)), *detectors
    )
    (view,) = find_inner_views(base, images)
    wanted = torch.stack([one(images)[:, 1] - one(images)[:, 0] for one in detectors], 1)
    assert torch.allclose(model_of(base, view)(images), wanted, atol=1e-6)


def shifted(x, copies):
    return [x + 0.01 * copy for copy in range(copies)]


COPIES = {
    "one after the other": lambda net, x: torch.stack([net(one) for one in shifted(x, 6)]),
    "copy by copy": lambda net, x: net(torch.cat(shifted(x, 6))).view(6, len(x), -1),
    "image by image": lambda net, x: (
        net(torch.stack(shifted(x, 6), 1).flatten(0, 1)).view(len(x), 6, -1).transpose(0, 1)
    ),
    "alone": lambda net, x: torch.stack([torch.cat([net(one[None]) for one in s]) for s in shifted(x, 6)]),
    "in chunks": lambda net, x: torch.stack([torch.cat([net(one) for one in s.split(5)]) for s in shifted(x, 6)]),
}


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("count", [slow_unless(False, 12), 7, 1])
def test_of_a_vote_over_copies_the_view_is_their_mean(kind, count, images):
    net = plain()
    base = pipeline(lambda members, x: torch.stack([labels_of(one) for one in COPIES[kind](members[0], x)]).sum(0), net)
    (view,) = find_inner_views(base, images)
    wanted = torch.stack([net(one) for one in shifted(images[:count], 6)]).mean(0)
    assert torch.allclose(model_of(base, view)(images[:count]), wanted, atol=1e-6)


def test_two_calls_of_a_network_are_views_of_their_own(images):
    net = plain()
    base = pipeline(lambda members, x: labels_of(members[0](x.flip(3)) + members[0](x)), net)
    mean, *single = find_inner_views(base, images)
    assert mean.join == "mean"
    shown = {view.name: model_of(base, view)(images) for view in single}
    assert torch.equal(shown["inner model.members.0[0]"], net(images.flip(3)))
    assert torch.equal(shown["inner model.members.0[1]"], net(images))


def test_hidden_layers_with_as_many_features_as_classes_are_no_views(images):
    net = network(16, CLASSES, CLASSES, CLASSES, seed=3)
    base = pipeline(by_label, net)
    views = find_inner_views(base, images)
    answers = net(images)
    hidden = [model_of(base, view)(images) for view in views if view.name != "inner model.members.0"]
    assert "inner model.members.0" in names(views)
    assert all((one.argmax(1) == answers.argmax(1)).float().mean() > 0.5 for one in hidden)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_network_under_no_grad_is_shown_with_a_gradient(context, images):
    net = plain()

    def forward(members, x):
        with context():
            return labels_of(members[0](x))

    base = pipeline(forward, net)
    (view,) = find_inner_views(base, images)
    assert view.backward == "through"
    x = images.clone().requires_grad_()
    with backward_mode("through", len(x)) as completed:
        found = completed(model_of(base, view)(x.clone()))
    assert torch.equal(found.detach(), net(images))
    gradient = torch.autograd.grad(found[:, 0].sum(), x)[0]
    assert torch.equal(gradient, torch.autograd.grad(net(y := images.clone().requires_grad_())[:, 0].sum(), y)[0])


def opaque(x):
    """Rounded pixels by Python's numbers, which come back with others among them."""
    rows = [[0.5, *(round(4 * value) / 4 for value in one.flatten().tolist())] for one in x]
    return torch.tensor(rows)[:, 1:].reshape(x.shape)


def test_where_the_image_is_lost_before_the_network_its_input_is_taken_for_the_image(images):
    net = plain()
    base = pipeline(lambda members, x: members[0](opaque(x)), net)
    (view,) = find_inner_views(base, images)
    assert "model.members.0" in view.links
    x = images.clone().requires_grad_()
    with backward_mode(view.backward, len(x)) as completed:
        found = completed(model_of(base, view)(x.clone()))
    assert torch.equal(found.detach(), net(opaque(images)))
    rounded = opaque(images).requires_grad_()
    wanted = torch.autograd.grad(net(rounded)[:, 1].sum(), rounded)[0]
    assert torch.equal(torch.autograd.grad(found[:, 1].sum(), x)[0], wanted)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
def test_honest_outputs_and_scripted_modules_give_no_views(images):
    assert find_inner_views(pipeline(lambda members, x: members[0](x), plain()), images) == ()
    scripted = torch.jit.trace(plain(), images)
    assert find_inner_views(DefendedModel(scripted, differentiable=True, randomised=False), images) == ()
    inside = pipeline(by_label, scripted)
    for view in find_inner_views(inside, images):
        assert torch.equal(model_of(inside, view)(images), scripted(images))


def test_features_before_a_head_without_parameters_are_compared_with_class_means(images):
    features, labels = plain(out=8), torch.arange(12) % CLASSES
    bank = features(images).detach()

    def nearest(members, x):
        return torch.eye(CLASSES)[labels[(members[0](x)[:, None] - bank).square().sum(2).argmin(1)]]

    base = pipeline(nearest, features)
    (view,) = find_inner_views(base, images)
    model = model_of(base, view)
    model.set_means(images, labels)
    means = torch.stack([bank[labels == c].mean(0) for c in range(CLASSES)])
    assert (view.join, view.name) == ("nearest", "inner nearest model.members.0")
    assert torch.allclose(model(images), -(torch.cdist(bank, means) ** 2), atol=1e-4)


def test_absent_classes_are_the_farthest():
    features = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    means = class_means(features, torch.tensor([0, 2]), 3)
    assert means.isnan().any(1).tolist() == [False, True, False]
    assert distances(features, means).tolist() == [[0.0, -18.0, -9.0], [-9.0, -18.0, 0.0]]


def test_units_are_deviations_and_a_constant_is_harmless():
    assert torch.allclose(in_units(torch.tensor([[1.0, 3.0], [10.0, 30.0]])), torch.tensor([[1.0, 3.0]]).expand(2, -1))
    assert in_units(torch.zeros(1, 3)).tolist() == [[0, 0, 0]]


class Counting(nn.Module):
    """A layer that counts its passes."""

    def __init__(self):
        super().__init__()
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        return x


def test_a_pass_ends_with_the_last_output_that_is_needed(images):
    after = Counting()
    base = pipeline(lambda members, x: labels_of(members[1](members[0](x)) * 2), plain(), after)
    (view,) = [one for one in find_inner_views(base, images) if one.name == "inner model.members.1"]
    first = InnerView("mean", (type(view.outputs[0])("model.members.0"),), CLASSES, stops=True)
    before = after.passes
    model_of(base, first)(images)
    assert view.stops
    assert after.passes == before


class Unsettled(nn.Module):
    """It must run to its end: what it sets at the start changes the next pass."""

    def __init__(self, net):
        super().__init__()
        self.net, self.busy = net, False

    def forward(self, x):
        again, self.busy = self.busy, True
        found = labels_of(self.net(x))
        self.busy = False
        return -found if again else found


def test_a_pipeline_that_must_run_to_its_end_does(images):
    base = DefendedModel(Unsettled(plain()), differentiable=True, randomised=False).eval()
    (view,) = find_inner_views(base, images)
    assert not view.stops
    base.model.busy = False
    model_of(base, view)(images)
    assert not base.model.busy


def test_nothing_stays_of_the_hooks(images):
    base = pipeline(by_label, plain())
    (view,) = find_inner_views(base, images)
    model_of(base, view)(images)
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in base.modules())


def test_a_view_returns_from_json_unchanged(images):
    base = pipeline(lambda members, x: sum(labels_of(one(x)) for one in members), plain(0), doubled(plain(0)))
    views = find_inner_views(base, images)
    assert tuple(InnerView.read(json.loads(json.dumps(view.fields()))) for view in views) == views


def test_a_module_that_a_pass_leaves_out_is_left_out_of_the_mean(images):
    base = pipeline(lambda members, x: sum(labels_of(one(x)) for one in members), plain(0), doubled(plain(0)))
    mean, *_ = find_inner_views(base, images)
    shown = model_of(pipeline(lambda members, x: labels_of(members[0](x)), *base.model.members), mean)
    assert torch.equal(shown(images), base.model.members[0](images))
    nothing = model_of(pipeline(lambda members, x: x.flatten(1)[:, :CLASSES], *base.model.members), mean)
    x = images.clone().requires_grad_()
    assert not nothing(x).any()
    assert not torch.autograd.grad(nothing(x).sum(), x)[0].any()


def test_of_a_function_without_modules_pixels_are_the_features(images):
    base = DefendedModel(
        Function(lambda x: labels_of(x.flatten(1)[:, :CLASSES])), differentiable=True, randomised=False
    )
    (view,) = find_inner_views(base, images)
    assert view.join == "nearest"
    assert torch.equal(model_of(base, view).parts(images)[0], images.flatten(1))


class Score(nn.Module):
    """A number for each image, without a second dimension."""

    def forward(self, logits):
        return logits.amax(1) - 1


def test_a_score_for_each_image_disturbs_no_view(images):
    net, score = plain(), Score()

    def forward(members, x):
        logits = members[0](x)
        return labels_of(logits) * (members[1](logits) > -9)[:, None]

    view = find_inner_views(pipeline(forward, net, score), images)[0]
    torch.testing.assert_close(model_of(pipeline(forward, net, score), view)(images), net(images))


@pytest.mark.parametrize("name", ["confidence_detector", "squeeze_detector"])
def test_a_detector_before_a_masked_network_has_views(name, images):
    defended = defend(Wrapper(by_label, plain()), DEFENSES.get(name), {}).eval()
    assert find_inner_views(defended, images)
