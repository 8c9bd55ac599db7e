"""Files of torch.export, `.pt2`, read without running code from them.

`torch.export.load` trusts its file: it evaluates expressions and guards in it as Python, unpickles objects, loads libraries, and
looks operations up by name. So the archive is examined first. Only what a plain network needs is let through: tensors, operations
of torch, and sizes as arithmetic of symbols.
"""

from __future__ import annotations

import inspect
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gauntlet.bench.environment.size_limits import check_archive
from gauntlet.bench.models.files.local_files import check_file
from gauntlet.bench.models.files.safe_weights import weights_only
from gauntlet.bench.models.parts.errors import ModelError, short_error
from gauntlet.leaderboard.results.sealed_json import parse_json

_OPERATION = re.compile(r"torch\.ops\.(?!aten\.from_file\b)\w+\.\w+(\.\w+)?|torch\.sym_\w+|math\.\w+")
_ARITHMETIC = re.compile(
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_|lshift|rshift|getitem)"
)
"""Functions of Python that programs may call, on sizes and tuples."""
_NUMBER = r"\d+(?:\.\d+)?"
_FUNCTIONS = (
    r"Symbol|Integer|Rational|Float|Add|Mul|Pow|Max|Min|Abs|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Equality|Unequality|StrictLessThan"
    r"|LessThan|StrictGreaterThan|GreaterThan|FloorDiv|ModularIndexing|Where|PythonMod|Mod|CleanDiv|CeilToInt|FloorToInt|CeilDiv"
    r"|LShift|RShift|PowByNatural|FloatPow|FloatTrueDiv|IntTrueDiv|TruncToFloat|TruncToInt|RoundToInt|RoundDecimal|ToFloat|Identity"
    r"|true|false|True|False|oo|int_oo"
)
_SYMBOL = r"[a-z]{1,4}\d+"
_SIZE = re.compile(
    rf"(?:(?:{_FUNCTIONS})\b|{_SYMBOL}\b|'(?:{_SYMBOL}|-?{_NUMBER})'|[a-z]+=(?:True|False|\d+)\b|{_NUMBER}(?![\w.])"
    r"|[\s+\-*/%(),<>=&|~])*"
)
"""Arithmetic of symbols such as `s77` and `u0`: no attribute, no other string, no other function."""
_TREES = ("builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
"""Containers of inputs and outputs; others import modules by name."""
_PICKLED = ("custom_obj", "opaque_obj")
"""Beginnings of the names of constants that are pickled objects."""


def read_exported(path: Path) -> nn.Module:
    """The module of a file of torch.export, on the CPU. Raises ModelError if it is damaged, or reading could run code from it."""
    named = f"file of torch.export {str(path)!r}"
    check_file(path, "file of torch.export")
    raw = path.read_bytes()
    try:
        check_archive(io.BytesIO(raw))
        problem = next(_problems(raw), "")
    except (zipfile.BadZipFile, ValueError, RecursionError) as error:
        raise ModelError(f"{named} is no archive of torch.export.save, or damaged: {short_error(error)}") from error
    if problem:
        raise ModelError(
            f"{named} is refused, since reading it could run code from it: it holds {problem}; if you trust it, load it in a "
            "function of your own, --model FILE.py:FACTORY"
        )
    try:
        with weights_only():
            program = torch.export.load(io.BytesIO(raw))
        # Guards are Python code from the file.
        program._guards_code = []
        without = {"check_guards": False} if "check_guards" in inspect.signature(program.module).parameters else {}
        module: nn.Module = program.module(**without)
        return module
    except Exception as error:  # torch raises errors of many types
        raise ModelError(
            f"{named} cannot be read by torch {torch.__version__}: {short_error(error)}; export it again with this version"
        ) from error


def _problems(raw: bytes) -> Iterator[str]:
    """What in the archive could run code, one after another."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        names = archive.namelist()
        if len(set(names)) < len(names):
            yield "two entries of one name"
        for name in names:
            inner = name.partition("/")[2]
            if "aotinductor" in name or "executorch" in name:
                yield f"a compiled library ({name})"
            elif inner.startswith("models/") or name.endswith(".json"):
                yield from _unsafe(parse_json(archive.read(name)))


def _unsafe(value: Any, key: str = "") -> Iterator[str]:
    """What in a value of JSON could run code; `key`: its name in the mapping that holds it."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _unsafe(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from _unsafe(part, key)
    elif isinstance(value, str):
        if (key in ("target", "as_operator") and not _harmless_operation(value)) or (
            key == "expr_str" and not _SIZE.fullmatch(value)
        ):
            yield f"{value[:60]!r}"
        elif key == "path_name" and value.startswith(_PICKLED):
            yield f"a pickled object ({value})"
        elif key in ("in_spec", "out_spec") and value:
            yield from _unsafe_tree(parse_json(value))


def _harmless_operation(target: str) -> bool:
    return bool(_OPERATION.fullmatch(target) or _ARITHMETIC.fullmatch(target))


def _unsafe_tree(value: Any) -> Iterator[str]:
    """Containers of a tree of inputs or outputs that import a module by its name."""
    if isinstance(value, dict):
        kind = value.get("type")
        if kind is not None and kind not in _TREES:
            yield f"a container {kind!r}"
        for part in value.values():
            yield from _unsafe_tree(part)
    elif isinstance(value, list):
        for part in value:
            yield from _unsafe_tree(part)
