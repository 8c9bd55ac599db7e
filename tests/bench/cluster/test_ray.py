"""`gauntlet run --ray`: a cluster's results are those of a local run, whatever is lost on the way."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from pathlib import Path

import pytest

from gauntlet.bench.run.run_folder import load_run
from gauntlet.leaderboard.results.store import Store
from run_tables import same_blocks, same_tables

pytest.importorskip("ray")

PLAN = ("run", "--data=data.npz", "--threat=Linf:0.1", "--device=cpu")
DEFENSES = ("--defense=none", "--defense=bit_depth(bits=3)")
SIGNALS = """

import os
import signal
import time
from pathlib import Path

_build, _greeted = build, [False]


def build():
    net = _build()
    net.register_forward_pre_hook(_greet)
    return net


def _greet(module, given):
    # Say hello once, and wait until the test says go. Opening a named pipe waits for the other end.
    if _greeted[0] or not Path("hello").exists():
        return
    _greeted[0] = True
    # The blocks of another model, which another worker attacks.
    while len(list(Path("out").glob("store/??/*.parquet"))) < int(os.environ.get("AFTER", "0")):
        time.sleep(0.01)
    go = Path(f"go-{os.getpid()}")
    os.mkfifo(go)
    Path("hello").write_text(f"{os.getpid()}\\n")
    go.read_text()


def again():
    return build()


def fatal():
    net = _build()
    net.register_forward_pre_hook(_die)
    return net


def _die(module, given):
    whom = os.environ["KILLED"]
    if not Path("died").exists():
        Path("died").touch()
        os.kill(os.getpid() if whom == "process" else os.getppid(), signal.SIGKILL)


def wrong():
    net = _build()
    net.register_forward_pre_hook(_raise)
    return net


def _raise(module, given):
    raise ValueError("no such layer")
"""


@contextlib.contextmanager
def cluster(*nodes, **head):
    """A Ray cluster whose nodes have so many CPUs; the first one is the head, which must outlive the others."""
    from ray.cluster_utils import Cluster

    given = {"num_cpus": nodes[0], "include_dashboard": False, **head}
    made = Cluster(initialize_head=True, head_node_args=given)
    try:
        made.extra = [made.add_node(num_cpus=count) for count in nodes[1:]]
        yield made
    finally:
        made.shutdown()


@pytest.fixture
def here(project):
    """The project with a model that says hello, and two blocks of data."""
    with Path("model.py").open("a") as file:
        file.write(SIGNALS)
    return project


@pytest.fixture
def hello(here, tiny):
    """A function that waits for the next worker that says hello, and returns its process id; the data has five blocks."""
    tiny.write_data(".", 420)
    os.mkfifo("hello")
    # Open for writing as well, the pipe has no end between two workers.
    with os.fdopen(os.open("hello", os.O_RDWR), "rb", buffering=0) as pipe:
        yield lambda: int(pipe.readline())


def go(worker):
    Path(f"go-{worker}").write_text("go")


def first_to_end(*workers):
    """The process that ends first, of those that may already have."""
    waiting = select.poll()
    numbers = {}
    for worker in workers:
        try:
            numbers[os.pidfd_open(worker)] = worker
        except ProcessLookupError:
            return worker
    for number in numbers:
        waiting.register(number, select.POLLIN)
    ended = waiting.poll(100_000)
    for number in numbers:
        os.close(number)
    return numbers[ended[0][0]] if ended else None


def same_as_local(call, *options, out="out"):
    local = call(*PLAN, *options, "--out=local")
    assert local.returncode == 0, local.stderr
    same_blocks("local", out)
    # The name of a device has the number of its threads.
    same_tables("local", out, but=("device",))


def test_two_nodes_give_the_records_and_tables_of_a_local_run(here, call, tiny):
    tiny.write_data(".", 220)
    options = ("--model=model.py:build", *DEFENSES, "--attacks=fgsm,pgd(steps=5),replay")
    with cluster(1, 1) as made:
        done = call(*PLAN, *options, "--out=out", f"--ray={made.address}")
        assert done.returncode == 0, done.stderr
        assert "6 cells: 0 answered from the store" in done.stdout
        again = call(*PLAN, *options, "--out=out", f"--ray={made.address}")
        assert "6 cells: 6 answered from the store" in again.stdout
    same_as_local(call, *options)


@pytest.mark.slow
def test_a_model_that_fails_or_is_missing_is_named(here, call, tiny):
    tiny.write_data(".", 220)
    with cluster(1, 1) as made:
        wrong = call(*PLAN, "--model=model.py:wrong,model.py:build", "--attacks=fgsm", f"--ray={made.address}")
        assert wrong.returncode == 1
        assert "model.wrong × none × fgsm: ERROR the model fails on images" in wrong.stderr
        assert "model.build × none × fgsm: robust" in wrong.stderr
        missing = call(*PLAN, "--model=model.py:nothing", "--attacks=fgsm", "--out=no", f"--ray={made.address}")
        assert missing.returncode == 2
        assert "nothing" in missing.stderr
        assert not Path("no").exists()


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["process", "actor"])
def test_a_worker_that_is_killed_costs_a_task(here, call, tiny, monkeypatch, whom):
    tiny.write_data(".", 420)
    monkeypatch.setenv("KILLED", whom)
    options = ("--model=model.py:fatal", "--attacks=fgsm,pgd(steps=5)")
    with cluster(1, 1) as made:
        done = call(*PLAN, *options, "--out=out", f"--ray={made.address}")
    assert done.returncode == 0, done.stderr
    assert Path("died").exists()
    same_as_local(call, *options)


@pytest.mark.slow
def test_a_node_that_is_lost_costs_its_tasks(hello, call, tiny):
    options = ("--model=model.py:build,model.py:again", "--attacks=pgd(steps=5)")
    with cluster(1, 1) as made:
        running = tiny.start_command(".", *PLAN, *options, "--out=out", f"--ray={made.address}")
        # Both are in the middle of a task.
        workers = {hello(), hello()}
        made.remove_node(made.extra[0], allow_graceful=False)
        Path("hello").unlink()
        (left,) = workers - {first_to_end(*workers)}
        go(left)
        _, err = running.communicate(timeout=200)
    assert running.returncode == 0, err
    same_as_local(call, *options)


@pytest.mark.slow
def test_a_node_that_joins_gets_tasks(hello, call, tiny):
    options = ("--model=model.py:build,model.py:again", "--attacks=pgd(steps=5)")
    with cluster(1) as made:
        running = tiny.start_command(".", *PLAN, *options, "--out=out", f"--ray={made.address}")
        first = hello()
        made.add_node(num_cpus=1)
        second = hello()
        Path("hello").unlink()
        for worker in (first, second):
            go(worker)
        _, err = running.communicate(timeout=200)
    assert running.returncode == 0, err
    same_as_local(call, *options)


@pytest.mark.slow
def test_workers_share_a_gpu_that_the_cluster_says_it_has(hello, call, tiny):
    options = ("--model=model.py:build,model.py:again", "--attacks=fgsm", "--device=auto", "--gpus-per-task=0.5")
    with cluster(1, num_gpus=1) as made:
        running = tiny.start_command(".", *PLAN, *options, "--out=out", f"--ray={made.address}")
        both = {hello(), hello()}
        Path("hello").unlink()
        seen = {Path(f"/proc/{worker}/environ").read_bytes().count(b"CUDA_VISIBLE_DEVICES=0\0") for worker in both}
        for worker in both:
            go(worker)
        _, err = running.communicate(timeout=200)
    assert running.returncode == 0, err
    assert len(both) == 2
    assert seen == {1}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_workers_and_keeps_what_came(hello, call, tiny, monkeypatch, number):
    monkeypatch.setenv("AFTER", "2")
    models = "--model=cnn.standard_digits,model.py:build"
    data = ("run", "--data=digits", "--samples=0:200", "--device=cpu", "--checks=none", "--attacks=fgsm")
    with cluster(1, 1) as made:
        running = tiny.start_command(".", *data, models, "--out=out", f"--ray={made.address}")
        worker = hello()
        running.send_signal(number)
        out, err = running.communicate(timeout=100)
        assert running.returncode == 130, (out, err)
        assert "200 outcomes are stored, one for each sample and attack; run the same command again to resume" in err
        assert first_to_end(worker) == worker
    Path("hello").unlink()
    assert len(Store(Path("out")).stored_keys()) == 2
    done = call(*data, models, "--out=out")
    assert "2 cells: 1 answered from the store" in done.stdout
    assert load_run(Path("out")).results()[1].error is None


def test_without_the_package_the_remedy_is_named(project, call, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    refused = call(*PLAN, "--model=model.py:build", "--attacks=fgsm", "--ray")
    assert refused.returncode == 2
    assert "pip install 'robust-gauntlet[ray]'" in refused.stderr


def test_a_cluster_that_is_not_there_is_wrong_usage(project, call):
    refused = call(*PLAN, "--model=model.py:build", "--attacks=fgsm", "--ray=127.0.0.1:1")
    assert refused.returncode == 2
    assert "--ray: the Ray cluster '127.0.0.1:1' cannot be reached" in refused.stderr
    assert not Path("gauntlet-results").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--gpus-per-task=0.5",), "--gpus-per-task=0.5 is of use with --ray alone"),
        (("--ray", "--gpus-per-task=2"), "gpus_per_task=2.0"),
        (("--ray=tests/",), "--ray=tests/ is no address: write --ray=HOST:PORT"),
        (("--ray=ray://head:10001",), "Ray's client is not supported"),
        (("--ray", "--device=cuda:1"), "Ray gives each worker its own: use auto, cuda or cpu"),
        (("--ray", "--shard=1/2"), "--ray shares out a run by itself, and --shard=1/2 is a part"),
    ],
)
def test_what_does_not_go_with_ray_is_refused(project, call, options, words):
    refused = call(*PLAN, "--model=model.py:build", "--attacks=fgsm", *options)
    assert refused.returncode == 2
    assert words in refused.stderr
