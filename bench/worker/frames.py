"""Frames between two processes: a mark, the lengths of a text in JSON and of what follows it, then both.

The mark shows at once that something else was written into the connection. Lengths are limited, and memory is taken only as bytes
arrive.
"""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from gauntlet.bench.worker.child import Connection
from gauntlet.leaderboard.results.sealed_json import MOST_BYTES

_MARK: Final = b"gntlt\x00\x01\xfe"
_HEADER: Final = struct.Struct(">8sIQ")
_CHUNK: Final = 1 << 20
_LOOK: Final = 0.5
"""Seconds after which `receive` looks whether the other end still lives."""
MOST_TEXT: Final = MOST_BYTES
"""Bytes of a frame's JSON: as many as those of a file, so that a plan which can be stored can be sent."""
MOST_CONTENT: Final = 1 << 32
"""Bytes of what follows it."""


class FrameError(Exception):
    """What arrived is no frame: something else wrote into the connection."""


class TooLongError(Exception):
    """A message is longer than the limits, so that nothing of it was sent."""


def _too_long(text: int, content: int) -> str:
    """Why a message of so many bytes is not sent; empty if it is."""
    if text <= MOST_TEXT and content <= MOST_CONTENT:
        return ""
    limits = f"the limits of {MOST_TEXT:,} and {MOST_CONTENT:,}"
    return f"a message of {text:,} bytes of text and {content:,} of content is too long for {limits}"


@dataclass(frozen=True)
class Received:
    """A frame that has arrived."""

    kind: str
    fields: Any
    text: str
    """Its JSON: an object with `kind` as the only key."""
    content: bytes


@dataclass
class Frames:
    """The frames of one end of a connection."""

    connection: Connection
    deadline: float | None = None
    """Of `time.monotonic`, until which calls wait; None: without end."""
    alive: Callable[[], bool] | None = None
    """Whether the other end's process lives: it may have left the connection to another one. None: calls wait without end, and
    one thread may send while another receives."""
    _sending: threading.Lock = field(default_factory=threading.Lock)

    def send(self, fields: dict[str, Any] | str, content: bytes = b"") -> None:
        """Send a frame; `fields` may be JSON already.

        Raises TooLongError for more than `MOST_TEXT` or `MOST_CONTENT`, OSError where the other end is closed, TimeoutError.
        """
        text = (fields if isinstance(fields, str) else json.dumps(fields)).encode()
        if too_long := _too_long(len(text), len(content)):
            raise TooLongError(too_long)
        with self._sending:
            for part in (_HEADER.pack(_MARK, len(text), len(content)) + text, content):
                if self.alive is not None:
                    self.connection.settimeout(self._left())
                self.connection.sendall(part)

    def receive(self) -> Received:
        """The next frame.

        Raises EOFError where the other end is closed, TimeoutError after the deadline, and FrameError.
        """
        mark, text_size, size = _HEADER.unpack(self._read(_HEADER.size))
        if mark != _MARK:
            raise FrameError(f"{mark!r} stands where a message begins")
        if too_long := _too_long(text_size, size):
            raise FrameError(too_long)
        text, content = self._read(text_size), self._read(size)
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FrameError(f"a message is not JSON ({error})") from error
        if not isinstance(fields, dict) or len(fields) != 1:
            raise FrameError("a message is not an object with one key")
        ((kind, value),) = fields.items()
        if not isinstance(value, dict | float | int):
            raise FrameError(f"a message of kind {kind!r} has no fields")
        return Received(kind, value, text.decode(), content)

    def _read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size:
            alive = True
            if self.alive is not None:
                left, alive = self._left(), self.alive()
                self.connection.settimeout(_LOOK if left is None else min(left, _LOOK))
            try:
                part = self.connection.recv(min(size, _CHUNK))
            except TimeoutError:
                if not alive:
                    raise EOFError("the process has ended") from None
                continue
            except ConnectionError as error:
                raise EOFError(str(error)) from error
            if not part:
                raise EOFError("the connection is closed")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _left(self) -> float | None:
        """Seconds until the deadline. Raises TimeoutError after it."""
        if self.deadline is None:
            return None
        if (left := self.deadline - time.monotonic()) <= 0:
            raise TimeoutError
        return left
