"""Gates that stop early: no more samples than the verdict needs, replays in both directions, and nothing passes unseen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gauntlet.bench.gate.snapshot import snapshot
from gauntlet.bench.run.run_folder import load_run
from gauntlet.bench.worker.try_examples import try_examples
from gauntlet.leaderboard.gate.baseline_file import read_baseline

MODEL = ("--model=model.py:build", "--data=data.npz", "--threat=Linf:0.1")
ATTACK = "--attacks=pgd(steps=5)"
LUCKY = "--attacks=pgd(steps=1)"
"""One step from a random start: what it breaks is a matter of luck."""
GATE = "--gate=b.json"
BLURRED = ("2 * means", "2 * (0.7 * means + 0.3 * means.mean(0) + 0.1 * means.roll(1, 0))")


def accept(tiny, attack, *arguments):
    assert tiny.run_here("run", *MODEL, attack, "--out=accepted") == 0
    assert tiny.run_here("baseline", "accept", "accepted", "--out=b.json", *arguments) == 0


@pytest.fixture(scope="module")
def accepted(tiny, tmp_path_factory):
    """Projects with a model, all test images, and a baseline with its artifact: sequential, fixed, and of a lucky attack."""
    folders = {}
    for name, attack, test in (
        ("sequential", ATTACK, "sequential"),
        ("fixed", ATTACK, "fixed"),
        ("lucky", LUCKY, "fixed"),
    ):
        folders[name] = tiny.write_project(tmp_path_factory.mktemp(name), count=797)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folders[name])
            accept(tiny, attack, f"--test={test}", "--artifact")
    return folders


@pytest.fixture
def here(accepted, tmp_path, monkeypatch):
    """A copy of one of them, without the run that was accepted, as the working folder."""

    def enter(name="sequential"):
        shutil.copytree(accepted[name], tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("accepted"))
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return enter


def change(tiny, old, new):
    text = tiny.MODEL.replace(old, new)
    assert text != tiny.MODEL
    Path("model.py").write_text(text, encoding="utf-8")


def early(call, *arguments, attack=ATTACK):
    done = call("run", *MODEL, attack, GATE, "--gate-early", *arguments)
    assert "Traceback" not in done.stdout + done.stderr
    return done


def judged(folder="gauntlet-results"):
    report = json.loads(Path(folder, "gate.json").read_text(encoding="utf-8"))
    return report, report["verdicts"][0]


def traced(folder="gauntlet-results"):
    (file,) = Path(folder, "runs").glob("*/gate/*.json")
    return json.loads(file.read_text(encoding="utf-8"))["trace"]


def test_a_model_that_did_not_change_is_answered_from_the_artifact_without_a_pass(here, call):
    here()
    done = early(call)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 computed, the others stored" in done.stdout
    assert traced()["computed"] == 0
    assert judged()[1]["verdict"] == "held"
    assert not Path("gauntlet-results/leaderboard.csv").exists()


def test_without_the_artifact_it_says_so_and_attacks_until_the_evidence_suffices(here, call):
    (next(here().glob("b-*.zip"))).unlink()
    done = early(call)
    assert done.returncode == 0, done.stdout
    assert "no replay: b-" in done.stdout
    assert "does not exist" in done.stdout
    assert "decided after 180 of 797 samples" in done.stdout
    assert len(traced()["order"]) == 200


@pytest.mark.parametrize("test", ["sequential", "fixed"])
def test_a_model_that_lost_robustness_is_caught_after_a_part_of_the_samples(here, call, tiny, test):
    here(test)
    change(tiny, *BLURRED)
    done = early(call)
    assert done.returncode == 1, done.stdout + done.stderr
    report, verdict = judged()
    assert verdict["verdict"] == "regressed"
    assert len(traced()["order"]) < 700
    assert verdict["lost"] == len(verdict["lost_ids"]) > 5
    again = call("gate", "gauntlet-results", "b.json")
    assert again.returncode == 1
    assert judged()[1]["sentence"] == verdict["sentence"]
    assert report["state"] == "failed"


@pytest.mark.parametrize("test", ["sequential", "fixed"])
def test_a_change_that_masks_gradients_fails_early_and_whole_though_accuracy_rose(here, call, tiny, test):
    here(test)
    change(tiny, "self.linear(x.flatten(1))", "self.linear(x.flatten(1)).mul(1e6)")
    done = early(call)
    assert done.returncode == 1, done.stdout + done.stderr
    for folder in ("gauntlet-results", "whole"):
        if folder == "whole":
            assert call("run", *MODEL, ATTACK, GATE, "--out=whole").returncode == 1
        report, verdict = judged(folder)
        assert (report["state"], verdict["verdict"]) == ("failed", "masked")
        assert "zero-gradient" in verdict["flags"]
        assert verdict["robust"] > verdict["baseline_robust"]
        assert verdict["reproduce"]
    # Half of the samples stand because of gradients that vanish; not one did before.
    assert read_baseline(Path("b.json")).cells[0].masked == 0
    assert snapshot(load_run(Path("whole"))).cells[0].masked > 797 / 2
    # Accepting it is the way out, in the open.
    Path("gauntlet-results/gate.json").unlink()
    accepted = call("baseline", "accept", "whole", "--out=b.json", "--artifact")
    assert "accepted although blocked by" in accepted.stdout
    assert "blocked now by" in accepted.stdout
    assert early(call).returncode == 0
    assert "blocked as the baseline is: " in judged()[1]["sentence"]


def test_the_lost_samples_are_those_that_a_full_run_has_as_lost(here, call, tiny):
    here("fixed")
    change(tiny, *BLURRED)
    lost = set(judged()[1]["lost_ids"]) if early(call).returncode == 1 else set()
    assert call("run", *MODEL, ATTACK, GATE, "--out=full").returncode == 1
    every = set(judged("full")[1]["lost_ids"])
    assert lost
    assert lost <= every


def test_luck_alone_flips_samples_without_replay_and_none_with_it(here, call):
    here("lucky")
    assert early(call, "--seed=1", attack=LUCKY).returncode == 0
    with_replay = judged()[1]
    next(Path().glob("b-*.zip")).unlink()
    early(call, "--seed=1", "--out=without", attack=LUCKY)
    without = judged("without")[1]
    assert without["lost"] > 0
    assert without["gained"] > 0
    # On the same weights every example of one side breaks the other, too.
    assert (with_replay["lost"], with_replay["gained"]) == (0, 0)
    assert "more were broken by examples that break the baseline's model too" in with_replay["sentence"]


@pytest.mark.parametrize("forgets", [False, True])
def test_weights_of_the_baseline_are_sent_once_unless_the_worker_has_them_no_more(
    here, call, tiny, monkeypatch, forgets
):
    sent = []

    def tried(bench, baselines, request):
        if request.baseline is not None:
            sent.append(len(request.baseline.weights) > 0)
            if forgets and not request.baseline.weights:
                baselines._made = None
        return try_examples(bench, baselines, request)

    monkeypatch.setattr("gauntlet.bench.worker.work.try_examples", tried)
    here("fixed")
    change(tiny, *BLURRED)
    done = early(call)
    assert done.returncode == 1, done.stdout + done.stderr
    assert judged()[1]["verdict"] == "regressed"
    assert len(sent) > 2
    assert sent == [number % 2 == 0 if forgets else number == 0 for number in range(len(sent))]


def test_what_was_attacked_before_an_interruption_is_not_attacked_again(here, call, tiny):
    here()
    change(tiny, *BLURRED)
    first = early(call)
    spent = traced()["computed"]
    second = early(call)
    assert spent > 0
    assert second.returncode == first.returncode == 1
    # What the replays cost is paid again; they are not stored.
    assert traced()["computed"] < 0.2 * spent


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            "nn.Linear(64, 10)\n",
            "nn.Linear(64, 10)\n        self.more = nn.Linear(2, 2)\n",
            "do not fit the current architecture",
        ),
        (
            "torch.tensor(1.0)",
            "torch.tensor(1.0).double()",
            "no replay: the current model with the baseline's weights is not",
        ),
        ("* self.scale", "* self.scale * 1.5", "does not give the baseline's logits"),
    ],
)
def test_without_the_baselines_model_nothing_is_replayed_and_it_says_why(here, call, tiny, old, new, reason):
    here()
    change(tiny, old, new)
    assert reason in early(call).stdout
    assert traced()["excused"] == 0


def test_a_baseline_without_artifact_says_how_to_get_one(here, call, tiny):
    here()
    accept(tiny, ATTACK)
    assert json.loads(Path("b.json").read_text())["artifact"] is None
    shutil.rmtree("accepted")
    assert "accepted without --artifact" in early(call).stdout


@pytest.mark.parametrize("change_it", ["other bytes", "another test"])
def test_what_is_not_the_baselines_is_refused(here, call, change_it):
    folder = here()
    if change_it == "other bytes":
        file = next(folder.glob("b-*.zip"))
        file.write_bytes(file.read_bytes()[:-1])
        done = early(call)
        assert done.returncode == 2
        assert "is not the artifact that the baseline names" in done.stderr
    else:
        Path("b.json").write_text(Path("b.json").read_text().replace('"sequential"', '"both"'))
        assert early(call).returncode == 2
    assert not Path("gauntlet-results").exists()


def test_other_data_are_incomparable_and_nothing_is_attacked(here, call, tiny):
    here()
    tiny.write_data(".", count=600)
    done = early(call)
    assert done.returncode == 3
    assert "number of samples 797 → 600" in done.stdout
    assert traced()["computed"] == 0


def test_a_cell_that_fails_is_incomparable(here, call, tiny):
    here()
    change(tiny, "        return self.linear", "        assert not x.requires_grad\n        return self.linear")
    done = early(call)
    assert done.returncode == 3
    assert "PROBLEM" in done.stderr
    assert "failed in the run" in done.stdout


@pytest.mark.parametrize(
    ("table", "word"),
    [("[gate]\nmin_robust = 0.1\n", "min_robust"), ("[[expect]]\nmin_robust = 0.1\n", "expect")],
)
def test_bounds_that_need_every_sample_are_refused(here, call, table, word):
    here()
    Path("gauntlet.toml").write_text(table, encoding="utf-8")
    done = early(call)
    assert done.returncode == 2
    assert f"{word}" in done.stderr
    assert "needs every sample" in done.stderr
    assert not Path("gauntlet-results").exists()


def test_a_run_without_its_gate_is_whole_and_may_become_the_next_baseline(here, call, tiny):
    here()
    Path("gauntlet.toml").write_text('[gate]\nbaseline = "b.json"\nearly = true\n', encoding="utf-8")
    change(tiny, *BLURRED)
    Path("b.json").write_text(Path("b.json").read_text().replace('"custom"', '"other"'))
    whole = call("run", *MODEL, ATTACK, "--no-gate")
    assert whole.returncode == 0, whole.stderr
    assert Path("gauntlet-results/leaderboard.csv").exists()
    assert call("baseline", "accept", "gauntlet-results", "--out=next.json").returncode == 0
    both = call("run", *MODEL, ATTACK, "--no-gate", GATE)
    assert both.returncode == 2
    assert "exclude each other" in both.stderr


def test_what_stopped_early_is_no_baseline(here, call, tiny):
    here()
    change(tiny, *BLURRED)
    early(call)
    done = call("baseline", "accept", "gauntlet-results", "--out=next.json")
    assert done.returncode == 2
    assert "--no-gate if the gate stops early" in done.stderr


def test_early_without_a_gate_is_wrong_usage(here, call):
    here()
    done = call("run", *MODEL, ATTACK, "--gate-early")
    assert done.returncode == 2
    assert "--gate-early needs a gate" in done.stderr


def test_an_attack_of_another_library_is_run_whole(here, call, tiny):
    here()
    attack = "--attacks=torchattacks.FGSM"
    accept(tiny, attack, "--test=sequential", "--artifact")
    change(tiny, *BLURRED)
    early(call, attack=attack)
    assert len(traced()["order"]) == 797
    # In the same batches as ever, so that a run of all samples finds it done.
    assert "(stored)" in call("run", *MODEL, attack).stderr


def test_attacks_that_are_not_judged_are_not_run(here, call, tiny):
    here()
    accept(tiny, ATTACK, "--test=sequential")
    assert early(call, attack="--attacks=pgd(steps=5),naive,replay,certificate").returncode == 0
    assert "naive" not in Path("gauntlet-results/gate.md").read_text(encoding="utf-8")


def test_the_test_of_a_baseline_stays_until_another_is_asked_for(here, tiny):
    here()
    accept(tiny, ATTACK)
    assert json.loads(Path("b.json").read_text())["test"] == "sequential"
    accept(tiny, ATTACK, "--test=fixed")
    assert json.loads(Path("b.json").read_text())["test"] == "fixed"


def test_a_model_that_is_not_the_runs_is_not_packed(here, call, tiny):
    here()
    assert tiny.run_here("run", *MODEL, ATTACK, "--out=accepted") == 0
    change(tiny, *BLURRED)
    done = call("baseline", "accept", "accepted", "--out=new.json", "--artifact")
    assert done.returncode == 2
    assert "has changed since it was attacked" in done.stderr
    assert not Path("new.json").exists()
