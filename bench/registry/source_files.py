"""The files that code is made of: its own, the user's files that it imports, and files that it names.

Followed are imports of any form and at any place in a file (below `if`, `try`, in functions), relative ones, `import *`, the
`__init__.py` of each package on the way, and folders without one. Searched are the folder of the file's top package, the working
folder, and then what Python has loaded or would load from its path. Installed libraries are not followed from outside them. Where
a module is imported by a computed name, all Python files of the folder count. A file that is no Python counts where a string in
the code is its name, alone or behind the name of a folder, unless the code only writes it.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.machinery
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from gauntlet.bench.registry.normalised_source import normalised_digest, parse
from gauntlet.bench.registry.self_reads import SelfReads, mentioned, self_reads

_LIBRARIES = frozenset(sys.stdlib_module_names) | {"gauntlet", "numpy", "torch"}
"""Modules that are never searched among a user's files."""
_STANDARD = tuple({Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")})
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_BY_NAME = frozenset(
    {
        *("importlib", "import_module", "__import__", "pkgutil", "runpy", "exec", "__path__", "zipimport"),
        *("spec_from_file_location", "SourceFileLoader", "load_source", "find_spec", "load_module", "imp"),
    }
)
"""By these, code may import modules whose names are computed."""
_SUFFIXES = tuple(importlib.machinery.EXTENSION_SUFFIXES)
_LONGEST_NAME = 255
_NOTHING = SelfReads()
_NEVER_SAME = (Path("/proc"), Path("/sys"), Path("/dev"))
"""Folders whose files change by themselves."""


@dataclass(frozen=True)
class _Source:
    """What is known of a file."""

    content: str
    """sha256 of its bytes."""
    imports: tuple[tuple[int, str], ...] = ()
    """Level and dotted name of each import."""
    strings: frozenset[str] = frozenset()
    """Strings that may be the name of a file."""
    reads: SelfReads = _NOTHING
    by_name: bool = False
    """Whether it may import modules whose names are computed."""
    names_itself: bool = False
    """Whether `__file__` is used."""


def files_digest(files: Iterable[Path]) -> str:
    """sha256 of what the code in these files does, and in all files that it is made of.

    Paths count relative to the folder of the top package, so that the same files elsewhere have the same digest. Names of `files`
    themselves do not count.
    """
    first = {file.resolve() for file in files}
    python = {(path, name) for file in first for path, name in _closure(file).items()}
    sources = {path: _source(path) for path, _ in python}
    python = {(path, "" if path in first else name) for path, name in python}
    reads = functools.reduce(SelfReads.__or__, (source.reads for source in sources.values()), _NOTHING)
    parts = {f"{name} {_digest(path, reads)}" for path, name in python}
    for path, source in sources.items():
        parts |= {f"{name} {_source(data).content}" for name, data in _data_files(path, source) if data not in sources}
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()


def is_installed(file: Path) -> bool:
    """Whether a file belongs to an installed library, to Python, or to Gauntlet."""
    return (
        bool(_INSTALLED & set(file.parts))
        or any(file.is_relative_to(folder) for folder in _STANDARD)
        or any(file.is_relative_to(folder) for folder in _own_folders())
    )


@functools.cache
def _own_folders() -> tuple[Path, ...]:
    from gauntlet import attacks, bench, defenses, leaderboard

    return tuple(Path(place).resolve() for own in (attacks, bench, defenses, leaderboard) for place in own.__path__)


def _source(path: Path) -> _Source:
    state = path.stat()
    return _read(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=4096)
def _read(path: Path, _changed: int, _size: int) -> _Source:
    if path.suffix != ".py":
        with path.open("rb") as file:
            return _Source(hashlib.file_digest(file, "sha256").hexdigest())
    raw = path.read_bytes()
    content, tree = hashlib.sha256(raw).hexdigest(), parse(raw)
    if tree is None:
        return _Source(content)
    names = mentioned(tree)
    return _Source(
        content,
        tuple(_imports(tree)),
        frozenset(_strings(tree)),
        self_reads(tree),
        bool(names & _BY_NAME),
        "__file__" in names,
    )


def _digest(path: Path, reads: SelfReads) -> str:
    return _normalised(path, _source(path).content, reads) if path.suffix == ".py" else _source(path).content


@functools.lru_cache(maxsize=4096)
def _normalised(path: Path, _content: str, reads: SelfReads) -> str:
    return normalised_digest(path.read_bytes(), reads)


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, ".".join(filter(None, [node.module, alias.name]))) for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                # `import *` imports modules of these names.
                texts = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))
                yield from ((1, text) for text in texts if isinstance(text, str) and text.isidentifier())


def _strings(tree: ast.Module) -> Iterator[str]:
    """Strings that may be the name of a file that is read."""
    written = {id(part) for node in ast.walk(tree) for place in _written(node) for part in ast.walk(place)}
    loads = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    only_written = {node.id for node in loads} - {node.id for node in loads if id(node) not in written}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            # LOG = HERE / "calls.txt", which is then written alone.
            targets = [target.id if isinstance(target, ast.Name) else "" for target in node.targets]
            written |= {id(part) for part in ast.walk(node) if only_written.issuperset(targets)}
        elif isinstance(node, ast.Call) and _called(node).startswith("save"):
            written |= {id(part) for given in (*node.args, *node.keywords) for part in ast.walk(given)}
    for node in ast.walk(tree):
        if _is_text(node) and id(node) not in written:
            text = str(node.value)
            if 0 < len(text) <= _LONGEST_NAME and text.isprintable() and not text.endswith(".log"):
                yield text


def _written(node: ast.AST) -> list[ast.AST]:
    """The expressions of a call that name a file to be written."""
    if not isinstance(node, ast.Call):
        return []
    if _called(node) == "open":
        values = (*node.args, *(keyword.value for keyword in node.keywords))
        given = [str(part.value) for part in values if _is_text(part)]
        return [node] if any(re.fullmatch("[awx][bt]?", text) for text in given) else []
    return [node.func] if _called(node) in ("write_text", "write_bytes", "touch") else []


def _called(call: ast.Call) -> str:
    """The last part of the name of a called function."""
    return str(getattr(call.func, "attr", getattr(call.func, "id", "")))


def _is_text(node: ast.AST) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _closure(file: Path) -> dict[Path, str]:
    """The file and the user's code that it imports, with their paths relative to the folder of the import."""
    if any(file.is_relative_to(folder) for folder in _own_folders()):
        return {file: file.name}
    root = _root(file)
    top = file.relative_to(root).parts[0].removesuffix(".py")
    # The folder of an installed package holds all other installed packages.
    installed = is_installed(file) or next(root.glob("*.dist-info"), None) is not None
    names: dict[Path, str] = {}
    waiting: list[tuple[Path, Path]] = [(root, file), *((root, one) for one in _packages(file, root))]
    while waiting:
        base, one = waiting.pop()
        if one in names:
            continue
        names[one] = Path(os.path.relpath(one, base)).as_posix()
        if one.suffix != ".py":
            continue
        source = _source(one)
        if source.by_name:
            waiting += ((base, other) for other in _python_below(root / top if installed else root))
        for level, name in source.imports:
            if level:
                # `__all__` of a module that is no package names no modules.
                waiting += ((base, part) for part in _modules(name, one.parents[min(level, len(one.parents)) - 1]))
            elif (first := name.partition(".")[0]) not in _LIBRARIES and (not installed or first == top):
                waiting += _found(name, (root,) if installed else tuple(dict.fromkeys((root, Path.cwd()))))
    return names


def _root(file: Path) -> Path:
    """The folder of a file's top package."""
    root = file.parent
    while (root / "__init__.py").is_file() and root != root.parent:
        root = root.parent
    return root


def _packages(file: Path, root: Path) -> Iterator[Path]:
    """The `__init__.py` of the packages that hold a file."""
    for folder in file.parents:
        if folder == root:
            return
        yield folder / "__init__.py"


def _found(name: str, places: tuple[Path, ...]) -> list[tuple[Path, Path]]:
    """The files that run when a dotted name is imported, each with the folder that it is imported from."""
    found = [(place, part) for place in places for part in _modules(name, place)]
    if found:
        return found
    first = sys.modules.get(name.partition(".")[0])
    loaded = [*getattr(first, "__path__", ()), *filter(None, [getattr(first, "__file__", None)])] if first else []
    folders = [Path(loaded[0]).resolve().parent] if loaded else [Path(entry).resolve() for entry in sys.path]
    for folder in folders:
        if not is_installed(folder) and next(folder.glob("*.dist-info"), None) is None:
            found = [(folder, part) for part in _modules(name, folder)]
            if found:
                return found
    return []


def _modules(name: str, place: Path) -> Iterator[Path]:
    """The files that run when a dotted name is imported from a folder."""
    path = place
    for part in name.split("."):
        path = path / part
        others = (path.with_name(f"{part}{suffix}") for suffix in (".py", *_SUFFIXES))
        for file in (path / "__init__.py", *others):
            if file.is_file():
                yield file.resolve()
                break


def _python_below(folder: Path) -> Iterator[Path]:
    """All Python files below a folder, without those of environments and hidden folders."""
    if folder.is_file() or not folder.is_dir():
        return
    for place, folders, files in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and name not in {"__pycache__", "node_modules", *_INSTALLED}
            and not Path(place, name, "pyvenv.cfg").is_file()
        ]
        yield from (Path(place, name).resolve() for name in files if name.endswith(".py"))


def _data_files(file: Path, source: _Source) -> Iterator[tuple[str, Path]]:
    """Files that strings in the code name, from the folders of the file and its packages, or from the working folder."""
    root = _root(file)
    bases = [file.parent, *(folder for folder in file.parents if folder.is_relative_to(root)), Path.cwd()]
    texts = sorted({text for one in source.strings for text in (one, one.lstrip("/")) if text})
    folders = list(dict.fromkeys(bases))
    for _ in range(2):
        inside = (folder / text for folder in folders for text in texts if text not in (".", "/"))
        # `Path.is_dir` raises for text that cannot be a path.
        folders = list(dict.fromkeys([*folders, *(path for path in inside if os.path.isdir(path))]))  # noqa: PTH112
    for text in texts:
        for folder in folders:
            path = folder / text
            if os.path.isfile(path) and not any(path.is_relative_to(place) for place in _NEVER_SAME):  # noqa: PTH113
                yield text, path.resolve()
    if source.names_itself:
        # Such as `Path(__file__).with_suffix(".json")`.
        yield from (
            (one.name.removeprefix(file.stem), one.resolve())
            for one in file.parent.glob(f"{file.stem}.*")
            if one.is_file()
        )
