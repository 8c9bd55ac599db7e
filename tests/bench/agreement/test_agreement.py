"""`gauntlet agreement`: planted libraries that lie, libraries that agree, a library that is missing, and resuming."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from gauntlet.bench.agreement.run_agreement import choose_rows
from plugin_texts import write

PLANTED = '''
from dataclasses import dataclass
from typing import ClassVar

import torch

import gauntlet


@dataclass(frozen=True, kw_only=True)
class Sign:
    """One step, with the image itself where it fails."""

    threat: gauntlet.ThreatModel
    shrink: float = 1.0
    version: ClassVar[int] = 1

    def __call__(self, model, images, labels, seed):
        points = self.step(model, images, labels)
        with torch.no_grad():
            won = model(points).argmax(1) != labels
        return torch.where(won[:, None, None, None], points, images)

    def step(self, model, images, labels):
        points = images.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(points), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, points)
        return (images + self.shrink * self.threat.eps * gradient.sign()).clamp(0, 1).detach()


class Last(Sign):
    """The same, which returns its last point, success or not, and says so."""

    returns_failures: ClassVar[bool] = True

    def __call__(self, model, images, labels, seed):
        return self.step(model, images, labels)


class Liar(Sign):
    """Returns a point outside the ball, one outside the box, and one that the model classifies correctly."""

    def __call__(self, model, images, labels, seed):
        points = images.clone()
        points[0] = 1 - images[0]
        points[1] = images[1] - self.threat.eps / 2
        points[2] = (images[2] + 1e-3).clamp(0, 1)
        return points


for name, kind, library in (
    ("mine.FGSM", Sign, ""),
    ("twin.FGSM", Last, ""),
    ("liar.FGSM", Liar, ""),
    ("absent.FGSM", Sign, "a-library-that-is-not-there"),
):
    gauntlet.register_attack(
        name,
        gauntlet.AttackEntry(
            gauntlet.AttackCard(name=name, summary="planted", source="here", norms=("Linf",), library=library),
            lambda threat, kind=kind, **settings: kind(threat=threat, **settings),
        ),
    )
'''
OWN = ("agreement", "--model=model.py:build", "--data=data.npz", "--threat=Linf:0.1", "--out=out")
COUNTS = ["broken", "only_this", "only_reference", "outside_ball", "outside_box", "false_claims"]


@pytest.fixture
def agree(project, call, registries_as_before):
    write("mine.py", PLANTED)

    def run(*arguments):
        return call(*OWN, "--plugin=mine.py", *arguments)

    return run


def table():
    return pd.read_csv("out/agreement.csv").set_index("attack")


def test_a_library_that_claims_false_successes_is_caught(agree):
    done = agree("--attacks=mine.FGSM", "--attacks=liar.FGSM")
    assert done.returncode == 0, done.stderr
    frame = table()
    assert frame.loc["liar.FGSM", COUNTS[3:]].tolist() == [1, 1, 1]
    assert frame.loc["liar.FGSM", "broken"] == 0
    assert frame.loc["liar.FGSM", "only_reference"] == frame.loc["mine.FGSM", "broken"] > 0
    assert frame.loc["mine.FGSM", COUNTS[3:]].tolist() == [0, 0, 0]
    assert "invalid 1 / 1 / 1" in done.stdout
    assert "+0 −" in done.stdout
    page = Path("out/agreement.html").read_text(encoding="utf-8")
    assert "1 / 1 / 1" in page


def test_libraries_with_equal_results_differ_nowhere_and_a_last_iterate_claims_nothing(agree):
    done = agree("--attacks=mine.FGSM,twin.FGSM,fgsm")
    assert done.returncode == 0, done.stderr
    frame = table()
    assert frame.loc["twin.FGSM", COUNTS[1:]].tolist() == [0, 0, 0, 0, 0]
    assert frame.loc["fgsm", ["only_this", "only_reference"]].tolist() == [0, 0]
    assert frame["broken"].nunique() == 1
    assert pd.read_csv("out/agreement-samples.csv").empty
    assert "3 attacks differ on 0 of 30 samples" in done.stdout


def test_the_samples_on_which_they_differ_are_those_of_the_stored_results(agree, call):
    done = agree("--attacks=mine.FGSM", "--attacks=mine.FGSM(shrink=0.3)")
    assert done.returncode == 0, done.stderr
    weaker = table().loc["mine.FGSM(shrink=0.3)"]
    named = pd.read_csv("out/agreement-samples.csv")
    assert len(named) == weaker["only_reference"] > 0
    assert set(named["broken_by"]) == {"mine.FGSM"}
    assert set(named["left_by"]) == {"mine.FGSM(shrink=0.3)"}
    for sample in named["sample"]:
        shown = call("show", "out", "--sample", sample)
        assert shown.returncode == 0, shown.stderr


def test_a_missing_library_is_said_in_one_line_and_left_out(agree):
    done = agree("--attacks=mine.FGSM,absent.FGSM,twin.FGSM")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "a-library-that-is-not-there" in line]
    assert said == [
        "the attacks of a-library-that-is-not-there are left out: it is not installed (pip install "
        "a-library-that-is-not-there)"
    ]
    assert list(table().index) == ["mine.FGSM", "twin.FGSM"]
    assert said[0] in Path("out/agreement.md").read_text(encoding="utf-8")
    alone = agree("--attacks=mine.FGSM,absent.FGSM", "--out=alone")
    assert alone.returncode == 2
    assert "nothing is left to compare" in alone.stderr


def test_it_resumes_from_the_store_that_runs_fill(agree, call):
    run = ("run", *OWN[1:], "--plugin=mine.py", "--precision=float32", "--checks=none", "--attacks=mine.FGSM")
    assert call(*run).returncode == 0
    first = agree("--attacks=mine.FGSM,twin.FGSM")
    assert first.stderr.count("(stored)") == 1
    again = agree("--attacks=mine.FGSM,twin.FGSM")
    assert again.stderr.count("(stored)") == 2
    assert again.stdout == first.stdout


def test_the_installed_libraries_are_compared_on_the_users_model(project, call):
    done = call(*OWN, "FGSM", "APGD-T*", "--threat=L2:0.5", "--seeds=2")
    assert done.returncode == 0, done.stderr
    frame = pd.read_csv("out/agreement.csv")
    assert {"gauntlet", "torchattacks", "art"} <= set(frame["library"])
    assert set(frame["threat"]) == {"Linf:0.1", "L2:0.5"}
    fgsm = frame[frame["comparison"] == "FGSM"]
    assert (fgsm["itself"] == 0).all()
    assert (fgsm["only_this"] == 0).all()
    assert (frame.loc[frame["library"] != "gauntlet", ["outside_ball", "outside_box", "false_claims"]] == 0).all(
        axis=None
    )


def test_a_name_without_its_norm_chooses_the_comparison_in_every_norm():
    for name, rows in {
        "fgsm": ["FGSM", "FGSM L2"],
        "PGD-40": ["PGD-40 Linf", "PGD-40 L2"],
        "fgsm l2": ["FGSM L2"],
    }.items():
        assert [row.name for row in choose_rows([name], [], ["Linf:0.1", "L2:0.5"])] == rows


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("PGB*",), ("no row fits 'PGB*'", "PGD-40 Linf")),
        (("PGD*", "--attacks=pgd,fgsm"), ("--attacks", "PGD*")),
        (("--attacks=pgd",), ("--attacks pgd", "at least two")),
        (("--attacks=pgd,pdg",), ("unknown attack 'pdg'",)),
        (("C&W*",), ("no row is for Linf:0.1", "L2", "--threat")),
    ],
)
def test_what_cannot_be_compared_is_said(project, call, arguments, words):
    done = call(*OWN, *arguments)
    assert done.returncode == 2
    for word in words:
        assert word in done.stderr
    assert not Path("out").exists()
