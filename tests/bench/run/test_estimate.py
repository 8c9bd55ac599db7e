"""The estimate of a dry run: the seconds of earlier runs where there are any, else those of timed passes; nothing is written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.config.schema import load_config
from gauntlet.bench.environment.provenance import device_name
from gauntlet.bench.executors.settings import gradient_steps
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.run.engine import Engine
from gauntlet.bench.run.estimate import estimate
from gauntlet.bench.run.stored_costs import seconds_a_sample, stored_costs
from solving import built

RUN = {"model": ["model.py:build"], "data": "data.npz", "threat": ["Linf:0.1"], "out": "out"}


@pytest.fixture
def engine(tmp_path, tiny, monkeypatch):
    tiny.write_project(tmp_path)
    monkeypatch.chdir(tmp_path)

    def make(*attacks, dry=True, **options):
        config = load_config({**RUN, "attacks": list(attacks), **options}, folder=tmp_path)
        return Engine(make_plan(config), config, dry=dry)

    return make


def ran(engine):
    for cell in engine.run.plan.cells:
        assert engine.cell(cell).error is None
    return engine


def test_passes_are_timed_where_nothing_is_stored_and_nothing_is_written(engine, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    cells = estimate(
        engine("fgsm", "pgd(steps=50)", "torchattacks.PGD(steps=50)", "torchattacks.Square", "certificate")
    )
    assert [(cell.n, cell.stored) for cell in cells] == [(30, 0)] * 5
    assert [cell.basis for cell in cells] == ["passes"] * 3 + [""] * 2
    assert all(cell.seconds > 0 for cell in cells[:3])
    assert [cell.seconds for cell in cells[3:]] == [None, None]
    assert [path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in path.parts] == before


def test_what_an_attack_cost_a_sample_before_is_what_others_are_expected_to_cost(engine):
    attacks = ("pgd(steps=5)", "torchattacks.Square(queries=5)")
    first = ran(engine(*attacks, dry=False, samples="0:10"))
    spent = {
        cost.cell.attack_spec: cost.seconds
        for cost in stored_costs(first.run.store, device_name(first.settings.device))
    }
    assert len(spent) == 2
    again = engine(*attacks, samples="10:30")
    for cell, planned in zip(estimate(again), again.run.plan.cells, strict=True):
        assert (cell.basis, cell.n, cell.stored) == ("before", 20, 0)
        assert cell.seconds == pytest.approx(20 * spent[planned.info.attack_spec] / 10)
    assert [(cell.stored, cell.seconds) for cell in estimate(engine(*attacks, samples="0:10"))] == [(10, 0.0)] * 2
    assert all(cell.stored == 0 for cell in estimate(engine(*attacks, samples="0:10", fresh=True)))


def test_costs_of_other_attacks_pipelines_and_devices_do_not_count(engine):
    done = ran(engine("pgd(steps=5)", dry=False))
    (info,) = [cell.info for cell in done.run.plan.cells]
    costs = stored_costs(done.run.store, device_name(done.settings.device))
    assert seconds_a_sample(costs, info) == seconds_a_sample(costs, replace(info, threat="Linf:0.2"))
    for change in ({"model": "other"}, {"defense": "jpeg"}, {"attack_spec": "fgsm"}, {"norm": "L2"}):
        assert seconds_a_sample(costs, replace(info, **change)) is None
    near = [*costs, replace(costs[0], cell=replace(info, threat="Linf:0.2"), seconds=1000.0)]
    assert seconds_a_sample(near, info) == seconds_a_sample(costs, info)
    assert stored_costs(done.run.store, "cuda:0 (another)") == []


def test_a_model_that_cannot_be_built_is_an_error_of_its_cells(engine, tmp_path):
    (tmp_path / "model.py").write_text("def build():\n    raise OSError('no weights here')\n")
    (cell,) = estimate(engine("fgsm"))
    assert "no weights here" in cell.error
    assert cell.seconds is None


@pytest.mark.parametrize(
    ("attack", "steps"),
    [
        ("torchattacks.APGD(steps=7, restarts=2)", None),
        ("torchattacks.PGD(steps=7)", 7),
        ("naive(steps=6)", 6),
        ("torchattacks.CW(steps=7)", None),
    ],
)
def test_an_attack_that_states_its_steps_states_its_passes(attack, steps):
    threat = ThreatModel("L2", 0.1)
    assert gradient_steps(built(attack, threat)) == steps
