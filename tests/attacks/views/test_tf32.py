"""The form in TF32: when it holds, what it leaves as it was, and where there is none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gauntlet
from gauntlet.attacks.views.fast_model import choose_form, full_float32
from gauntlet.attacks.views.tf32 import TF32, assumed_tf32, has_tf32, kept_setting
from gauntlet.bench.prepare.fast_form import FormError, chosen_form, rebuilt_form, without_low_precision


def setting():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


class Noting(torch.autograd.Function):
    """The identity, which notes the setting in passes forward and back."""

    seen: tuple[list[tuple[bool, bool]], list[tuple[bool, bool]]] = ([], [])

    @staticmethod
    def forward(ctx, x):
        Noting.seen[0].append(setting())
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Noting.seen[1].append(setting())
        return gradient


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 3)

    def forward(self, x):
        return self.layer(Noting.apply(x).flatten(1))


@pytest.fixture
def model():
    torch.manual_seed(0)
    for seen in Noting.seen:
        seen.clear()
    return Model().eval()


@pytest.fixture
def images():
    return torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def assumed():
    with assumed_tf32():
        yield


def test_both_passes_are_in_tf32_and_the_rest_is_not(model, images):
    form = TF32(model)
    x = images.requires_grad_()
    with full_float32():
        logits = form(x)
        assert setting() == (False, False)
        (gradient,) = torch.autograd.grad(logits.square().sum(), x)
        assert setting() == (False, False)
    assert Noting.seen == ([(True, True)], [(True, True)])
    assert torch.equal(gradient, torch.autograd.grad(model(x).square().sum(), x)[0])


def test_an_error_of_the_model_leaves_the_setting_as_it_was(model):
    with full_float32():
        with pytest.raises(RuntimeError):
            TF32(model)(torch.rand(6, 5))
        assert setting() == (False, False)


@pytest.mark.usefixtures("assumed")
def test_the_form_is_named_rebuilt_and_leaves_the_model_unfrozen(model, images):
    form = choose_form(model, images, precision="tf32")
    assert (form.form, form.full.form, form.full.module) == ("tf32", "", model)
    assert all(one.requires_grad for one in model.parameters())
    assert not any(one.requires_grad for one in form.module.parameters())
    assert rebuilt_form(model, "tf32", images, 64).form == "tf32"
    assert without_low_precision(form).form == ""


@pytest.mark.usefixtures("assumed")
def test_only_its_name_asks_for_it(model, images):
    assert chosen_form(model, images, "auto").form == ""
    assert chosen_form(model, images, "tf32").form == "tf32"
    assert chosen_form(model, images, "float32").form == ""


@pytest.mark.usefixtures("assumed")
def test_an_attack_in_tf32_makes_the_passes_of_one_attack_and_is_verified_without_it(model, images):
    labels = model(images).argmax(1)
    found = {}
    for precision in ("float32", "tf32"):
        for seen in Noting.seen:
            seen.clear()
        done = gauntlet.evaluate(
            model, images, labels, threat="Linf:0.01", attacks="pgd(steps=5)", precision=precision, checks="none"
        )
        found[precision] = done.robust, len(Noting.seen[1])
        wanted = {"float32": (False, False), "tf32": (True, True)}[precision]
        assert wanted in Noting.seen[1]
        assert (False, False) in Noting.seen[0]
    assert found["float32"][0].tolist() == found["tf32"][0].tolist()
    # The choice of the form takes two passes back, the attack five.
    assert found["tf32"][1] <= found["float32"][1] + 2


def test_a_pass_back_that_fails_leaves_the_setting_as_it_was(model, images):
    x = images.requires_grad_()
    with full_float32():
        logits = TF32(model)(x)
        broken = logits.view_as(logits)
        Noting.seen[1].clear()
        x.register_hook(lambda gradient: 1 / 0)
        with kept_setting(), pytest.raises(ZeroDivisionError):
            torch.autograd.grad(broken.sum(), x)
        assert setting() == (False, False)


def test_where_there_is_no_tf32_its_name_is_refused_with_the_way_out(model, images):
    assert not has_tf32(torch.device("cpu"))
    with pytest.raises(ValueError, match=r"precision='tf32' exists on CUDA only, .* is cpu: use bfloat16 or float32"):
        choose_form(model, images, precision="tf32")
    with pytest.raises(
        ValueError, match=r"precision='tf32' exists on CUDA only, .* is cpu: use auto, bfloat16 or float32"
    ):
        gauntlet.evaluate(model, images, model(images).argmax(1), precision="tf32")
    with pytest.raises(FormError, match=r"'tf32' that was chosen for this model cannot be made here: .*CUDA only"):
        rebuilt_form(model, "tf32", images, 64)


@pytest.mark.parametrize(("capability", "there"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_have_tf32_from_ampere_on(monkeypatch, capability, there):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_tf32(torch.device("cuda")) is there
