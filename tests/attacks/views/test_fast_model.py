"""Faster forms of a model: equal up to rounding, chosen by size, and never in the way."""

from __future__ import annotations

import copy
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

import gauntlet
from builders import network
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.solving.solver import Task, solve
from gauntlet.attacks.views.fast_model import LAYOUT_WORK, PRECISION_WORK, ChannelsLast, LowPrecision, choose_form
from gauntlet.attacks.views.fold_batch_norm import fold_batch_norm
from gauntlet.bench.models.parts.classifier import Classifier
from gauntlet.bench.prepare.fast_form import rebuilt_form
from gauntlet.bench.verify.verifier import Verifier


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x))


class Through(nn.Module):
    """A module around a function."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.function(self, x)


def seasoned(model, *shape):
    """In evaluation mode, with statistics and scales that are not those of a fresh normalisation."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
    with torch.no_grad():
        model.train()(torch.rand(32, *shape))
    return model.eval()


def resnet(width=8):
    layers = [nn.Conv2d(3, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU(), Block(width, 2 * width, 2)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10)]
    return seasoned(nn.Sequential(*layers, *head), 3, 16, 16)


def images(count, *shape):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


def norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]


def gradient(model, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad((model(x)[:, 0] - model(x)[:, 1]).sum(), x)[0]


def conv_norm(**kwargs):
    return {"conv": nn.Conv2d(3, 4, 3, padding=1), "bn": nn.BatchNorm2d(4, **kwargs)}


def flat(y):
    return y.mean((2, 3))


def test_every_normalisation_of_a_residual_network_is_folded_and_the_logits_stay():
    model, x = Classifier(resnet(), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3)), images(4, 3, 16, 16)
    folded = fold_batch_norm(model, x)
    assert not norms(folded)
    assert len(norms(model)) == 4
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient(folded, x), gradient(model, x), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ([nn.Linear(6, 5), nn.BatchNorm1d(5)], (6,)),
        ([nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5, affine=False)], (6,)),
        ([nn.Conv1d(2, 5, 3), nn.BatchNorm1d(5), nn.Flatten()], (2, 9)),
        (
            [nn.Conv2d(4, 6, 3, groups=2, padding_mode="circular", padding=1), nn.BatchNorm2d(6), nn.Flatten()],
            (4, 5, 5),
        ),
    ],
)
def test_kinds_of_layers_that_are_folded(layers, shape):
    model, x = seasoned(nn.Sequential(*layers), *shape), images(3, *shape)
    folded = fold_batch_norm(model, x)
    assert not norms(folded)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-5)


def test_folding_leaves_the_model_as_it_was():
    model = resnet()
    model[0].register_buffer("seen", torch.zeros(()))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model[2].train()
    modes = [module.training for module in model.modules()]
    torch.manual_seed(3)
    random = torch.get_rng_state()
    folded = fold_batch_norm(model, images(2, 3, 16, 16))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert folded[2].training
    assert not any(module._forward_hooks for one in (model, folded) for module in one.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.requires_grad for parameter in model.parameters())


def denormal_weights(normalised=False):
    model = seasoned(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4) if normalised else nn.ReLU(), nn.Flatten()), 3, 5, 5
    )
    with torch.no_grad():
        model[0].weight[0] = 3e-39
        model[0].weight[1, 0, 0, 0] = -1e-45
    return model


def test_denormal_weights_are_flushed_on_a_cpu_and_nothing_else_changes():
    model, x = denormal_weights(), images(4, 3, 5, 5)
    form = choose_form(model, x)
    assert form.form == "flushed"
    assert float(form.module[0].weight[0].abs().max()) == 0
    assert float(form.module[0].weight[1, 0, 0, 0]) == 0
    same = model[0].weight.abs() > 1e-30
    assert torch.equal(form.module[0].weight[same], model[0].weight[same])
    assert float(model[0].weight[0, 0, 0, 0].detach()) > 0
    torch.testing.assert_close(form.module(x), model(x), rtol=0, atol=1e-30)
    assert choose_form(model, x, flush=False).form == ""


def test_a_model_without_denormal_weights_is_not_copied():
    model = seasoned(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()), 3, 5, 5)
    assert choose_form(model, images(4, 3, 5, 5)).module is model


def test_weights_are_flushed_after_folding_and_the_form_is_made_again_by_its_name():
    model, x = denormal_weights(normalised=True), images(4, 3, 5, 5)
    assert choose_form(model, x).form == "flushed+folded"
    assert rebuilt_form(model, "flushed+folded", x, 64).form == "flushed+folded"
    assert rebuilt_form(model, "folded", x, 64).form == "folded"


def hooked():
    modules = conv_norm()
    modules["conv"].register_forward_hook(lambda module, args, output: 2 * output)
    return Through(lambda self, x: flat(self.bn(self.conv(x))), **modules)


def parametrised():
    modules = conv_norm()
    parametrizations.weight_norm(modules["conv"])
    return Through(lambda self, x: flat(self.bn(self.conv(x))), **modules)


def registered_twice():
    modules = conv_norm()
    return Through(lambda self, x: flat(self.bn(self.again(x))), **modules, again=modules["conv"])


def called_twice():
    return Through(lambda self, x: flat(self.bn(self.conv(x))) + flat(self.conv(x.flip(3))), **conv_norm())


def normalisation_called_twice():
    return Through(lambda self, x: flat(self.bn(self.conv(x))) + flat(self.bn(x[:, [0, 1, 2, 0]])), **conv_norm())


def output_used_elsewhere():
    def forward(self, x):
        y = self.conv(x)
        return flat(self.bn(y)) + flat(torch.cat([y[:, 2:], y[:, :2]], 1))

    return Through(forward, **conv_norm())


def something_between():
    return Through(lambda self, x: flat(self.bn(self.conv(x).relu())), **conv_norm())


def without_statistics():
    return Through(lambda self, x: flat(self.bn(self.conv(x))), **conv_norm(track_running_stats=False))


def branching():
    def forward(self, x):
        y = self.conv(x)
        return flat(self.bn(y)) if x.mean() < 2 else flat(y)

    return Through(forward, **conv_norm())


def other_axis():
    return Through(
        lambda self, x: self.bn(self.linear(x[:, :, 0])).mean(2), linear=nn.Linear(16, 3), bn=nn.BatchNorm1d(3)
    )


class DoubledConv(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


def of_another_type():
    return Through(lambda self, x: flat(self.bn(self.conv(x))), conv=DoubledConv(3, 4, 3), bn=nn.BatchNorm2d(4))


UNFOLDABLE = [
    hooked, parametrised, registered_twice, called_twice, normalisation_called_twice, output_used_elsewhere,
    something_between, without_statistics, branching, other_axis, of_another_type,
]  # fmt: skip


@pytest.mark.parametrize("make", UNFOLDABLE, ids=lambda make: make.__name__)
def test_what_cannot_be_folded_is_left_alone(make):
    model = seasoned(make(), 3, 16, 16)
    assert fold_batch_norm(model, images(3, 3, 16, 16)) is None


def test_a_normalisation_in_training_mode_is_not_folded_and_the_others_are():
    model = resnet()
    model[1].train()
    folded = fold_batch_norm(model, images(3, 3, 16, 16))
    assert [norm.training for norm in norms(folded)] == [True]


def test_a_fold_that_changes_the_logits_is_refused():
    # The model reads its own weights, which folding changes.
    model = Through(lambda self, x: flat(self.bn(self.conv(x))) * self.conv.weight.sum(), **conv_norm())
    seasoned(model, 3, 16, 16)
    x = images(3, 3, 16, 16)
    assert not norms(fold_batch_norm(model, x))
    assert choose_form(model, x, precision="float32").form == ""
    assert choose_form(model, x, precision="float32").module is model


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [1, 3])
def test_another_layout_inside_gives_gradients_in_the_layout_of_the_images(memory_format, channels):
    seen = []
    spy = Through(lambda self, x: (seen.append(x.is_contiguous(memory_format=torch.channels_last)), x)[1])
    model = nn.Sequential(nn.Conv2d(channels, 4, 3), spy, nn.Conv2d(4, 4, 3), nn.Flatten()).eval()
    x = images(2, channels, 8, 8).contiguous(memory_format=memory_format)
    found = choose_form(model, x, layout=True, precision="float32")
    assert found.form == "channels_last"
    assert isinstance(found.module, ChannelsLast)
    seen.clear()
    got = gradient(found.module, x)
    assert all(seen)
    assert got.stride() == x.stride()
    torch.testing.assert_close(got, gradient(model, x), rtol=1e-4, atol=1e-5)
    assert x._backward_hooks is None
    assert model[0].weight.is_contiguous()


def test_low_precision_takes_and_gives_float32():
    seen = []
    spy = Through(lambda self, x: (seen.append(x.dtype), x)[1])
    model = nn.Sequential(nn.Conv2d(3, 4, 3), spy, nn.Flatten(), nn.Linear(144, 10)).eval()
    x = images(2, 3, 8, 8)
    found = choose_form(model, x, precision="bfloat16")
    assert found.form == "bf16"
    seen.clear()
    assert found.module(x).dtype == torch.float32
    assert gradient(found.module, x).dtype == torch.float32
    assert set(seen) == {torch.bfloat16}
    torch.testing.assert_close(found.module(x), model(x), rtol=0, atol=0.05)


def test_float16_keeps_the_gradient_of_a_confident_sample():
    model = network(12, 3)
    half, x = LowPrecision(model, torch.float16), images(3, 3, 2, 2)
    scale = torch.tensor([1.0, 1e-9, 0.0])[:, None]

    def received(form):
        point = x.clone().requires_grad_()
        return torch.autograd.grad((form(point)[:, :2] * torch.tensor([1.0, -1.0]) * scale).sum(), point)[0]

    torch.testing.assert_close(received(half), received(model), rtol=0.01, atol=1e-13)
    assert received(half)[1].abs().max() > 0


def wide():
    """Enough work for every change, and only just: 8 x 8 outputs of a convolution."""
    convolution = nn.Conv2d(3, 32, 3, padding=1)
    work = 64 * 27 * 32
    inner = int((LAYOUT_WORK - work) / (64 * 9 * 32)) + 1
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, 10)]
    middle = [nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, inner, 3, padding=1), nn.ReLU()]
    return seasoned(nn.Sequential(convolution, *middle, *tail), 3, 8, 8)


@pytest.mark.parametrize(("fast", "form"), [(True, "bf16+channels_last+folded"), (False, "channels_last+folded")])
def test_a_large_network_takes_every_change_that_the_device_does_fast(monkeypatch, fast, form):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": fast, "amx_bf16": False}, raising=False)
    model, x = wide(), images(40, 3, 8, 8)
    assert [choose_form(model, x[:count]).form for count in (1, 3, 16, 40)] == [form] * 4


def test_a_small_network_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    model = gauntlet.load_model("cnn.pgd_digits").module
    found = choose_form(model, images(8, 1, 8, 8))
    assert found.form == ""
    assert found.module is model


def test_low_precision_starts_at_its_own_size(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    forms = []
    for width in (PRECISION_WORK / 100 - 20, PRECISION_WORK / 100 + 1):
        model = network(90, int(width), 10)
        forms.append(choose_form(model, images(4, 90)).form)
    assert forms == ["", "bf16"]


def test_what_is_refused_is_not_done():
    found = choose_form(wide(), images(4, 3, 8, 8), layout=False, fold=False, precision="float32")
    assert found.form == ""


def test_dropout_in_training_mode_and_noise_in_the_model_stay_random():
    noise = Through(lambda self, x: x + 0.1 * torch.randn_like(x))
    dropout = nn.Dropout(0.5)
    model = seasoned(nn.Sequential(noise, nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), dropout, nn.Flatten()), 3, 8, 8)
    dropout.train()
    x = images(4, 3, 8, 8)
    # Another layout would take the random numbers in another order: it is refused.
    found = choose_form(model, x, layout=True, precision="float32")
    assert found.form == "folded"
    assert (found.module(x) == 0).any()
    found.module.eval()
    assert not torch.equal(found.module(x), found.module(x))
    assert dropout.training


def test_a_model_without_parameters_works():
    model = Through(lambda self, x: x.flatten(1)[:, :3]).eval()
    assert choose_form(model, images(2, 1, 4, 4)).module is model
    assert choose_form(model, images(2, 1, 4, 4), layout=True, fold=True, precision="float32").form == ""


class Uncopied:
    def __deepcopy__(self, memo):
        warnings.warn("cannot be copied", stacklevel=1)
        sys.stdout.write("cannot be copied")
        raise TypeError("there is one lock only")


def test_a_form_that_raises_or_cannot_be_made_gives_way_to_the_one_before(capsys, recwarn):
    def picky(self, x):
        if x.dtype != torch.float32:
            warnings.warn("no such thing", stacklevel=1)
            sys.stdout.write("no such thing")
            raise NotImplementedError("float32 only")
        return x

    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Through(picky), nn.Flatten()]
    model, x = seasoned(nn.Sequential(*layers), 3, 8, 8), images(2, 3, 8, 8)
    assert choose_form(model, x, layout=True, precision="bfloat16").form == "channels_last+folded"
    model.lock = Uncopied()
    found = choose_form(model, x, layout=True, precision="bfloat16")
    assert (found.module, found.form) == (model, "")
    assert capsys.readouterr().out == ""
    assert not recwarn


def test_low_precision_that_drowns_the_answer_is_refused():
    layer = nn.Linear(12, 3)
    nn.init.constant_(layer.bias, 1000)
    model = nn.Sequential(nn.Flatten(), layer, Through(lambda self, y: y - 1000)).eval()
    assert choose_form(model, images(4, 3, 2, 2), precision="bfloat16").form == ""


def test_a_form_without_the_gradient_is_refused():
    def forward(self, x):
        return x.detach() if torch.is_autocast_enabled("cpu") else x

    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), Through(forward)).eval()
    assert choose_form(model, images(4, 3, 2, 2), precision="bfloat16").form == ""


def test_a_float64_model_is_not_called_one_of_low_precision():
    model = network(12, 3).double()
    assert choose_form(model, images(4, 3, 2, 2).double(), precision="bfloat16").form == ""


def test_a_form_is_a_frozen_snapshot_and_the_model_stays_free():
    model, x = resnet(), images(2, 3, 16, 16)
    before = copy.deepcopy(model.state_dict())
    found = choose_form(model, x, layout=True, precision="bfloat16")
    assert found.form == "bf16+channels_last+folded"
    for form in (found.module, choose_form(model, x, layout=False, precision="float32").module):
        assert not any(parameter.requires_grad for parameter in form.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "int8"}, "precision='int8' is not known: use one of float32, tf32, bfloat16, float16"),
        ({"precision": "float16"}, "precision='float16' is for CUDA"),
        ({"example": torch.zeros(0, 3, 16, 16)}, "example is empty"),
    ],
)
def test_what_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        choose_form(**({"model": resnet(), "example": images(2, 3, 16, 16)} | change))


def test_what_an_attack_finds_in_low_precision_is_judged_on_the_model_itself():
    data, threat = gauntlet.load_data("digits", samples=64), gauntlet.ThreatModel.parse("Linf:0.2")
    model = gauntlet.load_model("cnn.pgd_digits").module.requires_grad_(False)
    broken = []
    for form in (model, choose_form(model, data.images, layout=True, precision="bfloat16").module):
        verify = Verifier(model, data.images, data.labels, data.ids, threat, seed=0)
        task = Task(data.images, data.labels, data.ids, threat, 0, "pgd")
        outcomes = [one for one in solve(PGD(steps=20), form, task, verify, classes=10) if one.adversarial is not None]
        found = torch.stack([one.adversarial for one in outcomes])
        assert (model(found).argmax(1) != data.labels[[one.sample for one in outcomes]]).all()
        broken.append({one.sample for one in outcomes})
    assert len(broken[0]) > 20
    assert len(broken[0] ^ broken[1]) <= 2
