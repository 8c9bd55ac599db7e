"""The digest of objects in memory: the code of their classes and functions, and what their attributes hold.

Code in a user's files counts by `files_digest`. Code that is in no file (typed in a notebook) counts by its bytecode, with the
functions, classes and plain values that it names; the same code has another digest on another version of Python then. Installed
libraries count by name. Paths and names of devices do not count.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import re
import types
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gauntlet.bench.registry.source_digest import source_file
from gauntlet.bench.registry.source_files import files_digest, is_installed

_DEVICE = re.compile(r"(cpu|cuda|mps|xpu|meta)(:\d+)?")
_CALLABLES = (types.FunctionType, types.MethodType, functools.partial)
_PLAIN = (bool, int, float, complex, bytes, type(None), type(Ellipsis), torch.dtype, slice, range)
_HEAP_TYPE = 1 << 9
"""The flag of classes that are made at run time."""
_LIBRARIES = ("gauntlet", "torch", "builtins", "numpy")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_OF_MODULES = frozenset(vars(nn.Module())) - set(_HOOKS)
"""What every module has."""
_OF_CLASSES = frozenset(
    {"__module__", "__doc__", "__dict__", "__weakref__", "__firstlineno__", "__static_attributes__"}
)
_Named = tuple[str, Any]


def live_digest(values: Mapping[str, Any]) -> str:
    """sha256 of objects, each under a name; equal for equal code and content."""
    walk = _Walk()
    parts = walk.parts(values)
    files = [files_digest(walk.files)] if walk.files else []
    return hashlib.sha256("\n".join([*sorted(parts), *files]).encode()).hexdigest()


class _Walk:
    """Describes objects and what they refer to, and collects the files of their code."""

    def __init__(self) -> None:
        self.files: set[Path] = set()
        self._seen: dict[int, Any] = {}
        """Objects that were described; kept, so that no other gets their number."""

    def parts(self, values: Mapping[str, Any]) -> set[str]:
        found: set[str] = set()
        waiting: list[_Named] = list(values.items())
        while waiting:
            name, value = waiting.pop()
            text = _plain(value)
            if text is None:
                text = _named(value)
                if id(value) not in self._seen:
                    self._seen[id(value)] = value
                    waiting += ((f"{name}.{inner}", part) for inner, part in self._inside(value))
            found.add(f"{name} {text}")
        return found

    def _inside(self, value: Any) -> Iterable[_Named]:
        """What an object refers to, as far as it may decide what it does."""
        if isinstance(value, Mapping):
            return [(ascii(key), value[key]) for key in value if isinstance(key, str | int)]
        if isinstance(value, list | tuple):
            return [(str(number), part) for number, part in enumerate(value)]
        if isinstance(value, functools.partial):
            return [("of", value.func), ("args", value.args), ("keywords", value.keywords)]
        if isinstance(value, types.MethodType):
            # What an object counts as its methods are called, as hooks do, decides nothing.
            whole = isinstance(value.__self__, nn.Module) or dataclasses.is_dataclass(value.__self__)
            return [("of", value.__func__), ("self", value.__self__ if whole else type(value.__self__))]
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, nn.Module):
            return self._module(value)
        if isinstance(value, types.ModuleType):
            self._in_file(value)
            return ()
        return self._object(value)

    def _function(self, function: types.FunctionType) -> Iterable[_Named]:
        given = [("defaults", function.__defaults__), ("keywords", function.__kwdefaults__)]
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        given += [(name, cell.cell_contents) for name, cell in cells if _is_filled(cell)]
        given += [("wrapped", getattr(function, "__wrapped__", None))]
        if self._in_file(function):
            return given
        code = function.__code__
        named = ((name, function.__globals__[name]) for name in sorted(_names(code)) if name in function.__globals__)
        return [*given, ("code", _bytecode(code).encode()), *((f"global {name}", part) for name, part in named)]

    def _class(self, kind: type) -> Iterable[_Named]:
        bases: list[_Named] = [(f"base {number}", base) for number, base in enumerate(kind.__bases__)]
        if self._in_file(kind):
            return bases
        content = ((name, value) for name, value in sorted(vars(kind).items()) if name not in _OF_CLASSES)
        return [*bases, *((name, _unwrapped(value)) for name, value in content)]

    def _in_file(self, code: Any) -> bool:
        """Whether the code is installed or in a file, which is then one of `files`."""
        name = code.__name__ if isinstance(code, types.ModuleType) else _module_of(code)
        if name.partition(".")[0] in _LIBRARIES:
            return True
        file = source_file(code)
        if file is not None and not is_installed(file):
            self.files.add(file)
        return file is not None or (isinstance(code, type) and _is_built_in(code))

    def _module(self, module: nn.Module) -> Iterable[_Named]:
        """Its class, its children, hooks, and the attributes of a user's class; parameters and buffers have a digest already."""
        yield "class", type(module)
        yield from (("hook", hook) for hooks in _HOOKS for hook in vars(module).get(hooks, {}).values())
        yield from ((name, child) for name, child in module.named_children())
        own = vars(module)
        if isinstance(module, torch.fx.GraphModule):
            yield "code", module.code.encode()
        elif not _is_library(type(module)):
            attributes = ((name, value) for name, value in sorted(own.items()) if name not in _OF_MODULES)
            yield from ((name, _numbered(value) if name in _HOOKS else value) for name, value in attributes)
        else:
            # A library's module that calls a user's function.
            yield from ((name, value) for name, value in sorted(own.items()) if isinstance(value, _CALLABLES))

    def _object(self, value: Any) -> Iterable[_Named]:
        """The class and attributes of an object of a user's class, of a dataclass or of a namespace."""
        yield "wrapped", getattr(value, "__wrapped__", None)
        if dataclasses.is_dataclass(value) or isinstance(value, types.SimpleNamespace) or not _is_library(type(value)):
            yield "class", type(value)
            yield from sorted(getattr(value, "__dict__", {}).items())


def _numbered(hooks: Mapping[int, Any]) -> OrderedDict[int, Any]:
    """Hooks by their place: torch counts all hooks of a process, and those of other models do not matter."""
    return OrderedDict(enumerate(hooks.values()))


def _named(value: Any) -> str:
    """The class of an object, and the name of a class or function; without the module of a user's, which is a file's name."""
    if not callable(value) or isinstance(value, nn.Module):
        return _qualified(type(value))
    return f"{_qualified(type(value))} {_qualified(value)}"


def _qualified(code: Any) -> str:
    names = [getattr(code, name, "") for name in ("__module__", "__qualname__", "__name__")]
    shown = [name for name in names if isinstance(name, str)]
    return " ".join(shown[1:] if isinstance(code, type | types.FunctionType) and not _is_library(code) else shown)


def _plain(value: Any) -> str | None:
    """The text of a plain value, or the digest of an array; None for other objects."""
    if isinstance(value, _PLAIN):
        return f"{type(value).__name__} {value!a}"
    if isinstance(value, str):
        outside = value.startswith((".", "~", os.sep)) or _DEVICE.fullmatch(value)
        return "str" if outside else ascii(value)
    if isinstance(value, set | frozenset):
        return f"set {sorted(ascii(part) for part in value)}"
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"array {value.dtype} {value.shape} {hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()}"
    if isinstance(value, Tensor):
        try:
            raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        except (RuntimeError, NotImplementedError, TypeError):  # sparse, quantised
            raw = repr(value).encode()
        return f"tensor {value.dtype} {tuple(value.shape)} {hashlib.sha256(raw).hexdigest()}"
    return None


def _bytecode(code: types.CodeType) -> str:
    """What a function does, without line numbers and the names of its local variables."""
    constants = [
        _bytecode(one)
        if isinstance(one, types.CodeType)
        else f"{type(one).__name__} {sorted(map(ascii, one)) if isinstance(one, frozenset) else ascii(one)}"
        for one in code.co_consts
    ]
    arguments = code.co_argcount + code.co_kwonlyargcount
    parts = (
        code.co_code.hex(),
        code.co_names,
        code.co_varnames[:arguments],
        code.co_freevars,
        code.co_flags,
        constants,
    )
    return repr((code.co_posonlyargcount, code.co_argcount, code.co_exceptiontable.hex(), *parts))


def _names(code: types.CodeType) -> set[str]:
    inner = (one for one in code.co_consts if isinstance(one, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _unwrapped(value: Any) -> Any:
    if isinstance(value, staticmethod | classmethod):
        return value.__func__
    return (value.fget, value.fset) if isinstance(value, property) else value


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _is_library(code: type | types.FunctionType) -> bool:
    if _module_of(code).partition(".")[0] in _LIBRARIES:
        return True
    file = source_file(code)
    return (isinstance(code, type) and _is_built_in(code)) if file is None else is_installed(file)


def _module_of(code: type | types.FunctionType) -> str:
    """The name of its module; empty for functions that were made of text, as those of graphs are."""
    return code.__module__ or ""


def _is_built_in(kind: type) -> bool:
    """Whether a class is compiled, not made by a `class` statement."""
    return not kind.__flags__ & _HEAP_TYPE
