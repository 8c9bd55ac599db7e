"""What an evaluation gives from Python: a table, a picture, HTML, a results folder, and a comparison."""

from __future__ import annotations

import pickle
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest
import torch
from torch import nn

import gauntlet
from gauntlet.bench.compare.compare import compare_runs
from gauntlet.leaderboard.compare.comparison import CompareError
from gauntlet.leaderboard.stats.proportions import mcnemar

IMAGES = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(3))
ASK = {"threat": "Linf:0.05", "attacks": ["fgsm", "pgd(steps=5)"], "checks": "none", "device": "cpu"}


def made(seed, change=0.0):
    """A linear model whose classes meet at grey images, so that eps breaks some of the samples."""
    draw = torch.Generator().manual_seed(seed)
    linear = nn.Linear(16, 4)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(4, 16, generator=draw) + change * torch.randn(4, 16, generator=draw))
        linear.bias.copy_(-linear.weight.sum(1) / 2)
    return nn.Sequential(nn.Flatten(), linear).eval()


@pytest.fixture(scope="module")
def labels():
    with torch.no_grad():
        return made(0)(IMAGES).argmax(1)


@pytest.fixture(scope="module")
def one(labels):
    return gauntlet.evaluate(made(0), IMAGES, labels, **ASK)


@pytest.fixture(scope="module")
def other(labels):
    return gauntlet.evaluate(made(0, 0.3), IMAGES, labels, **ASK)


def test_the_table_has_a_line_for_each_sample(one, labels):
    table = one.to_pandas()
    assert table["id"].tolist() == [str(number) for number in range(40)]
    assert table["label"].tolist() == labels.tolist()
    for name in ("correct", "robust", "success", "distance"):
        assert table[name].tolist() == getattr(one, name).tolist()
    broken = table["correct"] & ~table["robust"]
    assert broken.any()
    assert not broken.all()
    assert ((table["broken_by"] != "") == broken).all()
    assert set(table.loc[broken, "broken_by"]) <= {"fgsm", "pgd(steps=5)", "fgsm; pgd(steps=5)"}


def test_the_picture_has_a_bar_for_each_accuracy(one):
    pytest.importorskip("matplotlib")
    (axes,) = one.plot().axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["clean", "fgsm", "pgd(steps=5)", "worst case"]
    widths = [bar.get_width() for bar in axes.patches]
    assert widths[0] == pytest.approx(100 * one.clean_accuracy)
    assert widths[-1] == pytest.approx(100 * one.robust_accuracy)


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_notebook_shows_an_accessible_table(one):
    page = Tags(one._repr_html_())
    assert not page.open
    tags = [tag for tag, _ in page.seen]
    assert tags.count("caption") == 1
    headers = [attrs.get("scope") for tag, attrs in page.seen if tag == "th"]
    assert headers == ["col"] * 3 + ["row"] * 4
    assert repr(one.robust_accuracy) in page.text
    for sentence in one.notes:
        assert " ".join(sentence.split()) in page.text


def test_names_add_no_markup_to_the_page(labels):
    found = gauntlet.evaluate(made(0), IMAGES, labels, **ASK)
    table = found.per_attack.copy()
    table["attack"] = '<script>alert("x")</script>'
    page = replace(found, per_attack=table, notes=("<b>bold</b>",))._repr_html_()
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;" in page


def test_a_saved_evaluation_is_a_results_folder_that_answers(one, labels, tmp_path, call):
    one.save(tmp_path / "results")
    shown = call("show", str(tmp_path / "results"))
    assert shown.returncode == 0
    board = pd.read_csv(tmp_path / "results" / "leaderboard.csv")
    assert board["robust_accuracy"].tolist() == [pytest.approx(float(one.robust_accuracy))]
    again = gauntlet.evaluate(made(0), IMAGES, labels, **ASK, store=tmp_path / "results")
    assert torch.equal(again.robust, one.robust)
    assert torch.equal(again.adversarials, one.adversarials)
    assert all(block.cached for result in again.cells for block in result.blocks)
    one.save(tmp_path / "results")


def test_an_evaluation_can_be_saved_after_pickling(one, tmp_path):
    copied = pickle.loads(pickle.dumps(one))
    copied.save(tmp_path)
    assert torch.equal(copied.robust, one.robust)
    assert len(pd.read_csv(tmp_path / "leaderboard.csv")) == 1


def test_two_evaluations_are_compared_as_stored_runs_are(one, other, tmp_path):
    found = gauntlet.compare(one, other)
    (line,) = found.to_pandas().to_dict("records")
    test = mcnemar(one.robust.numpy(), other.robust.numpy())
    assert test.only_first + test.only_second > 0
    assert {line["only_first"], line["only_second"]} == {test.only_first, test.only_second}
    assert "[a]" in repr(found)
    assert "[b]" in repr(found)
    assert Tags(found._repr_html_()).text
    one.save(tmp_path / "one")
    other.save(tmp_path / "other")
    stored = compare_runs([tmp_path / "one", tmp_path / "other"])
    numbers = ["only_first", "only_second", "difference", "p_value"]
    same = [name for name in numbers if name in stored.to_pandas()]
    assert len(same) >= 3
    pd.testing.assert_frame_equal(found.to_pandas()[same], stored.to_pandas()[same])
    mixed = gauntlet.compare(one, tmp_path / "other", names=["before", "after"])
    assert "[before]" in repr(mixed)


@pytest.mark.parametrize(("change", "reason"), [({"threat": "Linf:0.1"}, "threat"), ({"attacks": "fgsm"}, "attacks")])
def test_evaluations_of_other_conditions_are_not_compared(one, labels, change, reason):
    with pytest.raises(CompareError, match=reason):
        gauntlet.compare(one, gauntlet.evaluate(made(0), IMAGES, labels, **{**ASK, **change}))


def test_one_evaluation_is_not_enough(one):
    with pytest.raises(ValueError, match="two or more"):
        gauntlet.compare(one)
    with pytest.raises(ValueError, match="own name"):
        gauntlet.compare(one, one, names=["a", "a"])
