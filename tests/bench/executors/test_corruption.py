"""Corruptions as cells: run, stored, verified and shown beside attacks, and never among them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import gauntlet
from builders import cell_info, result
from gauntlet.bench.corruptions.corrupt import corrupt
from gauntlet.bench.gate.early_run import gated
from gauntlet.bench.gate.snapshot import snapshot
from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.compare.broken_by import broken_by
from gauntlet.leaderboard.gate.baseline import baseline_of
from gauntlet.leaderboard.report.cells_csv import read_cells
from gauntlet.leaderboard.report.leaderboard_csv import read_leaderboard
from gauntlet.leaderboard.report.markdown_writer import RunContext, markdown_report
from gauntlet.leaderboard.report.terminal import terminal_table
from gauntlet.leaderboard.results.block_file import to_bytes
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.corruptions import ALEXNET, accuracy, by_severity, corruption_accuracy, mean_of
from gauntlet.leaderboard.rows.crosschecks import cross_flags
from gauntlet.leaderboard.rows.worst_case import worst_case
from gauntlet.leaderboard.stats.proportions import Proportion

RUN = ("run", "--model=model.py:build", "--data=data.npz", "--threat=Linf:0.15", "--out=out")
FEW = "corruption.contrast,corruption.gaussian_noise"
CONTEXT = RunContext(("Linf:0.15",), "digits")


def records(root="out"):
    """The blocks of the latest run's cells, by attack."""
    run = load_run(Path(root))
    return {cell.info.attack: run.result(cell).blocks for cell in run.plan.cells}


def only_row(root):
    (line,) = read_leaderboard(root / "out/leaderboard.csv").to_dict("records")
    return line


# A run


def test_one_leaderboard_has_clean_adversarial_and_corruption_accuracy(project, call):
    alone = call(*RUN, "--attacks=quick")
    assert alone.returncode == 0, alone.stderr
    before = only_row(project)
    assert math.isnan(before["corruption_accuracy"])
    assert "corr. %" not in alone.stdout
    assert "Corruptions" not in (project / "out/leaderboard.md").read_text()
    done = call(*RUN, "--attacks=quick,corruptions")
    assert done.returncode == 0, done.stderr
    line = only_row(project)
    kept = ("suite", "rank", "n", "robust_accuracy", "robust_low", "robust_high", "clean_accuracy", "worst_attack", "worst_class",
            "forwards_per_sample", "backwards_per_sample", "flags", "unranked", "status", "techniques")  # fmt: skip
    assert {name: line[name] for name in kept} == {name: before[name] for name in kept}
    assert line["corruptions"] == 14
    assert line["corruption_n"] == 30
    assert 0.3 < line["corruption_accuracy"] < line["clean_accuracy"]
    assert line["corruption_low"] < line["corruption_accuracy"] < line["corruption_high"]
    assert line["mce"] == pytest.approx(1 - line["corruption_accuracy"])
    assert math.isnan(line["mce_alexnet"])
    assert line["corruption_seconds"] > 0
    assert "corr. %" in done.stdout
    text = (project / "out/leaderboard.md").read_text()
    assert "| clean | corruptions | certified |" in text
    assert "## Corruptions" in text
    assert "| severity 1 | severity 2 |" in text
    cells = read_cells(project / "out/cells.csv")
    corrupted = cells[cells["attack_kind"] == "corruption"]
    assert len(corrupted) == 14
    assert corrupted["robust_accuracy"].isna().all()
    severities = corrupted[[f"severity_{one}" for one in range(1, 6)]]
    np.testing.assert_allclose(severities.mean(axis=1), corrupted["corruption_accuracy"])
    assert corrupted["corruption_accuracy"].mean() == pytest.approx(line["corruption_accuracy"])
    assert cells[cells["attack_kind"] != "corruption"]["corruption_accuracy"].isna().all()


def test_a_cell_counts_what_the_model_makes_of_the_corrupted_images_right_when_clean_or_not(project, call):
    assert call(*RUN, "--attacks=corruption.contrast,corruption.fog(severity=3)").returncode == 0
    (block,) = records()["corruption.contrast"]
    model, data = gauntlet.load_model("model.py:build").module, gauntlet.load_data("data.npz")
    shown = [corrupt(data.images, data.ids, "contrast", one, seed=0) for one in range(1, 6)]
    with torch.no_grad():
        predicted = torch.stack([model(images).argmax(1) for images in shown])
    wrong = (predicted != data.labels).numpy()
    samples = block.samples
    np.testing.assert_allclose(samples.wrong_share, wrong.mean(0))
    assert list(samples.severities) == [" ".join(str(s + 1) for s in np.flatnonzero(column)) for column in wrong.T]
    np.testing.assert_array_equal(samples.robust, samples.correct & ~wrong.any(0))
    assert (~samples.correct).any()
    assert set(samples.forwards) == {5}
    assert set(samples.backwards) == {0}
    assert all(example is None for example in samples.adversarial)
    assert np.isnan(samples.distance).all()
    (block,) = records()["corruption.fog(severity=3)"]
    assert block.cell.severities == (3,)
    assert dict(block.cell.techniques) == {"": "corruption"}
    assert set(block.samples.wrong_share) == {0, 1}
    assert set(block.samples.forwards) == {1}


def test_stored_cells_answer_and_a_fresh_run_finds_the_same(project, call):
    asked = (*RUN, f"--attacks={FEW}")
    assert call(*asked).returncode == 0
    assert call(*asked).stderr.count("(stored)") == 2
    fresh = call(*asked, "--fresh")
    assert fresh.returncode == 0, fresh.stderr
    assert "(stored)" not in fresh.stderr
    assert "(stored)" not in call(*asked, "--seed=1").stderr


def test_the_batch_size_and_more_samples_change_no_sample(project, call, tiny):
    asked = ("run", "--model=model.py:build", "--threat=Linf:0.15", f"--attacks={FEW}")
    tiny.write_data(project, 120, "many.npz")
    assert call(*asked, "--data=many.npz", "--samples=40", "--out=few").returncode == 0
    assert call(*asked, "--data=many.npz", "--batch-size=7", "--out=many").returncode == 0
    few, many = records("few"), records("many")
    for name, (block,) in few.items():
        assert len(many[name]) == 2
        assert list(many[name][0].samples.severities)[:40] == list(block.samples.severities)


def test_a_verification_makes_the_images_again_and_compares(project, call):
    assert call(*RUN, f"--attacks=pgd(steps=3),{FEW}").returncode == 0
    assert call("verify", "out", "--trust").returncode == 0
    run = load_run(project / "out")
    cell = next(cell for cell in run.plan.cells if cell.info.attack == "corruption.contrast")
    ((key, _),) = run.keys(cell)
    samples = run.store.read(key, adversarial=True).samples
    row = int(np.flatnonzero(samples.correct & ~samples.robust)[0])
    name = str(samples.id[row])
    # A sample that falls is said to stand, consistently.
    stages = [text if place != row else "" for place, text in enumerate(samples.severities)]
    robust, share, scored = samples.robust.copy(), samples.wrong_share.copy(), samples.wrong_share_scored.copy()
    robust[row], share[row], scored[row] = True, 0, 0
    forged = replace(samples, severities=tuple(stages), robust=robust, wrong_share=share, wrong_share_scored=scored)
    rewrite(run.store, key, forged)
    failed = call("verify", "out", "--trust")
    assert failed.returncode == 1
    assert f"{name}: misclassified at severities" in failed.stdout
    assert "stored: none" in failed.stdout


def rewrite(store, key, samples):
    """The block with other outcomes, under digests that fit them."""
    record = store.read(key, adversarial=True)
    store.path(key).write_bytes(to_bytes(replace(record, samples=samples)))


def test_a_target_has_no_say_in_a_corruption(project, call):
    assert (
        call(*RUN[:3], "--threat=Linf:0.15:target=3", "--threat=Linf:0.15", f"--attacks={FEW}", "--out=out").returncode
        == 0
    )
    run = load_run(project / "out")
    shares = {}
    for cell in run.plan.cells:
        (block,) = run.result(cell).blocks
        shares.setdefault(cell.info.attack, []).append(block.samples.wrong_share)
    for first, second in shares.values():
        np.testing.assert_array_equal(first, second)


def test_a_randomised_model_is_judged_by_most_of_its_draws_and_a_rejection_is_no_label(project, call):
    done = call(*RUN, f"--attacks={FEW}", "--defense=input_noise,confidence_detector", "--samples=12")
    assert done.returncode == 0, done.stdout + done.stderr
    run = load_run(project / "out")
    for cell in run.plan.cells:
        (block,) = run.result(cell).blocks
        random = cell.info.defense == "input_noise"
        assert set(block.samples.forwards) == {200 if random else 5}
        assert set(block.samples.wrong_share) <= {0, 0.2, 0.4, 0.6, 0.8, 1}
        refused = block.samples.prediction == -1
        assert (block.samples.wrong_share[refused] > 0).all()
    assert call("verify", "out", "--trust").returncode == 0


def test_corruptions_alone_make_a_row_without_rank(project, call):
    done = call(*RUN, f"--attacks=corruptions,{FEW}")
    assert done.returncode == 0, done.stderr
    line = only_row(project)
    assert pd.isna(line["rank"])
    assert "No attack was run" in line["unranked"]
    assert line["n"] == 0
    assert line["corruptions"] == 16
    assert math.isnan(line["robust_accuracy"])
    assert line["clean_n"] == 30
    compared = call("compare", "out")
    assert compared.returncode == 2, compared.stdout


def test_a_corruption_that_fails_takes_no_rank_and_leaves_no_mean(project, call):
    done = call(*RUN, f"--attacks=pgd(steps=3),corruption.saturate,{FEW}")
    assert done.returncode == 1
    assert "corruption 'saturate' is for images of 3 channels, not of 1" in done.stderr
    line = only_row(project)
    assert line["rank"] == 1
    assert line["status"] == "ok"
    assert math.isnan(line["corruption_accuracy"])
    text = (project / "out/leaderboard.md").read_text()
    assert "corruption 'saturate' is for images of 3 channels" in text.replace("\\", "")
    assert "| error |" in text


@pytest.mark.parametrize(
    ("attacks", "told"),
    [
        ("corruption.fog(severity=6)", "severity=6 must be a whole number from 1 to 5"),
        ("corruption.fogg", "did you mean corruption.fog"),
        ("corruption.fog(table=mnist)", "table='mnist' is not known"),
        ("corruption", "unknown attack 'corruption'"),
    ],
)
def test_what_makes_no_sense_ends_in_one_sentence(project, call, attacks, told):
    done = call(*RUN, f"--attacks={attacks}")
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_gate_knows_nothing_of_corruptions(project, call):
    assert call(*RUN, f"--attacks=pgd(steps=3),{FEW}").returncode == 0
    run = load_run(project / "out")
    assert [cell.attack for cell in snapshot(run).cells] == ["pgd(steps=3)"]
    assert [cell.info.attack for cell in gated(run.plan.cells)] == ["pgd(steps=3)"]
    assert call("baseline", "accept", "out", "--out=base.json", "--reason=first").returncode == 0
    # Thirty samples decide little; what is judged is the same.
    for attacks in ("pgd(steps=3)", f"pgd(steps=3),corruption.fog,{FEW}"):
        judged = call(*RUN, f"--attacks={attacks}", "--gate=base.json", "--allow-undecided")
        assert judged.returncode == 0, judged.stdout
        told = (project / "out/gate.md").read_text()
        assert "pgd" in told
        assert "corruption" not in told


def test_expected_bounds_of_robust_accuracy_are_about_adversaries(project, call):
    config = [
        *('model = "model.py:build"', 'data = "data.npz"', 'threat = ["Linf:0.15"]', 'out = "out"'),
        *(f'attacks = ["{name}"]' for name in ("corruption.fog",)),
        *("[[expect]]", "min_robust = 0.999", "[[expect]]", "min_clean = 0.999"),
    ]
    (project / "gauntlet.toml").write_text("\n".join(config))
    done = call("run")
    assert done.returncode == 1
    assert "min" in done.stderr
    assert "robust accuracy" not in done.stderr
    assert "clean accuracy" in done.stderr


def test_evaluate_gives_the_mean_beside_the_worst_case_and_wants_an_attack(tiny):
    torch.manual_seed(0)
    images, labels = torch.from_numpy(tiny.IMAGES[tiny.TEST][:20]), torch.from_numpy(tiny.LABELS[tiny.TEST][:20])
    model = gauntlet.load_model("cnn.standard_digits").module
    found = gauntlet.evaluate(model, images, labels, threat="Linf:0.1", attacks=f"fgsm,{FEW}", checks="none")
    without = gauntlet.evaluate(model, images, labels, threat="Linf:0.1", attacks="fgsm", checks="none")
    assert without.corruption is None
    assert float(found.robust_accuracy) == float(without.robust_accuracy)
    assert list(found.per_attack["attack"]) == ["fgsm"]
    assert set(found.corruption.by_label) == {"corruption.contrast", "corruption.gaussian_noise"}
    assert found.corruption.mean.n == 20
    assert "corruptions" in repr(found)
    with pytest.raises(ValueError, match="corruptions only, which are no attacks"):
        gauntlet.evaluate(model, images, labels, attacks=FEW)


# Planted results


def corruption(name="fog", **changes):
    """The cell of a corruption."""
    kind = {"attack_spec": f"corruption.{name}: Corruption()", "attack_kind": "corruption", "suite": "corruptions"}
    return cell_info(attack=name, **(kind | changes))


def planted(wrong, cell=None, *, severities=(1, 2, 3, 4, 5), error=None, correct=None, seconds=1.0):
    """A cell with `wrong` (S, N): at which severity which sample is misclassified; of an attack, (1, N)."""
    cell = cell or corruption()
    wrong = np.asarray(wrong, bool)
    n = wrong.shape[1]
    right = np.ones(n, bool) if correct is None else np.asarray(correct, bool)
    ever = wrong.any(0)
    columns = {
        "distance": np.full(n, np.nan),
        "margin": np.where(ever, -1.0, 1.0),
        "forwards": np.full(n, 5.0),
        "backwards": np.zeros(n),
        "steps": np.full(n, -1),
        "prediction": ever,
        "wrong_share": wrong.mean(0),
        "wrong_share_scored": ever,
    }
    if cell.attack_kind == "corruption":
        columns["severities"] = [
            " ".join(str(s) for s, hit in zip(severities, hits, strict=True) if hit) for hits in wrong.T
        ]
        cell = replace(cell, severities=tuple(severities))
    return result(right & ~ever, cell, correct=right, seconds=seconds, error=error, **columns)


def attack(robust):
    """The cell of an attack that leaves these samples standing."""
    cell = cell_info()
    return planted(~np.asarray(robust, bool)[None], cell, severities=(0,))


def test_a_sample_that_every_corruption_breaks_is_robust_where_no_attack_breaks_it():
    attacked, broken = attack([True, True, False]), planted(np.ones((5, 3)))
    (row,) = build_rows([attacked, broken])
    assert row.robust == Proportion(2, 3)
    assert row.suite == "quick"
    assert set(row.attacks) == {"pgd"}
    assert row.worst_attack == "pgd"
    assert row.rank == 1
    assert row.corruption.mean.estimate == 0
    assert row.seconds == 1.0
    assert worst_case([attacked, replace(broken, cell=replace(broken.cell, suite="quick"))]).accuracy == Proportion(
        2, 3
    )
    assert len(worst_case([broken])) == 0
    assert [one.attack for one in broken_by(row.worst_case, [attacked, broken])] == ["pgd"]
    assert cross_flags([replace(broken, cell=replace(broken.cell, suite="quick")), attacked]) == ()
    found = baseline_of([attacked, broken], suite="quick", commit="", reason="", created="")
    assert [cell.attack for cell in found.cells] == ["pgd"]


def test_corruptions_stand_in_every_row_of_their_model_defense_threat_and_data():
    other = corruption(model="other", suite="corruptions")
    found = build_rows([attack([True] * 4), planted(np.zeros((5, 4))), planted(np.ones((5, 4)), other),
                  planted(np.ones((5, 4)), corruption(threat="Linf:0.3", eps=0.3))])  # fmt: skip
    shown = {(row.model, row.threat): (row.suite, row.corruption.mean.estimate) for row in found}
    assert shown == {
        ("net", "Linf:0.15"): ("quick", 1.0),
        ("other", "Linf:0.15"): ("corruptions", 0.0),
        ("net", "Linf:0.3"): ("corruptions", 0.0),
    }


def test_each_corruption_counts_the_same_and_the_samples_are_the_unit():
    drawn = np.random.default_rng(1)
    cells = [planted(drawn.random((5, 60)) < share, corruption(name)) for name, share in (("fog", 0.1), ("snow", 0.6))]
    cells.append(planted(drawn.random((1, 60)) < 0.5, corruption("contrast"), severities=(3,)))
    found = corruption_accuracy(cells)
    shares = np.stack([1 - cell.blocks[0].samples.wrong_share for cell in cells])
    assert found.mean.estimate == pytest.approx(shares.mean(1).mean())
    assert found.error == pytest.approx(1 - shares.mean())
    assert found.by_label == pytest.approx(
        {"fog": shares[0].mean(), "snow": shares[1].mean(), "contrast": shares[2].mean()}
    )
    assert found.seconds == 3.0
    assert set(found.by_severity) == {3}
    # The plain bootstrap: samples drawn with all their images.
    values, resampled = shares.mean(0), np.random.default_rng(2)
    means = [values[resampled.integers(0, 60, 60)].mean() for _ in range(4000)]
    np.testing.assert_allclose(found.mean.interval, np.quantile(means, [0.025, 0.975]), atol=0.006)


def test_where_every_image_is_right_the_interval_is_that_of_clopper_and_pearson():
    assert mean_of(np.ones(20)).interval == Proportion(20, 20).interval
    assert mean_of(np.zeros(20)).interval == Proportion(0, 20).interval
    assert mean_of(np.full(20, 0.5)).interval == (0.5, 0.5)
    nothing = mean_of(np.empty(0))
    assert nothing.n == 0
    assert math.isnan(nothing.estimate)


def test_accuracy_at_each_severity_is_counted():
    wrong = np.array([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]])
    cell = planted(wrong)
    assert {one: share.successes for one, share in by_severity(cell).items()} == {1: 4, 2: 3, 3: 2, 4: 1, 5: 0}
    assert accuracy(cell).estimate == pytest.approx(0.5)
    assert by_severity(attack([True])) == {}


def test_a_mean_is_given_only_once_all_corruptions_have_finished():
    done, failed = planted(np.zeros((5, 3))), planted(np.zeros((5, 0)), corruption("snow"), error="no picture")
    open_ = replace(planted(np.zeros((5, 3)), corruption("frost")), expected=5)
    for other, shown in ((failed, "error"), (open_, "–")):
        (row,) = build_rows([attack([True] * 3), done, other])
        assert row.corruption.mean.n == 0
        assert row.corruption.by_label == {"fog": 1.0, other.cell.attack: shown}
        assert row.rank == 1
        assert f"  {shown}  " in terminal_table([row])
    (row,) = build_rows([done, failed])
    assert row.status == "error"
    assert any("Corruption snow (seed 0) failed" in reason for reason in row.unranked)


def test_imagenet_s_errors_stand_in_proportion_to_alexnet_s_and_no_other_data_s_do():
    n = 1000
    half = np.arange(n)[None] < 0.5 * n * np.ones((5, 1))
    every = [planted(half, corruption(name, data="imagenet/robustbench-5000[1000]")) for name in ALEXNET]
    found = corruption_accuracy(every)
    assert found.alexnet == pytest.approx(np.mean([0.5 / error for error in ALEXNET.values()]))
    assert corruption_accuracy(every[1:]).alexnet is None
    single = [*every[1:], planted(half[:1], replace(every[0].cell, severities=()), severities=(3,))]
    assert corruption_accuracy(single).alexnet is None
    for data in ("imagenet-100", "tiny-imagenet", "digits"):
        assert corruption_accuracy([replace(one, cell=replace(one.cell, data=data)) for one in every]).alexnet is None
    alike = [planted(np.arange(n)[None] < round(n * error) * np.ones((5, 1)), corruption(name, data="imagenet"))
             for name, error in ALEXNET.items()]  # fmt: skip
    assert corruption_accuracy(alike).alexnet == pytest.approx(1, abs=1e-3)
    text = markdown_report(build_rows(alike), alike, CONTEXT)
    assert "| to AlexNet |" in text
    assert "100.0" in text


def test_a_report_names_corruptions_safely_and_says_what_the_figures_are():
    results = [attack([True, False]), planted(np.zeros((5, 2)), corruption("a|b<c>"))]
    text = markdown_report(build_rows(results), results, CONTEXT)
    assert "Corruptions are not attacks" in text
    assert "<c>" not in text
    assert "| 50.0 [1.3, 98.7] |" in text
