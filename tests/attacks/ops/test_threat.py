"""Threat models and settings as text: what is read, what is refused, and that it reads back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gauntlet.attacks.cw import CW
from gauntlet.attacks.deepfool import ENTRY as DEEPFOOL_ENTRY
from gauntlet.attacks.fgsm import ENTRY as FGSM_ENTRY
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import ENTRY as PGD_ENTRY
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.registry.settings import Named, parse_named, split_list


@pytest.mark.parametrize(
    ("text", "norm", "eps"),
    [
        ("Linf:8/255", "Linf", 8 / 255),
        ("linf: 0.1", "Linf", 0.1),
        (" L2 :0.5", "L2", 0.5),
        ("L1:12", "L1", 12.0),
        ("Linf:1e-3", "Linf", 1e-3),
        ("L2:1 / 3", "L2", 1 / 3),
    ],
)
def test_threat_models_are_read(text, norm, eps):
    assert ThreatModel.parse(text) == ThreatModel(norm, eps)


@pytest.mark.parametrize(
    "eps", [1 / 255, 8 / 255, 64 / 255, 65 / 255, 0.1, 0.15, 1 / 3, 1e-9, 1.0, 0.1 + 0.2, float(np.float32(8 / 255))]
)
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_a_threat_model_written_as_text_reads_back_exactly(norm, eps):
    threat = ThreatModel(norm, eps)
    assert ThreatModel.parse(str(threat)) == threat
    assert str(ThreatModel.parse(str(threat))) == str(threat)


def test_whole_255ths_are_written_as_people_write_them():
    assert str(ThreatModel("Linf", 8 / 255)) == "Linf:8/255"
    assert str(ThreatModel("L2", 0.5)) == "L2:0.5"


@pytest.mark.parametrize("eps", [np.float64(0.5), np.float32(0.5), torch.tensor(0.5)])
def test_an_eps_from_numpy_or_torch_is_an_ordinary_number(eps):
    threat = ThreatModel("L2", eps)
    assert threat == ThreatModel("L2", 0.5)
    assert str(threat) == "L2:0.5"


def test_equal_threat_models_have_equal_text():
    assert str(ThreatModel("L2", 1)) == str(ThreatModel.parse("L2:1"))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("8/255", "NORM:EPS"),
        ("Linf", "NORM:EPS"),
        ("L3:1", "NORM:EPS"),
        ("", "NORM:EPS"),
        ("Linf:", "not a number"),
        ("Linf:eight", "not a number"),
        ("Linf:1/0", "not a number"),
        ("Linf:inf", "not a number"),
        ("Linf:nan", "not a number"),
        ("L2:1e999", "not a number"),
        ("Linf:0", "positive"),
        ("L2:-1", "positive"),
        ("Linf:8", "8/255"),
    ],
)
def test_a_threat_model_that_makes_no_sense_is_refused_with_the_way_out(text, match):
    with pytest.raises(ValueError, match=match):
        ThreatModel.parse(text)


@pytest.mark.parametrize("eps", [float("nan"), float("inf"), 0, -0.1])
def test_an_eps_that_is_no_radius_is_refused(eps):
    with pytest.raises(ValueError, match="eps"):
        ThreatModel("L2", eps)


def test_an_unknown_norm_is_refused_and_the_known_ones_are_named():
    with pytest.raises(ValueError, match="Linf, L2, L1"):
        ThreatModel("L0", 1.0)


@pytest.mark.parametrize(
    ("text", "name", "settings"),
    [
        ("pgd", "pgd", {}),
        ("pgd()", "pgd", {}),
        (" pgd ( steps = 10 ) ", "pgd", {"steps": 10}),
        ("pgd(steps=100, loss=cw)", "pgd", {"steps": 100, "loss": "cw"}),
        ("pgd(loss='cw')", "pgd", {"loss": "cw"}),
        ("cw(c=1e-3, lr=-0.5)", "cw", {"c": 1e-3, "lr": -0.5}),
        ("pgd(random_start=False, step_size=None)", "pgd", {"random_start": False, "step_size": None}),
        ("torchattacks.PGD(steps=3)", "torchattacks.PGD", {"steps": 3}),
    ],
)
def test_names_with_settings_are_read_and_read_back(text, name, settings):
    named = parse_named(text)
    assert (named.name, named.keywords) == (name, settings)
    assert parse_named(str(named)) == named


def test_the_order_of_settings_does_not_matter():
    assert parse_named("pgd(steps=3, loss=cw)") == parse_named("pgd(loss=cw, steps=3)")
    assert str(parse_named("pgd(steps=3, loss=cw)")) == "pgd(loss='cw', steps=3)"


@pytest.mark.parametrize(
    "text",
    ["", "(steps=1)", "pgd(steps=1", "pgd(10)", "pgd(steps)", "pgd(steps=1, steps=2)", "pgd(**a)", "pgd(*a)",
     "pgd(steps=f(1))", "pgd(steps=[1])", "pgd(steps=1)(2)", "pgd(steps=1) extra", "pgd(steps=)", "pgd(a=b.c)"],
)  # fmt: skip
def test_settings_that_cannot_be_read_are_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"not understood.*pgd\(steps=100"):
        parse_named(text)


def test_lists_are_split_at_the_commas_outside_parentheses():
    assert split_list("fgsm, pgd(steps=3, loss=cw),cw,") == ["fgsm", "pgd(steps=3, loss=cw)", "cw"]
    assert split_list(" , ") == []


def test_a_name_without_settings_is_written_bare():
    assert str(Named("fgsm")) == "fgsm"


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: PGD(steps=0), "steps"),
        (lambda: PGD(steps=2.5), "steps"),
        (lambda: PGD(restarts=0), "restarts"),
        (lambda: PGD(restarts=1.5), "restarts"),
        (lambda: PGD(step_size=0), "step_size"),
        (lambda: PGD(step_size=float("inf")), "step_size"),
        (lambda: PGD(loss="mse"), "mse"),
        (lambda: PGD(restarts=2, random_start=False), "random_start"),
        (lambda: PGD(random_start="no"), "random_start"),
        (lambda: CW(search_steps=0), "search_steps"),
        (lambda: CW(steps=0.5), "steps"),
        (lambda: CW(steps=1.5), "steps"),
        (lambda: CW(confidence=-1), "confidence"),
        (lambda: CW(lr=0), "lr"),
        (lambda: CW(c=float("nan")), "c"),
        (lambda: CW(c=float("inf")), "c"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(make, name):
    with pytest.raises(ValueError, match=name):
        make()


def test_a_setting_that_an_attack_does_not_have_is_refused_by_name():
    with pytest.raises(ValueError, match="stepz"):
        PGD_ENTRY.make(ThreatModel("Linf", 0.1), stepz=3)
    with pytest.raises(ValueError, match="steps"):
        FGSM_ENTRY.make(ThreatModel("Linf", 0.1), steps=3)


def test_a_setting_of_the_wrong_type_is_refused():
    with pytest.raises(ValueError, match="ten"):
        PGD_ENTRY.make(ThreatModel("Linf", 0.1), steps="ten")


def test_an_attack_is_refused_for_a_norm_that_it_does_not_know():
    with pytest.raises(ValueError, match="Linf, L2"):
        DEEPFOOL_ENTRY.make(ThreatModel("L1", 1.0))
