"""Importing what users name: `package.module:name` and `path/to/file.py:name`.

A user's repository has modules called `attacks`, `models`, `utils`; so may the next one evaluated in the same process.
Gauntlet's own are only importable below `gauntlet`, so they are never in the way. The folder of a file is put first on
the path and stays there, so that imports inside functions work later too. Modules cached under the name of one of
its files or folders, but from elsewhere, are forgotten before, so that each repository gets its own.

Two limits. Where two repositories are loaded, an import that runs later, inside a function, finds the module of that
name of the repository loaded last. And names of the standard library and of what Gauntlet itself uses (torch, numpy, …)
are never taken over.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_PROTECTED = frozenset(sys.stdlib_module_names) | {
    *(
        "PIL",
        "__main__",
        "_pytest",
        "art",
        "click",
        "conftest",
        "gauntlet",
        "multiprocess",
        "numpy",
        "pandas",
        "pyarrow",
    ),
    *("pytest", "pytest_benchmark", "rich", "safetensors", "scipy", "sklearn", "torch", "torchattacks", "torchvision"),
}
_folders: list[str] = []
"""Folders of users that were put on the path here, the latest first."""
_digests: dict[Path, str] = {}
"""sha256 of each imported file, as it was when it was imported."""


class ImportSpecError(ValueError):
    """What a user named cannot be imported; the message says why and what was expected."""


def import_object(spec: str) -> Any:
    """The object that `package.module:name` or `path/to/file.py:name` names; `name` may be dotted.

    A module is looked for in the working folder first, as by `python -m`. A file that has changed since it was imported
    is imported again, with those beside it. Raises ImportSpecError for a file, module or name that is not there, and
    for an import that fails (the cause chained).
    """
    source, name = _parts(spec)
    found: Any = _module(source)
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ImportSpecError(f"{source} has no {part!r}{hint}")
        found = getattr(found, part)
    return found


def source_digest(spec: str) -> str:
    """sha256 of the file that `spec` names; where the object is defined in another file, of both.

    Other files that those import are not covered. Raises ImportSpecError as `import_object` does.
    """
    source, _ = _parts(spec)
    files = [_file_of(_module(source)), _defining_file(import_object(spec))]
    found = [one.read_bytes() for one in dict.fromkeys(files) if one is not None and one.is_file()]
    if len(found) == 1:
        return hashlib.sha256(found[0]).hexdigest()
    digests = [hashlib.sha256(one).hexdigest() for one in found] or [spec]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _parts(spec: str) -> tuple[str, str]:
    source, colon, name = spec.rpartition(":")
    if not colon or not source or not name:
        raise ImportSpecError(f"{spec!r} is not understood: write package.module:name or path/to/file.py:name")
    return source, name


def _module(source: str) -> ModuleType:
    return _from_file(Path(source)) if source.endswith(".py") else _from_name(source)


def _from_name(name: str) -> ModuleType:
    root, here = name.partition(".")[0], Path.cwd()
    if root not in _PROTECTED and ((here / root).is_dir() or (here / f"{root}.py").is_file()):
        _put_first(here)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and (name == missing or name.startswith(missing + ".")):
            raise ImportSpecError(
                f"module {name!r} is not there: install it, run from its folder, or write path/to/file.py:name"
            ) from error
        raise ImportSpecError(f"importing {name!r} failed: {type(error).__name__}: {error}") from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ImportSpecError(f"file {str(path)!r} is not there (looked in {Path.cwd()})")
    path = path.resolve()
    name = _module_name(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    known = sys.modules.get(name)
    changed = _digests.get(path, digest) != digest
    others = _put_first(path.parent, fresh=changed)
    if known is not None and _file_of(known) == path and not changed:
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # Behind a folder of modules without __init__.py, Python prefers a whole package of that name anywhere on the path.
    for other in others:
        sys.path.remove(other)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        hint = ""
        if isinstance(error, ModuleNotFoundError):
            hint = f" (looked in {path.parent}; for modules of a folder above, run there and write package.module:name)"
        raise ImportSpecError(f"importing {str(path)!r} failed: {type(error).__name__}: {error}{hint}") from error
    finally:
        sys.path[1:1] = others
    _digests[path] = digest
    return module


def _module_name(path: Path) -> str:
    """The name that the files beside it import it by, where that takes nothing over."""
    return f"gauntlet_user_{path.stem}" if path.stem in _PROTECTED else path.stem


def _put_first(folder: Path, *, fresh: bool = False) -> list[str]:
    """Make `folder` the first on the path, and forget modules that its own would be taken for; `fresh`: its own too.

    Returns the other users' folders that were put on the path before and are there still.
    """
    text = str(folder)
    if text in _folders:
        _folders.remove(text)
        if text in sys.path:
            sys.path.remove(text)
    others = [one for one in _folders if one in sys.path]
    _folders.insert(0, text)
    sys.path.insert(0, text)
    strangers = {
        root
        for root in _own_names(folder) - _PROTECTED
        if root in sys.modules and (fresh or folder not in _homes(sys.modules[root]))
    }
    for name in [name for name in sys.modules if name.partition(".")[0] in strangers]:
        del sys.modules[name]
    importlib.invalidate_caches()
    return others


def _own_names(folder: Path) -> set[str]:
    """Names that can be imported from `folder`: its files, and its folders with Python files in them or one below."""
    files = {one.stem for one in folder.glob("*.py")}
    return (
        files
        | {one.parent.name for one in folder.glob("*/*.py")}
        | {one.parent.parent.name for one in folder.glob("*/*/*.py")}
    )


def _homes(module: ModuleType) -> set[Path]:
    """The folders that a top-level module or package lies in."""
    places = list(getattr(module, "__path__", [])) or [getattr(module, "__file__", None)]
    return {Path(place).resolve().parent for place in places if place}


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file else None


def _defining_file(found: object) -> Path | None:
    try:
        file = inspect.getsourcefile(inspect.unwrap(found))  # type: ignore[arg-type]
    except TypeError:  # an instance, a partial or a builtin: no file of its own
        return None
    return Path(file).resolve() if file else None
