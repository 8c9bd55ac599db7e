"""Names with settings, as users write them: `pgd(steps=100, restarts=5)`."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TypeAlias

Setting: TypeAlias = bool | int | float | str | tuple[float, ...] | None


@dataclass(frozen=True)
class Named:
    """A name and its settings, sorted by keyword; `str` gives the canonical text."""

    name: str
    settings: tuple[tuple[str, Setting], ...] = ()

    @property
    def keywords(self) -> dict[str, Setting]:
        """The settings as keyword arguments."""
        return dict(self.settings)

    def __str__(self) -> str:
        if not self.settings:
            return self.name
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self.settings)})"


def parse_named(text: str) -> Named:
    """Read `name` or `name(key=value, …)`.

    Values are numbers, numbers in round brackets such as `(0.5, 0.4)`, True, False, None, and quoted or bare words.

    Raises ValueError that shows the text and the form expected.
    """
    name, bracket, rest = text.strip().partition("(")
    if not name.strip() or (bracket and not rest.rstrip().endswith(")")):
        raise ValueError(f"{text!r} is not understood: write a name, or a name with settings like pgd(steps=100)")
    if not bracket:
        return Named(name.strip())
    try:
        settings = _settings(ast.parse(f"f({rest.rstrip()[:-1]})", mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(
            f"settings in {text!r} are not understood: write key=value pairs separated by commas, like "
            "pgd(steps=100, loss=cw)"
        ) from None
    return Named(name.strip(), tuple(sorted(settings.items())))


def _settings(call: ast.expr) -> dict[str, Setting]:
    if not isinstance(call, ast.Call) or call.args:
        raise ValueError
    settings = {k.arg: _value(k.value) for k in call.keywords if k.arg}
    if len(settings) < len(call.keywords):
        raise ValueError
    return settings


def _value(node: ast.expr) -> Setting:
    if isinstance(node, ast.Name):
        return node.id
    value = ast.literal_eval(node)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple) and all(isinstance(part, int | float) for part in value):
        return value
    raise ValueError


def split_list(text: str) -> list[str]:
    """Split `a,b(c=1, d=2),e` at the commas outside parentheses; empty parts are dropped."""
    parts, depth, current = [], 0, ""
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += character
    return [part.strip() for part in [*parts, current] if part.strip()]
