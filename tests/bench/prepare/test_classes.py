"""Models that are restricted to some of their classes: what they predict, how labels are mapped, and that all else follows."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import gauntlet
from builders import network
from datafiles import picture
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.parts.class_list import read_class_list
from gauntlet.bench.models.parts.class_subset import resolve
from gauntlet.bench.models.parts.errors import ModelError

pytestmark = pytest.mark.usefixtures("imports_are_undone")

MODEL = """
import torch
from torch import nn


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 6)).eval()
"""
KEPT = (1, 3, 4)
IMAGES = torch.rand(30, 3, 2, 2, generator=torch.Generator().manual_seed(0))
A = "thousand_k_to_200 = {0: -1, 1: 0, 2: -1, 3: 1, 4: 2, 5: -1}\nindices_in_1k = [k for k in thousand_k_to_200]\n"
R = (
    "all_wnids = ['n00000000', 'n00000001', 'n00000002', 'n00000003', 'n00000004', 'n00000005']\n"
    "imagenet_r_wnids = {'n00000003', 'n00000001', 'n00000004'}\n"
    "imagenet_r_mask = [wnid in imagenet_r_wnids for wnid in all_wnids]\n"
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(MODEL)
    (tmp_path / "kept.txt").write_text("1 bee\n3 cat\n4 dog\n")
    own = load_model("net.py:build").module
    with torch.no_grad():
        predicted = own(IMAGES)[:, KEPT].argmax(1)
    np.savez("places.npz", images=IMAGES.numpy(), labels=predicted.numpy())
    np.savez("model.npz", images=IMAGES.numpy(), labels=torch.tensor(KEPT)[predicted].numpy())
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "1\n3\n4\n"),
        ("list.txt", "# kept\n1, 3, 4\n"),
        ("list.txt", "1 bee\n3: cat\n4,dog\n"),
        ("list.json", "[1, 3, 4]"),
        ("list.json", '{"1": "bee", "3": ["n00000003", "cat"], "4": "dog"}'),
        ("eval.py", A),
        ("eval.py", R),
        ("eval.py", "indices = [1, 3, 4]"),
    ],
)
def test_lists_are_read_in_every_form(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert resolve(read_class_list(tmp_path / name), 6).indices == KEPT


def test_the_readme_of_the_archives_names_classes_by_wordnet_id(tmp_path):
    (tmp_path / "README.txt").write_text("These are some classes.\n\nn01440764 tench\nn01498041 stingray\n")
    subset = resolve(read_class_list(tmp_path / "README.txt"), 1000)
    assert subset.indices == (0, 6)
    assert subset.titles == ("tench", "stingray")


def test_names_are_found_among_those_of_the_model(tmp_path):
    (tmp_path / "list.txt").write_text("Gold_fish\ntench\n")
    names = ("tench, Tinca tinca", "shark", "gold fish, Carassius auratus")
    assert resolve(read_class_list(tmp_path / "list.txt"), 3, names).indices == (2, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n", "has 1 classes"),
        ("1\n1\n", "has the class 1 twice"),
        ("1\n9\n", "has class 9, and the model has 6"),
        ("1\nbird\n", "has 'bird', and no class of the model has this name"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ModelError, match=message):
        resolve(read_class_list(tmp_path / "list.txt"), 6)


def run(call, data, *more):
    return call(
        *("run", "--model=net.py:build", f"--data={data}", "--threat=Linf:0.02", "--attacks=pgd(steps=5),certificate"),
        *("--classes=kept.txt", *more),
    )


def test_absent_classes_are_not_predicted_and_tables_have_names(project, call):
    done = run(call, "places.npz", "--classes=kept.txt(labels=list)")
    assert done.returncode == 0, done.stderr
    done = run(call, "model.npz", "--classes=kept.txt(labels=model)", "--out=model")
    assert done.returncode == 0, done.stderr
    one, other = (pd.read_csv(f"{out}/classes.csv") for out in ("gauntlet-results", "model"))
    assert len(one)
    assert (one["clean_accuracy"] == 1).all()
    assert set(one["name"]) <= {"bee", "cat", "dog"}
    pd.testing.assert_frame_equal(one.drop(columns="data"), other.drop(columns="data"))
    cells = pd.read_csv("gauntlet-results/cells.csv")
    assert set(cells["attack"]) == {"pgd(steps=5)", "certificate"}
    assert (cells["status"] == "ok").all()
    assert call("verify", "gauntlet-results", "--trust").returncode == 0


def test_labels_that_can_be_read_in_two_ways_are_refused(project, call):
    np.savez("both.npz", images=IMAGES.numpy(), labels=np.ones(30, dtype=np.int64))
    done = run(call, "both.npz")
    assert done.returncode != 0
    assert "labels=model" in done.stdout + done.stderr


def test_samples_of_other_classes_are_named(project, call):
    np.savez("other.npz", images=IMAGES.numpy(), labels=np.full(30, 5))
    done = run(call, "other.npz")
    assert done.returncode != 0
    assert "has class 5, which is not in the list of classes (30 of 30 samples)" in done.stdout + done.stderr


def test_folders_are_mapped_by_their_names(project):
    for place, name in enumerate(("dog", "bee", "cat")):
        for number in range(2):
            picture(project / "photos" / name / f"{number}.png", 80 * place + number, mode="RGB", size=(2, 2))
    data = gauntlet.load_data("photos")
    found = gauntlet.evaluate(
        load_model("net.py:build", classes="kept.txt").module, data, attacks="fgsm", checks="none"
    )
    places = {"bee": 0, "cat": 1, "dog": 2}
    with torch.no_grad():
        predicted = load_model("net.py:build").module(data.images[:])[:, KEPT].argmax(1)
    expected = [places[name.split("/")[0]] for name in data.ids]
    assert found.correct.tolist() == (predicted == torch.tensor(expected)).tolist()


def test_a_black_box_of_predicted_classes_cannot_be_restricted(project, call):
    (project / "box.py").write_text("def label(images):\n    return images.reshape(len(images), -1).argmax(1) % 6\n")
    done = call(
        *("run", "--model=blackbox:box.py:label(classes=6)", "--data=places.npz", "--threat=Linf:0.02"),
        *("--attacks=hop_skip_jump(queries=100)", "--classes=kept.txt"),
    )
    assert done.returncode != 0
    assert "no class can be taken out" in done.stdout + done.stderr


def test_another_list_is_another_key(project, call):
    assert run(call, "places.npz", "--classes=kept.txt(labels=list)").returncode == 0
    (project / "kept.txt").write_text("1 bee\n3 cat\n5 dog\n")
    done = run(call, "places.npz", "--classes=kept.txt(labels=list)")
    assert "0 answered from the store" in done.stdout


@pytest.mark.parametrize("goal", ["next", "random", "2"])
def test_targets_are_classes_of_the_list(goal):
    model = network(12, 6)
    ask = {"threat": f"Linf:0.3:target={goal}", "attacks": "pgd(steps=5)", "checks": "none", "device": "cpu"}
    with torch.no_grad():
        labels = model(IMAGES)[:, KEPT].argmax(1)

    class Kept(nn.Module):
        def forward(self, images):
            return model(images)[:, KEPT]

    inside = gauntlet.evaluate(model, IMAGES, labels, classes=KEPT, **ask)
    by_hand = gauntlet.evaluate(Kept().eval(), IMAGES, labels, **ask)
    assert torch.equal(inside.robust, by_hand.robust)
    assert not inside.robust.all()


@pytest.mark.parametrize("attacks", ["standard", "adaptive", "hop_skip_jump(queries=100)", "pgd(steps=3),certificate"])
def test_attacks_find_what_they_find_on_a_model_of_these_classes_alone(attacks):
    model = network(12, 6)
    smaller = network(12, 3)
    with torch.no_grad():
        last, few = model[-1], smaller[-1]
        few.weight.copy_(last.weight[list(KEPT)])
        few.bias.copy_(last.bias[list(KEPT)])
        for one, other in zip(model[:-1].parameters(), smaller[:-1].parameters(), strict=True):
            other.copy_(one)
        labels = smaller(IMAGES).argmax(1)
    ask = {"threat": "Linf:0.05", "attacks": attacks, "device": "cpu", "precision": "float32"}
    inside = gauntlet.evaluate(model, IMAGES, labels, classes=KEPT, **ask)
    alone = gauntlet.evaluate(smaller, IMAGES, labels, **ask)
    assert torch.equal(inside.robust, alone.robust)
    assert inside.per_attack["result"].tolist() == alone.per_attack["result"].tolist()
    assert json.dumps(sorted(flag.name for flag in inside.flags)) == json.dumps(
        sorted(flag.name for flag in alone.flags)
    )
