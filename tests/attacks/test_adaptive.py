"""Adaptive attacks: chosen by what is measured of a pipeline, shown beside what a naive attacker reports."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
from torch import nn

import gauntlet
from builders import Function, Wrapped, slow_unless
from gauntlet.attacks.adaptive import Adaptive, Pipeline
from gauntlet.attacks.gauntlet import BUDGETS
from gauntlet.attacks.naive import build as build_naive
from gauntlet.attacks.ops.norms import distance, limit
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.solving.solver import Stage, Task, Verification, solve
from gauntlet.attacks.square import Square
from gauntlet.bench.cli.run import execute
from gauntlet.bench.config.schema import load_config
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.run.engine import Engine
from gauntlet.bench.run.tables import write_leaderboard
from gauntlet.defenses.certificates.certify import Certificates
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.defenses.pipeline.profile import pipeline_profile
from gauntlet.leaderboard.report.leaderboard_csv import read_leaderboard

LINF = ThreatModel("Linf", 0.15)


MASKED = {
    "logits x 1000": {"after": lambda logits: 1000 * logits},
    "rounded softmax": {"after": lambda logits: (10 * logits.softmax(1)).round() / 10},
    "bit depth": {"before": lambda x: (3 * x).round() / 3},
    "detached": {"before": lambda x: x.detach() + 0 * x},
}


@pytest.fixture(scope="module")
def digits():
    data = gauntlet.load_data("digits", samples="30")
    return data.images, data.labels


@pytest.fixture(scope="module")
def standard():
    return gauntlet.load_model("cnn.standard_digits").module


@pytest.mark.parametrize("name", [slow_unless(one == "detached", one) for one in MASKED])
def test_a_defense_that_nobody_declared_fools_the_naive_attack_and_not_the_adaptive_one(name, digits, standard):
    model = Wrapped(standard, **MASKED[name])
    result = gauntlet.evaluate(model, *digits, threat=LINF, attacks="naive, adaptive")
    found = {row["attack"]: row["robust_accuracy"] for row in result.per_attack.to_dict("records")}
    assert found["naive"] > (0.85 if name != "bit depth" else 0.5)
    assert found["adaptive"] < 0.5
    assert any(flag.stands({"naive"}) for flag in result.flags)


def test_of_an_honest_undefended_model_adaptive_is_gauntlet_and_no_flag_blocks(digits):
    model = gauntlet.load_model("cnn.trades_digits").module
    adaptive = gauntlet.evaluate(model, *digits, threat=LINF, attacks="adaptive")
    usual = gauntlet.evaluate(model, *digits, threat=LINF, attacks="gauntlet")
    assert not [flag for flag in adaptive.flags if flag.severity == "block"]
    assert abs(float(adaptive.robust_accuracy) - float(usual.robust_accuracy)) <= 0.01
    assert Adaptive("Linf").against(Pipeline()).stages == BUDGETS["gauntlet"]


TABLE = '''
import gauntlet
import torch

class Table(torch.nn.Module):
    """Labels of a network as rows of a table, looked up by Python's numbers: interception sees no way back."""

    def __init__(self):
        super().__init__()
        self.model = gauntlet.load_model("cnn.standard_digits").module
        self.eval()

    def forward(self, x):
        rows = torch.eye(10).tolist()
        return torch.tensor([rows[int(label)] for label in self.model(x).argmax(1)])
'''


def test_labels_that_no_interception_follows_are_broken_by_the_network_behind_them(tmp_path):
    (tmp_path / "table.py").write_text(TABLE)
    options = {"attacks": ["adaptive()"], "threat": ["Linf:0.15"], "samples": "16", "out": str(tmp_path / "out")}
    config = load_config({"model": [f"{tmp_path}/table.py:Table"], **options}, folder=tmp_path)
    engine = Engine(make_plan(config), config)
    (result,) = [engine.cell(cell) for cell in engine.run.plan.cells]
    assert result.error is None, result.error.message
    assert {result.cell.techniques[label] for label in ("inner", "inner-targets")} == {"transfer"}
    (samples,) = [block.samples for block in result.blocks]
    stages = [stage for stage, right in zip(samples.stage, samples.correct, strict=True) if right]
    assert stages.count("") <= 1
    assert sum(stage.startswith("inner") for stage in stages) >= 0.8 * len(stages)


def test_inner_views_are_attacked_where_gradients_are_masked_alone():
    views = tuple((f"inner {place}", "true") for place in range(6))
    stages = Adaptive("Linf").against(Pipeline(masked=True, inner=views)).stages
    labels = [stage.label for stage in stages]
    assert [stage.view for stage in stages if stage.view] == [f"inner {place}" for place in (0, 1, 2, 3, 0)]
    assert labels.index("wide") < labels.index("inner") < labels.index("inner-targets") < labels.index("square")
    assert not any(stage.view for stage in Adaptive("Linf").against(Pipeline(inner=views)).stages)


def techniques(pipeline):
    return {stage.technique for stage in Adaptive("Linf").against(pipeline).stages}


def test_the_stages_are_those_that_the_pipeline_needs():
    assert "transfer" not in techniques(Pipeline())
    assert "black-box" in techniques(Pipeline())
    assert {"transfer", "black-box"} <= techniques(Pipeline(twin=True))
    assert {"beneath", "transfer"} <= techniques(Pipeline(twin=True, beneath=True))
    assert "white-box" not in techniques(Pipeline(randomised=True))
    assert "eot" in techniques(Pipeline(randomised=True))
    first = Adaptive("Linf").against(Pipeline(masked=True)).stages[4]
    assert (first.backward, first.when) == ("through", None)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_every_norm_has_a_cascade_for_every_pipeline(norm):
    for bits in range(16):
        flags = {
            name: bool(bits >> place & 1) for place, name in enumerate(("masked", "randomised", "beneath", "twin"))
        }
        assert Adaptive(norm).against(Pipeline(**flags)).stages


def test_undeclared_randomness_is_measured_attacked_by_expectation_and_flagged(digits, standard):
    model = Wrapped(standard, before=lambda x: (x + 0.1 * torch.randn_like(x)).clamp(0, 1))
    result = gauntlet.evaluate(model, *digits, threat=LINF, attacks="adaptive")
    (flag,) = [flag for flag in result.flags if flag.name == "randomised-defense"]
    assert flag.needs == ("eot",)
    assert not flag.stands({"eot"})
    assert flag.stands({"white-box"})
    assert float(result.robust_accuracy) < 0.5


@pytest.mark.parametrize("threat", [LINF, ThreatModel("L2", 0.5)])
def test_the_naive_attack_ends_at_the_worst_corner_of_a_linear_model_and_stays_inside(threat):
    torch.manual_seed(0)
    weight, images = torch.randn(16), 0.3 + 0.4 * torch.rand(5, 1, 4, 4)
    model, labels = Linear(weight), torch.zeros(5, dtype=torch.int64)
    points = build_naive(threat)(model, images, labels, seed=0)
    step = weight.sign() if threat.norm == "Linf" else weight / weight.norm()
    best = (images + threat.eps * step.view(1, 1, 4, 4)).clamp(0, 1)
    gained, most = ((one - images).flatten(1) @ weight for one in (points, best))
    assert (gained > 0.95 * most).all()
    assert (distance(points, images, threat.norm) <= limit(threat)).all()
    assert torch.equal(points, build_naive(threat)(model, images, labels, seed=0))


def test_the_naive_attack_stops_at_its_start_where_no_gradient_is():
    images = torch.full((2, 1, 4, 4), 0.5)
    blind = Wrapped(Linear(torch.ones(16)), before=torch.Tensor.detach)
    points = build_naive(LINF)(blind, images, torch.zeros(2, dtype=torch.int64), seed=0)
    assert 0 < (points - images).abs().max() <= LINF.eps + 1e-7


# What a stage is shown, and what judges it


class Linear(nn.Module):
    """Two classes: the second beyond a hyperplane."""

    def __init__(self, weight, bias=0.0):
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x):
        score = x.flatten(1) @ self.weight + self.bias
        return torch.stack([torch.zeros_like(score), score], 1)


def verdict(model, rejects=False):
    def verify(points, samples, attempt):
        outputs = model(points)
        won = outputs.argmax(1) == 1
        return Verification(won, torch.zeros_like(won), torch.zeros_like(won))

    return verify


def run(model, rule, *, view=None, images=None, rejects=False):
    images = torch.full((4, 1, 2, 2), 0.5) if images is None else images
    labels = torch.zeros(len(images), dtype=torch.int64)
    ids = [str(i) for i in range(len(images))]
    task = Task(images, labels, ids, ThreatModel("Linf", 0.1), 0, "t", clean_logits=model(images))
    stages = [Stage("only", rule, view="shown" if view is not None else "")]
    views = {} if view is None else {"shown": view}
    found = solve(stages, model, task, verdict(model), classes=2, views=views, rejects=rejects)
    return sorted(found, key=lambda one: one.sample)


def test_a_view_gives_the_gradients_and_the_model_itself_the_verdict_each_pass_counted():
    ones, opposite = torch.ones(4), -torch.ones(4)
    # The model breaks beyond +0.3 in all; its view points there, or the other way.
    model = Linear(ones, -2.3)
    helpful = run(model, PGD(steps=5, random_start=False), view=Linear(ones, -2.0))
    assert all(one.adversarial is not None for one in helpful)
    misled = run(model, PGD(steps=5, random_start=False), view=Linear(opposite, 2.0))
    assert all(one.adversarial is None for one in misled)
    plain = run(model, PGD(steps=5, random_start=False, loss="cw"))
    assert all(one.adversarial is not None for one in plain)
    # Five gradients and the last point: each of the six is put to the model as well.
    assert {(one.forwards, one.backwards) for one in misled} == {(12, 5)}


class Rejecting(nn.Module):
    """The same, and everything whose mean leaves the band is rejected."""

    def __init__(self, model, band):
        super().__init__()
        self.model, self.band = model, band

    def forward(self, x):
        logits = self.model(x)
        excess = (x.flatten(1).mean(1) - 0.5).abs() - self.band
        return torch.cat([logits, (logits.amax(1) + 10 * excess)[:, None]], 1)


def test_an_example_must_pass_the_detector_to_count():
    model = Linear(torch.tensor([1.0, -1.0, 1.0, -1.0]), -0.2)
    loud = Linear(torch.ones(4), -2.2)
    found = run(Rejecting(model, 0.02), PGD(steps=20), rejects=True)
    assert all(one.adversarial is not None for one in found), "it can be reached without moving the mean"
    stopped = run(Rejecting(loud, 0.02), PGD(steps=20), rejects=True)
    assert all(one.adversarial is None for one in stopped), "a move of the mean by 0.05 is rejected"
    assert all(one.adversarial is None for one in run(Rejecting(loud, 0.02), Square(queries=50), rejects=True))


def test_a_rejected_clean_image_is_not_correct_and_a_rejected_example_is_no_success(digits, standard, tmp_path):
    rows = {}
    for text in ("none", "confidence_detector"):
        config = load_config(
            {
                "model": ["cnn.standard_digits"],
                "defense": [text],
                "attacks": ["pgd(steps=10)"],
                "threat": ["Linf:0.15"],
                "samples": "100",
                "out": str(tmp_path / text),
            },
            folder=tmp_path,
        )
        engine = Engine(make_plan(config), config)
        (result,) = [engine.cell(cell) for cell in engine.run.plan.cells]
        assert result.error is None, result.error.message
        rows[text] = result.blocks[0].samples
    plain, guarded = rows["none"], rows["confidence_detector"]
    assert set(guarded.clean_prediction[guarded.clean_prediction != plain.clean_prediction]) <= {-1}
    assert not guarded.correct[guarded.clean_prediction == -1].any()
    broken = guarded.correct & ~guarded.robust
    assert (guarded.prediction[broken] >= 0).all()


# The suite


PLAN = """
attacks = "adaptive"
threat = "Linf:0.15"
samples = "20"

[[group]]
model = ["cnn.standard_digits"]
defense = ["none", "bit_depth"]

[[group]]
model = ["cnn.ibp_digits"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("suite")
    (root / "gauntlet.toml").write_text(PLAN)
    options = {"out": str(root / "results")}
    config = load_config(options, folder=root)
    engine = Engine(make_plan(config), config)
    results = [engine.cell(cell) for cell in engine.run.plan.cells]
    return root, options, engine, results


def test_replays_come_last_and_certificates_only_where_one_may_be_computed(folder):
    _, _, engine, results = folder
    names = [(cell.info.defense, cell.info.attack) for cell in engine.run.plan.cells]
    assert [attack for _, attack in names[-3:]] == ["replay"] * 3
    assert {defense for defense, attack in names if attack == "certificate"} == {"none"}
    assert all(result.error is None for result in results)


def test_a_second_run_is_answered_from_the_store_replays_included(folder):
    root, options, _, first = folder
    config = load_config(options, folder=root)
    again = Engine(make_plan(config), config)
    results = [again.cell(cell) for cell in again.run.plan.cells]
    assert all(block.cached for result in results for block in result.blocks)
    assert [len(one.blocks) for one in results] == [len(one.blocks) for one in first]


def test_a_replay_passes_over_blocks_that_cannot_be_read(folder, tmp_path):
    root, _, engine, _ = folder
    store = shutil.copytree(root / "results" / "store", tmp_path / "store")
    blocks = {cell.info.model + cell.info.attack: engine.run.result(cell).blocks for cell in engine.run.plan.cells}
    (cut,), (scratched,) = blocks["cnn.ibp_digitsnaive"], blocks["cnn.ibp_digitsadaptive"]
    (file,) = store.rglob(f"{cut.key}.parquet")
    file.write_bytes(b"PAR1 cut short")
    (file,) = store.rglob(f"{scratched.key}.parquet")
    stored = file.read_bytes()
    file.write_bytes(stored[:4] + bytes(len(stored) // 2) + stored[4 + len(stored) // 2 :])
    options = {"model": ["cnn.standard_digits"], "attacks": ["replay"], "threat": ["Linf:0.15"], "samples": "20"}
    config = load_config({**options, "out": str(tmp_path)}, folder=tmp_path)
    again = Engine(make_plan(config), config)
    (found,) = [again.cell(cell) for cell in again.run.plan.cells]
    assert found.error is None
    assert sum(int((block.samples.correct & ~block.samples.robust).sum()) for block in found.blocks) > 5


def test_a_replay_breaks_with_examples_of_other_rows_which_hold_when_verified(folder):
    _, _, _engine, results = folder
    replayed = [one for one in results if one.cell.attack == "replay" and one.cell.model == "cnn.standard_digits"]
    broken = {
        one.cell.defense: sum(int((b.samples.correct & ~b.samples.robust).sum()) for b in one.blocks)
        for one in replayed
    }
    assert broken["none"] > 5
    assert broken["bit_depth"] > 5
    assert all(b.samples.backwards.sum() == 0 for one in replayed for b in one.blocks)
    ids = [str(name) for b in replayed[0].blocks for name in b.samples.id]
    assert len(set(ids)) == 20


def test_the_leaderboard_shows_naive_before_adaptive_and_the_bracket(folder):
    _, _, engine, _ = folder
    files = write_leaderboard(engine.run, engine.run.results())
    table = read_leaderboard(files.leaderboard_csv).set_index(["model", "defense"])
    ibp = table.loc[("cnn.ibp_digits", "none")]
    assert ibp["certified_accuracy"] <= ibp["robust_accuracy"] <= ibp["naive_accuracy"]
    assert ibp["open"] == round(20 * (ibp["robust_accuracy"] - ibp["certified_accuracy"]))
    assert table.loc[("cnn.standard_digits", "bit_depth"), "techniques"] == "black-box bpda naive probe transfer"
    text = files.markdown.read_text()
    assert " → " in text
    assert "certified" in text


def test_a_certificate_that_an_example_refutes_makes_the_run_fail(tmp_path, monkeypatch, capsys):
    def boast(model, images, labels, threat, *, ids, time_limit, net=None):
        every = torch.ones(len(labels), dtype=torch.bool)
        return Certificates(every, images, ~every, ("ibp",) * len(labels), {})

    monkeypatch.setattr("gauntlet.bench.executors.certificate.certify", boast)
    options = {
        "model": ["cnn.standard_digits"],
        "attacks": ["pgd(steps=5)", "certificate"],
        "threat": ["Linf:0.15"],
        "samples": "20",
        "out": str(tmp_path),
    }
    assert execute(options) == 1
    printed = capsys.readouterr()
    assert "CONTRADICTION" in printed.err
    assert "ERROR" in printed.out


@pytest.mark.parametrize("name", gauntlet.list_models("cnn.*_digits"))
def test_nothing_in_an_honest_network_is_taken_for_a_mask(name):
    data = gauntlet.load_data("digits", samples="16")
    pipeline = DefendedModel(gauntlet.load_model(name).module, differentiable=True, randomised=False).eval()
    profile = pipeline_profile(pipeline, data.images[:], data.labels)
    assert profile.gradients == "useful"
    assert profile.intercepted == ()


def test_what_hides_a_gradient_is_named_with_its_line():
    def labels(logits):
        return nn.functional.one_hot(logits.argmax(1), 10).float()

    data = gauntlet.load_data("digits", samples="16")
    module = Wrapped(gauntlet.load_model("cnn.standard_digits").module, after=labels)
    pipeline = DefendedModel(module, differentiable=True, randomised=False).eval()
    profile = pipeline_profile(pipeline, data.images[:], data.labels)
    assert profile.gradients == "none"
    (first, *_) = profile.intercepted
    assert re.fullmatch(r"argmax in test_adaptive\.py:\d+", first)


def test_an_undeclared_vote_over_noisy_copies_is_attacked_through_its_votes():
    def vote(model):
        def forward(x):
            copies = torch.stack([model(x + 0.1 * torch.randn_like(x)).argmax(1) for _ in range(5)])
            return nn.functional.one_hot(copies, 10).sum(0).float()

        return Function(forward).eval()

    data = gauntlet.load_data("digits", samples="12")
    model = vote(gauntlet.load_model("cnn.standard_digits").module)
    found = gauntlet.evaluate(model, data, threat="Linf:0.15", attacks="adaptive")
    assert found.clean_accuracy > 0.9
    assert found.robust_accuracy <= 0.25


@pytest.mark.parametrize(
    ("after", "kind"),
    [
        (None, "scores"),
        (lambda z: nn.functional.one_hot(z.argmax(1), 10).float(), "labels"),
        (lambda z: 3.0 * nn.functional.one_hot(z.topk(3, 1).indices, 10).sum(1) / 5, "votes"),
        (lambda z: z.softmax(1), "probabilities"),
    ],
)
def test_the_profile_tells_labels_and_votes_from_scores(after, kind):
    data = gauntlet.load_data("digits", samples="16")
    module = Wrapped(gauntlet.load_model("cnn.standard_digits").module, after=after)
    pipeline = DefendedModel(module, differentiable=True, randomised=False).eval()
    assert pipeline_profile(pipeline, data.images[:], data.labels).outputs == kind


@pytest.mark.parametrize(
    ("norm", "pipeline", "wanted"),
    [
        ("Linf", Pipeline(), False),
        ("Linf", Pipeline(twin=True), False),
        ("L2", Pipeline(masked=True), True),
        ("L1", Pipeline(masked=True), False),
        ("Linf", Pipeline(masked=True, randomised=True, noise=1.0), False),
    ],
)
def test_what_masks_its_gradients_is_attacked_by_decisions_too(norm, pipeline, wanted):
    stages = Adaptive(norm).against(pipeline).stages
    assert any(stage.technique == "decision-based" for stage in stages) == wanted
