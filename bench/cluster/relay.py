"""What runs on a machine of a Ray cluster: it starts the process of a worker and passes bytes on, unread.

Code under evaluation runs in that process, which has no connection to Ray: what reaches the run are bytes alone.
"""

from __future__ import annotations

import select
from pathlib import Path
from typing import Final

from gauntlet.bench.worker.child import ChildProcess

_CHUNK: Final = 1 << 22
_LOOK: Final = 500
"""Milliseconds after which `receive` looks whether the process still lives."""


class Relay:
    """A Ray actor with the process of a worker. Calls may be made from several threads."""

    def __init__(self, folder: str) -> None:
        """Start the process in `folder` if this machine has it, else in Ray's working folder."""
        self._child = ChildProcess(Path(folder) if Path(folder).is_dir() else None)
        self._readable = select.poll()
        self._readable.register(self._child.connection, select.POLLIN)

    def send(self, data: bytes) -> None:
        """Send bytes to the process. Raises OSError where it has ended."""
        self._child.connection.sendall(data)

    def receive(self) -> bytes:
        """Bytes that the process has sent, once there are some; none where it has ended."""
        while not self._readable.poll(_LOOK):
            if not self._child.alive():
                return b""
        try:
            return self._child.connection.recv(_CHUNK)
        except ConnectionError:
            return b""

    def ending(self) -> str:
        """How the process ended."""
        return self._child.ending()
