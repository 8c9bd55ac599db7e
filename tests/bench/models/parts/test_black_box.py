"""Models of which only the answers can be seen: what they are given, how they are counted, and what may attack them."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from gauntlet.bench.config.schema import Config, DataRef, Group, ModelRef
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.parts.black_box import BlackBox, QueryLimitError, model_access
from gauntlet.bench.models.parts.classifier import Classifier, ModelError, check_model
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.run.engine import Engine
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.rows.build_rows import build_rows

IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
SERVICE = """
import gauntlet, numpy as np, torch
_model = gauntlet.load_model("cnn.standard_digits").module
seen = []
def scores(images):
    assert isinstance(images, np.ndarray) and images.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 1
    seen.append(len(images))
    with torch.no_grad():
        return _model(torch.from_numpy(images)).softmax(1).numpy()
def classes(images):
    return scores(images).argmax(1)
def on_tensors(images):
    return _model(images).argmax(1)
number = 3
"""


@pytest.fixture(autouse=True)
def imports_are_undone(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("service", None)


@pytest.fixture
def service(tmp_path):
    (tmp_path / "service.py").write_text(SERVICE)
    return f"blackbox:{tmp_path}/service.py"


def means(images):
    return np.stack([images.mean((1, 2, 3)), 1 - images.mean((1, 2, 3))], axis=1)


def planned(model, attacks, threat="Linf:0.15", samples="0:20", **settings):
    group = Group((ModelRef(model),), ("none",), attacks, (threat,), DataRef("digits", samples))
    return Config(groups=(group,), device="cpu", **settings)


# --- the box ---


def test_scores_come_back_on_the_images_and_no_gradient_does():
    box = BlackBox(means)
    scores = box(IMAGES.requires_grad_())
    assert scores.dtype == torch.float32
    assert not scores.requires_grad
    np.testing.assert_allclose(scores.numpy(), means(IMAGES.detach().numpy()), rtol=1e-6)
    assert model_access(Classifier(box)) == "scores"


def test_classes_become_scores_of_0_and_1():
    box = BlackBox(lambda images: (images.mean((1, 2, 3)) > 0.5).astype(np.int32), classes=3)
    scores = box(IMAGES)
    assert scores.shape == (5, 3)
    assert scores.sum(1).tolist() == [1.0] * 5
    assert scores.argmax(1).tolist() == (IMAGES.mean((1, 2, 3)) > 0.5).int().tolist()
    assert model_access(box) == "labels"


def test_equal_images_of_a_batch_are_sent_and_counted_once():
    sent = []
    box = BlackBox(lambda images: sent.append(len(images)) or means(images), batch_size=2)
    scores = box(torch.cat([IMAGES[:1].expand(16, -1, -1, -1), IMAGES]))
    assert sent == [2, 2, 1]
    assert box.queries.made == 5
    torch.testing.assert_close(scores[16:], box(IMAGES))


def test_what_exceeds_the_limit_is_not_sent():
    sent = []
    box = BlackBox(lambda images: sent.append(len(images)) or means(images), max_queries=7, name="the service")
    box(IMAGES)
    with pytest.raises(
        QueryLimitError, match="the service has been sent 5 images, and 5 more would exceed max_queries=7"
    ):
        box(1 - IMAGES)
    assert sent == [5]
    box(IMAGES[:2] / 2)
    assert box.queries.made == 7
    assert copy.deepcopy(box).queries is box.queries


@pytest.mark.parametrize(
    ("function", "classes", "message"),
    [
        (lambda images: np.zeros(len(images), dtype=int), None, r"returns classes: .*\(classes=10\)"),
        (lambda images: np.zeros((2, 3)), None, r"returns shape \(2, 3\) for 5 images: return scores"),
        (lambda images: np.zeros((5, 3)), 3, r"with classes=3 return whole numbers \(N,\)"),
        (lambda images: np.full(5, 3), 3, "returns class 3, but classes=3 allows 0 to 2"),
        (lambda images: None, None, "NoneType"),
        (lambda images: 1 / 0, None, r"fails on images of shape \(5, 1, 8, 8\): ZeroDivisionError"),
        (lambda images: np.full((5, 3), np.nan), None, "NaN or infinite"),
    ],
)
def test_answers_that_are_none_are_told(function, classes, message):
    with pytest.raises(ModelError, match=message):
        check_model(Classifier(BlackBox(function, classes=classes)), IMAGES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": 1}, "classes=1 .* at least 2"),
        ({"max_queries": 0}, "max_queries=0 .* at least 1"),
        ({"batch_size": 2.5}, r"batch_size=2\.5 .* whole number"),
        ({"give": "jax"}, "give='jax' .* use one of numpy, torch"),
    ],
)
def test_a_setting_that_cannot_be_one_is_refused(settings, message):
    with pytest.raises(ModelError, match=message):
        BlackBox(means, **settings)


# --- loading ---


def test_a_function_of_a_file_is_a_model(service):
    loaded = load_model(f"{service}:scores")
    inside = load_model("cnn.standard_digits").module
    torch.testing.assert_close(loaded.module(IMAGES), inside(IMAGES).softmax(1).detach())
    assert (loaded.access, loaded.card.access) == ("scores", "scores")
    (flag,) = check_model(loaded.module, IMAGES)
    assert (flag.name, flag.severity) == ("black-box-access", "warn")


def test_a_function_may_be_given_tensors(service):
    loaded = load_model(f"{service}:on_tensors(classes=10, give=torch)")
    assert loaded.access == "labels"
    assert loaded.module(IMAGES).shape == (5, 10)


def test_a_function_that_is_loaded_again_goes_on_counting(service):
    load_model(f"{service}:scores(max_queries=8)").module(IMAGES)
    again = load_model(f"{service}:scores(max_queries=8)").module
    with pytest.raises(QueryLimitError, match="has been sent 5 images"):
        again(1 - IMAGES)


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (":number", "is a int: name a function"),
        (":absent", "has no 'absent'"),
        ("", "write blackbox:FILE.py:FUNCTION"),
        (":scores(limit=3)", "has no setting 'limit': it has classes, max_queries, batch_size, give"),
        (":scores(3)", "is not understood"),
    ],
)
def test_a_function_that_is_named_wrongly_is_told(service, tail, message):
    with pytest.raises(ValueError, match=message):
        load_model((service if tail else "blackbox:service") + tail)
    with pytest.raises(ModelError, match="leave out --weights"):
        load_model(f"{service}:scores", weights="w.pt")


# --- what may attack it ---


def test_suites_come_down_to_the_two_attacks_without_gradients(service):
    plan = make_plan(planned(f"{service}:scores", ("standard", "adaptive")))
    assert [(one.info.suite, one.info.attack) for one in plan.cells] == [
        (suite, attack) for suite in ("standard", "adaptive") for attack in ("square", "hop_skip_jump")
    ]
    assert {one.info.model for one in plan.cells} == {"blackbox:service.scores"}
    assert plan.skipped[0] == (
        "suite 'standard' on blackbox:service.scores but for square and hop_skip_jump: only the outputs can be seen"
    )


def test_where_only_one_of_them_knows_the_norm_it_is_that_one(service):
    plan = make_plan(planned(f"{service}:classes(classes=10)", ("standard",), threat="L1:2"))
    assert [one.info.attack for one in plan.cells] == ["square"]
    assert "but for square: only the predicted classes can be seen" in plan.skipped[0]


def test_attacks_with_gradients_are_left_out_with_the_reason_and_others_are_not(service):
    plan = make_plan(planned(f"{service}:scores", ("pgd(steps=3)", "square(queries=50)", "art.HopSkipJump"), "L2:1"))
    assert [one.info.attack for one in plan.cells] == ["square(queries=50)", "art.HopSkipJump"]
    (reason,) = plan.skipped
    assert reason.startswith(
        "attack 'pgd(steps=3)' on blackbox:service.scores: it takes gradients, and only the outputs"
    )
    with pytest.raises(ValueError, match=r"the plan is empty: attack 'pgd' on .* use square or hop_skip_jump"):
        make_plan(planned(f"{service}:scores", ("pgd",)))


def test_models_beside_it_keep_their_attacks(service):
    group = Group(
        (ModelRef("cnn.standard_digits"), ModelRef(f"{service}:scores")),
        ("none",),
        ("quick",),
        ("L2:1",),
        DataRef("digits"),
    )
    plan = make_plan(Config(groups=(group,)))
    assert [one.info.attack for one in plan.cells] == ["fgsm", "pgd-10", "square", "hop_skip_jump"]


@pytest.mark.parametrize("what", [pytest.param("scores", marks=pytest.mark.slow), "classes(classes=10)"])
def test_it_is_attacked_and_what_breaks_it_breaks_the_network_inside(tmp_path, service, what):
    attacks = ("square(queries=60)", "hop_skip_jump(queries=250)")
    config = planned(
        f"{service}:{what}", attacks, threat="Linf:0.3", samples="0:8", out=tmp_path / "out", checks="none"
    )
    engine = Engine(make_plan(config), config)
    inside = load_model("cnn.standard_digits").module
    for cell in engine.run.plan.cells:
        result = engine.cell(cell)
        assert result.error is None
        (key,) = (block.key for block in result.blocks)
        block = engine.run.store.read(key, adversarial=True)
        assert "black-box-access" in {flag.name for flag in cells.flags(result)}
        assert sum(block.samples.backwards) == 0
        broken = [
            (point, label)
            for point, label in zip(block.samples.adversarial, block.samples.label, strict=True)
            if point is not None
        ]
        assert broken
        points = torch.stack([torch.from_numpy(np.array(point, dtype=np.float32)) for point, _ in broken])
        assert (inside(points).argmax(1) != torch.tensor([int(label) for _, label in broken])).all()


def test_an_exceeded_limit_is_an_error_that_keeps_what_is_finished(tmp_path, service):
    def attempt(limit):
        config = planned(
            f"{service}:scores(max_queries={limit})", ("square(queries=20)",), samples=None, out=tmp_path, checks="none"
        )
        engine = Engine(make_plan(config), config)
        (cell,) = engine.run.plan.cells
        return engine.cell(cell)

    first = attempt(9_000)
    assert first.error is not None
    assert first.error.kind == "QueryLimitError"
    assert "finished blocks are stored" in first.error.message
    assert 0 < len(first.blocks) < 8
    assert len(load_data("digits").labels) == first.expected


def test_the_same_network_as_a_black_box_and_as_itself_is_not_ranked_against_itself(tmp_path, service):
    models = (ModelRef("cnn.standard_digits"), ModelRef(f"{service}:scores"))
    attacks = ("fgsm", "square(queries=20)")
    group = Group(models, ("none",), attacks, ("Linf:0.3",), DataRef("digits", "0:12"))
    config = Config(groups=(group,), device="cpu", checks="none", out=tmp_path / "out")
    only_square = Group(models[:1], ("none",), attacks[1:], ("Linf:0.3",), DataRef("digits", "20:32"))
    alike = Group(models[1:], ("none",), attacks[1:], ("Linf:0.3",), DataRef("digits", "20:32"))
    engine = Engine(make_plan(config := replace(config, groups=(group, only_square, alike))), config)
    for cell in engine.run.plan.cells:
        assert engine.cell(cell).error is None
    rows = build_rows(engine.run.results())
    assert [(row.rank, row.compared) for row in rows] == [(1, 1)] * 4
    assert {row.conditions.access for row in rows} == {"white-box", "scores"}
