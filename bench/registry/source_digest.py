"""What stands for a user's code in keys: the file that it is defined in, and those of its own that it imports."""

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
"""Never looked for among a user's files."""


def code_digest(*objects: Any) -> str:
    """sha256 over the files in which these functions or classes are defined, and over those that they import, directly or not,
    from their own package, from beside it, or from the working folder.

    Empty where all are Gauntlet's, which has versions of its own. Installed libraries are not covered, nor are files that are
    not Python. Code that is in no file is told apart by its text, and where that is not to be had by a number drawn at random.
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
    """The functions and classes behind partials, decorated functions, closures, and objects that can be called: a builder of
    Gauntlet's may make what a user wrote."""
    waiting, found = list(objects), []
    while waiting:
        one = waiting.pop()
        if isinstance(one, functools.partial):
            waiting += filter(callable, (one.func, *one.args, *one.keywords.values()))
            continue
        one = inspect.unwrap(one)
        one = one if hasattr(one, "__qualname__") and hasattr(one, "__module__") else type(one)
        if one not in found:
            found.append(one)
            waiting += filter(
                callable, inspect.getclosurevars(one).nonlocals.values() if inspect.isfunction(one) else ()
            )
    return found


def _file(found: Any) -> Path | None:
    try:
        file = inspect.getsourcefile(found)
    except TypeError:  # a class typed in an interactive session
        return None
    return Path(file).resolve() if file and Path(file).is_file() else None


def _text(found: Any) -> bytes:
    try:
        return inspect.getsource(found).encode()
    except (OSError, TypeError):
        return uuid.uuid4().bytes


def _closure(file: Path) -> dict[Path, str]:
    """The file and those that it imports of its own, with their paths below the folder that they are imported from."""
    root = file.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    top = file.relative_to(root).parts[0].removesuffix(".py")
    # Beside an installed package lies everything else that is installed.
    installed = next(root.glob("*.dist-info"), None) is not None
    found: dict[Path, str] = {}
    waiting = [(root, file)]
    while waiting:
        base, one = waiting.pop()
        if one in found:
            continue
        found[one] = one.relative_to(base).as_posix()
        for name in _imports(one, base):
            first = name.partition(".")[0]
            if first in _LIBRARIES or (installed and first != top):
                continue
            for place in (root,) if installed else dict.fromkeys((root, Path.cwd())):
                waiting += [(place, part) for part in _modules(name, place)]
    return found


def _imports(file: Path, base: Path) -> Iterator[str]:
    """The dotted names that a file imports, wherever in it; relative ones below `base`."""
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
    """The files that importing a dotted name from a folder runs."""
    path = place
    for part in name.split("."):
        path = path / part
        for file in (path / "__init__.py", path.with_name(f"{part}.py")):
            if file.is_file():
                yield file.resolve()
                break
