"""The process of a worker as its other end sees it: a connection, and whether and how the process has ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final, Protocol

_START: Final = "from gauntlet.bench.worker.serve import main; main()"
_ENDING: Final = 5.0
"""Seconds that a worker which closed its connection has to end."""
_STDERR: Final = 2


class Connection(Protocol):
    """What frames need of a socket."""

    def settimeout(self, value: float | None, /) -> None:
        """Let calls wait at most so many seconds; None: without end."""
        ...

    def recv(self, size: int, /) -> bytes:
        """At most `size` bytes; none where the other end has closed. Raises TimeoutError, OSError, EOFError."""
        ...

    def sendall(self, data: bytes, /) -> None:
        """Send bytes. Raises TimeoutError, OSError, EOFError."""
        ...

    def close(self) -> None:
        """Close this end."""
        ...


class Child(Protocol):
    """A process that serves a connection (`gauntlet.bench.worker.serve`)."""

    @property
    def connection(self) -> Connection:
        """The connection to it."""
        ...

    @property
    def path(self) -> list[str] | None:
        """What its `sys.path` is to be; None: as it is."""
        ...

    def alive(self) -> bool:
        """Whether it still runs. The connection may live on without it, in another process."""
        ...

    def ending(self) -> str:
        """How it ended, as the end of a sentence about it."""
        ...

    def kill(self) -> None:
        """End it and what it started in its group, at once. Another thread may use its connection, which is then closed."""
        ...

    def end(self) -> None:
        """End it, and close the connection."""
        ...


class ChildProcess:
    """A process of this machine."""

    def __init__(self, folder: Path | None = None) -> None:
        """Start it, in `folder`; None: in the working folder. It imports nothing of the user's before it is asked."""
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            self._process = subprocess.Popen(  # noqa: S603
                # Modules of the working folder must not stand in for ours.
                [sys.executable, "-P", "-c", _START, str(number)],
                pass_fds=(number,),
                stdin=subprocess.DEVNULL,
                stdout=_STDERR,
                cwd=folder,
                # Ctrl-C is for this process, which ends the worker.
                start_new_session=True,
            )
        self.connection: Final[socket.socket] = ours

    @property
    def path(self) -> list[str]:
        """What its `sys.path` is to be: that of this process."""
        return sys.path

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def ending(self) -> str:
        """How the process ended."""
        try:
            code = self._process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            return "closed its connection"
        if code >= 0:
            return f"ended with exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
        memory = ", perhaps for lack of memory," if -code == signal.SIGKILL else ""
        return f"ended with signal {-code} ({name}){memory}"

    def kill(self) -> None:
        """Kill the process and its group."""
        # The group may outlive its first process.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Close the connection, and kill the process and its group."""
        self.connection.close()
        self.kill()
        self._process.wait()
