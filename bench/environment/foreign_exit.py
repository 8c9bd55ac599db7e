"""`sys.exit` in the code of a model, data set, attack or defense is an error of that code, and never the end of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class ExitCalledError(RuntimeError):
    """Code that is evaluated tried to end the process."""


@contextmanager
def exits_reported() -> Iterator[None]:
    """Raise ExitCalledError where the code within raises SystemExit.

    Otherwise `sys.exit(0)` in a forward pass would end a run, or a gate, with the exit code of success. `os._exit` cannot be
    caught.
    """
    try:
        yield
    except SystemExit as exit_:
        raise ExitCalledError(
            f"SystemExit: the code of the model, data, attack or defense called sys.exit({exit_.code!r}), which is an error here "
            "whatever its code: remove the call"
        ) from exit_
