"""Models that try to pass a gate: each loses robustness, and none ends the run with success."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from builders import slow_unless
from gate_project import ATTACK, BASELINE, CUT, RUN
from gauntlet.leaderboard.results.sealed_json import read_sealed, sealed

ENTRY = "import sys; sys.argv[0] = 'gauntlet'; from gauntlet.bench.cli.main import entry; entry()"
GATED = (*RUN, ATTACK, f"--gate={BASELINE}")
IN_FORWARD = """

import os, signal, sys, threading, time

_first, _calls = build, [0]


def build():
    net = _first()
    net.register_forward_pre_hook(_trick)
    return net


def _trick(module, given):
    _calls[0] += 1
    {trick}
"""

FORGE = """

import json, os, threading, time
from pathlib import Path

from gauntlet.leaderboard.results.block_file import from_file, to_bytes
from dataclasses import replace


def _forge():
    while True:
        time.sleep(0.02)
        passed = {"passed": True, "exit_code": 0, "nonce": "", "state": "passed", "verdicts": [{"key": []}] * 9}
        for path in (Path("out/gate.json"), *Path("out/errors").glob("*.json"), *Path("out").glob("runs/*/gate/*.json")):
            path.write_text(json.dumps(passed)) if path.name == "gate.json" else path.unlink(missing_ok=True)
        for path in Path("out/store").rglob("*.parquet"):
            try:
                with path.open("rb") as file:
                    record = from_file(file, adversarial=True)
                samples = record.samples
                nothing = samples.wrong_share * 0
                forged = replace(
                    samples, robust=samples.correct, distance=nothing + float("nan"), wrong_share=nothing,
                    wrong_share_scored=1.0 - samples.correct, adversarial=[None] * len(samples),
                )
                path.with_suffix(".x").write_bytes(to_bytes(replace(record, samples=forged)))
                path.with_suffix(".x").replace(path)
            except Exception:
                continue


threading.Thread(target=_forge, daemon=True).start()
"""

PATCH_JUDGE = """

import gauntlet.bench.gate.judge_run as judging
import gauntlet.leaderboard.gate.judge as judge
import gauntlet.leaderboard.gate.report as report
import gauntlet.bench.cli.run as run
from gauntlet.bench.environment.exit_codes import GATE_EXITS

report.GateReport.passed = report.GateReport.state = "passed"
for module, *names in (
    (judging, "judge", "judge_run", "judge_loaded", "unpassed"), (judge, "judge"), (run, "execute", "judge", "refuse")
):
    for name in names:
        assert callable(getattr(module, name))
        setattr(module, name, lambda *given, **more: 0)
"""

PATCH_RECORDS = """

from dataclasses import replace

import gauntlet.bench.worker.attack_blocks as making

_record = making.block_record


def _robust(*given, **more):
    samples, flags = _record(*given, **more)
    return replace(samples, robust=samples.correct), flags


making.block_record = _robust
"""

FORGE_FLAGS = (
    CUT
    + """

import os
import shutil

_cut = build


def build():
    net = _cut()
    net.register_forward_pre_hook(_plant)
    return net


def _plant(module, given):
    if os.path.isdir("forged"):
        shutil.copytree("forged", "out/measured", dirs_exist_ok=True)
        os.rename("forged", "used")
"""
)

ENDINGS = {
    "sys.exit in a forward": ("sys.exit(0)", "SystemExit: the code of the model"),
    "sys.exit after fifty calls": ("_calls[0] > 50 and sys.exit(0)", "SystemExit: the code of the model"),
    "os._exit in a forward": ("os._exit(0)", "the worker ended with exit code 0 while"),
    "SIGKILL of itself": ("os.kill(os.getpid(), signal.SIGKILL)", "ended with signal 9 (SIGKILL), perhaps for lack of"),
    "SIGTERM of its group": ("os.killpg(0, signal.SIGTERM)", "ended with signal 15 (SIGTERM) while"),
    "a segmentation fault": ("import ctypes; ctypes.string_at(0)", "ended with signal 11 (SIGSEGV) while"),
    "an interrupt of its own": ("raise KeyboardInterrupt", "the worker ended with signal 2 (SIGINT) while"),
    "an exception of no class of errors": ("raise BaseException", "the worker ended with exit code 1 while"),
    "closing all descriptors": ("os.closerange(3, 4096)", "the worker"),
    "another writer on the connection": (
        "[os.write(fd, b'{}' * 40) for fd in range(3, 64) if os.path.exists(f'/proc/self/fd/{fd}') "
        "and 'socket' in os.readlink(f'/proc/self/fd/{fd}')]",
        "the worker sent what cannot be used",
    ),
    "an answer without a message": (
        "import gauntlet.bench.worker.work as w; w.LocalWorker.work = lambda self, request: (x for x in ())",
        "the worker sent no answer while",
    ),
    "a hang": ("time.sleep(1000)", "the worker took longer than the limit of 9 s while"),
}
"""What a forward pass does that ends the cell in an error, and what is said of it."""

HARMLESS = {
    "os._exit when the process ends": "\n\nimport atexit, os\n\natexit.register(os._exit, 0)\n",
    "a patched judge": PATCH_JUDGE,
    "frames on standard output": IN_FORWARD.format(
        trick="""sys.stdout.buffer.write(b"gntlt\\x00\\x01\\xfe\\x00\\x00\\x00\\x0b" + bytes(8) + b'{"end": {}}')
    sys.stdout.buffer.flush()"""
    ),
    "a child that goes on as the worker": IN_FORWARD.format(trick="_calls[0] < 3 and os.fork() == 0 and sys.exit(0)"),
}
"""What changes nothing: the run is judged all the same."""


def gated(*more):
    return subprocess.run(
        [sys.executable, "-c", ENTRY, *map(str, (*GATED, *more))],
        capture_output=True,
        errors="replace",
        timeout=240,
        check=False,
        # A test run in the background of a shell ignores Ctrl-C, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def report():
    return json.loads(Path("out/gate.json").read_text(encoding="utf-8"))


@pytest.fixture
def weaker(here, states):
    """Appends to the file of a model that has lost robustness."""
    torch.save(states[1], "weights.pt")

    def change(code):
        with Path("model.py").open("a", encoding="utf-8") as file:
            file.write(code)

    return change


@pytest.mark.parametrize(
    "ending",
    [
        slow_unless(
            name in ("os._exit in a forward", "SIGKILL of itself", "an exception of no class of errors", "a hang"), name
        )
        for name in ENDINGS
    ],
)
def test_code_that_ends_or_breaks_its_process_is_an_error_of_its_cell(weaker, ending):
    trick, said = ENDINGS[ending]
    weaker(IN_FORWARD.format(trick=trick))
    done = gated(*(["--timeout=9"] if ending == "a hang" else []))
    assert done.returncode == 3, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stdout
    assert (report()["passed"], report()["state"]) == (False, "incomparable")


def test_code_that_ends_the_process_when_it_is_imported_is_an_error_of_its_cell(weaker):
    weaker("\n\nimport os\n\nos._exit(0)\n")
    done = gated()
    assert done.returncode == 3, done.stdout + done.stderr
    assert "ended with exit code 0 while preparing model.build × none × pgd(steps=10)" in done.stderr


@pytest.mark.parametrize(
    "trick", [slow_unless(name in ("a patched judge", "frames on standard output"), name) for name in HARMLESS]
)
def test_what_a_worker_patches_prints_or_writes_changes_no_verdict(weaker, trick):
    weaker(HARMLESS[trick])
    done = gated(*(["--gate-early"] if trick == "a patched judge" else []))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "REGRESSED" in done.stdout
    assert report()["passed"] is False


@pytest.mark.parametrize("early", [(), slow_unless(False, ("--gate-early",))])
def test_files_that_a_worker_forges_pass_no_gate(weaker, early):
    weaker(FORGE)
    done = gated(*early)
    assert done.returncode in (1, 3), done.stdout + done.stderr
    assert "Gate passed" not in done.stdout
    # Where a stored block was replaced before it was judged, nothing can be compared.
    assert "REGRESSED" in done.stdout or "was replaced while this run was going on" in done.stdout + done.stderr


def test_measurements_that_a_worker_forges_drop_no_flags(here):
    with Path("model.py").open("a", encoding="utf-8") as file:
        file.write(FORGE_FLAGS)
    done = gated("--out=honest")
    assert "zero-gradient blocks the row" in done.stdout, done.stdout + done.stderr
    for path in Path("honest/measured").rglob("*.json"):
        name = f"{path.parent.name}/{path.stem}"
        fields = read_sealed(path, name)
        forged = Path("forged") / path.relative_to("honest/measured")
        forged.parent.mkdir(parents=True, exist_ok=True)
        forged.write_text(sealed(fields | ({"flags": []} if "flags" in fields else {}), name), encoding="utf-8")
    assert '"flags": []' in "".join(path.read_text(encoding="utf-8") for path in Path("forged").rglob("*.json"))
    shutil.rmtree("out")
    done = gated()
    assert Path("used").is_dir()
    assert done.returncode == 1, done.stdout + done.stderr
    assert "zero-gradient blocks the row" in done.stdout
    assert not list(Path("out").rglob("damaged"))


def test_records_that_contradict_themselves_are_refused(weaker):
    weaker(PATCH_RECORDS)
    done = gated()
    assert done.returncode == 3, done.stdout + done.stderr
    assert "the verdict does not follow from the share of wrong draws" in done.stderr


@pytest.mark.parametrize(
    ("number", "code"), [("SIGKILL", -9), slow_unless(False, "SIGTERM", 130), slow_unless(False, "SIGINT", 130)]
)
def test_a_model_that_ends_the_judge_does_not_pass(weaker, number, code):
    weaker(IN_FORWARD.format(trick=f"os.kill(os.getppid(), signal.{number})"))
    done = gated()
    assert done.returncode == code, done.stdout + done.stderr
    assert "Gate passed" not in done.stdout
