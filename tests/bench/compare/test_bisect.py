"""`gauntlet bisect`: which commit lost which samples, from what a store holds."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from builders import record, samples
from gauntlet.bench.compare.git_history import read_history
from gauntlet.bench.environment import provenance
from gauntlet.bench.run.commit_journal import record_request, requests_by_block
from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.compare.bisection import adjusted, cell_history, group_versions, same_data
from gauntlet.leaderboard.compare.bisection_report import Bisection, bisection_json, bisection_text, sample_text
from gauntlet.leaderboard.compare.commit_history import CommitHistory

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

A, B, C, D = ("a" * 40, "b" * 40, "c" * 40, "d" * 40)
LINE = CommitHistory({A: (), B: (A,), C: (B,), D: (C,)}, {B: "Break it"})
"""A history without branches."""


def block(commit, robust, *, first=0, day=1, weights="w", dirty=False, data="images", label=0, **columns):
    """A block of samples from number `first` on; `robust` has a character for each, 1 or 0."""
    source = {"commit": commit, "dirty": dirty, "time": f"2026-11-{day:02}T10:00:00+00:00", "weights": weights}
    whole = samples([bit == "1" for bit in robust], first=first, label=label, **columns)
    return record(whole, key=f"{commit[:1]}{dirty}{weights}{day}{first}{data}", provenance=source | {"data": data})


def traced(*blocks, history=LINE, current=()):
    return cell_history("net", group_versions(blocks, history), history, set(current))


def steps(cell):
    return [(cell.versions[step.version].commit[:1], step.lost, step.gained) for step in cell.changes]


def losses(cell):
    found = [
        (cell.versions[one.before].commit[:1], cell.versions[one.version].commit[:1], one.samples)
        for one in cell.losses
    ]
    return sorted(found)


# What is lost since when


def test_each_lost_sample_is_lost_at_the_commit_after_which_it_stayed_lost():
    cell = traced(block(A, "11111"), block(B, "10011"), block(C, "01010"), block(D, "01000"))
    assert steps(cell) == [("b", ("s1", "s2"), ()), ("c", ("s0", "s4"), ("s1",)), ("d", ("s3",), ())]
    assert losses(cell) == [("a", "b", ("s2",)), ("b", "c", ("s0", "s4")), ("c", "d", ("s3",))]


def test_a_sample_that_was_gained_and_lost_again_counts_for_the_last_loss():
    assert losses(traced(block(A, "1"), block(B, "0"), block(C, "1"), block(D, "0"))) == [("c", "d", ("s0",))]


def test_a_sample_that_was_never_robust_is_not_lost():
    assert losses(traced(block(A, "0"), block(B, "0"))) == []


def test_p_values_are_those_of_statsmodels_with_holms_correction():
    bits = ["1" * 30, "1" * 24 + "0" * 6, "0" * 9 + "1" * 17 + "0" * 4]
    cells = [traced(*map(block, (A, B, C), bits)), traced(block(A, bits[0]), block(B, bits[0]), block(C, bits[1]))]
    exact = [mcnemar([[0, lost], [gained, 0]], exact=True).pvalue for lost, gained in ((6, 0), (9, 2), (6, 0))]
    found = [step for cell in adjusted(cells) for step in cell.changes]
    assert [step.p_value for step in found] == pytest.approx([*exact[:2], 1, exact[2]])
    holm = multipletests(exact, method="holm")[1]
    assert [step.p_holm for step in found] == pytest.approx([*holm[:2], 1, holm[2]])


def test_samples_that_a_version_lacks_are_compared_with_the_last_one_that_has_them():
    cell = traced(block(A, "11"), block(A, "11", first=2, day=2), block(B, "10"), block(C, "01", first=2))
    assert steps(cell) == [("b", ("s1",), ()), ("c", ("s2",), ())]
    assert [step.compared for step in cell.changes] == [2, 2]
    assert [cell.versions[step.before[0]].commit for step in cell.changes] == [A, A]


def test_what_is_lost_now_follows_the_keys_of_the_latest_run():
    good, bad = block(A, "111"), block(B, "100", day=2)
    assert losses(traced(good, bad, current=[bad.key])) == [("a", "b", ("s1", "s2"))]
    assert losses(traced(good, bad, current=[good.key])) == []


def test_without_results_of_the_latest_run_the_last_version_is_the_current_one():
    assert losses(traced(block(A, "1"), block(B, "0"), current=["gone"])) == [("a", "b", ("s0",))]


def test_a_commit_is_compared_with_its_ancestors_only():
    branches = CommitHistory({A: (), B: (A,), C: (A,)})
    cell = traced(block(A, "11"), block(B, "01"), block(C, "10"), history=branches)
    assert steps(cell) == [("b", ("s0",), ()), ("c", ("s1",), ())]
    by_time = traced(block(A, "11"), block(B, "01", day=2), block(C, "10", day=3), history=None)
    assert steps(by_time) == [("b", ("s0",), ()), ("c", ("s1",), ("s0",))]


def test_the_order_is_that_of_the_history_and_without_one_that_of_time():
    late, early = block(A, "11", day=9), block(B, "10", day=1)
    assert steps(traced(late, early)) == [("b", ("s1",), ())]
    assert steps(traced(late, early, history=None)) == [("a", (), ("s1",))]


def test_uncommitted_changes_stand_after_their_commit_and_are_marked():
    cell = traced(block(A, "11", day=5), block(A, "10", day=1, dirty=True))
    assert [one.name for one in cell.versions] == ["a" * 10, "a" * 10 + "-dirty"]
    assert losses(cell) == [("a", "a", ("s1",))]
    assert "uncommitted changes on aaaaaaaaaa" in bisection_text(Bisection((cell,), LINE, ()))


def test_blocks_of_one_commit_that_disagree_are_versions_of_their_own():
    agreeing = group_versions([block(A, "11"), block(A, "111", day=2)], LINE)
    assert [len(one.samples) for one in agreeing] == [3]
    apart = group_versions([block(A, "11"), block(A, "101", day=2)], LINE)
    assert [len(one.samples) for one in apart] == [2, 3]
    assert len(group_versions([block(A, "11"), block(A, "11", weights="v")], LINE)) == 2


def test_blocks_of_changed_images_are_left_out():
    old, new = block(A, "11", data="old"), block(B, "10", day=2, data="new")
    assert same_data([old, new], set()) == [new]
    assert same_data([old, new], {old.key}) == [old]
    partial = block(A, "1", data="a part")
    assert same_data([partial, new], set()) == [partial, new]


def test_a_sample_with_another_label_is_another_sample():
    assert traced(block(A, "11", data="x", label=3), block(B, "1", label=4)).changes == ()


def test_the_commits_between_two_versions_are_counted():
    cell = traced(block(A, "1"), block(D, "0"))
    text = bisection_text(Bisection((cell,), LINE, ()))
    assert "one of the 2 commits of aaaaaaaaaa..dddddddddd without results" in text
    assert "git bisect start dddddddddd aaaaaaaaaa" in text
    stored = traced(block(A, "1"), block(B, "1"), block(D, "0"))
    assert "the commit of bbbbbbbbbb..dddddddddd without results" in bisection_text(Bisection((stored,), LINE, ()))


def test_commits_on_a_merged_branch_are_between():
    merged = CommitHistory({A: (), B: (A,), C: (A,), D: (B, C)})
    assert merged.between(B, D) == {C}
    assert merged.between(A, D) == {B, C}


def test_messages_of_commits_and_ids_cannot_write_to_the_terminal():
    history = replace(LINE, subjects={B: "\x1b[2J gone"})
    cell = traced(block(A, "1", id=["\x1b[31mred"]), block(B, "0", id=["\x1b[31mred"]), history=history)
    assert "\x1b" not in bisection_text(Bisection((cell,), history, ()))
    assert "\x1b" not in sample_text(Bisection((cell,), history, ()), "\x1b[31mred")


def test_the_json_has_all_ids():
    cell = traced(block(A, "1" * 50), block(B, "0" * 50))
    found = Bisection((cell,), LINE, ())
    (told,) = json.loads(json.dumps(bisection_json(found), allow_nan=False))["cells"]
    assert told["lost_now"] == [{"version": 1, "before": 0, "samples": [f"s{i}" for i in range(50)]}]
    assert told["versions"][1]["subject"] == "Break it"
    assert "and 44 more" in bisection_text(found)


def test_a_result_at_a_later_commit_with_the_same_block_is_the_later_commits():
    good, bad = block(A, "11"), block(B, "10", day=2)
    again = replace(good, provenance=good.provenance | {"commit": C, "time": "2026-11-03"})
    cell = traced(good, bad, again, current=[good.key])
    assert [cell.versions[number].commit for number in set(cell.current.values())] == [C]
    assert losses(cell) == []
    assert steps(cell) == [("b", ("s1",), ()), ("c", (), ("s1",))]


# Who asked for what


def test_the_commits_that_asked_for_a_block_are_kept(tmp_path, monkeypatch):
    for at, keys in ((A, ["k1", "k2"]), (A, ["k1", "k2"]), (B, ["k1"]), (A, ["k1", "k2"])):
        monkeypatch.setattr("gauntlet.bench.run.commit_journal.commit", lambda at=at: (at, at == B))
        record_request(tmp_path, "cell", keys)
    found, skipped = requests_by_block(tmp_path)
    assert [(one.commit[0], one.dirty) for one in found["k1"]] == [("a", False), ("b", True), ("a", False)]
    assert len(found["k2"]) == 2
    assert skipped == []


def test_outside_git_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("gauntlet.bench.run.commit_journal.commit", lambda: (None, False))
    record_request(tmp_path, "cell", ["k"])
    assert list(tmp_path.iterdir()) == []


def test_damaged_lines_are_skipped_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr("gauntlet.bench.run.commit_journal.commit", lambda: (A, False))
    record_request(tmp_path, "cell", ["k"])
    with (tmp_path / "history" / "cell.jsonl").open("ab") as file:
        file.write(b'{"commit": "\xff\n{}\n')
    record_request(tmp_path, "cell", ["m"])
    found, skipped = requests_by_block(tmp_path)
    assert sorted(found) == ["k", "m"]
    assert skipped == [f"{tmp_path / 'history' / 'cell.jsonl'} has damaged lines: 2"]


# Git


def git(folder, *arguments):
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", folder, *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder, message):
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def no_settings(monkeypatch):
    """Git without the settings of who runs the tests."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@needs_git
def test_the_history_of_a_repository_is_read(tmp_path, no_settings):
    git(tmp_path, "init", "-q", "-b", "main")
    first, second = commit(tmp_path, "One"), commit(tmp_path, "Two: with  blanks")
    git(tmp_path, "checkout", "-q", "-b", "side", first)
    third = commit(tmp_path, "Three")
    history, silence = read_history(tmp_path, [second, third, A, "", "--all"])
    assert silence == ""
    assert history.parents == {first: (), second: (first,), third: (first,)}
    assert history.subjects == {second: "Two: with  blanks", third: "Three"}
    assert read_history(tmp_path, [A])[0].parents == {}


@needs_git
def test_a_folder_without_a_repository_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    history, silence = read_history(tmp_path, [A])
    assert history.parents == {}
    assert "not a git repository" in silence
    assert read_history(tmp_path / "nowhere", [A])[1]


# The command

RUN = ("run", "--model=model.py:build", "--data=data.npz", "--threat=Linf:0.15", "--attacks=fgsm,pgd(steps=3),replay")
WORSE = "self.linear.weight = nn.Parameter(2 * means * (1 - 0.9 * (torch.arange(10) == 3))[:, None])"


def run(tiny, *more):
    provenance.commit.cache_clear()
    assert tiny.run_here(*RUN, *more) == 0


@pytest.fixture(scope="module")
def repository(tiny, tmp_path_factory):
    """A project of three commits, all run, whose middle one harms one class; and the commits."""
    folder = tiny.write_project(tmp_path_factory.mktemp("repository"), count=60)
    good = "self.linear.weight = nn.Parameter(2 * means)"
    assert good in tiny.MODEL
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
        patch.chdir(folder)
        (folder / ".gitignore").write_text("gauntlet-results\n__pycache__\n")
        git(folder, "init", "-q", "-b", "main")
        commits = [commit(folder, "Nearest mean")]
        run(tiny)
        Path("model.py").write_text(tiny.MODEL.replace(good, WORSE))
        commits.append(commit(folder, "Weigh the threes"))
        run(tiny)
        Path("model.py").write_text(tiny.MODEL.replace(good, WORSE) + "\n# Nothing else.\n")
        commits.append(commit(folder, "Add a comment"))
        run(tiny)
    provenance.commit.cache_clear()
    return folder, commits


@pytest.fixture
def here(repository, tmp_path, monkeypatch, no_settings):
    """A copy of it as the working folder."""
    shutil.copytree(repository[0], tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    yield repository[1]
    provenance.commit.cache_clear()


def bits_of(folder, name):
    """Which samples of the cells of the latest run in a results folder are robust, by id."""
    (found,) = [one for one in load_run(Path(folder)).results() if one.cell.attack == name]
    return {str(i): bool(b) for one in found.blocks for i, b in zip(one.samples.id, one.samples.robust, strict=True)}


@needs_git
def test_the_commit_and_the_samples_that_it_lost_are_named(here, call, tiny):
    first, second, third = here
    done = call("bisect", "gauntlet-results")
    assert done.returncode == 0, done.stderr
    assert f"at {second[:10]} (Weigh the threes):" in done.stdout
    assert f"Largest loss: {second[:10]} (Weigh the threes)" in done.stdout
    assert f"at {third[:10]}" not in done.stdout
    told = json.loads(call("bisect", "gauntlet-results", "--format=json").stdout)
    assert [cell["title"].split(" × ")[2].split()[0] for cell in told["cells"]] == ["fgsm", "pgd(steps=3)"]
    now = bits_of("gauntlet-results", "fgsm")
    git(".", "checkout", "-q", first)
    run(tiny, "--out=fresh")
    was = bits_of("fresh", "fgsm")
    (loss,) = told["cells"][0]["lost_now"]
    assert loss["version"] == 1
    assert loss["samples"]
    assert set(loss["samples"]) == {name for name in was if was[name] and not now[name]}
    assert [one["commit"] for one in told["cells"][0]["versions"]] == here


@needs_git
def test_the_history_of_one_sample_is_told(here, call):
    told = json.loads(call("bisect", "gauntlet-results", "--format=json").stdout)
    name = told["cells"][0]["lost_now"][0]["samples"][0]
    lines = call("bisect", "gauntlet-results", "--attack=fgsm", f"--sample={name}").stdout.splitlines()
    assert len(lines) == 4
    assert lines[1].split()[0] == here[0][:10]
    assert lines[1].endswith("robust")
    assert "broken" in lines[2] or "wrong when clean" in lines[2]
    assert lines[3].startswith("*")
    (cell, _) = json.loads(call("bisect", "gauntlet-results", f"--sample={name}", "--format=json").stdout)["cells"]
    assert [fate["robust"] for fate in cell["fates"]] == [True, False, False]


@needs_git
def test_uncommitted_changes_are_told(here, call, tiny):
    Path("model.py").write_text(tiny.MODEL.replace("2 * means", "0 * means"))
    run(tiny)
    assert f"uncommitted changes on {here[2][:10]}" in call("bisect", "gauntlet-results").stdout


def asked(folder="gauntlet-results"):
    """The commit of the working folder has asked for what the latest run shows."""
    found = load_run(Path(folder))
    for cell in found.plan.cells:
        record_request(found.root, cell.name, [key for key, _ in found.keys(cell)])


@needs_git
def test_a_commit_that_the_store_answered_is_a_version_too(here, call, tiny):
    git(".", "checkout", "-q", here[0])
    again = commit(".", "Say something")
    git(".", "checkout", "-q", here[2])
    told = call("bisect", "gauntlet-results", f"--repo={Path.cwd()}").stdout
    assert again[:10] not in told
    git(".", "checkout", "-q", again)
    run(tiny)
    asked()
    told = call("bisect", "gauntlet-results", "--attack=fgsm").stdout
    assert f"*  {again[:10]}" in told
    assert "Lost now: 0 of 60 samples." in told
    assert "The versions are on several branches" in told


@needs_git
def test_changes_that_were_run_before_they_were_committed_are_the_commits(here, call, tiny):
    Path("model.py").write_text(tiny.MODEL.replace("2 * means", "0 * means"))
    run(tiny)
    worse = commit(".", "Forget all")
    run(tiny)
    asked()
    told = call("bisect", "gauntlet-results", "--attack=fgsm").stdout
    assert f"at {worse[:10]} (Forget all):" in told
    assert "dirty" not in told
    assert "uncommitted" not in told


@needs_git
def test_without_a_repository_versions_stand_in_the_order_of_time(here, call):
    shutil.rmtree(".git")
    done = call("bisect", "gauntlet-results", "--attack=fgsm")
    assert done.returncode == 0
    assert "Ordered by time: git cannot read" in done.stdout
    assert f"at {here[1][:10]}:" in done.stdout
    assert "without results" not in done.stdout


@needs_git
def test_a_repository_elsewhere_can_be_named(here, call, tmp_path):
    shutil.copytree("gauntlet-results", tmp_path / "alone" / "results")
    done = call("bisect", tmp_path / "alone" / "results", f"--repo={Path.cwd()}")
    assert "(Weigh the threes)" in done.stdout
    assert "In order of time" not in done.stdout


@needs_git
def test_commits_that_git_does_not_know_are_told(here, call):
    shutil.rmtree(".git")
    git(".", "init", "-q", "-b", "main")
    done = call("bisect", "gauntlet-results")
    assert f"Ordered by time: git does not have {min(here)[:10]}" in done.stdout


@needs_git
def test_a_cell_with_one_version_is_told_as_such(here, call, tiny):
    run(tiny, "--out=fresh")
    done = call("bisect", "fresh")
    assert done.returncode == 0
    assert done.stdout.count("Only one version is stored") == 2
    assert here[2][:10] in done.stdout


@needs_git
def test_stores_of_several_folders_are_read_together(here, call, tiny):
    for number, name in enumerate(here):
        git(".", "checkout", "-q", name)
        run(tiny, f"--out=results{number}")
    done = call("bisect", "results2", "results0", "results1")
    assert done.stdout == call("bisect", "results0", "results1", "results2").stdout
    assert f"Largest loss: {here[1][:10]} (Weigh the threes)" in done.stdout


@needs_git
def test_a_damaged_block_is_skipped_and_told(here, call):
    sizes = {path: path.read_bytes() for path in Path("gauntlet-results/store").glob("??/*.parquet")}
    for path, content in sizes.items():
        path.write_bytes(content[:100])
        done = call("bisect", "gauntlet-results")
        assert done.returncode == 0, done.stderr
        assert f"Skipped: {path} is damaged" in done.stdout
        assert "Traceback" not in done.stdout + done.stderr
        path.write_bytes(content)


@needs_git
def test_wrong_input_is_one_sentence_and_exit_code_2(here, call, tmp_path):
    for arguments, word in (
        ([tmp_path], "holds no run"),
        (["gauntlet-results", "--model=nobody"], "matches model 'nobody'"),
        (["gauntlet-results", "--attack=replay"], "replay"),
        (["gauntlet-results", "--sample=nowhere"], "no version holds sample 'nowhere'"),
        (["gauntlet-results", "--format=pdf"], "pdf"),
        (["gauntlet-results", "--repo=nowhere"], "nowhere"),
        ([], "RUN"),
    ):
        done = call("bisect", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert word in done.stderr
        assert "Traceback" not in done.stderr


@needs_git
def test_a_model_that_fails_now_is_told(here, call):
    text = Path("model.py").read_text()
    Path("model.py").write_text(
        text.replace(
            "        return self.linear",
            "        assert not x.requires_grad, 'no gradients here'\n        return self.linear",
        )
    )
    provenance.commit.cache_clear()
    assert call(*RUN).returncode == 1
    done = call("bisect", "gauntlet-results", "--attack=fgsm")
    assert done.returncode == 0
    assert "at " + here[1][:10] in done.stdout
    assert "The latest run of this cell failed (" in done.stdout
    assert "no gradients here" in done.stdout


@needs_git
def test_a_run_whose_blocks_are_gone_is_told(here, call):
    (run_folder,) = Path("gauntlet-results/runs").iterdir()
    for file in (run_folder / "cells").iterdir():
        for key, _ in json.loads(file.read_text())["blocks"]:
            Path("gauntlet-results/store", key[:2], f"{key}.parquet").unlink()
    done = call("bisect", "gauntlet-results")
    assert done.returncode == 0
    assert done.stdout.count("The latest run has no result of this cell") == 2
    shutil.rmtree("gauntlet-results/store")
    done = call("bisect", "gauntlet-results")
    assert (done.returncode, done.stdout) == (2, "")
    assert "have no stored results" in done.stderr
