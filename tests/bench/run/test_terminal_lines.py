"""What the terminal says about figures that do not mean what they seem to: runs as users start them."""

from __future__ import annotations

import pytest
import torch
from conftest import CELL

# Imported before pytester looks, which forgets all modules that a run in this process brings: torch loads only once.
import gauntlet.attacks.pgd
import gauntlet.bench.session.pytest_session
import gauntlet.bench.test_cells
from builders import Wrapped
from gauntlet.bench.config import options as bench_options
from gauntlet.leaderboard.report.cells_csv import read_cells
from gauntlet.leaderboard.report.leaderboard_csv import read_leaderboard
from gauntlet.leaderboard.report.notes import OPTIONS

pytest_plugins = ["pytester"]

MODELS = """
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


def bytes_wanted():
    return Changed(before=lambda x: x / 255)


def shifted():
    return Changed(after=lambda z: z.roll(-1, 1))


def reordered():
    return Changed(after=lambda z: z[:, [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]])


def rounded():
    return Changed(before=lambda x: (7 * x).round() / 7)


def noisy():
    return Changed(before=lambda x: x + 0.1 * torch.randn_like(x))


def noisy_off_the_data():
    return Changed(before=lambda x: x + 0.1 * torch.randn_like(x) * ((32 * x) != (32 * x).round()))


def plain():
    return Changed()

"""
ROUNDING = 1 + MODELS.partition(".round()")[0].count("\n")
"""The line of the file that rounds."""
GROUP = '[[group]]\nmodel = ["models.py:{model}"]\nattacks = [{attacks}]\nsamples = "{samples}"\n'
GROUPS = (
    ("bytes_wanted", '"quick"', 40),
    ("shifted", '"quick"', 40),
    ("reordered", '"fgsm"', 40),
    ("rounded", '"standard"', 40),
    ("noisy_off_the_data", '"quick"', 40),
    ("noisy", '"quick"', 40),
    ("plain", '"certificate", "replay", "fgsm"', "100:112"),
)


def test_remedies_name_options_that_exist():
    assert set(OPTIONS) <= {option.name for option in bench_options.OPTIONS}


def off_the_data(x):
    """Noise on pixels that no digit has, nor the mean of two: what is measured on the data does not see it."""
    return x + 0.3 * torch.randn_like(x) * ((32 * x) != (32 * x).round())


def joined(text):
    """The text with broken lines put together."""
    return " ".join(text.split())


@pytest.fixture(scope="module")
def printed(tiny, tmp_path_factory):
    """The output of one run of all faulty models, as one line, and its folder."""
    folder = tmp_path_factory.mktemp("printed")
    (folder / "models.py").write_text(MODELS, encoding="utf-8")
    groups = [GROUP.format(model=model, attacks=attacks, samples=samples) for model, attacks, samples in GROUPS]
    (folder / "gauntlet.toml").write_text("threat = 'Linf:0.15'\n" + "\n".join(groups), encoding="utf-8")
    done = tiny.run_command(folder, "run", "--out=out")
    assert "Traceback" not in done.stderr
    return folder, joined(done.stdout), done.stderr.splitlines()


@pytest.mark.parametrize(
    "sentence",
    [
        pytest.param(
            "models.bytes_wanted has no rank: attack fgsm (seed 0) failed: ModelError: the model gets "
            "4 of 40 clean images right, no more than chance, but 40 where images are fed from 0 to 255: use --std 0.00392157.",
            id="an un-normalised network",
        ),
        pytest.param(
            "models.shifted has no rank: the model gets 0 of 40 clean images right, no more than chance, "
            "but 40 fit: the labels seem to count from 1: subtract 1.",
            id="labels shifted by one",
        ),
        pytest.param(
            "of class 2 are taken for 6: put the model's outputs into the order of the data's", id="other order"
        ),
        pytest.param(
            "models.rounded has no rank: every entry of the gradient is zero through the pipeline (hidden by round in "
            f"models.py:{ROUNDING}): gradient attacks measure nothing. Attack it by BPDA and without gradients: --attacks "
            "adaptive. Also: ",
            id="undeclared rounding under standard",
        ),
        pytest.param(
            "the model gives different outputs for the same image (hidden randomness or state). Attack the expectation over "
            "its draws: --attacks adaptive.",
            id="hidden noise that is not measured, under quick",
        ),
        pytest.param(
            "models.noisy has no rank: the model answers the same image differently (measured: nothing was declared, and it is "
            "attacked as if it were): an attack that sees one draw a step aims at noise.",
            id="hidden noise under quick",
        ),
        pytest.param("6 rows have no rank: ", id="the verdict"),
    ],
)
def test_a_run_says_what_is_wrong_and_what_to_do(printed, sentence):
    assert sentence in printed[1]


@pytest.mark.parametrize(("cell", "said"), [("certificate", "proven 0 % of 12"), ("replay", "nothing to replay")])
def test_a_cell_that_proves_or_replays_nothing_says_so(printed, cell, said):
    (line,) = [line for line in printed[2] if line.startswith(f"models.plain × none × {cell}: ")]
    assert line.partition(": ")[2].startswith(f"{said}, ")


def test_show_says_the_same(printed, call, monkeypatch):
    folder, said, _ = printed
    monkeypatch.chdir(folder)
    shown = joined(call("show", "out").stdout)
    start = said.index("models.bytes_wanted has")
    assert said[start : said.index(" cells: ") - 2].rstrip() in shown
    assert "nothing to replay" in shown


def test_the_files_hold_the_sentences(printed):
    table = read_leaderboard(printed[0] / "out" / "leaderboard.csv").set_index("model")
    assert "subtract 1" in table.loc["models.shifted", "unranked"]
    assert "6 rows have no rank" in (printed[0] / "out" / "leaderboard.md").read_text("utf-8")


def test_settings_of_a_cascade_are_shown_in_full_by_its_name_or_its_digest(printed, call, monkeypatch):
    monkeypatch.chdir(printed[0])
    assert (
        call("run", "--model=models.py:plain", "--samples=4", "--attacks=gauntlet:fast", "--out=fast").returncode == 0
    )
    (spec,) = read_cells(printed[0] / "fast" / "cells.csv")["attack_spec"]
    assert len(spec) < 40
    lines = call("show", "fast", "--attack=gauntlet*").stdout.splitlines()
    assert lines[0].endswith(f", Linf:0.15: {spec}")
    assert sum(line.lstrip().startswith("Stage(label=") for line in lines) > 2
    assert call("show", "fast", f"--attack={spec}").stdout.splitlines() == lines
    unknown = call("show", "fast", "--attack=pgd")
    assert unknown.returncode == 2
    assert "matches no attack of this run: it has gauntlet" in unknown.stderr


def test_pytest_says_why_and_names_its_own_options(pytester, monkeypatch):
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makepyfile(models=MODELS)
    pytester.makepyfile(test_robust=CELL)
    options = ("--gauntlet-model=models.py:rounded", "--gauntlet-samples=10", "--gauntlet-attacks=fgsm")
    done = pytester.runpytest("-p", "no:cacheprovider", *options)
    said = joined(done.stdout.str())
    assert "without gradients: --gauntlet-attacks adaptive. Also: zero-gradient" in said
    assert "1 row has no rank: models.rounded (unavailable-gradients)." in said
    wanting = ("--gauntlet-model=models.py:bytes_wanted", "--gauntlet-samples=40", "--gauntlet-attacks=fgsm")
    failed = joined(pytester.runpytest("-p", "no:cacheprovider", *wanting).stdout.str())
    assert failed.count("images are fed from 0 to 255: use --gauntlet-std 0.00392157") >= 2
    unchecked = pytester.runpytest("-p", "no:cacheprovider", *options, "--gauntlet-checks=none")
    assert "The checks were off (--gauntlet-checks none): " in joined(unchecked.stdout.str())


@pytest.fixture(scope="module")
def digits():
    data = gauntlet.load_data("digits")
    return gauntlet.load_model("cnn.standard_digits").module.model, data.images[:40], data.labels[:40]


def test_python_names_arguments(digits):
    model, images, labels = digits
    rounded = Wrapped(model, before=lambda x: (7 * x).round() / 7)
    found = gauntlet.evaluate(rounded, images, labels, threat="Linf:0.15", attacks="fgsm")
    first, *others = found.notes
    assert first.startswith("not to be trusted (unavailable-gradients): every entry of the gradient is zero")
    assert first.endswith('without gradients: attacks="adaptive".')
    assert {flag.name for flag in found.flags} == {note.partition("(")[2].partition(")")[0] for note in found.notes}
    assert all(note in repr(found) for note in (first, *others))


def test_python_says_that_checks_were_off_and_what_was_not_measured(digits):
    model, images, labels = digits
    found = gauntlet.evaluate(
        model,
        images,
        labels,
        threat="Linf:0.15",
        attacks=["fgsm", "certificate", "replay", "gauntlet:fast"],
        checks="none",
    )
    (note,) = found.notes
    assert note.startswith('The checks were off (checks="none"): ')
    assert (
        found.per_attack.set_index("attack")["result"][["certificate", "replay"]]
        .str.startswith(("proven 0 % of 40", "nothing to replay"))
        .all()
    )
    assert "(worst case over 2 attacks)" in repr(found)
    assert len(found.per_attack.set_index("attack")["settings"]["gauntlet:fast"]) < 40
    assert "Stage(label=" in found.settings["gauntlet:fast"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"before": lambda x: x / 255}, "use std=(0.00392157,) in the model's forward, or in gauntlet.load_model"),
        ({"before": off_the_data}, 'over its draws: attacks="adaptive"'),
    ],
)
def test_errors_in_python_name_arguments(digits, change, said):
    model, images, labels = digits
    with pytest.raises((ValueError, RuntimeError)) as error:
        gauntlet.evaluate(Wrapped(model, **change), images, labels, threat="Linf:0.15", attacks="quick")
    assert said in str(error.value)
