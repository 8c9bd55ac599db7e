"""The runner and the keys of its results: what is run again and what is not, and what becomes of failures."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import gauntlet
from gauntlet.attacks.pgd import PGD
from gauntlet.attacks.registry.card import AttackCard, AttackEntry
from gauntlet.bench.config.schema import load_config
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.registries import ATTACKS
from gauntlet.bench.registry.import_file import import_object
from gauntlet.bench.run.engine import Engine
from gauntlet.bench.run.tables import write_leaderboard
from gauntlet.bench.verify import verifier
from gauntlet.leaderboard.report.cells_csv import read_cells
from gauntlet.leaderboard.report.leaderboard_csv import read_leaderboard

QUICK = {"model": ["model.py:build"], "data": "data.npz", "threat": ["Linf:0.1"], "attacks": ["pgd(steps=5)"]}

FAULTY = """
from pathlib import Path

from model import Means

FAULT = Path(__file__).with_name(".".join(["fault", "txt"]))
CALLS = Path(__file__).with_name("calls.txt")


class Faulty(Means):
    calls = 0

    def forward(self, x):
        Faulty.calls += 1
        CALLS.write_text(str(Faulty.calls))
        logits = super().forward(x)
        kind, _, after = FAULT.read_text().partition(" ") if FAULT.exists() else ("", "", "0")
        if kind and Faulty.calls > int(after):
            if kind == "raise":
                raise RuntimeError("the model broke down")
            logits = logits * float("nan")
        return logits


def build():
    return Faulty().eval()
"""


def engine_of(**options):
    config = load_config({**QUICK, **options}, folder=Path.cwd())
    return Engine(make_plan(config), config, command="gauntlet run")


def run(**options):
    engine = engine_of(**options)
    return engine, [engine.cell(cell) for cell in engine.run.plan.cells]


def keys(**options):
    engine = engine_of(**options)
    return [block.key for cell in engine.run.plan.cells for block in engine.workbench.prepare(cell).blocks]


def stored(project, out="gauntlet-results"):
    return sorted(path.name for path in (project / out / "store").rglob("*.parquet"))


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_is_the_same_when_asked_again(project):
    assert keys() == keys()
    assert len(set(keys())) == 1


def _pixel(project):
    with np.load("data.npz") as data:
        images, labels = data["images"], data["labels"]
    images[7, 0, 3, 3] = np.nextafter(images[7, 0, 3, 3], np.float32(0.5))
    np.savez("data.npz", images=images, labels=labels)


def _label(project):
    with np.load("data.npz") as data:
        images, labels = data["images"], data["labels"]
    labels[7] = (labels[7] + 1) % 10
    np.savez("data.npz", images=images, labels=labels)


def _weight(project):
    means = np.load("means.npy")
    means[3, 3] += 1e-6
    np.save("means.npy", means)


def _source(before, after):
    def change(project):
        text = (project / "model.py").read_text()
        assert before in text
        (project / "model.py").write_text(text.replace(before, after))

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_pixel, id="a pixel"),
        pytest.param(_label, id="a label"),
        pytest.param(_weight, id="a weight"),
        pytest.param(_source("torch.tensor(1.0)", "torch.tensor(1.5)"), id="a buffer"),
        pytest.param(_source("def build", "UNUSED = 1\n\n\ndef build"), id="the source"),
    ],
)
def test_a_key_changes_with_what_is_evaluated(project, change):
    before = keys()
    change(project)
    assert not set(before) & set(keys())


@pytest.mark.parametrize(
    "options",
    [
        {"defense": ["bit_depth(bits=3)"]},
        {"defense": ["bit_depth(bits=4)"]},
        {"defense": ["input_noise"]},
        {"attacks": ["pgd(steps=6)"]},
        {"attacks": ["pgd(steps=5, loss=cw)"]},
        {"attacks": ["fgsm"]},
        {"threat": ["Linf:0.11"]},
        {"threat": ["L2:0.1"]},
        {"seed": 1},
        {"mean": "0.0"},
        {"std": "1.0"},
        {"samples": "29"},
        {"samples": "1:30"},
    ],
    ids=str,
)
def test_a_key_changes_with_what_is_asked(project, options):
    assert not set(keys()) & set(keys(**options))


def test_a_key_changes_with_a_buffer_of_loaded_weights(project):
    model = import_object("model.py:build")()
    save_file(model.state_dict(), "one.safetensors")
    model.scale += 1
    save_file(model.state_dict(), "other.safetensors")
    assert keys(weights="one.safetensors") == keys()
    assert not set(keys(weights="other.safetensors")) & set(keys())


def test_a_key_changes_with_the_versions_of_rule_verifier_and_defense(project, monkeypatch):
    before = keys(defense=["bit_depth"])
    with monkeypatch.context() as patch:
        patch.setattr(PGD, "version", PGD.version + 1)
        assert keys(defense=["bit_depth"]) != before
    with monkeypatch.context() as patch:
        patch.setattr(verifier, "VERSION", verifier.VERSION + 1)
        assert keys(defense=["bit_depth"]) != before
    assert keys(defense=["bit_depth"]) == before


def test_a_key_does_not_change_with_path_batch_size_device_name_or_order(project, tiny, tmp_path, monkeypatch):
    options = {"attacks": ["fgsm", "pgd(steps=5)"]}
    before = keys(**options)
    assert keys(**options, batch_size=7) == before
    assert keys(**options, device="cpu") == before
    assert keys(attacks=["pgd(steps=5)", "fgsm"]) == before[::-1]
    assert keys(**options, model=[str(project / "model.py:build")], data=str(project / "data.npz")) == before
    _source("def build", "# a remark\n\n\ndef build")(project)
    assert keys(**options, out="elsewhere", no_adversarials=True, fresh=True) == before
    (project / "model.py").rename(project / "renamed.py")
    assert keys(**options, model=["renamed.py:build"]) == before
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tiny.write_project(tmp_path / "other"))
    assert keys(**options) == before


def test_the_batch_size_changes_no_outcome_of_a_native_attack(project):
    _, (one,) = run(out="one", batch_size=3)
    _, (other,) = run(out="other")
    for field in ("robust", "forwards", "backwards", "steps"):
        np.testing.assert_array_equal(getattr(one.blocks[0].samples, field), getattr(other.blocks[0].samples, field))


# --- what is run ------------------------------------------------------------------------------------------------------


def test_more_samples_reuse_the_whole_blocks_of_fewer(project, tiny):
    tiny.write_data(project, 250)
    _, (few,) = run(samples="100")
    assert [(len(block.samples), block.cached) for block in few.blocks] == [(100, False)]
    _, (many,) = run()
    assert [(len(block.samples), block.cached) for block in many.blocks] == [(100, True), (100, False), (50, False)]
    assert many.expected == 250
    assert len(stored(project)) == 3
    _, (again,) = run()
    assert all(block.cached for block in again.blocks)
    _, (fewer,) = run(samples="200")
    assert [(len(block.samples), block.cached) for block in fewer.blocks] == [(100, True), (100, True)]
    assert len(stored(project)) == 3


def test_reused_blocks_give_what_one_run_gives(project, tiny):
    tiny.write_data(project, 150)
    run(samples="100")
    _, (grown,) = run()
    _, (whole,) = run(out="whole")
    for block, other in zip(grown.blocks, whole.blocks, strict=True):
        assert block.key == other.key
        np.testing.assert_array_equal(block.samples.robust, other.samples.robust)
        np.testing.assert_array_equal(block.samples.forwards, other.samples.forwards)
    np.testing.assert_allclose(grown.blocks[0].clean_logits, whole.blocks[0].clean_logits, rtol=0, atol=1e-5)


def test_a_stored_cell_costs_no_attack(project):
    (project / "faulty.py").write_text(FAULTY)
    run(model=["faulty.py:build"])
    first = int((project / "calls.txt").read_text())
    run(model=["faulty.py:build"])
    # The check of the model and the clean logits of the first block are all that is left.
    assert int((project / "calls.txt").read_text()) - first <= 4


def test_every_adversarial_example_of_a_record_holds(project, tiny):
    engine, _ = run()
    result = engine.run.result(engine.run.plan.cells[0], adversarial=True)
    samples = result.blocks[0].samples
    model = engine.workbench.model(engine.run.plan.cells[0].model).module
    broken = [i for i, image in enumerate(samples.adversarial) if image is not None]
    assert broken
    assert 0 < samples.robust.sum() < len(samples)
    for i in broken:
        image = samples.adversarial[i]
        moved = np.abs(image.astype(np.float64) - tiny.IMAGES[tiny.TEST][i]).max()
        assert moved <= 0.1 + 2**-23
        assert moved == pytest.approx(samples.distance[i])
        assert image.min() >= 0
        assert image.max() <= 1
        assert model(torch.tensor(image[None])).argmax() != tiny.LABELS[tiny.TEST][i]
    np.testing.assert_array_equal(np.isnan(samples.distance), [image is None for image in samples.adversarial])
    np.testing.assert_array_equal(samples.robust, samples.correct & np.isnan(samples.distance))


def test_without_adversarials_the_figures_are_the_same_and_the_examples_are_not_kept(project):
    _, (kept,) = run()
    engine, (not_kept,) = run(out="small", no_adversarials=True)
    np.testing.assert_array_equal(kept.blocks[0].samples.robust, not_kept.blocks[0].samples.robust)
    np.testing.assert_array_equal(kept.blocks[0].samples.distance, not_kept.blocks[0].samples.distance)
    # Reading checks the digests.
    result = engine.run.result(engine.run.plan.cells[0], adversarial=True)
    assert set(result.blocks[0].samples.adversarial) == {None}


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def faulty(project):
    (project / "faulty.py").write_text(FAULTY)
    return project / "fault.txt"


def _assert_in_error(engine, kind, message):
    files = write_leaderboard(engine.run, results := engine.run.results())
    (row,) = read_leaderboard(files.leaderboard_csv).to_dict("records")
    (cell,) = read_cells(files.cells_csv).to_dict("records")
    assert (row["status"], cell["status"]) == ("error", "error")
    assert message in cell["error"]
    assert cell["error"].startswith(kind)
    assert np.isnan(row["robust_accuracy"])
    assert pd.isna(row["rank"])
    assert message in files.markdown.read_text(encoding="utf-8")
    assert results[0].error is not None


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [("raise 20", "RuntimeError", "the model broke down"), ("nan 8", "NonFiniteLogitsError", "NaN or infinite logits")],
)
def test_a_model_that_fails_in_the_middle_is_an_error_and_is_tried_again(faulty, fault, kind, message):
    faulty.write_text(fault)
    engine, (result,) = run(model=["faulty.py:build"])
    assert result.error is not None
    assert (result.error.kind, result.blocks) == (kind, ())
    assert message in result.error.message
    assert kind in result.error.traceback
    assert not stored(faulty.parent)
    _assert_in_error(engine, kind, message)
    faulty.unlink()
    engine, (result,) = run(model=["faulty.py:build"])
    assert (result.error, len(result.blocks[0].samples)) == (None, 30)
    files = write_leaderboard(engine.run, engine.run.results())
    assert read_leaderboard(files.leaderboard_csv)["status"].tolist() == ["ok"]
    assert not list((faulty.parent / "gauntlet-results" / "errors").iterdir())


def test_blocks_finished_before_a_failure_are_kept_and_not_run_again(faulty, tiny):
    tiny.write_data(faulty.parent, 200)
    options = {"model": ["faulty.py:build"], "batch_size": 20}
    run(**options)
    calls = int((faulty.parent / "calls.txt").read_text())
    faulty.write_text(f"raise {int(1.9 * calls)}")
    _, (result,) = run(**options, out="again")
    assert result.error is not None
    assert [len(block.samples) for block in result.blocks] == [100]
    faulty.unlink()
    _, (result,) = run(**options, out="again")
    assert [(len(block.samples), block.cached) for block in result.blocks] == [(100, True), (100, False)]


def test_nan_at_perturbed_images_only_is_an_error_and_never_robust(project):
    text = (project / "model.py").read_text()
    # The clean pixels are multiples of 1/16; those of an adversarial example are not.
    wrong = "out = self.linear(x.flatten(1))\n        odd = ((x * 16) % 1 > 1e-3).flatten(1).any(1, keepdim=True)\n"
    wrong += "        return torch.where(odd, out * float('nan'), out)\n"
    (project / "model.py").write_text(text.replace("return self.linear(x.flatten(1)) * self.scale", wrong))
    engine, (result,) = run()
    assert result.error is not None
    assert not result.blocks
    _assert_in_error(engine, "NonFiniteLogitsError", "NaN or infinite logits")


def _raising(model, images, labels, seed):
    raise ZeroDivisionError("the attack broke down")


@pytest.fixture
def attack_of_mine():
    """Registers attacks for a test and takes them out again."""
    names = []

    def add(name, attack):
        attack.version = 1
        card = AttackCard(name=name, summary="a test's", source="here", norms=("Linf",))
        gauntlet.register_attack(name, AttackEntry(card, lambda threat: attack))
        names.append(name)

    yield add
    for name in names:
        del ATTACKS._entries[name]


def test_an_attack_that_fails_is_an_error_and_the_other_cells_go_on(project, attack_of_mine):
    attack_of_mine("raising", _raising)
    engine, (one, other) = run(attacks=["raising", "fgsm"])
    assert one.error is not None
    assert (one.error.kind, one.error.message) == ("ZeroDivisionError", "the attack broke down")
    assert other.error is None
    files = write_leaderboard(engine.run, engine.run.results())
    (row,) = read_leaderboard(files.leaderboard_csv).to_dict("records")
    assert row["status"] == "error"
    assert np.isnan(row["robust[raising]"])
    assert 0 < row["robust[fgsm]"] < 1


def test_an_attack_that_cheats_breaks_nothing_and_is_flagged(project, attack_of_mine):
    attack_of_mine("far", lambda model, images, labels, seed: 1 - images)
    _, (result,) = run(attacks=["far"])
    samples = result.blocks[0].samples
    np.testing.assert_array_equal(samples.robust, samples.correct)
    assert result.blocks[0].stats.candidates_rejected == samples.correct.sum()
    assert [flag.name for flag in result.blocks[0].flags] == ["invalid-candidates"]


def test_an_attack_that_returns_another_shape_is_an_error(project, attack_of_mine):
    attack_of_mine("short", lambda model, images, labels, seed: images[:1])
    _, (result,) = run(attacks=["short"])
    assert result.error is not None
    assert "returned (1, 1, 8, 8)" in result.error.message


def test_a_model_that_does_not_build_is_an_error_of_its_cells_only(project):
    text = "\n\ndef broken():\n    raise OSError('no weights here')\n"
    (project / "model.py").write_text((project / "model.py").read_text() + text)
    _, (one, other) = run(model=["model.py:broken", "model.py:build"])
    assert one.error is not None
    assert "no weights here" in one.error.message
    assert other.error is None


def test_a_keyboard_interrupt_is_no_record(project, attack_of_mine):
    def interrupted(model, images, labels, seed):
        raise KeyboardInterrupt

    attack_of_mine("interrupted", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(attacks=["interrupted"])
    assert not (project / "gauntlet-results" / "errors").exists()


# --- what changed behind the key --------------------------------------------------------------------------------------


def test_a_model_that_changed_by_what_no_key_sees_is_caught(project):
    (project / "factor.txt").write_text("1.0")
    text = (project / "model.py").read_text()
    read = "from pathlib import Path\nFACTOR = float(Path('.'.join(['factor', 'txt'])).read_text())\n"
    (project / "model.py").write_text(read + text.replace("* self.scale", "* FACTOR"))
    _, (before,) = run()
    assert before.error is None
    (project / "factor.txt").write_text("-1.0")
    sys.modules.pop("model", None)
    engine, (after,) = run()
    assert after.error is not None
    assert after.error.kind == "StoredResultError"
    assert "does not reproduce" in after.error.message
    assert "--out" in after.error.message
    _assert_in_error_although_stored(engine)


def _assert_in_error_although_stored(engine):
    files = write_leaderboard(engine.run, engine.run.results())
    (row,) = read_leaderboard(files.leaderboard_csv).to_dict("records")
    assert row["status"] == "error"
    assert pd.isna(row["rank"])


def test_a_fresh_run_is_run_and_agrees_with_the_store(project):
    run()
    before = stored(project)
    _, (result,) = run(fresh=True)
    assert result.error is None
    assert not result.blocks[0].cached
    assert stored(project) == before


def test_a_fresh_run_that_does_not_agree_with_the_store_is_an_error(project, attack_of_mine):
    answers = [nn.Identity(), lambda images: (images - 0.3).clamp(0, 1)]
    attack_of_mine("moody", lambda model, images, labels, seed: answers[-1](images))
    run(attacks=["moody"], threat=["Linf:0.3"])
    answers.pop()
    _, (again,) = run(attacks=["moody"], threat=["Linf:0.3"])
    assert again.error is None
    assert again.blocks[0].cached
    engine, (fresh,) = run(attacks=["moody"], threat=["Linf:0.3"], fresh=True)
    assert fresh.error is not None
    assert "differ from the stored verdicts" in fresh.error.message
    _assert_in_error_although_stored(engine)


# --- defenses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("defense", ["bit_depth(bits=3)", "jpeg(quality=80)"])
def test_pgd_through_a_defense_without_gradient_is_bpda_flagged_and_unranked(project, defense):
    engine, results = run(defense=["none", defense])
    none, defended = (result.blocks[0] for result in results)
    assert [flag.name for flag in defended.flags] == ["non-differentiable-defense"]
    assert "BPDA" in defended.flags[0].message
    assert none.flags == ()
    # Without a gradient PGD would stay at its random starts.
    assert defended.samples.correct.sum() - defended.samples.robust.sum() > 5
    files = write_leaderboard(engine.run, engine.run.results())
    table = read_leaderboard(files.leaderboard_csv).set_index("defense")
    assert table.loc["none", "rank"] == 1
    row = table.iloc[[name != "none" for name in table.index].index(True)]
    assert pd.isna(row["rank"])
    assert row["status"] == "ok"
    assert row["unranked"]


def test_a_randomised_defense_is_judged_by_draws_flagged_and_the_same_each_time(project):
    engine, (result,) = run(defense=["input_noise(sigma=0.3)"])
    (block,) = result.blocks
    assert result.error is None
    assert "randomised-defense" in [flag.name for flag in block.flags]
    assert block.clean_logits is None
    shares = block.samples.wrong_share_scored
    assert ((shares > 0) & (shares < 1)).any()
    np.testing.assert_array_equal(block.samples.robust, block.samples.correct & (shares < 0.5))
    assert not np.array_equal(block.samples.wrong_share, shares)
    files = write_leaderboard(engine.run, engine.run.results())
    assert pd.isna(read_leaderboard(files.leaderboard_csv).loc[0, "rank"])
    torch.manual_seed(99)
    _, (again,) = run(defense=["input_noise(sigma=0.3)"], out="again", batch_size=7)
    np.testing.assert_array_equal(again.blocks[0].samples.wrong_share_scored, shares)


def test_running_leaves_torch_as_it_was(project):
    engine = engine_of(defense=["input_noise"], attacks=["pgd(steps=5)", "torchattacks.PGD(steps=2)"])
    prepared = [engine.prepare(cell) for cell in engine.run.plan.cells]
    torch.manual_seed(5)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    assert [engine.execute(one).error for one in prepared] == [None, None]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    model = engine.workbench.model(engine.run.plan.cells[0].model).module
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
