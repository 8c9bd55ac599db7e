"""Importing objects that users name: `package.module:name` or `path/to/file.py:name`.

Repositories have modules called `attacks`, `models` or `utils`, and several repositories may be evaluated in one process.
Gauntlet's own modules are importable below `gauntlet` only, so they never conflict. The folder of an imported file is put first
on `sys.path` and stays there, so that later imports inside functions work. Before, modules of other folders with the names of
its files are removed from `sys.modules`, so that each repository imports its own modules.

Two limits: if two repositories are loaded, an import inside a function that runs later gets the module of the repository that
was loaded last. Modules of the standard library and of Gauntlet's dependencies (torch, numpy, …) are never replaced.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
from contextlib import AbstractContextManager, chdir
from pathlib import Path
from types import ModuleType
from typing import Any

from gauntlet.bench.registry.source_files import files_digest, is_installed

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
"""Folders of users that this module put on `sys.path`, the latest first."""
_digests: dict[Path, str] = {}
"""What each imported file did at the time of its import, with all that it is made of."""


class ImportSpecError(ValueError):
    """An object cannot be imported; the message says why and what was expected."""


def import_object(spec: str) -> Any:
    """The object that `package.module:name` or `path/to/file.py:name` names; `name` may be dotted.

    Modules are searched in the working folder first, as by `python -m`. A file is imported again, with the files beside it, if it
    or one that it imports does something else than at its import. Raises ImportSpecError for a file, module or name that does not
    exist, and for an import that fails (with the exception as its cause).
    """
    source, name = _parts(spec)
    target: Any = _module(source)
    for part in name.split("."):
        if not hasattr(target, part):
            near = difflib.get_close_matches(part, dir(target), n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ImportSpecError(f"{source} has no {part!r}{hint}")
        target = getattr(target, part)
    return target


def source_digest(spec: str) -> str:
    """sha256 of what the file does that `spec` names, with the file that defines the object and all that they are made of
    (`files_digest`).

    Raises ImportSpecError as `import_object` does.
    """
    source, _ = _parts(spec)
    files = [_file_of(_module(source)), _defining_file(import_object(spec))]
    return files_digest([file for file in files if file is not None and file.is_file()])


def _parts(spec: str) -> tuple[str, str]:
    source, colon, name = spec.rpartition(":")
    if not colon or not source or not name:
        raise ImportSpecError(f"{spec!r} cannot be parsed: write package.module:name or path/to/file.py:name")
    return source, name


def _module(source: str) -> ModuleType:
    with working_folder_kept():
        return _from_file(Path(source)) if source.endswith(".py") else _from_name(source)


def working_folder_kept() -> AbstractContextManager[None]:
    """The working folder is restored on exit: other names are relative to it, and code of a user's may change it."""
    return chdir(Path.cwd())


def _from_name(name: str) -> ModuleType:
    root, here = name.partition(".")[0], Path.cwd()
    known = sys.modules.get(name)
    if root not in _PROTECTED and ((here / root).is_dir() or (here / f"{root}.py").is_file()):
        _put_first(here, fresh=known is not None and _has_changed(_file_of(known)))
    try:
        module = importlib.import_module(name)
        _remember(_file_of(module))
        return module
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and (name == missing or name.startswith(missing + ".")):
            raise ImportSpecError(
                f"module {name!r} does not exist: install it, run from its folder, or write path/to/file.py:name"
            ) from error
        raise ImportSpecError(f"importing {name!r} failed: {type(error).__name__}: {error}") from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ImportSpecError(f"file {str(path)!r} does not exist (searched in {Path.cwd()})")
    path = path.resolve()
    name = _module_name(path)
    known = sys.modules.get(name)
    changed = _has_changed(path)
    others = _put_first(path.parent, fresh=changed)
    if known is not None and _file_of(known) == path and not changed:
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # Python prefers a package anywhere on the path to a folder without __init__.py: remove the other users' folders meanwhile.
    for other in others:
        sys.path.remove(other)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        hint = ""
        if isinstance(error, ModuleNotFoundError):
            hint = (
                f" (searched in {path.parent}; for modules of a parent folder, run there and write package.module:name)"
            )
        raise ImportSpecError(f"importing {str(path)!r} failed: {type(error).__name__}: {error}{hint}") from error
    finally:
        sys.path[1:1] = others
    _remember(path)
    return module


def _has_changed(file: Path | None) -> bool:
    """Whether a file, or one that it is made of, does something else than at its import."""
    return file in _digests and (not file.is_file() or files_digest([file]) != _digests[file])


def _remember(file: Path | None) -> None:
    if file is not None and file.suffix == ".py" and not is_installed(file):
        _digests[file] = files_digest([file])


def _module_name(path: Path) -> str:
    """The name by which the files beside it import it, unless that name is protected."""
    return f"gauntlet_user_{path.stem}" if path.stem in _PROTECTED else path.stem


def _put_first(folder: Path, *, fresh: bool = False) -> list[str]:
    """Put `folder` first on `sys.path`, and forget modules of other folders that have the names of its modules.

    `fresh`: forget its own modules too. Returns the folders of other users that are on the path.
    """
    text = str(folder)
    if text in _folders:
        _folders.remove(text)
        if text in sys.path:
            sys.path.remove(text)
    others = [other for other in _folders if other in sys.path]
    _folders.insert(0, text)
    sys.path.insert(0, text)
    stale = {
        root
        for root in _own_names(folder) - _PROTECTED
        if root in sys.modules and (fresh or folder not in _homes(sys.modules[root]))
    }
    for name in [name for name in sys.modules if name.partition(".")[0] in stale]:
        del sys.modules[name]
    importlib.invalidate_caches()
    return others


def _own_names(folder: Path) -> set[str]:
    """Names that can be imported from `folder`: its files, and its folders with Python files at depth one or two."""
    files = {file.stem for file in folder.glob("*.py")}
    return (
        files
        | {file.parent.name for file in folder.glob("*/*.py")}
        | {file.parent.parent.name for file in folder.glob("*/*/*.py")}
    )


def _homes(module: ModuleType) -> set[Path]:
    """The folders that hold a top-level module or package."""
    places = list(getattr(module, "__path__", [])) or [getattr(module, "__file__", None)]
    return {Path(place).resolve().parent for place in places if place}


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file else None


def _defining_file(target: object) -> Path | None:
    try:
        file = inspect.getsourcefile(inspect.unwrap(target))  # type: ignore[arg-type]
    except TypeError:  # instances, partials and builtins have no file
        return None
    return Path(file).resolve() if file else None
