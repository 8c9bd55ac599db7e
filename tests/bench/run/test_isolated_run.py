"""Runs whose models live in a worker process: the results of a local run, whatever is killed."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

import pytest

from gauntlet.bench.run.run_folder import load_run
from run_tables import same_blocks, same_tables

COUNTED = """

import os
import signal

_build, _calls = build, [0]


def build():
    net = _build()
    net.register_forward_pre_hook(_count)
    return net


def _count(module, given):
    _calls[0] += 1
    whom, _, when = os.environ.get("KILLED", "").partition(":")
    if when and _calls[0] == int(when):
        os.kill(os.getpid() if whom == "worker" else os.getppid(), signal.SIGKILL)
"""


def test_the_records_and_tables_are_those_of_a_local_run(project, call):
    plan = ("run", "--model=model.py:build", "--data=data.npz", "--threat=Linf:0.1", "--attacks=adaptive,pgd(steps=5)")
    defenses = ("--defense=none", "--defense=bit_depth(bits=3)")
    local = call(*plan, *defenses, "--out=local")
    isolated = call(*plan, *defenses, "--out=isolated", "--isolate", "--timeout=200", "--profile")
    assert (local.returncode, isolated.returncode) == (0, 0), isolated.stderr
    same_blocks("local", "isolated")
    same_tables("local", "isolated")
    assert [line.partition(",")[0] for line in isolated.stderr.splitlines()] == [
        line.partition(",")[0] for line in local.stderr.splitlines()
    ]
    spent = load_run(Path("isolated")).results()[0].spent
    assert {"load", "hash", "check", "attack", "verify", "store"} <= set(spent.seconds)
    assert "Where the seconds went" in isolated.stdout
    roles = {result.cell.role for result in load_run(Path("isolated")).results()}
    assert {"attack", "replay", "certificate"} <= roles
    again = call(*plan, *defenses, "--out=isolated", "--isolate")
    assert again.stderr.count("(stored)") == len(load_run(Path("isolated")).plan.cells)
    fresh = call(*plan, *defenses, "--out=isolated", "--isolate", "--fresh")
    assert fresh.returncode == 0, fresh.stderr
    same_tables("local", "isolated")


def test_wrong_names_and_settings_are_wrong_usage_as_in_a_local_run(project, call):
    right = {"model": "model.py:build", "data": "data.npz", "attacks": "fgsm", "device": "cpu", "out": "out"}
    for name, wrong in {"model": "no.py:build", "attacks": "pgdd", "device": "cuda:77", "data": "no.npz"}.items():
        options = [f"--{key}={value}" for key, value in (right | {name: wrong}).items()]
        local, isolated = call("run", *options), call("run", *options, "--isolate")
        assert (local.returncode, local.stderr) == (isolated.returncode, isolated.stderr)
        assert isolated.returncode == 2
    assert not Path("out").exists()


@pytest.mark.parametrize("isolate", [(), ("--isolate",)])
def test_a_data_file_that_does_not_exist_is_wrong_usage_for_several_models_too(project, call, isolate):
    models = "--model=cnn.standard_digits,cnn.fast_digits"
    done = call("run", models, "--data=no.npz", "--attacks=fgsm", "--out=out", *isolate)
    assert done.returncode == 2
    assert "error: data file 'no.npz' does not exist: write a registered name" in done.stderr
    assert not Path("out").exists()


def test_a_configured_timeout_isolates_and_is_checked(project, call):
    Path("gauntlet.toml").write_text('model = "model.py:build"\ndata = "data.npz"\nattacks = "fgsm"\ntimeout = 0\n')
    assert "timeout=0" in call("run", "--out=out").stderr
    with Path("model.py").open("a") as file:
        file.write("\n\nimport os\n\nos._exit(0)\n")
    Path("gauntlet.toml").write_text('model = "model.py:build"\ndata = "data.npz"\nattacks = "fgsm"\nisolate = true\n')
    done = call("run", "--out=out")
    assert done.returncode == 1
    assert "ended with exit code 0 while preparing model.build × none × fgsm" in done.stderr


def test_the_next_cell_goes_on_with_a_new_worker_and_blocks_that_came_before_stay(project, call):
    with Path("model.py").open("a") as file:
        file.write(COUNTED + "\n\ndef other():\n    return _build()\n")
    options = ("--data=data.npz", "--threat=Linf:0.1", "--attacks=fgsm", "--out=out", "--isolate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KILLED", "worker:1")
        done = call("run", "--model=model.py:build,model.py:other", *options)
    assert done.returncode == 1
    assert "model.build × none × fgsm: ERROR the worker ended with signal 9 (SIGKILL)" in done.stderr
    assert "model.other × none × fgsm: robust" in done.stderr
    assert call("run", "--model=model.py:build,model.py:other", *options).returncode == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 130), (signal.SIGINT, 130)])
def test_an_interrupt_ends_the_worker_too_and_says_what_is_stored(tiny, tmp_path, number, code):
    folder = tiny.write_project(tmp_path)
    with (folder / "model.py").open("a") as file:
        file.write("\n\n_build = build\n\n\ndef build():\n    import os\n    import time\n\n")
        file.write("    print('worker', os.getpid(), flush=True)\n    time.sleep(1000)\n")
    options = ("--model=model.py:build", "--data=data.npz", "--attacks=fgsm", "--out=out", "--isolate")
    process = tiny.start_command(folder, "run", *options)
    line = next(line for line in process.stderr if line.startswith("worker "))
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert "interrupted: " in err
    assert not Path("/proc", line.split()[1]).exists()


@pytest.mark.parametrize("kills", [3, pytest.param(64, marks=pytest.mark.slow)])
def test_kills_at_random_moments_lose_double_and_damage_nothing(tiny, tmp_path, kills):
    drawn, folder = random.Random(17), tiny.write_project(tmp_path, 250)
    with (folder / "model.py").open("a") as file:
        file.write(COUNTED)
    plan = ("run", "--model=model.py:build", "--data=data.npz", "--threat=Linf:0.1", "--attacks=pgd(steps=4),fgsm")
    assert tiny.run_command(folder, *plan, "--out=whole").returncode == 0
    done = 0
    while done < kills:
        whom, when = drawn.choice(["worker", "parent"]), drawn.randrange(1, 60)
        ended = tiny.run_command(folder, *plan, "--out=out", "--isolate", KILLED=f"{whom}:{when}")
        assert ended.returncode in (0, 1, -signal.SIGKILL), ended.stderr
        same_blocks(folder / "out", folder / "whole", some=True)
        done += ended.returncode != 0
        if ended.returncode == 0:
            same_tables(folder / "out", folder / "whole")
            shutil.rmtree(folder / "out")
    last = tiny.run_command(folder, *plan, "--out=out", "--isolate")
    assert last.returncode == 0, last.stderr
    same_blocks(folder / "out", folder / "whole")
    same_tables(folder / "out", folder / "whole")
    assert not (folder / "out" / "damaged").exists()
