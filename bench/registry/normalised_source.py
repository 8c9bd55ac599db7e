"""The digest of what Python source does: its syntax tree without comments, docstrings and the names of local variables.

Two files have one digest only if they do the same. What may change behaviour is kept: constants, globals, attributes, names of
functions, classes, parameters, keywords and imports, and comments that begin with `# type:`, which TorchScript reads. Where code
reads its own names, docstrings or text, these are kept as well (`self_reads`). The walk is our own, since `ast.dump` differs
between versions of Python, so that the digest is equal on all of them.
"""

from __future__ import annotations

import ast
import hashlib
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from gauntlet.bench.registry.self_reads import SelfReads, self_reads

_VERSION = "syntax 1"
_TYPE_COMMENT = re.compile(rb"#\s*type:\s*(?!ignore\b)[^\r\n]*")
_DROPPED = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
"""Fields that other fields determine, or that change nothing."""


def parse(source: bytes) -> ast.Module | None:
    """The syntax tree; None for what is not Python of this version."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def normalised_digest(source: bytes, reads: SelfReads | None = None) -> str:
    """sha256 of what Python source does; of its bytes where it cannot be parsed, or where its text is read.

    `reads`: what the code of all files together reads of itself; default, what this source does.
    """
    tree = parse(source)
    reads = reads or (SelfReads() if tree is None else self_reads(tree))
    if tree is None or reads.text:
        return hashlib.sha256(b"text\n" + source).hexdigest()
    digest = hashlib.sha256(_VERSION.encode())
    for comment in _TYPE_COMMENT.findall(source):
        digest.update(b"\n" + comment)
    for token in _Tokens(names=reads.names or _has_type_parameters(tree), docstrings=reads.docstrings).of(tree):
        digest.update(b"\n" + token.encode())
    return digest.hexdigest()


def _has_type_parameters(tree: ast.Module) -> bool:
    """Whether there are scopes of type parameters (Python 3.12), whose names are not resolved here."""
    return any(getattr(node, "type_params", None) for node in ast.walk(tree))


@dataclass(frozen=True, eq=False)
class _Scope:
    """A function, class or comprehension, and the names that it binds."""

    parent: _Scope | None
    kind: str
    bound: set[str] = field(default_factory=set)
    """Names of variables that may be replaced."""
    kept: set[str] = field(default_factory=set)
    """Names of parameters, imports, functions and classes."""
    of_module: set[str] = field(default_factory=set)
    """Names declared global."""


_Comprehension = ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp
_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_Part = tuple[object, _Scope | None]


class _Tokens:
    """The tokens of a tree in order; a local variable is the number of its first occurrence."""

    def __init__(self, *, names: bool, docstrings: bool) -> None:
        self._names = names
        self._docstrings = docstrings
        self._numbers: dict[tuple[_Scope, str], int] = {}
        self._nonlocal: set[str] = set()

    def of(self, tree: ast.AST) -> Iterator[str]:
        """The tokens; without recursion, since expressions may be thousands of terms deep."""
        self._nonlocal = {name for node in ast.walk(tree) if isinstance(node, ast.Nonlocal) for name in node.names}
        waiting: list[_Part] = [(tree, None)]
        while waiting:
            part, scope = waiting.pop()
            if isinstance(part, ast.Constant):
                yield _constant(part.value)
            elif isinstance(part, ast.Name):
                yield self._name(part.id, scope)
            elif isinstance(part, ast.AST):
                yield f"({type(part).__name__}"
                waiting.append((")", scope))
                waiting.extend(reversed(list(self._fields(part, scope))))
            else:
                # Structure and field names are ours; other text was made by `_fields`.
                yield str(part)

    def _fields(self, node: ast.AST, scope: _Scope | None) -> Iterator[_Part]:
        inner = _inner(node, scope)
        for name, value in ast.iter_fields(node):
            if name in _DROPPED or value is None or value == []:
                continue
            yield f".{name}", scope
            where = inner if name in ("body", "elt", "key", "value") else scope
            if name == "generators":
                yield from _generators(value, scope, inner)
            elif name == "values" and isinstance(node, ast.JoinedStr):
                yield from ((part, scope) for part in _joined(value))
            elif isinstance(value, list):
                for part in value:
                    if not self._docstrings and _is_string_statement(part):
                        continue
                    yield (part if isinstance(part, ast.AST) else self._text(node, part, scope)), where
            else:
                yield (value if isinstance(value, ast.AST) else self._text(node, value, scope)), where

    def _text(self, node: ast.AST, value: object, scope: _Scope | None) -> str:
        """A field that is no node: a name that the statement binds, or plain data."""
        binds = isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar | ast.MatchMapping)
        return self._name(value, scope) if binds and isinstance(value, str) else _constant(value)

    def _name(self, name: str, scope: _Scope | None) -> str:
        # Names with two underscores are another name in each class.
        kept = self._names or name in self._nonlocal or name.startswith("__")
        owner = None if kept else _owner(name, scope)
        if owner is None:
            return f"name {name}"
        return f"local {self._numbers.setdefault((owner, name), len(self._numbers))}"


def _owner(name: str, scope: _Scope | None) -> _Scope | None:
    """The function or comprehension whose variable this is; None for a name that is kept."""
    at = scope
    while at is not None:
        if at.kind != "class" or at is scope:
            if name in at.of_module or name in at.kept:
                return None
            if name in at.bound:
                return None if at.kind == "class" else at
        at = at.parent
    return None


def _inner(node: ast.AST, scope: _Scope | None) -> _Scope | None:
    """The scope of a node's body."""
    if isinstance(node, _Function):
        arguments = node.args
        given = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
        inner = _Scope(scope, "function", kept={one.arg for one in given if one is not None})
        _bind(inner, [node.body] if isinstance(node, ast.Lambda) else node.body)
        return inner
    if isinstance(node, ast.ClassDef):
        inner = _Scope(scope, "class")
        _bind(inner, node.body)
        return inner
    if isinstance(node, _Comprehension):
        inner = _Scope(scope, "comprehension")
        for generator in node.generators:
            names = (part for part in ast.walk(generator.target) if isinstance(part, ast.Name))
            inner.bound.update(part.id for part in names if _is_bound(part))
        return inner
    return scope


def _bind(scope: _Scope, body: Iterable[ast.AST]) -> None:
    """Collect the names that a function's or a class's own statements bind."""
    waiting = list(body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, _Comprehension):
            # Their targets are their own; a walrus inside binds here.
            waiting += (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
            waiting += (part for one in node.generators for part in (one.iter, *one.ifs))
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            scope.kept.add(node.name)
            waiting += node.decorator_list
            if isinstance(node, ast.ClassDef):
                waiting += (*node.bases, *node.keywords)
            else:
                waiting += (node.args, *filter(None, [node.returns]))
            continue
        if isinstance(node, ast.Lambda):
            waiting.append(node.args)
            continue
        if isinstance(node, ast.AnnAssign) and not node.simple and node.value is None:
            # `(name): type` binds nothing.
            waiting.append(node.annotation)
            continue
        if isinstance(node, ast.Global):
            scope.of_module.update(node.names)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            scope.kept.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            scope.bound.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            scope.bound.add(node.rest)
        elif isinstance(node, ast.Name) and _is_bound(node):
            scope.bound.add(node.id)
        waiting += ast.iter_child_nodes(node)
    scope.bound.difference_update(scope.kept, scope.of_module)


def _is_bound(name: ast.Name) -> bool:
    return not isinstance(name.ctx, ast.Load)


def _generators(generators: list[ast.comprehension], scope: _Scope | None, inner: _Scope | None) -> Iterator[_Part]:
    """The parts of a comprehension's loops; the first iterable is evaluated outside."""
    for number, one in enumerate(generators):
        yield f"for {one.is_async}", inner
        yield one.target, inner
        yield one.iter, inner if number else scope
        for condition in one.ifs:
            yield "if", inner
            yield condition, inner


def _joined(values: list[ast.expr]) -> Iterator[ast.expr]:
    """The parts of an f-string, adjacent text as one: versions of Python split it otherwise."""
    text = ""
    for value in values:
        if isinstance(value, ast.Constant):
            text += str(value.value)
            continue
        if text:
            yield ast.Constant(text)
        text = ""
        yield value
    if text:
        yield ast.Constant(text)


def _is_string_statement(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _constant(value: object) -> str:
    # Digits of a long integer are limited, hexadecimal ones are not.
    text = hex(value) if isinstance(value, int) and not isinstance(value, bool) else ascii(value)
    return f"{type(value).__name__} {text}"
