"""A first look at a model: what it says of each topic, and the command that it leads to."""

from __future__ import annotations

import shlex

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from gauntlet.bench.cli.main import cli
from gauntlet.bench.config.schema import DataRef, ModelRef, default_threat
from gauntlet.bench.first_look.look import look

CPU = torch.device("cpu")
NETS = """
import torch
from torch import nn

import gauntlet


class Changed(nn.Module):
    def __init__(self, before=lambda x: x, after=lambda z: z):
        super().__init__()
        self.net = gauntlet.load_model("cnn.standard_digits").module
        self.before, self.after = before, after
        self.eval()

    def forward(self, x):
        return self.after(self.net(self.before(x)))


def plain():
    return Changed()


def bytes_wanted():
    return Changed(before=lambda x: x / 255)


def channels_last():
    return Changed(before=lambda x: x.permute(0, 3, 1, 2))


def noisy():
    return Changed(before=lambda x: x + 0.1 * torch.randn_like(x))


def rounded():
    return Changed(before=lambda x: (7 * x).round() / 7)


def by_batch():
    return Changed(before=lambda x: x - x.mean(0, keepdim=True) + 0.3)


def probabilities():
    return Changed(after=lambda z: z.softmax(1))


def training():
    return plain().train()


def fails():
    raise RuntimeError("no such layer")


def ask(images):
    return images.reshape(len(images), -1)[:, :10]
"""

pytestmark = pytest.mark.usefixtures("imports_are_undone")


@pytest.fixture
def nets(tmp_path):
    (tmp_path / "nets.py").write_text(NETS, encoding="utf-8")
    return tmp_path / "nets.py"


def seen(nets, name, data="digits", **settings):
    """What a look at a model shows: its lines by topic, and the look."""
    found = look(ModelRef(f"{nets}:{name}", **settings), data and DataRef(data), CPU)
    topics, topic = {}, ""
    for line in found.lines:
        topic = line.topic or topic
        topics.setdefault(topic, []).append(line)
    return topics, found


def test_an_honest_model_has_a_line_for_each_topic_and_no_note(nets):
    topics, found = seen(nets, "plain")
    assert list(topics) == [
        *("loads", "data", "input", "normalisation", "classes", "randomness", "batch", "gradients", "fast form", "pass")
    ]
    assert found.state == "ok"
    assert "66,358 parameters in float32" in topics["loads"][0].text
    assert "64 of 797 images, 10 classes" in topics["data"][0].text
    assert "1 × 8 × 8" in topics["input"][0].text
    assert "of 64 right" in topics["normalisation"][0].text
    assert (found.n, found.model) == (797, ModelRef(f"{nets}:plain"))
    assert found.image_seconds > 0


@pytest.mark.parametrize(
    ("name", "topic", "words", "state"),
    [
        ("bytes_wanted", "normalisation", "use --std 0.00392157", "note"),
        ("channels_last", "input", "channels last", "problem"),
        ("noisy", "randomness", "passes over the same images differ", "note"),
        ("rounded", "gradients", "hidden by round in nets.py", "note"),
        ("by_batch", "batch", "depend on the other images of the batch", "problem"),
        ("probabilities", "classes", "returns probabilities, not logits", "note"),
        ("training", "classes", "call model.eval()", "problem"),
        ("fails", "loads", "no such layer", "problem"),
        ("plan", "loads", "did you mean plain", "problem"),
    ],
)
def test_what_is_out_of_the_ordinary_is_said_under_its_topic(nets, name, topic, words, state):
    topics, found = seen(nets, name)
    (line,) = (line for line in topics[topic] if words in line.text)
    assert line.state == state
    assert found.state == state


def test_the_model_of_the_next_command_has_what_was_found_to_be_missing(nets):
    _, fed = seen(nets, "bytes_wanted")
    assert fed.model.std == pytest.approx((1 / 255,))
    assert fed.model.mean is None
    _, noisy = seen(nets, "noisy")
    assert noisy.model == ModelRef(f"{nets}:noisy", randomised=True)


def test_without_data_random_images_of_a_shape_that_fits_are_taken(nets):
    topics, found = seen(nets, "plain", data=None)
    assert "8 random images" in topics["data"][0].text
    assert "1 × 8 × 8" in topics["input"][0].text
    assert topics["normalisation"][0].state == "note"
    assert (found.data, found.n) == (None, 0)


def test_a_registered_model_is_looked_at_on_the_data_of_its_card():
    found = look(ModelRef("cnn.trades_digits"), None, CPU)
    assert found.data == DataRef("digits")


def test_a_black_box_is_asked_for_a_few_images_only(nets):
    found = look(ModelRef(f"blackbox:{nets}:ask"), DataRef("digits"), CPU)
    assert [line.topic for line in found.lines if line.topic][-1] == "gradients"
    assert "black box" in found.lines[-1].text


def test_a_look_leaves_the_generators_as_they_were(nets):
    torch.manual_seed(3)
    seen(nets, "noisy")
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3))


def test_check_prints_the_lines_and_a_command_that_runs(nets, monkeypatch):
    monkeypatch.chdir(nets.parent)
    done = CliRunner().invoke(cli, ["check", "nets.py:bytes_wanted", "--data", "digits", "--samples", "30"])
    assert done.exit_code == 0, done.output
    command = shlex.split(done.output.partition("next: ")[2])
    assert command[:2] == ["gauntlet", "run"]
    options = [*command[2:], "--out", "out"]
    options[options.index("adaptive")] = "fgsm"
    ran = CliRunner().invoke(cli, ["run", *options])
    assert ran.exit_code == 0, ran.output
    assert "normalisation" not in ran.output


def test_check_fails_where_an_attack_would(nets, monkeypatch):
    monkeypatch.chdir(nets.parent)
    done = CliRunner().invoke(cli, ["check", "nets.py:training"])
    assert done.exit_code == 1
    assert "PROBLEM the model is in training mode" in done.output
    assert "next:" not in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("none.py:plain",),
        ("nets.py:plian",),
        ("nets.py:plain@none.pth",),
        ("cnn.standard_digts",),
        ("nets.py:plain", "--data", "none.npz"),
        ("nets.py:plain", "--data", "digts"),
    ],
)
@pytest.mark.parametrize("command", ["check", "init"])
def test_a_name_or_a_file_that_does_not_exist_is_wrong_usage(nets, monkeypatch, command, arguments):
    monkeypatch.chdir(nets.parent)
    done = CliRunner().invoke(cli, [command, *arguments])
    assert done.exit_code == 2, done.output
    assert "PROBLEM" in done.output


@pytest.mark.parametrize(
    ("size", "threat"), [((1, 8, 8), "Linf:0.1"), ((1, 8, 16), "Linf:0.1"), ((3, 32, 32), "Linf:8/255")]
)
def test_the_budget_fits_the_size_of_the_images(size, threat, nets, monkeypatch):
    monkeypatch.chdir(nets.parent)
    np.savez("data.npz", images=np.zeros((4, *size), np.uint8), labels=np.arange(4))
    assert look(ModelRef(f"{nets}:plain"), DataRef("data.npz"), CPU).pixels == size[1] * size[2]
    assert default_threat("data.npz", size[1] * size[2]) == threat


@pytest.mark.parametrize(
    ("data", "threat"), [("digits", "Linf:0.15"), ("pairs-train", "Linf:0.1"), ("x", "Linf:8/255")]
)
def test_the_zoo_s_data_have_the_budget_of_its_models(data, threat):
    assert default_threat(data) == threat


def test_settings_and_threat_reach_the_command(nets, monkeypatch):
    monkeypatch.chdir(nets.parent)
    np.savez("data.npz", images=np.zeros((4, 1, 8, 8), np.uint8), labels=np.arange(4))
    arguments = ["nets.py:noisy(mean=0.1)", "--std=0.5", "--randomised", "--data=data.npz", "--threat=L2:1/2"]
    done = CliRunner().invoke(cli, ["check", *arguments])
    assert (
        "next: gauntlet run --model nets.py:noisy --mean 0.1 --std 0.5 --randomised --data data.npz --threat L2:1/2 --attacks "
        "adaptive" in done.output
    )


def test_the_file_of_a_model_may_not_exist(tmp_path):
    found = look(ModelRef(f"{tmp_path}/absent.py:build"), None, CPU)
    assert [line.topic for line in found.lines] == ["loads"]
    assert "absent.py" in found.lines[0].text
