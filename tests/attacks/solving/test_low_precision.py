"""Precision: native attacks may run on a faster form of the model, and nothing that is reported hangs on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import gauntlet
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.solving.low_precision import rounding
from gauntlet.attacks.solving.solver import Task, solve
from gauntlet.attacks.views import fast_model
from gauntlet.attacks.views.fast_model import choose_form, full_float32
from gauntlet.bench.config.schema import ConfigError, load_config
from gauntlet.bench.models.parts.classifier import Classifier
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.prepare import fast_form
from gauntlet.bench.prepare.fast_form import speed_up
from gauntlet.bench.run.engine import Engine
from gauntlet.bench.run.run_folder import load_run
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.leaderboard.report.cells_csv import read_cells

pytest_plugins = ["pytester"]

CLASSES, COUNT = 4, 48
MODEL = ("--model=model.py:build", "--data=data.npz", "--threat=Linf:0.1", "--attacks=pgd(steps=5)")


@pytest.fixture(autouse=True)
def fast_bfloat16(monkeypatch):
    """The automatic choice is the same on every machine, and bfloat16 never pays unless a test says so."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    monkeypatch.setattr(fast_form, "speed_up", lambda usual, other, example: 1.0)


@pytest.fixture(scope="module")
def pictures():
    """A pattern for each class, so noisy that some samples lie near another class."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.rand(CLASSES, 3, 16, 16, generator=generator)
    labels = torch.arange(8 * COUNT) % CLASSES
    noise = torch.randn(len(labels), 3, 16, 16, generator=generator)
    strength = 0.03 + 0.12 * torch.rand(len(labels), 1, 1, 1, generator=generator)
    return (0.5 + strength * (patterns[labels] - 0.5) + 0.05 * noise).clamp(0, 1), labels


@pytest.fixture(scope="module")
def network(pictures):
    """Convolutions and batch normalisation, large enough for every change, trained for a moment."""
    torch.manual_seed(0)
    layers = []
    for inputs, outputs, stride in ((3, 32, 1), (32, 64, 1), (64, 32, 2)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, CLASSES))
    images, labels = pictures
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    for part in torch.arange(COUNT, len(labels)).split(56) * 3:
        loss = nn.functional.cross_entropy(model(images[part]), labels[part])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


class Hidden(nn.Module):
    """Two logits near 1, whose difference bfloat16 cannot hold: there class 0 always leads, by the tie.

    On a white image the difference is plain, as it is on most images of a network for which bfloat16 is accepted.
    """

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(12, 2)
        with torch.no_grad():
            self.linear.weight.zero_()
            self.linear.weight[0] = 1e-3 * torch.tensor([1.0, -1.0]).repeat(6)
            self.linear.bias.copy_(torch.tensor([1.0, 0.9995]))

    def forward(self, x):
        flat = x.flatten(1)
        return self.linear(flat) + 50 * nn.functional.pad((flat.mean(1, keepdim=True) - 0.96).clamp(min=0), (0, 1))


def with_a_white_one(images):
    """The images, and a white one that is misclassified as class 0: it is not attacked."""
    return torch.cat([images, torch.ones(1, 3, 2, 2)]), torch.tensor([0] * len(images) + [1])


def record(folder):
    """The first block of the run in `folder`."""
    return load_run(folder).results()[0].blocks[0]


def prepared(precision, **options):
    given = {"model": ["model.py:build"], "data": "data.npz", "threat": ["Linf:0.1"], "attacks": ["pgd(steps=5)"]}
    config = load_config({**given, "precision": precision, **options}, folder=Path.cwd())
    engine = Engine(make_plan(config), config, command="gauntlet run")
    return [engine.workbench.prepare(cell) for cell in engine.run.plan.cells]


def keys(precision, **options):
    return [block.key for one in prepared(precision, **options) for block in one.blocks]


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_every_precision_breaks_the_same_samples_and_each_example_holds_on_the_model_itself(
    network, pictures, tmp_path
):
    images, labels = (one[:COUNT] for one in pictures)
    threat = gauntlet.ThreatModel.parse("Linf:0.015")
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    robust = {}
    for precision, form in (
        ("float32", "float32"),
        ("auto", "channels_last+folded"),
        ("bfloat16", "bf16+channels_last+folded"),
    ):
        out = tmp_path / precision
        found = gauntlet.evaluate(
            network, images, labels, threat=threat, attacks="pgd(steps=10)", precision=precision, store=out
        )
        assert record(out).cell.precision == form
        broken = found.correct & ~found.robust
        assert (network(found.adversarials[broken]).argmax(1) != labels[broken]).all()
        assert ((found.adversarials - images).abs() <= threat.eps + 2**-23).all()
        robust[precision] = found.robust
    assert 5 < robust["float32"].sum() < COUNT - 5
    # The path of an attack may differ by rounding: one sample in twenty-four.
    for precision in ("auto", "bfloat16"):
        assert (robust[precision] != robust["float32"]).sum() <= COUNT // 24
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    assert all(one.requires_grad and one.grad is not None for one in network.parameters())


@pytest.mark.parametrize(("attack", "stage"), [("pgd(steps=5)", ()), ("gauntlet:fast", (*["targets"] * 6, ""))])
def test_what_low_precision_does_not_see_is_found_in_float32_at_the_cost_of_both(tmp_path, attack, stage):
    model, (images, labels) = Hidden().eval(), with_a_white_one(torch.full((6, 3, 2, 2), 0.5))
    settings = {"threat": "Linf:0.1", "attacks": attack}
    found = {
        precision: gauntlet.evaluate(model, images, labels, precision=precision, store=tmp_path / precision, **settings)
        for precision in ("float32", "bfloat16")
    }
    assert not found["float32"].robust.any()
    assert not found["bfloat16"].robust.any()
    full, both = (record(tmp_path / precision) for precision in ("float32", "bfloat16"))
    assert both.cell.precision == "bf16"
    assert both.samples.stage == stage
    assert (both.samples.forwards > full.samples.forwards)[:6].all()
    if not stage:
        threat = gauntlet.ThreatModel.parse("Linf:0.1")
        low = choose_form(Classifier(model), images, precision="bfloat16").module
        images, labels, ids = images[:6], labels[:6], [str(i) for i in range(6)]
        verify = Verifier(model, images, labels, ids, threat, seed=0)
        outcomes = list(solve(PGD(steps=5), low, Task(images, labels, ids, threat, 0, "pgd"), verify, classes=2))
        assert all(one.adversarial is None for one in outcomes)
        # Where the attack ended is measured again: one step of one forward pass.
        assert both.samples.forwards[:6].tolist() == [one.forwards + 1 for one in outcomes]
        assert both.samples.backwards[:6].tolist() == [one.backwards for one in outcomes]
        assert both.samples.steps[:6].tolist() == [5 + 1] * 6


class Partly(Hidden):
    """The same on dark images; on bright ones the difference is plain."""

    def forward(self, x):
        flat = x.flatten(1)
        plain = (flat * torch.tensor([1.0, -1.0]).repeat(6)).mean(1) * (flat.mean(1) - 0.7).clamp(min=0)
        return super().forward(x) + 5 * nn.functional.pad(plain[:, None], (0, 1))


@pytest.mark.parametrize("batch_size", [1, 3, 256])
def test_only_survivors_are_measured_again_whatever_the_batch_size(tmp_path, batch_size):
    dark, bright = torch.full((4, 3, 2, 2), 0.5), torch.full((3, 3, 2, 2), 0.85)
    images, labels = with_a_white_one(torch.cat([dark, bright]))
    for precision in ("float32", "bfloat16"):
        found = gauntlet.evaluate(
            Partly().eval(),
            images,
            labels,
            threat="Linf:0.1",
            attacks="pgd(steps=5)",
            precision=precision,
            batch_size=batch_size,
            store=tmp_path / precision,
        )
        assert not found.robust.any()
    full, both = (record(tmp_path / precision).samples.forwards for precision in ("float32", "bfloat16"))
    assert both[:4].tolist() == [6.0 + 1.0] * 4
    assert both[4:].tolist() == full[4:].tolist()


@pytest.mark.parametrize("attack", ["ddn(steps=5)", "torchattacks.FGSM"])
def test_attacks_that_measure_distances_and_those_of_libraries_see_the_model_as_it_is(attack, project):
    threat = "L2:0.5" if attack.startswith("ddn") else "Linf:0.1"
    assert keys("bfloat16", attacks=[attack], threat=[threat]) == keys("float32", attacks=[attack], threat=[threat])


def test_a_minimum_norm_attack_keeps_the_changes_that_are_exact(network, pictures, tmp_path):
    images, labels = (one[:8] for one in pictures)
    gauntlet.evaluate(network, images, labels, threat="L2:0.2", attacks="ddn(steps=3)", store=tmp_path)
    assert record(tmp_path).cell.precision == "channels_last+folded"


class Lock:
    def __deepcopy__(self, memo):
        raise TypeError("there is one lock only")


class Picky(nn.Module):
    def forward(self, x):
        if torch.is_autocast_enabled("cpu"):
            raise NotImplementedError("float32 only")
        return x


def test_a_model_that_breaks_under_conversion_is_attacked_as_it_is(pictures, tmp_path):
    images, labels = (one[:8] for one in pictures)
    torch.manual_seed(0)
    picky = nn.Sequential(nn.Conv2d(3, 4, 3), Picky(), nn.Flatten(), nn.Linear(784, CLASSES)).eval()
    locked = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(784, CLASSES)).eval()
    locked.lock = Lock()
    for name, model in (("picky", picky), ("locked", locked)):
        found = [
            gauntlet.evaluate(
                model, images, labels, attacks="pgd(steps=3)", precision=one, store=tmp_path / f"{name}-{one}"
            )
            for one in ("float32", "bfloat16")
        ]
        assert torch.equal(found[0].adversarials, found[1].adversarials)
        assert record(tmp_path / f"{name}-bfloat16").cell.precision == "float32"


# --- keys and the workbench -------------------------------------------------------------------------------------------


def test_a_model_without_a_form_has_the_key_that_it_has_as_it_is(project):
    assert keys("auto") == keys("float32")
    assert not set(keys("auto")) & set(keys("bfloat16"))
    assert keys("bfloat16", samples="20") != keys("float32", samples="20")


def test_a_randomised_model_stays_as_it_is(project):
    assert keys("bfloat16", defense=["input_noise"]) == keys("float32", defense=["input_noise"])


def test_a_form_is_made_once_for_a_model_behind_a_defense_from_the_first_eight_images(project, monkeypatch):
    made = []
    monkeypatch.setattr(
        fast_form, "choose_form", lambda *args, **kwargs: made.append(args[1]) or choose_form(*args, **kwargs)
    )
    found = prepared("bfloat16", attacks=["fgsm", "pgd(steps=5)"], defense=["none", "bit_depth"], seed=3)
    # Without a gradient the attack is BPDA's, which answers flags: all of it is in float32.
    assert [one.cell.info.precision for one in found] == ["bf16", "bf16", "float32", "float32"]
    assert [len(one) for one in made] == [8, 8]
    assert found[0].light is found[1].light


@pytest.mark.parametrize(("faster", "form"), [(1.24, "channels_last+folded"), (1.25, "bf16+channels_last+folded")])
def test_auto_takes_bfloat16_where_it_is_clearly_faster(network, pictures, tmp_path, monkeypatch, faster, form):
    monkeypatch.setattr(fast_form, "speed_up", lambda usual, other, example: faster)
    images, labels = (one[:8] for one in pictures)
    gauntlet.evaluate(network, images, labels, threat="Linf:0.01", attacks="pgd(steps=3)", store=tmp_path)
    assert record(tmp_path).cell.precision == form


@pytest.mark.parametrize("reason", ["no instructions", "few multiplications", "another answer"])
def test_nothing_is_timed_where_bfloat16_is_no_choice(network, pictures, monkeypatch, reason):
    monkeypatch.setattr(fast_form, "speed_up", lambda *given: pytest.fail("timed"))
    model, images = network, pictures[0][:8]
    if reason == "no instructions":
        monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    elif reason == "few multiplications":
        model = Hidden().eval()
        images = torch.rand(8, 3, 2, 2)
    else:
        monkeypatch.setattr(fast_model, "SIMILAR", 0.0)
    assert not rounding(fast_form.chosen_form(model, images, "auto").form)


def test_a_stored_form_is_taken_without_timing_it_again(network, pictures, tmp_path, monkeypatch):
    images, labels = (one[:8] for one in pictures)
    for answer in (2.0, None):
        monkeypatch.setattr(fast_form, "speed_up", lambda *given, answer=answer: answer or pytest.fail("timed again"))
        gauntlet.evaluate(
            network, images, labels, threat="Linf:0.01", attacks="pgd(steps=3)", seed=int(answer or 0), store=tmp_path
        )
        assert record(tmp_path).cell.precision == "bf16+channels_last+folded"


class Ticking(nn.Module):
    """Takes so long by a clock of its own."""

    now = 0.0

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds
        self.layer = nn.Linear(12, 2)

    def forward(self, x):
        Ticking.now += self.seconds
        return self.layer(x.flatten(1))


def test_a_speed_up_is_a_ratio_of_passes_and_none_where_a_batch_fails(monkeypatch):
    monkeypatch.setattr(fast_form, "synchronised_time", lambda: Ticking.now)
    usual, images = Ticking(0.03).eval(), torch.rand(8, 3, 2, 2)
    assert speed_up(usual, Ticking(0.01).eval(), images) == pytest.approx(3)
    assert speed_up(usual, nn.Linear(5, 2), images) == 0.0
    assert usual.layer.weight.grad is None


def test_forms_are_compared_without_tf32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen = []

    class Spy(Hidden):
        def forward(self, x):
            seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
            return super().forward(x)

    choose_form(Spy().eval(), torch.full((2, 3, 2, 2), 0.5), precision="bfloat16")
    assert set(seen) == {(False, False)}
    assert torch.backends.cudnn.allow_tf32
    with pytest.raises(KeyError), full_float32():
        raise KeyError
    assert torch.backends.cudnn.allow_tf32


# --- options ----------------------------------------------------------------------------------------------------------


def test_the_command_line_takes_a_precision_shows_it_and_verify_finds_the_results_on_any_device(
    project, call, monkeypatch
):
    assert call("run", *MODEL, "--precision=bfloat16").returncode == 0
    assert read_cells(Path("gauntlet-results/cells.csv"))["precision"].tolist() == ["bf16"]
    assert "pgd(steps=5) (Linf:0.1, bf16)" in Path("gauntlet-results/leaderboard.md").read_text()
    # Another device might choose another form.
    monkeypatch.delattr(fast_form, "choose_form")
    done = call("verify", "gauntlet-results", "--trust")
    assert done.returncode == 0, done.stdout


def test_the_config_file_has_a_precision_and_the_command_line_wins(project, call):
    Path("gauntlet.toml").write_text("precision = 'bfloat16'\n")
    for arguments, shown in (([], "bf16"), (["--precision=float32"], "float32")):
        assert call("run", *MODEL, *arguments).returncode == 0
        assert read_cells(Path("gauntlet-results/cells.csv"))["precision"].tolist() == [shown]


def test_pytest_takes_a_precision(pytester, tiny, monkeypatch):
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
        monkeypatch.delenv(name, raising=False)
    tiny.write_project(pytester.path)
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\n")
    pytester.makepyfile("from gauntlet.bench.test_cells import test_cell\n\n__all__ = ['test_cell']\n")
    options = [one.replace("--", "--gauntlet-", 1) for one in MODEL]
    pytester.runpytest(*options, "--gauntlet-precision=bfloat16").assert_outcomes(passed=1)
    assert read_cells(pytester.path / "gauntlet-results" / "cells.csv")["precision"].tolist() == ["bf16"]
    wrong = pytester.runpytest(*options, "--gauntlet-precision=half")
    assert wrong.ret == pytest.ExitCode.USAGE_ERROR
    wrong.stderr.fnmatch_lines(["*precision='half' is not known: use one of auto, float32, tf32, bfloat16, float16*"])


@pytest.mark.parametrize("value", ["bf16", "", 32, ["float32"]])
def test_a_wrong_precision_is_named(pictures, network, value):
    images, labels = (one[:8] for one in pictures)
    with pytest.raises(
        ValueError, match=r"precision=.* is not known: use one of auto, float32, tf32, bfloat16, float16"
    ):
        gauntlet.evaluate(network, images, labels, precision=value)


def test_a_wrong_precision_on_the_command_line_or_in_the_file_is_a_usage_error(project, call):
    done = call("run", *MODEL, "--precision=half")
    assert (done.returncode, "precision='half'" in done.stderr) == (2, True)
    Path("gauntlet.toml").write_text("precision = 16\n")
    with pytest.raises(ConfigError, match="precision=16 is not known"):
        load_config({}, folder=project)


@pytest.mark.parametrize("precision", ["float16", "tf32"])
def test_a_precision_that_needs_a_gpu_is_refused_without_one_with_the_way_out(project, call, precision):
    done = call("run", *MODEL, f"--precision={precision}", "--device=cpu")
    assert (done.returncode, "use auto, bfloat16 or float32" in done.stderr) == (2, True)
    assert f"precision='{precision}'" in done.stderr


def test_the_fence_around_foreign_code_does_not_import_the_compiler():
    code = (
        "import sys, torch; from gauntlet.attacks.views.guard import guarded\n"
        "with guarded(torch.nn.Linear(2, 2), 0): pass\n"
        "assert 'sympy' not in sys.modules and 'torch._inductor' not in sys.modules\n"
        "with guarded(torch.nn.Linear(2, 2), 0): torch.use_deterministic_algorithms(True, warn_only=True)\n"
        "assert not torch.are_deterministic_algorithms_enabled()\n"
        "assert not torch.is_deterministic_algorithms_warn_only_enabled()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
