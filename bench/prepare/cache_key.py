"""The cache key of a block: a hash of everything that decides its outcome, assembled here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from gauntlet.bench.config.cell import Cell
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.environment.provenance import library_version
from gauntlet.bench.executors.executable import Executable
from gauntlet.bench.models.load_model import LoadedModel
from gauntlet.bench.models.sources.parse_source import parse_source
from gauntlet.bench.verify import verifier
from gauntlet.bench.verify.drawn_verdicts import CONFIRMATIONS
from gauntlet.defenses.pipeline.card import DefenseEntry
from gauntlet.leaderboard.results.record import SCHEMA_VERSION


def pipeline_parts(cell: Cell, model: LoadedModel, defense: DefenseEntry, defense_digest: str) -> dict[str, Any]:
    """What identifies a model behind a defense."""
    declared = [name for name in ("randomised", "not_differentiable") if getattr(cell.model, name)]
    return {
        "model": [model.digest, model.source_digest, _builder(cell.model.spec)],
        "normalisation": [cell.model.mean, cell.model.std],
        **({"declared": declared} if declared else {}),
        **({"output": [cell.model.logits, cell.model.binary]} if cell.model.logits or cell.model.binary else {}),
        "defense": [str(cell.defense), defense.version, library_version(defense.card.library), defense_digest],
    }


def block_key(
    cell: Cell, pipeline: dict[str, Any], attack: Executable, checks: str, data: Data
) -> Callable[[Sequence[int], str], str]:
    """The key of a block of the cell, by the indices of its samples and the digest of their content.

    Part of it: pipeline, attack, threat model, seed, the form of the model that is attacked, data, and the versions of the
    record's schema, of the verifier and of the attack's rules. Not part of it: batch size, device and any path.
    """
    shared = {
        "schema": SCHEMA_VERSION,
        "verifier": verifier.VERSION,
        # Only randomised models are judged by sets of draws.
        **({"confirmations": CONFIRMATIONS} if cell.info.randomised else {}),
        **pipeline,
        "attack": cell.info.attack_spec,
        "threat": str(cell.threat),
        "seed": cell.info.seed,
        "precision": cell.info.precision,
        # Checks change no outcome, only flags: the default ones are not part of the key.
        **({} if checks == "default" else {"checks": checks}),
    }

    def key(indices: Sequence[int], content: str) -> str:
        own = attack.key_parts([data.ids[index] for index in indices])
        return digest({**shared, "runs": own, "data": content})

    return key


def digest(parts: dict[str, Any]) -> str:
    """sha256 over plain data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _builder(spec: str) -> str:
    """The name of the function that builds a model, or its source; not a path: the same file elsewhere builds the same."""
    source = parse_source(spec)
    return spec.rpartition(":")[2] if source is None else source.identity
