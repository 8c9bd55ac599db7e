"""The process of a worker on a machine of a Ray cluster, behind an actor that passes bytes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

import ray
from ray.exceptions import GetTimeoutError, RayError

_ENDING: Final = 15.0
"""Seconds for an actor to say how its process ended."""


class RayConnection:
    """The bytes of a process that an actor passes on, as a socket gives them."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._timeout: float | None = None
        self._receiving: Any = None
        self._arrived = memoryview(b"")
        self.lost = ""
        """Why the actor is lost; empty as long as it is not known to be."""

    def settimeout(self, value: float | None, /) -> None:
        """Let calls wait at most so many seconds; None: without end."""
        self._timeout = value

    def recv(self, size: int, /) -> bytes:
        """At most `size` bytes; none where the process has ended. Raises TimeoutError, EOFError where the actor is lost."""
        if not self._arrived:
            self._receiving = self._receiving or self._actor.receive.remote()
            self._arrived = memoryview(self._result(self._receiving))
            self._receiving = None
        part, self._arrived = self._arrived[:size], self._arrived[size:]
        return bytes(part)

    def sendall(self, data: bytes, /) -> None:
        """Send bytes. Raises TimeoutError, EOFError where the actor or its process is lost."""
        self._result(self._actor.send.remote(bytes(data)))

    def close(self) -> None:
        """Forget what has arrived."""
        self._arrived, self._receiving = memoryview(b""), None

    def _result(self, call: Any) -> Any:
        try:
            return ray.get(call, timeout=self._timeout)
        except GetTimeoutError:
            raise TimeoutError from None
        except (RayError, OSError) as error:
            self._receiving = None
            # An error of the process itself says how it ended.
            if not isinstance(error, OSError):
                self.lost = str(error).strip().partition("\n")[0]
            raise EOFError(str(error)) from error


class RayChild:
    """A process that an actor has started."""

    def __init__(self, start: Callable[[], Any]) -> None:
        """`start`: makes the actor, which may wait for a free place in the cluster."""
        self._actor = start()
        self.connection: Final = RayConnection(self._actor)

    @property
    def path(self) -> None:
        """Its `sys.path` is that of its machine."""

    def alive(self) -> bool:
        """True: where the process or its machine has ended, calls say so."""
        return True

    def ending(self) -> str:
        """How it ended."""
        if not self.connection.lost:
            try:
                return str(ray.get(self._actor.ending.remote(), timeout=_ENDING))
            except RayError as error:
                self.connection.lost = str(error).strip().partition("\n")[0]
        return f"was lost with its Ray actor ({self.connection.lost})"

    def kill(self) -> None:
        """End the actor, and with it the process."""
        with contextlib.suppress(RayError, ValueError):
            ray.kill(self._actor)

    def end(self) -> None:
        """End it, and forget what has arrived."""
        self.connection.close()
        self.kill()
