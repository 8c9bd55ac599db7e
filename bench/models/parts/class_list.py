"""Lists of classes: which of a model's outputs take part, by index or by name, from text, JSON or a Python file.

The Python files are those of the repositories of ImageNet-A and ImageNet-R (Hendrycks et al., CVPR 2021 and ICCV 2021), whose
`eval.py` holds the list as literals: a dict from all classes to their place or -1, or all WordNet ids beside those that are kept.
Files are read, never run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gauntlet.attacks.registry.settings import parse_named
from gauntlet.bench.models.parts.errors import ModelError
from gauntlet.leaderboard.results.sealed_json import parse_json
from gauntlet.leaderboard.results.user_text import read_user_text

_WNID = re.compile(r"n\d{8}")
_LINE = re.compile(r"(?P<key>\d+|n\d{8})(?:[\s,:;]+(?P<name>.*))?")
_FORMS = (
    "write a class a line, by its index or its name, or both (`6 stingray`); or give a JSON list, or the eval.py of the "
    "repository of ImageNet-A or ImageNet-R"
)


@dataclass(frozen=True)
class ListedClass:
    """A class of a list: its index among the model's outputs, its names, or both."""

    index: int | None = None
    names: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The name for tables: words rather than a WordNet id, a name rather than an index."""
        words = [name for name in self.names if not _WNID.fullmatch(name)]
        return (words or list(self.names) or [str(self.index)])[0]


def class_file(text: str) -> tuple[Path, str | None]:
    """The file of a list of classes, and what labels of data are: `model`, `list`, or None where it shows.

    Raises ModelError for other settings in brackets.
    """
    try:
        named = parse_named(text)
    except ValueError:
        return Path(text), None
    settings = named.keywords
    labels = settings.pop("labels", None)
    if settings or labels not in (None, "model", "list"):
        raise ModelError(f"classes {text!r} is not understood: write FILE, FILE(labels=model) or FILE(labels=list)")
    return Path(named.name), None if labels is None else str(labels)


def read_class_list(path: Path) -> tuple[ListedClass, ...]:
    """The classes of a file, in their order. Raises ModelError for files that are no list of different classes."""
    if not path.is_file():
        raise ModelError(f"list of classes {str(path)!r} is not there (looked in {Path.cwd()})")
    try:
        text = read_user_text(path)
        found = _python(text) if path.suffix == ".py" else _json(text) if path.suffix == ".json" else _lines(text)
    except (ValueError, SyntaxError, TypeError, RecursionError) as error:
        raise ModelError(f"list of classes {str(path)!r} cannot be read ({error}): {_FORMS}") from error
    return listed_classes(found, f"list of classes {str(path)!r}")


def listed_classes(found: Sequence[ListedClass], what: str) -> tuple[ListedClass, ...]:
    """The classes of a list; `what` names it. Raises ModelError for fewer than two classes, and for a class that occurs twice."""
    if len(found) < 2:
        raise ModelError(f"{what} has {len(found)} classes, at least 2 are needed: {_FORMS}")
    keys = [one.index if one.index is not None else one.names[0] for one in found]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise ModelError(f"{what} has the class {twice!r} twice: name each once")
    return tuple(found)


def listed(value: Any) -> ListedClass:
    """A class by its index or its name. Raises ValueError."""
    if isinstance(value, str) and value.strip():
        return ListedClass(names=(value.strip(),))
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return ListedClass(index=value)
    raise ValueError(f"{value!r} is neither the index nor the name of a class")


def _lines(text: str) -> list[ListedClass]:
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    ids = [line for line in lines if _WNID.match(line)]
    # The README of the archives of ImageNet-A and -R has sentences above its list.
    lines = ids if len(ids) >= 2 else lines
    if len(lines) == 1 and "," in lines[0]:
        lines = [part.strip() for part in lines[0].strip("[]").split(",") if part.strip()]
    return [_line(line) for line in lines]


def _line(line: str) -> ListedClass:
    found = _LINE.fullmatch(line)
    if found is None:
        return listed(line)
    key, name = found["key"], (found["name"] or "").strip()
    names = (name,) if name else ()
    return ListedClass(int(key), names) if key.isdecimal() else ListedClass(None, (key, *names))


def _json(text: str) -> list[ListedClass]:
    value = parse_json(text)
    if isinstance(value, list):
        return [listed(one) for one in value]
    if not isinstance(value, dict):
        raise ValueError("it holds neither a list nor a table")
    if all(isinstance(one, int) for one in value.values()):
        return _places({int(key): place for key, place in value.items()})
    return [
        ListedClass(int(key), tuple(names) if isinstance(names, list) else (str(names),))
        for key, names in value.items()
    ]


def _python(text: str) -> list[ListedClass]:
    values = list(_literals(ast.parse(text)))
    for value in values:
        if isinstance(value, dict) and all(isinstance(one, int) for pair in value.items() for one in pair):
            return _places(value)
    ids = [value for value in values if _are_ids(value)]
    if len(ids) >= 2:
        whole = max(ids, key=len)
        kept = next(one for one in ids if one is not whole)
        if isinstance(whole, list) and set(kept) <= set(whole):
            return [ListedClass(place, (name,)) for place, name in enumerate(whole) if name in set(kept)]
    for value in [*ids, *values]:
        if isinstance(value, list) and len(value) >= 2:
            return [listed(one) for one in value]
    raise ValueError("no list of classes stands in it as a literal")


def _literals(tree: ast.Module) -> Iterable[Any]:
    for node in tree.body:
        if isinstance(node, ast.Assign):
            try:
                yield ast.literal_eval(node.value)
            except (ValueError, TypeError):
                continue


def _are_ids(value: Any) -> bool:
    return (
        isinstance(value, list | set | tuple)
        and len(value) >= 2
        and all(isinstance(one, str) and _WNID.fullmatch(one) for one in value)
    )


def _places(table: dict[int, int]) -> list[ListedClass]:
    """From a table of all classes with the place of each among those that are kept, or -1."""
    return [ListedClass(key) for key, place in sorted(table.items(), key=lambda pair: pair[1]) if place >= 0]
