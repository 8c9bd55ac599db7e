"""Runs towards a class: stored, shown, verified again, and what they refuse."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import gauntlet
from builders import linear, reseal, slow_unless
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.report.cells_csv import read_cells
from gauntlet.leaderboard.rows.build_rows import build_rows

ATTACKS_RUN = (
    "pgd(steps=10),cw(steps=20, search_steps=3),torchattacks.PGD(steps=10),art.ProjectedGradientDescent(steps=10)"
)


RUN = ("run", "--model=model.py:build", "--data=data.npz", "--out=out")


def samples(root):
    """The samples of the latest run, by attack and threat model."""
    run = load_run(root / "out")
    return {
        (cell.info.attack, cell.info.threat): run.result(cell, adversarial=True).blocks[0].samples
        for cell in run.plan.cells
    }


@pytest.mark.parametrize("target", [slow_unless(False, "3"), "next", slow_unless(False, "random")])
def test_a_run_towards_a_class_is_stored_shown_and_verified_again(project, call, target):
    threat = f"Linf:0.25:target={target}"
    done = call(*RUN, f"--attacks={ATTACKS_RUN}", f"--threat={threat}", f"--threat=L2:1.0:target={target}")
    assert done.returncode == 0, done.stderr
    assert "Targeted: robust means" in done.stdout
    found = samples(project)
    assert {name for name, _ in found} == {
        "pgd(steps=10)", "cw(search_steps=3, steps=20)", "torchattacks.PGD(steps=10)", "art.ProjectedGradientDescent(steps=10)",
    }  # fmt: skip
    for (_, text), one in found.items():
        targets = ThreatModel.parse(text).targets(torch.from_numpy(one.label), 10, one.id.tolist()).numpy()
        moved = ~np.isnan(one.distance)
        assert 3 <= moved.sum() < len(one)
        np.testing.assert_array_equal(one.prediction[moved], targets[moved])
        assert (one.margin[moved] < 0).all()
        assert not moved[targets == one.label].any()
        np.testing.assert_array_equal(one.forwards[targets == one.label], 0)
        np.testing.assert_array_equal(one.robust[targets == one.label], one.correct[targets == one.label])
    assert f"## Linf:0.25\\:target={target}\n" in (project / "out/leaderboard.md").read_text()
    assert "Targeted: robust means" in (project / "out/leaderboard.md").read_text()
    assert set(read_cells(project / "out/cells.csv")["threat"]) == {threat, f"L2:1.0:target={target}"}
    checked = call("verify", "out", "--trust")
    assert checked.returncode == 0, checked.stdout
    assert "0 failures" in checked.stdout
    again = call(*RUN, f"--attacks={ATTACKS_RUN}", f"--threat={threat}", f"--threat=L2:1.0:target={target}")
    assert again.stdout.count("(stored)") + again.stderr.count("(stored)") == len(found)


def test_a_randomised_model_is_moved_where_most_draws_say_the_target(project, call):
    assert call(*RUN, "--attacks=pgd(steps=20)", "--threat=Linf:0.3:target=3", "--defense=input_noise").returncode == 0
    (one,) = samples(project).values()
    moved = one.correct & ~one.robust
    assert moved.any()
    assert (one.prediction[moved] == 3).mean() > 0.9
    assert (one.wrong_share[one.robust & np.isnan(one.distance)] < 0.5).all()
    assert (one.label[moved] != 3).all()


def test_targeted_and_untargeted_results_share_a_folder_and_no_comparison(project, call):
    threats = ("Linf:0.1", "Linf:0.1:target=3", "Linf:0.1:target=4")
    assert call(*RUN, "--attacks=pgd(steps=5)", *(f"--threat={text}" for text in threats)).returncode == 0
    found = samples(project)
    robust = [found["pgd(steps=5)", text].robust.mean() for text in threats]
    assert robust[0] < min(robust[1:])
    table = build_rows(load_run(project / "out").results())
    assert [row.threat for row in table] == list(threats)
    assert len({row.comparison for row in table}) == 3
    assert [row.rank_interval for row in table] == [(1, 1)] * 3


def test_an_example_that_is_not_of_its_target_fails_verification(project, call):
    assert call(*RUN, "--attacks=pgd(steps=10)", "--threat=Linf:0.25:target=3").returncode == 0
    run = load_run(project / "out")
    ((key, _),) = run.keys(run.plan.cells[0])
    path, held = run.store.path(key), run.store.read(key, adversarial=True).samples
    row = int(np.flatnonzero(~np.isnan(held.distance))[0])
    clean = np.load(project / "data.npz")["images"][row]
    # As far on the other side: valid, at the stored distance, and still no 3.
    mirrored = np.clip(2 * clean - held.adversarial[row], 0, 1)
    assert abs(np.abs(mirrored - clean).max() - held.distance[row]) < 1e-6
    table = pq.read_table(path)
    examples = table["adversarial"].to_pylist()
    examples[row] = mirrored.astype(np.float32).tobytes()
    place = table.column_names.index("adversarial")
    table = table.set_column(place, "adversarial", pa.array(examples, table.schema.field("adversarial").type))
    path.unlink()
    pq.write_table(table, path)
    reseal(run.store, key)
    failed = call("verify", "out", "--trust")
    assert failed.returncode == 1
    assert "the stored example is not classified as its target (Linf:0.25:target=3)" in failed.stdout


def test_a_class_that_no_model_has_is_an_error_that_names_it_and_how_many_there_are(project, call):
    done = call(*RUN, "--attacks=fgsm", "--threat=Linf:0.1:target=10")
    assert done.returncode == 1
    assert re.search(r"target 10 of threat model Linf:0\.1:target=10 .*which has 10: use 0 to 9", done.stderr)
    wrong = call(*RUN, "--attacks=fgsm", "--threat=Linf:0.1:target=ten")
    assert wrong.returncode == 2
    assert "'ten'" in wrong.stderr


@pytest.mark.parametrize(
    ("named", "where"),
    [
        (("--model=cnn.fast_digits", "--data=data.npz"), "model 'cnn.fast_digits', which has 10"),
        (("--model=model.py:build", "--data=digits"), "data 'digits', which has 10"),
        (("--model=cnn.standard_pairs", "--data=pairs", "--isolate"), "model 'cnn.standard_pairs', which has 100"),
    ],
)
def test_a_class_that_registered_data_do_not_have_is_wrong_usage_and_nothing_is_run(project, call, named, where):
    done = call("run", *named, "--attacks=fgsm", "--threat=Linf:0.1", "--threat=Linf:0.1:target=100", "--out=out")
    assert done.returncode == 2, done.stdout
    assert f"--threat Linf:0.1:target=100: target 100 is not a class of {where}: use 0 to" in " ".join(
        done.stderr.split()
    )
    assert not (project / "out").exists()


def test_the_configuration_names_targets(project, call):
    (project / "gauntlet.toml").write_text(
        'model = "model.py:build"\ndata = "data.npz"\nattacks = "fgsm"\nout = "out"\n'
        'threat = ["Linf:0.1", "Linf:1/10:target=next"]\n'
        '[[expect]]\nthreat = "Linf:0.1:target=next"\nmin_robust = 1.0\n'
    )
    done = call("run")
    assert done.returncode == 1
    (problem,) = [line for line in done.stderr.splitlines() if line.startswith("PROBLEM")]
    assert "Linf:0.1:target=next" in problem


def test_a_plan_without_targets_is_written_as_before_there_were_any(project, call):
    assert call(*RUN, "--attacks=fgsm", "--threat=Linf:0.1").returncode == 0
    assert '"target"' not in (load_run(project / "out").folder / "run.json").read_text()


def test_evaluate_takes_a_target(tiny):
    images, labels = torch.from_numpy(tiny.IMAGES[:40]), torch.from_numpy(tiny.LABELS[:40])
    means = torch.stack([images[labels == label].mean(0).flatten() for label in range(10)])
    model = linear(2 * means, -means.square().sum(1), dtype=torch.float32)
    result = gauntlet.evaluate(model, images, labels, threat="Linf:0.3:target=3", attacks="pgd(steps=10)")
    moved = result.correct & ~result.robust
    assert 5 < moved.sum() < 40
    assert (model(result.adversarials[moved]).argmax(1) == 3).all()
    assert result.robust[result.correct & (labels == 3)].all()
    assert "not moved to class 3" in repr(result)
    with pytest.raises(ValueError, match=r"target 12 .*has 10"):
        gauntlet.evaluate(model, images, labels, threat="Linf:0.3:target=12", attacks="fgsm")
