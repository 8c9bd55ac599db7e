"""Digests of Python source: equal for what does the same, other for what does not, and equal on all versions of Python."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from gauntlet.bench.registry.normalised_source import normalised_digest

SAMPLE = b'''"""A model."""
from __future__ import annotations
import torch as t, os.path
from . import parts

SCALE: float = 2.5e-1

@t.jit.ignore
class Net(t.nn.Module, metaclass=type):
    """Documented."""
    width: int = 0x10

    def __init__(self, deep=3, *rest, wide: "int" = 1_000, **more):
        super().__init__()
        layers = [t.nn.Linear(n, n) for n in range(deep) if n]
        self.layers = t.nn.ModuleList(layers)

    def forward(self, x, /):
        # A comment.
        total, *others = 0, 1j
        for layer in self.layers:
            total = total + layer(x) * SCALE if x is not None else -1
        try:
            with t.no_grad() as guard, guard:
                del others
        except (ValueError, TypeError) as error:
            raise RuntimeError(f"at {total!r:>{SCALE}} {{}}" "and" f"{error:}") from error
        match total:
            case [first, *_] | {"a": first, **_}:
                total = first
            case t.Tensor(shape=(_, 3)) if (many := 3) > 2:
                total = lambda z, *, q=b"\\x00": (z, q, ..., True, None, many)
        return {**{"k": total}, "s": x[1:, ::2]}
'''
DIGEST = "39a661bd818164fe4853a4dfb899c51cfcdab430aed6940635b83a3026eaa5c8"


def digest(text):
    return normalised_digest(text.encode())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "# a comment\nx  =  1  # another\n\n"),
        ("def f():\n    return 'a'", 'def f():\n    """What it does."""\n    return "a"'),
        ("class A:\n    x = 1", 'class A:\n    """What it is."""\n\n    x = 1\n    """What this is."""'),
        ("def f(x):\n    y = x\n    return y", "def f(x):\n    z = x\n    return z"),
        ("def f():\n    a = 1\n    return lambda: a", "def f():\n    b = 1\n    return lambda: b"),
        ("def f(x):\n    return [a for a in x]", "def f(x):\n    return [b for b in x]"),
        ("y = [a for a in x]", "y = [b for b in x]"),
        ("def f():\n    for i in x: g(i)", "def f():\n    for j in x: g(j)"),
        ("def f():\n    try: g()\n    except E as e: h(e)", "def f():\n    try: g()\n    except E as o: h(o)"),
        ("def f(x):\n    if (n := g(x)): return n", "def f(x):\n    if (m := g(x)): return m"),
        ("def f(x):\n    match x:\n        case [a]: return a", "def f(x):\n    match x:\n        case [b]: return b"),
        ("def f():\n    m = g()\n    m.eval()", "def f():\n    n = g()\n    n.eval()"),
        ("x = f'a' 'b'", "x = f'ab'"),
        ("x = 1000", "x = 1_000"),
        ("x = u'a'", "x = 'a'"),
    ],
)
def test_what_does_the_same_has_one_digest(one, other):
    assert digest(one) == digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 2"),
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 'a'", "x = b'a'"),
        ("x = 0.0", "x = -0.0"),
        ("x = '1'", "x = 1"),
        ("x = f'{y}'", "x = f'{y!r}'"),
        ("x = f'{y}'", "x = f'y'"),
        ("x = y[1:]", "x = y[:1]"),
        ("f(**x)", "f(*x)"),
        ("a = 1", "b = 1"),
        ("def f(a): return a", "def f(b): return b"),
        ("f = lambda a: a", "f = lambda b: b"),
        ("f(a=1)", "f(b=1)"),
        ("def f():\n    g.a = 1", "def f():\n    g.b = 1"),
        ("def f():\n    global a\n    a = 1", "def f():\n    global b\n    b = 1"),
        ("def f():\n    a = 1\n    return b", "def f():\n    b = 1\n    return b"),
        ("def f():\n    x, y = 1, 2\n    return x", "def f():\n    x, y = 1, 2\n    return y"),
        ("def f():\n    import a\n    return a", "def f():\n    import b\n    return b"),
        ("def f():\n    def a(): ...\n    return a", "def f():\n    def b(): ...\n    return b"),
        ("class A:\n    a: int = 1", "class A:\n    b: int = 1"),
        ("def f():\n    class A:\n        a = 1", "def f():\n    class A:\n        b = 1"),
        (
            "def f():\n    a = b = 1\n    class A:\n        a = a",
            "def f():\n    a = b = 1\n    class A:\n        a = b",
        ),
        ("x = [a for a in b]", "x = [b for a in b]"),
        ("x = [a for a in a]", "x = [a for b in a]"),
        ("def f():\n    (x): int\n    return x", "def f():\n    (y): int\n    return y"),
        ("def f(x):  # type: (int) -> int\n    return x", "def f(x):  # type: (float) -> int\n    return x"),
        (
            "def f():\n    x, y = 1, 2\n    def g():\n        nonlocal x\n        import x\n    return x",
            "def f():\n    y, x = 1, 2\n    def g():\n        nonlocal x\n        import x\n    return y",
        ),
        (
            "def f():\n    a = 1\n    class C:\n        def g(self): return a",
            "def f():\n    a = 1\n    class C:\n        def g(self): return b",
        ),
        (
            "class A:\n    def f(self):\n        __x = 1\n        class B:\n            def g(self): return __x",
            "class A:\n    def f(self):\n        __y = 1\n        class B:\n            def g(self): return __y",
        ),
    ],
)
def test_what_does_something_else_has_another_digest(one, other):
    assert digest(one) != digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f():\n    a = 1\n    return locals()", "def f():\n    b = 1\n    return locals()"),
        ("def f():\n    a = 1\n    return eval('a')", "def f():\n    b = 1\n    return eval('a')"),
        ("def f():\n    a = 1\n    exec('b = a')", "def f():\n    b = 1\n    exec('b = a')"),
        ("def f():\n    a = 1\n    return g.eval('a')", "def f():\n    b = 1\n    return g.eval('a')"),
        ("import sys\ndef f():\n    a = sys._getframe(1)", "import sys\ndef f():\n    b = sys._getframe(1)"),
        ("'''one'''\nx = __doc__", "'''two'''\nx = __doc__"),
        ("def f():\n    'one'\nx = len(getattr(f, '__doc__'))", "def f():\n    'two'\nx = len(getattr(f, '__doc__'))"),
        ("import inspect\nx = inspect.getsource(f)", "import inspect  # changed\nx = inspect.getsource(f)"),
        ("x = open(__file__).read()", "x = open(__file__).read()  # changed"),
        (
            "from pathlib import Path\nx = Path(__file__).read_text()",
            "from pathlib import Path\n\nx = Path(__file__).read_text()",
        ),
        ("x = f_lineno", "\nx = f_lineno"),
    ],
)
def test_what_code_reads_of_itself_is_kept(one, other):
    assert digest(one) != digest(other)


def test_what_is_no_python_counts_by_its_bytes():
    assert digest("this is no Python") != digest("this is no Python  # changed")


def test_thousands_of_terms_are_read():
    assert digest("x = " + " + ".join(["y"] * 3000)) != digest("x = " + " + ".join(["y"] * 3001))


def test_the_digest_of_a_fixed_source_is_the_stored_one():
    assert normalised_digest(SAMPLE) == DIGEST


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_digest_is_the_stored_one_on_other_versions_of_python(version, tmp_path):
    found = [
        shutil.which(f"python{version}"),
        *sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python")),
    ]
    pythons = [str(one) for one in found if one and runs(str(one), version)]
    if not pythons:
        pytest.skip(f"Python {version} is not on this machine")
    folder = Path(__file__).parents[3] / "bench" / "registry"
    (tmp_path / "sample.py").write_bytes(SAMPLE)
    for name in ("self_reads", "normalised_source"):
        text = (folder / f"{name}.py").read_text(encoding="utf-8")
        (tmp_path / f"{name}.py").write_text(text.replace("gauntlet.bench.registry.", ""), encoding="utf-8")
    code = "import normalised_source as n; print(n.normalised_digest(open('sample.py', 'rb').read()))"
    ran = subprocess.run([pythons[0], "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == DIGEST


def runs(python, version):
    """Whether this is a working Python of that version: pyenv's shims answer for versions that are not installed."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    ran = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return ran.stdout.strip() == version
