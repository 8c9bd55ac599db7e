"""The baseline file: what a run makes of it, the round trip, and what is refused."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from builders import baseline, cell_info, result
from gauntlet.leaderboard.gate.baseline import BASELINE_SCHEMA, ArtifactRef, BaselineError, baseline_of, diff
from gauntlet.leaderboard.gate.baseline_file import read_baseline, write_baseline
from gauntlet.leaderboard.results.errors import WriteError


def accepted(*results, **changes):
    given = {"suite": "quick", "commit": "abc123", "reason": "first", "created": "2026-11-21T10:00:00+00:00"}
    return baseline_of(results, **(given | changes))


def same(one, other):
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        or getattr(one, field.name) != getattr(one, field.name) != getattr(other, field.name)
        for field in fields(one)
    )


# What a run makes


def test_a_cell_holds_the_bits_and_the_costs_of_all_its_blocks():
    (cell,) = accepted(result([True, False, True, False, True], blocks=2)).cells
    assert cell.robust.tolist() == [True, False, True, False, True]
    assert cell.correct.all()
    assert (cell.n, cell.forwards, cell.backwards) == (5, 20.0, 15.0)
    assert (cell.seconds, cell.peak_memory_mib) == (2.0, 11.0)
    assert (cell.status, cell.weights) == ("ok", "w1")


def test_a_randomised_models_bits_are_the_majority_of_the_scoring_draws():
    bits = [True, True, True, False]
    (cell,) = accepted(result(bits, cell=cell_info(randomised=True), wrong_share_scored=[0.0, 0.45, 0.5, 0.1])).cells
    assert cell.randomised
    assert cell.robust.tolist() == [True, True, False, True]


def test_certificates_are_left_out():
    assert not accepted(result([True], cell=cell_info(attack_kind="certificate"))).cells


@pytest.mark.parametrize(
    ("changes", "digest", "moves"),
    [
        ({"cell": cell_info(attack_spec="pgd(steps=10)")}, "spec", True),
        ({"cell": cell_info(minimum_norm=True)}, "spec", True),
        ({"cell": cell_info(precision="bf16")}, "spec", True),
        ({"made": {"weights": "w2"}}, "spec", False),
        ({"made": {"data": "other"}}, "data_digest", True),
        ({"id": ["s1", "s0"]}, "data_digest", True),
        ({"made": {"weights": "w2"}}, "data_digest", False),
        ({"made": {"weights": "w2"}}, "weights", True),
        ({"cell": cell_info(attack_spec="pgd(steps=10)")}, "weights", False),
    ],
)
def test_a_digest_moves_with_what_it_stands_for_and_with_nothing_else(changes, digest, moves):
    (before,) = accepted(result([True, False])).cells
    (after,) = accepted(result([True, False], **changes)).cells
    assert (getattr(before, digest) != getattr(after, digest)) == moves


def test_blocks_that_record_no_data_make_no_digest_that_could_agree():
    assert accepted(result([1, 0])).cells[0].data_digest
    assert accepted(result([1, 0], made={"data": ""})).cells[0].data_digest == ""


def test_two_cells_of_one_key_are_refused():
    with pytest.raises(BaselineError, match=r"two cells.*'pgd'"):
        accepted(result([True]), result([False], cell=cell_info(attack_spec="pgd(steps=10)")))


# The file


def test_what_is_written_is_read_back(tmp_path):
    rng = np.random.default_rng(0)
    long = rng.uniform(size=797) < 0.7
    correct = long | (rng.uniform(size=797) < 0.5)
    cells = [
        result(long, correct=correct),
        result([True] * 8, cell=cell_info(model='模型 "q"')),
        result([False, True], cell=cell_info(attack="slow"), expected=4),
        result(cell=cell_info(attack="dead"), error="boom\nand more"),
    ]
    named = ArtifactRef("quick-0123456789ab.zip", "01" * 32, 12345)
    written = replace(accepted(*cells, reason="a new\nrecipe", test="sequential"), artifact=named)
    path = tmp_path / "bench" / "baselines" / "quick.json"
    write_baseline(path, written)
    found = read_baseline(path)
    assert replace(found, cells=()).__dict__ == replace(written, cells=()).__dict__
    assert len(found.cells) == 4
    assert all(same(one, other) for one, other in zip(written.cells, found.cells, strict=True))
    assert [cell.status for cell in found.cells] == ["ok", "ok", "unfinished", "error"]
    assert diff(written, found) == []


def test_writing_twice_gives_the_same_bytes_in_a_few_short_lines_a_cell(tmp_path):
    baseline = accepted(*(result(np.arange(797) < k, cell=cell_info(model=f"m{k}")) for k in (600, 700)))
    write_baseline(tmp_path / "one.json", baseline)
    write_baseline(tmp_path / "two.json", read_baseline(tmp_path / "one.json"))
    text = (tmp_path / "one.json").read_text()
    assert text == (tmp_path / "two.json").read_text()
    assert len(text) / 2 < 1500
    assert len(text.splitlines()) < 27
    assert json.loads(text)["cells"][0]["samples"]["robust"] == 600


def test_a_baseline_without_cells_is_a_whole_file_too(tmp_path):
    write_baseline(tmp_path / "none.json", accepted())
    assert read_baseline(tmp_path / "none.json").cells == ()


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "quick.json"
    write_baseline(path, accepted(result([True])))
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(WriteError, match=r"quick\.json"):
        write_baseline(path, accepted(result([False])))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def stored(tmp_path):
    path = tmp_path / "quick.json"
    write_baseline(path, accepted(result([True, False, True]), result([True], cell=cell_info(model="two"))))
    return path, json.loads(path.read_text())


def test_a_missing_baseline_is_an_error_that_names_the_file_and_the_command(tmp_path):
    with pytest.raises(
        BaselineError, match=r"nothing\.json does not exist: correct its name, or .*accept RUN --out .*nothing"
    ):
        read_baseline(tmp_path / "nothing.json")


def test_a_folder_is_no_baseline(tmp_path):
    with pytest.raises(BaselineError, match=r"cannot be read.*name a baseline file"):
        read_baseline(tmp_path)


def test_a_baseline_that_an_editor_saved_with_a_byte_order_mark_is_read(tmp_path):
    path, _ = stored(tmp_path)
    before = path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + before)
    assert len(read_baseline(path).cells) == 2


@pytest.mark.parametrize("text", ["", "{", '{"schema": 1', "\x00\x01", "<<<<<<< HEAD\n{}"])
def test_a_file_that_is_not_json_is_damaged(tmp_path, text):
    path = tmp_path / "quick.json"
    path.write_text(text)
    with pytest.raises(BaselineError, match=r"quick\.json is damaged.*version control"):
        read_baseline(path)
    assert path.read_text() == text


def test_bytes_that_are_no_text_are_damaged(tmp_path):
    path = tmp_path / "quick.json"
    path.write_bytes(b"\xff\xfe\x80")
    with pytest.raises(BaselineError, match="damaged"):
        read_baseline(path)


@pytest.mark.parametrize("text", ["[]", "{}", "3", '{"schema": "1"}', '{"schema": true}'])
def test_json_of_something_else_is_no_baseline(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(BaselineError, match="is not a baseline"):
        read_baseline(path)


@pytest.mark.parametrize(("schema", "way"), [(BASELINE_SCHEMA - 1, "write it again"), (BASELINE_SCHEMA + 1, "upgrade")])
def test_another_schema_is_refused_with_the_way_out(tmp_path, schema, way):
    path, content = stored(tmp_path)
    path.write_text(json.dumps(content | {"schema": schema}))
    with pytest.raises(BaselineError, match=rf"schema {schema}.*reads {BASELINE_SCHEMA}.*{way}"):
        read_baseline(path)


def set_in(group, name, value):
    def change(content):
        content["cells"][0][group][name] = value

    return change


def drop(group, name):
    def change(content):
        del content["cells"][0][group][name]

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: content.pop("cells"), "'cells'"),
        (lambda content: content.pop("commit"), "'commit'"),
        (lambda content: content.update(cells=[3]), "."),
        (lambda content: content.update(test="both"), "test='both'"),
        (lambda content: content.update(artifact={"file": "a.zip", "sha256": "0", "bytes": "1"}), "bytes='1'"),
        (lambda content: content.update(artifact={"file": "../a.zip", "sha256": "0", "bytes": 1}), "../a.zip"),
        (lambda content: content["cells"][0].pop("samples"), "'samples'"),
        (drop("digests", "weights"), "'weights'"),
        (drop("samples", "robust_bits"), "'robust_bits'"),
        (set_in("cell", "seed", "0"), "seed='0'"),
        (set_in("cell", "randomised", 1), "randomised=1"),
        (set_in("cell", "status", "fine"), "'fine'"),
        (set_in("costs", "forwards", "many"), "forwards='many'"),
        (set_in("samples", "robust", 1), "robust_bits"),
        (set_in("samples", "robust_bits", "/w=="), "robust_bits"),
        (set_in("samples", "robust_bits", "oKA="), "robust_bits"),
        (set_in("samples", "robust_bits", "?"), "."),
        (set_in("samples", "n", 11), "bits"),
        (set_in("samples", "n", -1), "bits"),
    ],
)
def test_a_field_that_is_missing_or_wrong_is_named(tmp_path, change, says):
    path, content = stored(tmp_path)
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(BaselineError, match=rf"(?s)quick\.json is damaged.*{says}.*gauntlet baseline accept"):
        read_baseline(path)


def test_a_sample_that_is_robust_and_wrong_when_clean_is_refused(tmp_path):
    path, content = stored(tmp_path)
    content["cells"][0]["samples"].update(correct=1, correct_bits="gA==")
    path.write_text(json.dumps(content))
    with pytest.raises(BaselineError, match="robust, but not correct"):
        read_baseline(path)


def test_a_finished_cell_without_samples_is_refused(tmp_path):
    path, content = stored(tmp_path)
    content["cells"][0]["samples"] = {"n": 0, "robust": 0, "correct": 0, "robust_bits": "", "correct_bits": ""}
    path.write_text(json.dumps(content))
    with pytest.raises(BaselineError, match="0 samples"):
        read_baseline(path)


def test_a_cell_that_stands_twice_is_refused(tmp_path):
    path, content = stored(tmp_path)
    content["cells"].append(content["cells"][0])
    path.write_text(json.dumps(content))
    with pytest.raises(BaselineError, match=r"quick\.json has two cells"):
        read_baseline(path)


# What changed


def test_equal_baselines_differ_in_nothing_even_if_the_commit_is_another():
    cells = [result([True, False])]
    assert diff(accepted(*cells), accepted(*cells, commit="def", reason="again")) == []


def test_lost_and_gained_samples_and_other_weights_are_told():
    old, new = (
        accepted(result([True, True, True, False])),
        accepted(result([False, False, True, True], made={"weights": "w2"})),
    )
    (said,) = diff(old, new)
    assert said == (
        "net × none × pgd Linf:0.15, seed 0: 75.0 % robust (n=4) → 50.0 % robust (n=4); 2 lost, 1 gained; other weights."
    )


def test_settings_data_and_costs_that_changed_are_told():
    old = accepted(result([True, True]))
    (said,) = diff(old, accepted(result([True, True], cell=cell_info(attack_spec="pgd(steps=10)"), made={"data": "x"})))
    assert "other settings of the attack; other data or sample ids" in said
    cheaper = replace(old.cells[0], forwards=2.0, correct=old.cells[0].correct)
    (said,) = diff(old, replace(old, cells=(cheaper,)))
    assert "passes 8 + 6 → 2 + 6" in said


def test_cells_that_came_and_went_are_told():
    old, new = accepted(result([True])), accepted(result([True, False], cell=cell_info(model="new")))
    assert diff(old, new) == [
        "New: new × none × pgd Linf:0.15, seed 0: 50.0 % robust (n=2).",
        "Gone: net × none × pgd Linf:0.15, seed 0: it was 100.0 % robust (n=1).",
    ]


def test_a_cell_that_fails_now_and_other_numbers_of_samples_are_told():
    old = accepted(result([True, True]))
    (failed,) = diff(old, accepted(result(error="boom")))
    assert "100.0 % robust (n=2) → failed (RuntimeError: boom)" in failed
    (fewer,) = diff(old, accepted(result([True], expected=2)))
    assert "100.0 % robust (n=2) → unfinished, 100.0 % robust (n=1)" in fewer


def test_another_test_is_told():
    one = accepted(result([1, 0]))
    assert diff(one, replace(one, test="sequential")) == ["Test: fixed → sequential."]


def test_the_suite_that_changed_is_told():
    empty = baseline()
    assert diff(empty, replace(empty, suite="full")) == ["Suite: quick → full."]
