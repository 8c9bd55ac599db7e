"""Commands that are killed (`kill -9`) at a random moment of their work on the files of a folder."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_EVENTS = 10**9
_CODE = """
import os, signal, sys, threading

folder, left, delay = os.path.abspath(sys.argv.pop(1)), int(sys.argv.pop(1)), float(sys.argv.pop(1))
began = left


def count(event, arguments):
    global left
    if event not in {"open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.scandir"}:
        return
    place = arguments[0]
    if isinstance(place, (str, os.PathLike)) and os.path.abspath(place).startswith(folder):
        left -= 1
        if left == 0:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()


sys.addaudithook(count)
from gauntlet.bench.cli.main import main

try:
    main()
finally:
    print("events", began - left, file=sys.stderr)
"""


def start(folder: Path, event: int, delay: float, *arguments: object) -> subprocess.Popen[str]:
    """Start `gauntlet`, killed `delay` seconds after it opened, linked, renamed or removed the `event`-th file of the folder."""
    return subprocess.Popen(
        [sys.executable, "-c", _CODE, str(folder), str(event), str(delay), *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def was_killed(process: subprocess.Popen[str]) -> bool:
    """Wait for the end; whether that was the kill. Any other failure is an AssertionError."""
    _, err = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), err
    return process.returncode != 0


def events(folder: Path, *arguments: object) -> int:
    """How often the whole command opens, links, renames or removes a file of the folder."""
    _, err = (process := start(folder, _EVENTS, 0, *arguments)).communicate()
    assert process.returncode == 0, err
    return int(err.split()[-1])


def kill_often(
    kills: int,
    seed: int,
    folder: Path,
    whole: int,
    check: Callable[[], None],
    anew: Callable[[], None],
    *arguments: object,
) -> None:
    """Run the command until it was killed so many times, each time going on from what the last one left.

    `whole`: its `events`. `check` is called after each kill; once the command has come to its end, `folder` is removed and `anew`
    called, and it begins again.
    """
    clock, killed = random.Random(seed), 0
    while killed < kills:
        if was_killed(start(folder, clock.randint(1, whole), clock.uniform(0, 0.005), *arguments)):
            killed += 1
        else:
            check()
            shutil.rmtree(folder)
            anew()
        check()
