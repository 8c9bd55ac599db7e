"""Whether the fields of a message have the types that their class declares: what arrives is JSON that anybody may write."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def typed(value: T, where: str) -> T:
    """The dataclass itself. Raises TypeError that names the first field whose value is not of its type.

    Whole numbers count as float, as in JSON; truth values count as no numbers. `where`: what it is, for the message.
    """
    kind: Any = type(value)
    for name, hint in _hints(kind).items():
        _check(getattr(value, name), hint, f"{where}.{name}")
    return value


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _check(value: Any, hint: Any, where: str) -> None:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or hint is object:
        return
    if origin in (Union, types.UnionType):
        if not any(_fits(value, one, where) for one in inner):
            raise _wrong(value, hint, where)
    elif origin is Literal:
        if value not in inner:
            raise _wrong(value, hint, where)
    elif origin is tuple:
        if not isinstance(value, tuple) or (inner[-1] is not ... and len(value) != len(inner)):
            raise _wrong(value, hint, where)
        for number, one in enumerate(value):
            _check(one, inner[0] if inner[-1] is ... else inner[number], f"{where}[{number}]")
    elif origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(value, hint, where)
        for key, one in value.items():
            _check(key, inner[0], f"a key of {where}")
            _check(one, inner[1], f"{where}[{key!r}]")
    elif dataclasses.is_dataclass(hint):
        if type(value) is not hint:
            raise _wrong(value, hint, where)
        typed(value, where)
    elif type(value) is not hint and not (hint is float and type(value) is int):
        raise _wrong(value, hint, where)


def _fits(value: Any, hint: Any, where: str) -> bool:
    try:
        _check(value, hint, where)
    except TypeError:
        return False
    return True


def _wrong(value: Any, hint: Any, where: str) -> TypeError:
    return TypeError(f"{where} is {str(value)[:40]!r}, of type {type(value).__name__} in place of {_name(hint)}")


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
