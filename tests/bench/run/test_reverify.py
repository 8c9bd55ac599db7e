"""`gauntlet verify`: an honest run passes, and whatever was altered afterwards is found and named."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders import reseal
from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.results.store import Store

ARGUMENTS = ("--model=model.py:build", "--data=data.npz", "--threat=Linf:0.1", "--out=out")


@pytest.fixture(scope="module")
def honest(tiny, tmp_path_factory):
    """A project with a finished run, made once."""
    folder = tiny.write_project(tmp_path_factory.mktemp("honest"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = tiny.run_here("run", *ARGUMENTS, "--attacks=fgsm,pgd(steps=5)", "--defense=none,input_noise")
    assert done == 0
    return folder


def block(folder):
    """Store and key of the undefended FGSM cell's only block."""
    run = load_run(folder / "out")
    ((key, _),) = run.keys(run.plan.cells[0])
    return Store(folder / "out"), key


def alter(folder, column, change, *, cover):
    """Change a column's values in place; `cover`: with a digest that fits again. Returns the file's path."""
    store, key = block(folder)
    path = store.path(key)
    table = pq.read_table(path)
    values = table[column].to_pylist()
    change(values, table)
    table = table.set_column(
        table.column_names.index(column), column, pa.array(values, table.schema.field(column).type)
    )
    path.unlink()
    pq.write_table(table, path)
    if cover:
        reseal(store, key)
    return path


def _broken(table):
    return next(
        i for i, robust in enumerate(table["robust"].to_pylist()) if not robust and table["adversarial"][i].is_valid
    )


def _robust(table):
    return table["robust"].to_pylist().index(True)


def _pixel(images, table):
    row = _broken(table)
    pixels = np.frombuffer(images[row], np.float32).copy()
    pixels[10] = 1 - pixels[10] if abs(pixels[10] - 0.5) > 0.2 else 1
    images[row] = pixels.tobytes()


def _clean_again(images, table):
    images[_broken(table)] = np.zeros(64, np.float32).tobytes()


def _label(labels, table):
    labels[_broken(table)] = (labels[_broken(table)] + 1) % 10


def _now_robust(verdicts, table):
    verdicts[_broken(table)] = True


def _no_longer_robust(verdicts, table):
    verdicts[_robust(table)] = False


def _closer(distances, table):
    distances[_broken(table)] /= 2


def _clean_prediction(predictions, table):
    predictions[_robust(table)] = (predictions[_robust(table)] + 1) % 10


def _name(names, table):
    names[_broken(table)] = "another"


def test_an_honest_run_passes_in_a_process_of_its_own(honest, tiny):
    done = tiny.run_command(honest, "verify", "out", "--trust")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["ok"] * 4
    assert lines[-1].startswith("4 of 4 cells, ")
    assert " 0 failures" in lines[-1]
    assert "of 30" in lines[0]


def test_what_verify_counts_is_what_the_leaderboard_says(finished, call):
    told = [line for line in call("verify", "out", "--trust").stdout.splitlines() if line.startswith("ok")]
    shown = call("show", "out").stdout
    for line in told:
        title, percent = line.removeprefix("ok").strip().split(": robust ")
        assert f"{title}: robust {percent.split()[0]} % of 30" in shown


@pytest.mark.parametrize(
    ("column", "change", "where"),
    [
        pytest.param("adversarial", _pixel, _broken, id="a pixel"),
        pytest.param("adversarial", _clean_again, _broken, id="an image"),
        pytest.param("label", _label, _broken, id="a label"),
        pytest.param("robust", _now_robust, _broken, id="a verdict to robust"),
        pytest.param("robust", _no_longer_robust, _robust, id="a verdict to broken"),
        pytest.param("distance", _closer, _broken, id="a distance"),
        pytest.param("clean_prediction", _clean_prediction, _robust, id="a clean prediction"),
        pytest.param("id", _name, _broken, id="an id"),
    ],
)
@pytest.mark.parametrize("cover", [False, True], ids=["its digest left", "its digest recomputed"])
def test_one_altered_value_is_found_and_named(finished, call, column, change, where, cover):
    path = alter(finished, column, change, cover=cover)
    done = call("verify", "out", "--trust")
    assert done.returncode == 1
    (failure,) = [line for line in done.stdout.splitlines() if line.startswith("FAILED") and "examples" not in line]
    row = where(pq.read_table(path)) if column == "adversarial" else None
    if cover:
        store, key = block(finished)
        names = load_names(store, key)
        expected = [names[row]] if row is not None else names
        assert any(f": {name}: " in failure for name in expected), failure
    else:
        assert path.name in failure
        assert "was altered" in failure
    assert "model.build × none × fgsm" in failure
    # The other cells are verified all the same.
    assert sum(line.startswith("ok") for line in done.stdout.splitlines()) == 3


def load_names(store, key):
    """The ids as the data have them: whole numbers in order."""
    return [str(i) for i in range(len(pq.read_table(store.path(key))))]


def test_an_alteration_is_found_in_a_process_of_its_own(finished, tiny):
    path = alter(finished, "robust", _now_robust, cover=False)
    done = tiny.run_command(finished, "verify", "out", "--trust")
    assert done.returncode == 1
    assert path.name in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("means.npy", lambda folder: np.save(folder / "means.npy", np.load(folder / "means.npy") * np.float32(1.001))),
        (
            "model.py",
            lambda folder: (folder / "model.py").write_text((folder / "model.py").read_text() + "\nNEW = 1\n"),
        ),
        ("data.npz", "one more pixel"),
    ],
)
def test_a_changed_model_or_data_fails_every_cell(finished, call, tiny, file, change):
    if callable(change):
        change(finished)
    else:
        with np.load(finished / file) as data:
            images, labels = data["images"], data["labels"]
        images[0, 0, 0, 0] = 0.5
        np.savez_compressed(finished / file, images=images, labels=labels)
    done = call("verify", "out", "--trust")
    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 4
    assert all("content hash differs" in line for line in failed)


@pytest.mark.parametrize("file", ["model.py", "data.npz", "means.npy"])
def test_a_model_or_data_that_are_not_there_are_failures_and_no_traceback(finished, call, file):
    (finished / file).unlink()
    done = call("verify", "out", "--trust")
    assert done.returncode == 1
    assert file in done.stdout
    assert "cannot be rebuilt" in done.stdout


def test_a_model_that_breaks_down_while_it_is_verified_is_a_failure(finished, call, monkeypatch):
    import torch

    monkeypatch.setattr(torch.nn.Linear, "forward", lambda self, x: 1 / 0)
    done = call("verify", "out", "--trust")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stdout or "division by zero" in done.stdout


def test_a_damaged_block_is_a_failure_with_its_file(finished, call):
    store, key = block(finished)
    store.path(key).write_bytes(store.path(key).read_bytes()[:300])
    done = call("verify", "out", "--trust")
    assert done.returncode == 1
    assert f"{key}.parquet is damaged" in done.stdout


def test_a_table_that_was_altered_is_a_failure(finished, call):
    path = finished / "out" / "cells.csv"
    header, first, *rest = path.read_text(encoding="utf-8").splitlines()
    place = header.split(",").index("robust_accuracy")
    fields = first.split(",")
    assert "," not in fields[place]
    fields[place] = "0.999"
    path.write_text("\n".join([header, ",".join(fields), *rest]) + "\n", encoding="utf-8")
    done = call("verify", "out", "--trust")
    assert done.returncode == 1
    assert "cells.csv has robust accuracy 0.9990" in done.stdout


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content.replace(b"attack", b"attick", 1), id="another column"),
        pytest.param(lambda content: content[:200] + bytes([0xFF, 0xFE]) + content[202:], id="no text"),
        pytest.param(lambda content: bytes(len(content)), id="zeros"),
        pytest.param(lambda content: b"", id="empty"),
    ],
)
def test_a_damaged_table_is_a_failure_with_its_remedy_and_the_cells_are_verified(finished, call, damage):
    path = finished / "out" / "cells.csv"
    path.write_bytes(damage(path.read_bytes()))
    done = call("verify", "out", "--trust")
    assert done.returncode == 1
    (failure,) = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert "cells.csv is damaged" in failure
    assert "gauntlet leaderboard out" in failure
    assert sum(line.startswith("ok") for line in done.stdout.splitlines()) == 4
    assert call("leaderboard", "out").returncode == 0
    assert call("verify", "out", "--trust").returncode == 0


def test_blocks_that_are_missing_are_told_and_are_no_pass_where_nothing_is_left(finished, call):
    store, key = block(finished)
    store.path(key).unlink()
    done = call("verify", "out", "--trust")
    assert done.returncode == 0
    assert "absent model.build × none × fgsm: not run yet" in done.stdout
    assert "3 of 4 cells" in done.stdout
    shutil.rmtree(finished / "out" / "store")
    done = call("verify", "out", "--trust")
    assert done.returncode == 1
    assert "0 of 4 cells" in done.stdout


def test_examples_that_were_not_kept_are_told(project, call):
    assert call("run", *ARGUMENTS, "--attacks=fgsm", "--no-adversarials").returncode == 0
    done = call("verify", "out", "--trust")
    assert done.returncode == 0
    assert "examples were not kept (--no-adversarials)" in done.stdout
    assert " 0 adversarial examples measured again" in done.stdout


@pytest.mark.parametrize("checks", ["none", "all"])
def test_runs_with_other_checks_are_verified(project, call, checks):
    assert call("run", *ARGUMENTS, "--attacks=fgsm", f"--checks={checks}").returncode == 0
    done = call("verify", "out", "--trust")
    assert done.returncode == 0, done.stdout
    assert " 0 failures" in done.stdout


def test_a_folder_without_a_run_is_told(tmp_path, call):
    done = call("verify", tmp_path)
    assert done.returncode == 2
    assert "holds no run" in done.stderr


def test_measurements_of_another_machine_decide_in_verify_and_in_a_dry_run(tiny, tmp_path, monkeypatch, capsys):
    """Their profile chose the stages, and with them the keys."""
    tiny.write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    run = (*ARGUMENTS, "--attacks=adaptive", "--samples=10")
    assert tiny.run_here("run", *run) == 0
    for path in (tmp_path / "out" / "measured").glob("*/*.json"):
        measured = json.loads(path.read_text())
        del measured["digest"]
        if "masked" in measured:
            path.write_text(json.dumps({**measured, "masked": not measured["masked"]}))
    shutil.rmtree(tmp_path / "out" / "store")
    assert tiny.run_here("run", *run) == 0
    assert tiny.run_here("verify", "out", "--trust") == 0
    capsys.readouterr()
    assert tiny.run_here("run", *run, "--dry-run") == 0
    assert "0 of 10 stored" not in capsys.readouterr().out
