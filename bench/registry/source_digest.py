"""Digests of users' code for cache keys: of the defining file, and of the user's files that it imports."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import sys
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_LIBRARIES = frozenset(sys.stdlib_module_names) | {"gauntlet", "numpy", "torch"}
"""Modules that are never searched among a user's files."""


def code_digest(*objects: Any) -> str:
    """sha256 of the files that define these functions or classes, and of all files that they import, directly or indirectly, from
    their own package, from its folder, or from the working folder.

    Empty if all belong to Gauntlet, whose attacks and defenses have versions. Installed libraries and files that are not Python
    are not covered. Code outside files is represented by its source text, or by a random number if that is not available.
    """
    parts: set[tuple[str, str]] = set()
    for one in _functions(objects):
        if one.__module__.partition(".")[0] == "gauntlet":
            continue
        file = _file(one)
        if file is None:
            parts.add((f"{one.__module__}.{one.__qualname__}", _sha256(_text(one))))
        else:
            parts |= {(name, _sha256(path.read_bytes())) for path, name in _closure(file).items()}
    return _sha256("\n".join(map(" ".join, sorted(parts))).encode()) if parts else ""


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


def _file(code: Any) -> Path | None:
    try:
        file = inspect.getsourcefile(code)
    except TypeError:  # a class typed in an interactive session
        return None
    return Path(file).resolve() if file and Path(file).is_file() else None


def _text(code: Any) -> bytes:
    try:
        return inspect.getsource(code).encode()
    except (OSError, TypeError):
        return uuid.uuid4().bytes


def _closure(file: Path) -> dict[Path, str]:
    """The file and the user's files that it imports, with their paths relative to the folder of the import."""
    root = file.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    top = file.relative_to(root).parts[0].removesuffix(".py")
    # The folder of an installed package holds all other installed packages.
    installed = next(root.glob("*.dist-info"), None) is not None
    names: dict[Path, str] = {}
    waiting = [(root, file)]
    while waiting:
        base, one = waiting.pop()
        if one in names:
            continue
        names[one] = one.relative_to(base).as_posix()
        for name in _imports(one, base):
            first = name.partition(".")[0]
            if first in _LIBRARIES or (installed and first != top):
                continue
            for place in (root,) if installed else dict.fromkeys((root, Path.cwd())):
                waiting += [(place, part) for part in _modules(name, place)]
    return names


def _imports(file: Path, base: Path) -> Iterator[str]:
    """The dotted names of all imports in a file; relative imports are resolved below `base`."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            folder = file.parents[node.level - 1].relative_to(base).parts if node.level else ()
            module = ".".join((*folder, *filter(None, [node.module])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _modules(name: str, place: Path) -> Iterator[Path]:
    """The files that run when a dotted name is imported from a folder."""
    path = place
    for part in name.split("."):
        path = path / part
        for file in (path / "__init__.py", path.with_name(f"{part}.py")):
            if file.is_file():
                yield file.resolve()
                break
