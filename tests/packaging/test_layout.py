"""The layout: which folder may import which, how large folders and modules may be, and what lies directly in bench/."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {
    "attacks": {"attacks"},
    "defenses": {"attacks", "defenses"},
    "leaderboard": {"leaderboard"},
    "bench": {"attacks", "defenses", "leaderboard", "bench"},
}
"""attacks ← defenses ← bench → leaderboard."""
DIRECTLY_IN_BENCH = {"__init__.py", "api.py", "pytest_plugin.py", "registries.py", "test_cells.py"}
MOST_MODULES = 22
MOST_LINES = 300
MOST_TEST_LINES = 500


@cache
def modules():
    """Every module of the package by its dotted name, with its file."""
    found = {}
    for top in MAY_IMPORT:
        for file in sorted((ROOT / top).rglob("*.py")):
            parts = list(file.relative_to(ROOT).with_suffix("").parts)
            if parts[:2] == ["bench", "facade"]:  # `import gauntlet`
                parts = parts[2:]
            if parts and parts[-1] == "__init__":
                parts.pop()
            found[".".join(["gauntlet", *parts])] = file
    return found


@cache
def tree(file):
    return ast.parse(file.read_text(encoding="utf-8"))


def imported(file):
    """The modules of the package that a file imports, inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules() else str(node.module) for name in full]
        else:
            continue
        for name in names:
            package = name.partition(".")[0]
            assert package not in MAY_IMPORT, f"{file}:{node.lineno} imports {name} by the name of its folder"
            if package == "gauntlet":
                yield name


def folder(file):
    """The folder of a file; a module that lies directly in bench/ is a folder of its own."""
    path = file.relative_to(ROOT)
    alone = path.parent == Path("bench") and path.name != "__init__.py"
    return (path.with_suffix("") if alone else path.parent).as_posix()


def folder_imports():
    """For each folder the other folders that its modules import, with an example of each."""
    found = defaultdict(dict)
    for name, file in modules().items():
        for other in imported(file):
            if folder(modules()[other]) != folder(file):
                found[folder(file)][folder(modules()[other])] = f"{name} imports {other}"
    return found


def ring(graph):
    """The nodes of a ring in a graph, in order; empty where there is none."""
    done, path = set(), []

    def visit(node):
        if node in path:
            return path[path.index(node) :]
        if node in done:
            return []
        path.append(node)
        for other in sorted(graph.get(node, ())):
            if found := visit(other):
                return found
        done.add(path.pop())
        return []

    return next((found for node in sorted(graph) if (found := visit(node))), [])


@pytest.mark.parametrize("top", MAY_IMPORT)
def test_the_four_packages_import_in_one_direction(top):
    for name, file in modules().items():
        if file.relative_to(ROOT).parts[0] == top:
            for other in imported(file):
                assert other in modules(), f"{name} imports {other}, which is no module"
                package = modules()[other].relative_to(ROOT).parts[0]
                assert package in MAY_IMPORT[top], f"{name} imports {other}"


def test_a_ring_is_noticed():
    assert ring({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert ring({"a": {"b", "c"}, "b": {"c"}}) == []


def test_no_folders_import_each_other_in_a_ring():
    graph = folder_imports()
    found = ring(graph)
    assert not found, [graph[one][other] for one, other in zip(found, [*found[1:], found[0]], strict=True)]


def test_no_modules_import_each_other_in_a_ring():
    assert not ring({name: {*imported(file)} - {name} for name, file in modules().items()})


def test_no_folder_has_too_many_modules():
    counts = Counter(file.parent for file in modules().values() if file.name != "__init__.py")
    assert {str(path): count for path, count in counts.items() if count > MOST_MODULES} == {}


def lines(*folders, most):
    files = [file for name in folders for file in (ROOT / name).rglob("*.py")]
    assert files
    counts = {file.relative_to(ROOT).as_posix(): len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    return {file: count for file, count in counts.items() if count > most}


def test_no_module_is_too_long():
    assert lines(*MAY_IMPORT, most=MOST_LINES) == {}


def test_no_file_of_tests_is_too_long():
    assert lines("tests", "examples", most=MOST_TEST_LINES) == {}


def test_nothing_else_lies_directly_in_bench():
    assert {file.name for file in (ROOT / "bench").glob("*.py")} <= DIRECTLY_IN_BENCH


def attack_classes():
    """Names of the classes that say what an attack is: the interfaces, and each attack's own."""
    named = {"Rule", "Cascade", "WholeAttack", "Replay", "Certificate", "Corruption"}
    own = {node.name for file in (ROOT / "attacks").glob("*.py") for node in tree(file).body if is_class(node)}
    return named | own


def is_class(node):
    return isinstance(node, ast.ClassDef)


def last_name(node):
    """`attack` of `attack`, `self.attack` and `cell.attack`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def names_in(node):
    return {last_name(part) for part in ast.walk(node)}


def is_attack(node):
    return last_name(node).strip("_") in ("attack", "executable", "rule")


def switches(node):
    """Whether a node decides by the type or kind of an attack."""
    if isinstance(node, ast.Call):
        function = last_name(node.func)
        if function in ("isinstance", "issubclass"):
            return is_attack(node.args[0]) or bool(names_in(node.args[1]) & attack_classes())
        return function in ("type", "hasattr", "getattr") and bool(node.args) and is_attack(node.args[0])
    if isinstance(node, ast.Compare):
        return any(last_name(side) == "attack_kind" for side in (node.left, *node.comparators))
    if isinstance(node, ast.Match):
        return is_attack(node.subject) or last_name(node.subject) == "attack_kind"
    return isinstance(node, ast.MatchClass) and last_name(node.cls) in attack_classes()


def type_switches(text):
    return [node.lineno for node in ast.walk(ast.parse(text)) if switches(node)]


@pytest.mark.parametrize(
    "text",
    [
        "isinstance(attack, Rule | Cascade)",
        "isinstance(self.attack, (Rule, str))",
        "isinstance(made, Replay)",
        "type(attack) is PGD",
        "hasattr(cell.attack, 'stages')",
        "cell.info.attack_kind == 'corruption'",
        "info.attack_kind in ('replay', 'certificate')",
        "match attack:\n    case _: pass",
        "match made:\n    case Rule(): pass",
    ],
)
def test_a_decision_by_the_type_of_an_attack_is_noticed(text):
    assert type_switches(text)


def test_other_type_checks_are_not_noticed():
    assert not type_switches("isinstance(data, Data); type(error).__name__; hasattr(module, 'x'); cell.attack == other")


MAKES_EXECUTABLES = Path("bench/executors/make.py")
"""Turns registered attacks into what a cell runs: asked by the registry, and by nothing else."""


def test_bench_does_not_decide_by_the_type_of_an_attack():
    found = []
    for file in sorted((ROOT / "bench").rglob("*.py")):
        path = file.relative_to(ROOT)
        # `check_rule` puts a rule to the test that its author gives.
        if path.parts[1] not in ("registry", "registries.py", "rule_checks") and path != MAKES_EXECUTABLES:
            found += [f"{path}:{line}" for line in type_switches(file.read_text(encoding="utf-8"))]
    assert found == []
