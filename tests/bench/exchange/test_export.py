"""`gauntlet export robustbench`: files that are verified again from themselves alone."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pytest
import torch
from conftest import run_here

import gauntlet
from builders import bits, cell_info, result
from gauntlet.bench.exchange.robustbench_issue import model_info
from gauntlet.leaderboard.report.model_table import ModelDescription
from gauntlet.leaderboard.results.summary import summaries
from gauntlet.leaderboard.rows.build_rows import build_rows

MODEL = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    return net
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A results folder with a model of the zoo, at two radii, under two attacks."""
    folder = tmp_path_factory.mktemp("export") / "out"
    options = ("--attacks=pgd(steps=10),fmn(steps=20)", "--threat=Linf:0.1", "--threat=Linf:0.15", "--data=digits")
    assert run_here("run", "--model=cnn.pgd_digits", *options, "--samples=60", "--checks=none", f"--out={folder}") == 0
    return folder


@pytest.fixture(scope="module")
def exported(out, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    assert run_here("export", "robustbench", out, "cnn.pgd_digits", "--threat=Linf:0.15", f"--out={folder}") == 0
    return folder


def robust(out):
    from gauntlet.leaderboard.report.leaderboard_csv import read_leaderboard

    return read_leaderboard(out / "leaderboard.csv").set_index("eps").loc[0.15]


def verify(capsys, *options):
    capsys.readouterr()
    code = run_here("verify", *options)
    return code, capsys.readouterr().out


def of_file(path):
    return ("--examples", path, "--model=cnn.pgd_digits", "--data=digits", "--samples=60", "--threat=Linf:0.15")


def test_the_images_are_those_of_the_data_in_their_order_within_eps(exported):
    images = torch.load(exported / "examples.pt", weights_only=True)
    clean = gauntlet.load_data("digits", samples="60").images
    assert images.shape == clean.shape
    assert images.dtype == torch.float32
    moved = (images - clean).flatten(1).abs().amax(1)
    assert float(moved.max()) <= 0.15 + 2**-23
    assert int((moved > 0).sum()) > 5


def test_the_exported_images_verify_to_the_figure_of_the_leaderboard(out, exported, capsys):
    code, told = verify(capsys, *of_file(exported / "examples.pt"))
    assert code == 0
    share = 100 * robust(out)["robust_accuracy"]
    assert f"robust accuracy  {share:.1f} [" in told


def test_altered_images_do_not_verify(exported, tmp_path, capsys):
    images = torch.load(exported / "examples.pt", weights_only=True)
    clean = gauntlet.load_data("digits", samples="60").images
    place = int((images - clean).flatten(1).abs().amax(1).argmax())
    images[place] = (clean[place] + 2 * (images[place] - clean[place])).clamp(0, 1)
    torch.save(images, tmp_path / "altered.pt")
    code, told = verify(capsys, *of_file(tmp_path / "altered.pt"))
    assert code == 1
    assert "beyond eps" in told


def test_the_issue_has_the_figures_and_marks_what_is_not_known(out, exported):
    text = (exported / "issue.md").read_text(encoding="utf-8")
    row = robust(out)
    assert f"**Robust accuracy**: {100 * row['robust_accuracy']:.2f} % of 60 images" in text
    assert f"**Clean accuracy**: {100 * row['clean_accuracy']:.2f} % of 60 images" in text
    assert "**Paper authors**: FILL IN" in text
    for heading in ("# Paper Information", "# Leaderboard Claim(s)", "# Model Zoo", "pgd: PGD(", "fmn: FMN("):
        assert heading in text
    info = json.loads((exported / "model_info.json").read_text(encoding="utf-8"))
    assert info["reported"] == f"{100 * row['robust_accuracy']:.2f}"
    assert (info["eps"], info["dataset"], info["additional_data"]) == ("0.15", "digits", False)
    assert "autoattack_acc" not in info


def test_an_external_evaluation_asks_for_the_link_and_descriptions_fill_in(out, tmp_path):
    described = (
        '[[model]]\nmodel = "cnn.pgd_digits"\npaper = "A *paper*"\nextra_data = "20M images"\narchitecture = "CNN"\n'
    )
    (out / "models.toml").write_text(described, encoding="utf-8")
    for kind in ("external", "new"):
        options = ("--threat=Linf:0.15", f"--kind={kind}", f"--out={tmp_path / kind}")
        assert run_here("export", "robustbench", out, "cnn.pgd_digits", *options) == 0
    (out / "models.toml").unlink()
    text = (tmp_path / "external" / "issue.md").read_text(encoding="utf-8")
    assert "**Model identifier(s):** cnn.pgd_digits" in text
    assert "**Link to adversarial images:** FILL IN" in text
    assert "external" in json.loads((tmp_path / "external" / "model_info.json").read_text())
    assert "**Paper Title**: A \\*paper\\*" in (tmp_path / "new" / "issue.md").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "new" / "model_info.json").read_text())["additional_data"] is True


def test_the_command_that_is_named_verifies_a_model_with_settings(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(MODEL)
    data = gauntlet.load_data("digits", samples="40")
    np.savez("data.npz", images=data.images.numpy(), labels=data.labels.numpy())
    options = ("--mean=0.5", "--std=0.25", "--data=data.npz", "--threat=L2:0.3", "--attacks=pgd(steps=5)")
    assert run_here("run", "--model=net.py:build", *options, "--checks=none", "--out=out") == 0
    capsys.readouterr()
    # The model's code is not run: its name in the tables is enough.
    assert run_here("export", "robustbench", "out", "net.build") == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1].partition(": ")[2])
    assert command[:2] == ["gauntlet", "verify"]
    assert {"--mean", "--std"} <= set(command)
    assert verify(capsys, *command[2:])[0] == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nothing",), "no row without a defense has model 'nothing'"),
        (("cnn.pgd_digits",), "choose one with --threat and --data"),
        (("cnn.pgd_digits", "--threat=L2:1"), "choose one with --threat and --data"),
        (("cnn.pgd_digits", "--threat=Linf:0.15", "--suite=quick"), "of several suites with --suite"),
    ],
)
def test_a_row_that_is_not_one_is_refused(out, capsys, arguments, sentence):
    assert run_here("export", "robustbench", out, *arguments) == 2
    assert sentence in capsys.readouterr().err


def test_of_two_suites_at_one_threat_model_one_can_be_chosen(tmp_path, capsys):
    options = ("--threat=Linf:0.15", "--data=digits", "--samples=20", "--checks=none", f"--out={tmp_path}")
    assert run_here("run", "--model=cnn.standard_digits", "--attacks=quick,pgd(steps=5)", *options) == 0
    assert run_here("export", "robustbench", tmp_path, "cnn.standard_digits", "--threat=Linf:0.15") == 2
    assert "suite quick" in capsys.readouterr().err
    for suite in ("quick", "custom"):
        out = tmp_path / suite
        assert (
            run_here("export", "robustbench", tmp_path, "cnn.standard_digits", f"--suite={suite}", f"--out={out}") == 0
        )
        assert f"suite {suite}" in (out / "issue.md").read_text(encoding="utf-8")


def test_targeted_rows_are_refused(tmp_path, capsys):
    options = (
        "--attacks=pgd(steps=5)",
        "--threat=Linf:0.15:target=3",
        "--data=digits",
        "--samples=20",
        "--checks=none",
    )
    assert run_here("run", "--model=cnn.standard_digits", *options, f"--out={tmp_path}") == 0
    assert run_here("export", "robustbench", tmp_path, "cnn.standard_digits") == 2
    assert "at Linf:0.15:target=3 is of targeted attacks" in capsys.readouterr().err
    assert not (tmp_path / "robustbench").exists()


def test_rows_of_randomised_models_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    noisy = MODEL.replace("    return net", "    return nn.Sequential(Noise(), net)")
    noise = "class Noise(nn.Module):\n    def forward(self, x):\n        return x + 0.1 * torch.randn_like(x)\n\n"
    (tmp_path / "noisy.py").write_text(noisy.replace("def build", noise + "def build"))
    options = ("--attacks=pgd(steps=2)", "--threat=Linf:0.1", "--data=digits", "--samples=10", "--checks=none")
    assert run_here("run", "--model=noisy.py:build", *options, "--out=out") == 0
    assert run_here("export", "robustbench", "out", "noisy.build") == 2
    assert "is randomised" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("attacks", "expected"),
    [
        (("pgd", "autoattack"), "30.00"),
        (("pgd", "pyautoattack.AutoAttack"), "30.00"),
        (("pgd", "autoattack(version=rand)"), None),
        (("pgd", "autoattack(steps=10)"), None),
        (("pgd", "pyautoattack.APGD"), None),
    ],
)
def test_only_the_standard_autoattack_gives_the_figure_of_autoattack(attacks, expected):
    results = [
        result(bits(100, robust), cell_info("net", name)) for robust, name in zip((20, 30), attacks, strict=True)
    ]
    (row,) = build_rows(summaries(results))
    assert model_info(row, "new", ModelDescription("net")).get("autoattack_acc") == expected


def test_examples_that_were_not_kept_are_named(tmp_path, capsys):
    options = ("--attacks=pgd(steps=5)", "--threat=Linf:0.15", "--data=digits", "--samples=20", "--checks=none")
    assert run_here("run", "--model=cnn.standard_digits", *options, "--no-adversarials", f"--out={tmp_path}") == 0
    assert run_here("export", "robustbench", tmp_path, "cnn.standard_digits") == 2
    assert "were not kept" in capsys.readouterr().err
