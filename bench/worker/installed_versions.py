"""The versions of Gauntlet, of its verifier and of its own attacks, by the names of their classes."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from gauntlet.attacks.adaptive import Adaptive
from gauntlet.attacks.registry.catalog import ATTACKS
from gauntlet.attacks.solving.low_precision import Review
from gauntlet.attacks.solving.rule import Rule
from gauntlet.bench.environment.provenance import package_version
from gauntlet.bench.verify.verifier import VERSION


def installed_versions() -> dict[str, str]:
    """The versions of Gauntlet, of its verifier and of its rules."""
    rules = {name: str(version) for name, version in rule_versions().items()}
    return {"gauntlet": package_version("robust-gauntlet"), "verifier": str(VERSION), **rules}


@cache
def rule_versions() -> dict[str, int]:
    """The version of each rule that an attack of the catalog may run, sorted by name; rules of plugins are left out."""
    for entry in ATTACKS.values():
        importlib.import_module(entry.partition(":")[0])
    rules = {one.__name__: one.version for one in _descendants(Rule) if one.__module__.startswith("gauntlet.attacks.")}
    found = rules | {Adaptive.__name__: Adaptive.version, Review.__name__: Review.version}
    # The version of a rule that wraps another is the other's.
    return {name: version for name, version in sorted(found.items()) if isinstance(version, int)}


def _descendants(base: type[Any]) -> list[type[Any]]:
    direct = base.__subclasses__()
    return direct + [one for child in direct for one in _descendants(child)]
