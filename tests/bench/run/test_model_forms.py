"""`gauntlet.evaluate` on every form in which networks are handed over: each attack that a form admits gives a figure."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gauntlet
from builders import network, slow_unless
from gauntlet.bench.run.evaluation import CellFailedError

ATTACKS = [
    "pgd(steps=3)",
    "apgd(steps=3)",
    "square(queries=10)",
    "hop_skip_jump(queries=30)",
    "torchattacks.PGD(steps=3)",
]
IMAGES = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))
torch.manual_seed(0)
NET = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()

pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*an autograd kernel was not registered"),
    # Of torch's compiler on its own code; as an error it ends the pass.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]


class Reading(nn.Module):
    """The network, with a function of its output."""

    def __init__(self, after: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.after = copy.deepcopy(NET), after
        self.eval()

    def forward(self, x: Tensor) -> Any:
        """Anything."""
        return self.after(self.net(x))


class FrozenFeatures(nn.Module):
    """Features under `no_grad`."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = NET[:-1], NET[-1]
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K)."""
        with torch.no_grad():
            features = self.body(x)
        return self.head(features)


class Stubs(nn.Module):
    """The network with the stubs that static quantisation needs."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
        self.net = copy.deepcopy(NET)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K)."""
        return self.after(self.net(self.before(x)))


def statically() -> nn.Module:
    model = Stubs().eval()
    model.qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")
    torch.ao.quantization.prepare(model, inplace=True)
    model(IMAGES)
    return torch.ao.quantization.convert(model)


def traced_and_quantised() -> nn.Module:
    from torch.ao.quantization import quantize_fx

    mapping = torch.ao.quantization.get_default_qconfig_mapping("fbgemm")
    model = quantize_fx.prepare_fx(copy.deepcopy(NET), mapping, (IMAGES,))
    model(IMAGES)
    return quantize_fx.convert_fx(model).eval()


def exported(*, any_batch: bool) -> nn.Module:
    shapes = ({0: torch.export.Dim("batch")},) if any_batch else None
    return torch.export.export(NET, (IMAGES[:4],), dynamic_shapes=shapes).module()


class Convolving(nn.Module):
    """A network of convolutions over signals (N, C, L) or images (N, C, H, W)."""

    def __init__(self, channels: int, dimensions: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        conv, pool = (nn.Conv1d, nn.AdaptiveAvgPool1d) if dimensions == 1 else (nn.Conv2d, nn.AdaptiveAvgPool2d)
        self.body = nn.Sequential(
            conv(channels, 8, 3), nn.ReLU(), pool(3), nn.Flatten(), nn.Linear(8 * 3**dimensions, 3)
        )
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K)."""
        return self.body(x)


def single(logits: Tensor) -> Tensor:
    return logits[:, 1] - logits[:, 0]


WITH_GRADIENTS: dict[str, Callable[[], tuple[nn.Module, dict[str, Any]]]] = {
    "traced": lambda: (torch.jit.trace(NET, IMAGES), {}),
    "scripted": lambda: (torch.jit.script(NET), {}),
    "frozen script": lambda: (torch.jit.freeze(torch.jit.script(NET)), {}),
    "exported": lambda: (exported(any_batch=True), {}),
    "exported for one batch size": lambda: (exported(any_batch=False), {}),
    "compiled": lambda: (torch.compile(NET, backend="eager"), {}),
    "bfloat16": lambda: (copy.deepcopy(NET).bfloat16(), {}),
    "float16": lambda: (copy.deepcopy(NET).half(), {}),
    "all parameters frozen": lambda: (copy.deepcopy(NET).requires_grad_(False), {}),
    "dict": lambda: (Reading(after=lambda z: {"features": z.exp(), "scores": z}), {"logits": "scores"}),
    "object": lambda: (Reading(after=lambda z: SimpleNamespace(aux=z.exp(), scores=z)), {"logits": "scores"}),
    "binary": lambda: (Reading(after=single), {"binary": True}),
}
EXACT = ("traced", "scripted", "exported", "compiled", "all parameters frozen", "dict", "object")
"""Forms that compute the same numbers as the network, so that all verdicts are those of the network."""
WITHOUT_GRADIENTS: dict[str, Callable[[], nn.Module]] = {
    "optimised script": lambda: torch.jit.optimize_for_inference(torch.jit.script(NET)),
    "script under no_grad": lambda: torch.jit.script(FrozenFeatures()),
    "compiled under no_grad": lambda: torch.compile(FrozenFeatures(), backend="eager"),
    "exported under no_grad": lambda: torch.export.export(FrozenFeatures(), (IMAGES,)).module(),
    "dynamically quantised": lambda: torch.ao.quantization.quantize_dynamic(
        copy.deepcopy(NET), {nn.Linear}, dtype=torch.qint8
    ),
    "scripted and quantised": lambda: torch.jit.script(statically()).eval(),
    "statically quantised": statically,
    "traced by fx and quantised": traced_and_quantised,
    "features under no_grad": FrozenFeatures,
}


def evaluate(model: nn.Module, images: Tensor, labels: Tensor, attacks: Any, **settings: Any) -> Any:
    return gauntlet.evaluate(
        model, images, labels, **{"threat": "Linf:0.2", "checks": "none", **settings}, attacks=attacks
    )


def labels_of(model: nn.Module, settings: dict[str, Any]) -> Tensor:
    logits = NET(IMAGES)
    return (single(logits) > 0).long() if settings.get("binary") else logits.argmax(1)


@pytest.fixture(scope="module")
def reference():
    return evaluate(NET, IMAGES, NET(IMAGES).argmax(1), ATTACKS)


@pytest.mark.parametrize("form", WITH_GRADIENTS)
def test_attacks_work_on_every_form(form, reference):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, settings = WITH_GRADIENTS[form]()
    labels = labels_of(model, settings)
    found = evaluate(model, IMAGES, labels, ATTACKS, **settings)
    if form in EXACT:
        assert torch.equal(found.robust, reference.robust)
    assert found.robust_accuracy < 1
    for attacks, threat in (("adaptive", "Linf:0.2"), ("fmn(steps=5)", "L2:1")):
        assert evaluate(model, IMAGES, labels, attacks, threat=threat, **settings).robust_accuracy < 1


@pytest.mark.parametrize("form", [slow_unless(form != "compiled under no_grad", form) for form in WITHOUT_GRADIENTS])
def test_search_and_views_attack_what_gives_no_gradient(form):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = WITHOUT_GRADIENTS[form]()
    labels = NET(IMAGES).argmax(1)
    for attack in ("pgd(steps=2)", "cw(steps=2)", "torchattacks.PGD(steps=2)"):
        threat = "L2:1" if attack.startswith("cw") else "Linf:0.2"
        with pytest.raises(
            CellFailedError, match=r"AttackError: no gradient reaches the input.* adaptive, or a black-box"
        ):
            evaluate(model, IMAGES, labels, attack, threat=threat)
    evaluate(model, IMAGES, labels, ["square(queries=10)", "hop_skip_jump(queries=30)"])
    found = evaluate(model, IMAGES, labels, "adaptive")
    gradients = evaluate(NET, IMAGES, labels, "gauntlet:fast")
    assert int((found.robust & ~gradients.robust).sum()) <= 1, "search finds most of what gradients find"


def test_half_precision_is_judged_as_it_is_and_said_so():
    for dtype in (torch.bfloat16, torch.float16):
        model = copy.deepcopy(NET).to(dtype)
        labels = model(IMAGES.to(dtype)).argmax(1)
        found = evaluate(model, IMAGES, labels, "pgd(steps=3)", checks="default")
        (flag,) = [flag for flag in found.flags if flag.name == "coarse-logits"]
        assert f"is in {str(dtype)[6:]}" in flag.message
        assert "judged in its own precision" in flag.message
        broken = ~found.robust
        answers = model(found.adversarials[broken].to(dtype)).argmax(1)
        assert bool((answers != labels[broken]).all())
        assert bool(broken.any())


def test_the_error_of_a_form_names_the_argument():
    with pytest.raises(ValueError, match="use binary=True"):
        evaluate(Reading(after=single), IMAGES, torch.zeros(6, dtype=torch.long), "pgd(steps=2)")
    model = Reading(after=lambda z: {"features": z.exp(), "scores": z})
    with pytest.raises(ValueError, match=r'features, scores, .* logits="features"'):
        evaluate(model, IMAGES, torch.zeros(6, dtype=torch.long), "pgd(steps=2)")


SHAPES = {
    "signals": (2, 50),
    "short signals": (1, 9),
    "long signals": (12, 33),
    "images": (6, 13, 17),
    "strips": (5, 3, 40),
}


@pytest.mark.parametrize("threat", ["Linf:0.2", "L2:1", "L1:5"])
@pytest.mark.parametrize("kind", SHAPES)
def test_signals_and_images_of_any_size_are_attacked(kind, threat):
    shape = SHAPES[kind]
    images = torch.rand(6, *shape, generator=torch.Generator().manual_seed(3))
    if "strips" in kind:
        model: nn.Module = nn.Sequential(nn.Flatten(), *network(600, 12, 3)).float().eval()
    else:
        model = Convolving(shape[0], len(shape) - 1)
    labels = model(images).argmax(1)
    native = ["pgd(steps=3)", "apgd(steps=3)", "square(queries=10)"]
    native += [] if threat.startswith("L1") else ["hop_skip_jump(queries=30)", "torchattacks.PGD(steps=3)"]
    for attacks in (native, "adaptive"):
        found = evaluate(model, images, labels, attacks, threat=threat)
        assert bool(found.correct.all())
        assert found.adversarials.flatten(1).shape == images.flatten(1).shape


def test_signals_with_an_axis_for_height_are_taken_too():
    images = torch.rand(6, 2, 50, generator=torch.Generator().manual_seed(3))
    model = Convolving(2, 1)
    labels = model(images).argmax(1)
    flat, high = (evaluate(model, given, labels, "pgd(steps=3)") for given in (images, images[:, :, None]))
    assert bool(flat.correct.all())
    assert bool(high.correct.all())


@pytest.mark.parametrize("attack", ["pyautoattack.Square", "torchattacks.Square", "art.SquareAttack"])
def test_searches_of_libraries_say_which_sizes_they_cannot_take(attack):
    pytest.importorskip(attack.partition(".")[0])
    images = torch.rand(6, 2, 50, generator=torch.Generator().manual_seed(3))
    model = Convolving(2, 1)
    with pytest.raises(CellFailedError, match=r"Square Attack .*fails on 2×50 images in L2.*: use "):
        evaluate(model, images, model(images).argmax(1), attack, threat="L2:1")
