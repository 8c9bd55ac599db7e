"""What code reads of its own source: names of local variables, docstrings, or the text itself."""

from __future__ import annotations

import ast
from dataclasses import dataclass

_NAMES = frozenset(
    {
        *("locals", "vars", "dir", "eval", "exec", "f_locals", "f_back", "_getframe", "currentframe", "getouterframes"),
        *("get_type_hints", "__annotations__", "__code__", "__closure__", "getclosurevars", "symtable", "unparse"),
        *("co_varnames", "co_freevars", "co_cellvars"),
        # numexpr and pandas read the variables of the code that calls them.
        *("evaluate", "query"),
    }
)
_DOCSTRINGS = frozenset({"__doc__", "getdoc", "docopt", "yacc", "lex"})
_TEXT = frozenset(
    {
        *("getsource", "getsourcelines", "findsource", "getcomments", "get_source", "linecache", "tokenize"),
        *("lineno", "f_lineno", "tb_lineno", "co_firstlineno", "findCaller"),
    }
)
_OWN_FILE = ast.dump(ast.Name("__file__", ast.Load()))


@dataclass(frozen=True)
class SelfReads:
    """What code reads of itself, and what a digest therefore keeps."""

    names: bool = False
    """Names of local variables."""
    docstrings: bool = False
    text: bool = False
    """The text of the source, with comments and line numbers."""

    def __or__(self, other: SelfReads) -> SelfReads:
        return SelfReads(self.names or other.names, self.docstrings or other.docstrings, self.text or other.text)


def self_reads(tree: ast.Module) -> SelfReads:
    """What the code of a file may read of itself, or of the code that calls it; in doubt it does."""
    names = mentioned(tree)
    return SelfReads(bool(names & _NAMES), bool(names & _DOCSTRINGS), bool(names & _TEXT) or _opens_itself(tree))


def mentioned(tree: ast.Module) -> frozenset[str]:
    """All names, attributes, imported names, and strings that are identifiers.

    Without the `eval` of `model.eval()`: a method that is called without arguments evaluates no text.
    """
    names: set[str] = set()
    methods = {
        id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and not (node.args or node.keywords)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and not (node.attr == "eval" and id(node) in methods):
            names.add(node.attr)
        elif isinstance(node, ast.alias):
            names.update(node.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            names.update((node.module or "").split("."))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            names.add(node.value)
    return frozenset(names)


def _opens_itself(tree: ast.Module) -> bool:
    """Whether a file is read that `__file__` names: `open(__file__)`, `Path(__file__).read_text()`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            if any(ast.dump(given) == _OWN_FILE for given in node.args):
                return True
        elif isinstance(node, ast.Attribute) and node.attr in ("read_text", "read_bytes", "open"):
            of = node.value
            if isinstance(of, ast.Call) and any(ast.dump(given) == _OWN_FILE for given in of.args):
                return True
    return False
