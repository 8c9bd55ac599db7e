"""Digests of users' code for cache keys: of the files that it is made of, or of the code itself where there is no file."""

from __future__ import annotations

import functools
import hashlib
import inspect
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gauntlet.bench.registry.source_files import files_digest


def code_digest(*objects: Any) -> str:
    """sha256 of what the files do that define these functions or classes, with all files that they are made of (`files_digest`).

    Empty if all belong to Gauntlet, whose attacks and defenses have versions. Code outside files is represented by its source
    text, or by a random number if that is not available.
    """
    users = [one for one in _functions(objects) if one.__module__.partition(".")[0] != "gauntlet"]
    files = {file for file in map(source_file, users) if file is not None}
    parts = {f"{one.__module__}.{one.__qualname__} {_sha256(_text(one))}" for one in users if source_file(one) is None}
    if files:
        parts.add(files_digest(files))
    return _sha256("\n".join(sorted(parts)).encode()) if parts else ""


def source_file(code: Any) -> Path | None:
    """The file that defines a function or class; None for what was typed in an interactive session or is built in."""
    try:
        file = inspect.getsourcefile(code)
    except TypeError:
        return None
    return Path(file).resolve() if file and Path(file).is_file() else None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _functions(objects: Iterable[Any]) -> list[Any]:
    """The functions and classes inside partials, decorated functions, closures and callable objects: a builder of Gauntlet's may
    wrap a user's code."""
    waiting, functions = list(objects), []
    while waiting:
        one = waiting.pop()
        if isinstance(one, functools.partial):
            waiting += filter(callable, (one.func, *one.args, *one.keywords.values()))
            continue
        one = inspect.unwrap(one)
        one = one if hasattr(one, "__qualname__") and hasattr(one, "__module__") else type(one)
        if one not in functions:
            functions.append(one)
            waiting += filter(
                callable, inspect.getclosurevars(one).nonlocals.values() if inspect.isfunction(one) else ()
            )
    return functions


def _text(code: Any) -> bytes:
    try:
        return inspect.getsource(code).encode()
    except (OSError, TypeError):
        return uuid.uuid4().bytes
