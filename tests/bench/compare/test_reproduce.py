"""Published figures beside measured ones, and `gauntlet reproduce`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gauntlet.bench.config.schema import ConfigError, load_config
from gauntlet.leaderboard.report.cells_csv import read_cells
from gauntlet.leaderboard.report.leaderboard_csv import read_leaderboard
from gauntlet.leaderboard.report.published_csv import read_published

RUN = ("run", "--model=model.py:build", "--data=data.npz", "--threat=Linf:0.1", "--attacks=fgsm,pgd(steps=5)")
TABLE = """
[[published]]
model = "model.*"
name = "Somebody2020Means"
data = "digits"
clean = {clean}
robust = {robust}
threat = "Linf:1/10"
attack = "AutoAttack (standard)"
n = 797
source = "https://example.org/table"
"""


def state(clean=0.9, robust=0.3, more=""):
    Path("gauntlet.toml").write_text(TABLE.format(clean=clean, robust=robust) + more, encoding="utf-8")


def measured():
    table = read_leaderboard(Path("gauntlet-results/leaderboard.csv"))
    return table, read_published(Path("gauntlet-results/published.csv"))


def test_a_published_figure_stands_beside_the_measured_one_and_not_among_the_rows(project, call):
    assert call(*RUN).returncode == 0
    plain = read_leaderboard(Path("gauntlet-results/leaderboard.csv"))
    assert not Path("gauntlet-results/published.csv").exists()
    robust = float(plain["robust_accuracy"][0])
    state(robust=round(robust + 0.05, 4))
    done = call(*RUN)
    assert done.returncode == 0
    table, published = measured()
    assert len(table) == len(plain) == 1
    assert table["rank"].tolist() == plain["rank"].tolist()
    assert published["figure"].tolist() == ["clean", "robust"]
    row = published.iloc[1]
    assert row["published"] == round(robust + 0.05, 4)
    assert row["difference"] == pytest.approx(-0.05, abs=1e-4)
    assert row["published_as"] == "Somebody2020Means"
    assert bool(row["covered"])
    assert table["published_difference"][0] == pytest.approx(-0.05, abs=1e-4)
    assert table["published_covered"][0] == "yes"
    assert "published model.build robust Linf:0.1:" in done.stdout
    report = Path("gauntlet-results/leaderboard.md").read_text(encoding="utf-8")
    assert "## Published and measured" in report
    assert "Somebody2020Means: " in report


def test_a_published_figure_far_away_is_not_covered(project, call):
    state(robust=1.0)
    assert call(*RUN).returncode == 0
    table, published = measured()
    assert not bool(published["covered"][1])
    assert table["published_covered"][0] == "no"
    assert "**no**" in Path("gauntlet-results/leaderboard.md").read_text(encoding="utf-8")


def test_other_threat_models_and_defended_rows_are_not_held_against_it(project, call):
    state()
    options = [one.replace("0.1", "0.2") for one in RUN]
    assert call(*options, "--defense=none,bit_depth").returncode == 0
    _, published = measured()
    assert published["figure"].tolist() == ["clean"]
    assert published["threat"].tolist() == [""]


def test_figures_that_are_gone_leave_no_file(project, call):
    state()
    call(*RUN)
    assert Path("gauntlet-results/published.csv").exists()
    Path("gauntlet.toml").unlink()
    for file in Path("gauntlet-results/runs").glob("*/published/*.json"):
        file.unlink()
    call(*RUN)
    assert not Path("gauntlet-results/published.csv").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[published]]\nmodel = 'm'\n", "has no figure"),
        ("[[published]]\nclean = 0.5\n", "model is missing"),
        ("[[published]]\nmodel = 'm'\nclean = 95\n", "clean=95"),
        ("[[published]]\nmodel = 'm'\nrobust = 0.5\n", "depend on each other"),
        ("[[published]]\nmodel = 'm'\nclean = 0.5\nn = -1\n", "n=-1"),
        ("[[published]]\nmodel = 'm'\nclean = 0.5\nyear = 2020\n", "unknown key 'year'"),
        ("[[published]]\nmodel = 'm'\nrobust = 0.5\nthreat = 'Linf'\n", "Linf"),
        ("[published]\nmodel = 'm'\n", r"write \[\[published\]\]"),
    ],
)
def test_a_wrong_table_is_named(tmp_path, text, words):
    (tmp_path / "gauntlet.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        load_config({}, folder=tmp_path)


# --- gauntlet reproduce -----------------------------------------------------------------------------------------------


def reproduce(call, *arguments):
    return call("reproduce", "model.py:build", "--data=data.npz", "--samples=20", *arguments)


def test_a_figure_that_agrees_is_reproduced(project, call):
    state(robust=0.1)
    Path("gauntlet.toml").write_text(
        Path("gauntlet.toml").read_text().replace('"model.*"', '"model.py:build"').replace("1/10", "0.2"),
        encoding="utf-8",
    )
    done = reproduce(call)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reproduced: the difference of" in done.stdout
    assert "under AutoAttack (standard) at Linf:0.2" in done.stdout
    assert Path("gauntlet-results/published.csv").exists()


def test_a_figure_that_differs_is_told_with_what_may_be_the_cause(project, call):
    state(robust=0.999)
    Path("gauntlet.toml").write_text(
        Path("gauntlet.toml").read_text().replace('"model.*"', '"model.py:build"'), encoding="utf-8"
    )
    done = reproduce(call)
    assert done.returncode == 1
    assert "differs by -" in done.stdout
    assert "a stronger attack than the published one" in done.stdout


def test_a_model_of_which_nothing_is_published_is_wrong_usage(project, call):
    done = reproduce(call)
    assert done.returncode == 2
    assert "no robust accuracy of model 'model.py:build' is published" in done.stderr
    assert "[[published]]" in done.stderr


def test_another_threat_model_than_the_published_ones_is_wrong_usage(project, call):
    state()
    Path("gauntlet.toml").write_text(
        Path("gauntlet.toml").read_text().replace('"model.*"', '"model.py:build"'), encoding="utf-8"
    )
    done = reproduce(call, "--threat=L2:0.5")
    assert done.returncode == 2
    assert "known: Linf:0.1" in done.stderr


def test_an_attack_that_cannot_be_named_must_be(project, call):
    state()
    text = Path("gauntlet.toml").read_text().replace('"model.*"', '"model.py:build"').replace("AutoAttack", "Magic")
    Path("gauntlet.toml").write_text(text, encoding="utf-8")
    done = reproduce(call)
    assert done.returncode == 2
    assert "name the corresponding attack with --attacks" in done.stderr
    assert reproduce(call, "--attacks=fgsm").returncode in (0, 1)


# --- published networks, where they are at hand -----------------------------------------------------------------------

SHARED = os.environ.get("GAUNTLET_SHARED_DATA", "")
NET = """
from torch import nn


def build():
    first, second = nn.Conv2d(1, 16, 4, 2, 1), nn.Conv2d(16, 32, 4, 2, 1)
    head = (nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10))
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), *head)
"""


@pytest.mark.slow
@pytest.mark.skipif(not SHARED, reason="GAUNTLET_SHARED_DATA does not name a folder with the published networks")
def test_the_provably_robust_network_gives_its_published_figures_and_no_attack_breaks_its_proof(
    tmp_path, monkeypatch, call
):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET, encoding="utf-8")
    done = call(
        "run",
        "--model=net.py:build",
        f"--weights={SHARED}/wong_kolter_mnist.pth",
        f"--data=mnist@{SHARED}/mnist_test_1000.npz",
        "--threat=Linf:0.1",
        "--attacks=fgsm,pgd(steps=40, step_size=0.1, random_start=False),gauntlet",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cells = read_cells(Path("gauntlet-results/cells.csv")).set_index("attack")
    errors = {name.partition("(")[0]: 1 - share for name, share in cells["robust_accuracy"].items()}
    assert errors["fgsm"] == pytest.approx(0.044, abs=1e-9)
    assert errors["pgd"] == pytest.approx(0.046, abs=0.002)
    # Proven for all 10,000: at most 5.8 %; of these 1,000 the share may differ by sampling.
    assert 0.046 <= errors["gauntlet"] <= 0.058 + 0.015
    assert cells["clean_accuracy"].tolist() == pytest.approx([0.982] * 3)
