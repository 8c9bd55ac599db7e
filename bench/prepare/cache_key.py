"""Parts of the keys of stored results that need more than a look at the cell."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from gauntlet.attacks.registry.card import AnyAttack
from gauntlet.attacks.solving.cascade import Cascade
from gauntlet.attacks.solving.rule import Rule
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.environment.provenance import package_version
from gauntlet.bench.executors.example_index import Replay, digest
from gauntlet.bench.models.sources.parse_source import parse_source
from gauntlet.bench.planning.plan import Cell
from gauntlet.bench.registries import ATTACKS


def tried(attack: AnyAttack, data: Data, indices: Sequence[int]) -> dict[str, str]:
    """The examples that a replay tries of a block."""
    return {"examples": digest(attack, [data.ids[index] for index in indices])} if isinstance(attack, Replay) else {}


def attack_version(cell: Cell, attack: AnyAttack) -> list[Any]:
    """The version of a rule; of a whole attack also its library's, and the size of its batches (a block's, at most); of one
    that is not ours its code."""
    code = [digest] if (digest := ATTACKS.get(cell.attack.name).source_digest) else []
    if isinstance(attack, Rule | Cascade):
        return [attack.version, *code]
    return [attack.version, library_version(cell.attack.name), "batch: a block", *code]


def library_version(text: str) -> str | None:
    """The library that an attack's name or a defense's source names, with its version."""
    for word, name in (("torchattacks", "torchattacks"), ("art.", "adversarial-robustness-toolbox")):
        if text.startswith(word):
            return f"{name} {package_version(name)}"
    if "ART" in text:
        return f"adversarial-robustness-toolbox {package_version('adversarial-robustness-toolbox')}"
    return None


def factory(spec: str) -> str:
    """The name of what builds a model."""
    # Not the path: the same file elsewhere builds the same model.
    source = parse_source(spec)
    return spec.rpartition(":")[2] if source is None else source.identity


def key(what: dict[str, Any]) -> str:
    """sha256 over all that decides an outcome."""
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()
