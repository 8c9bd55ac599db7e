"""Measurement of an attack under a condition."""

from __future__ import annotations

import time

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.registry.settings import parse_named
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.environment.provenance import library_version, package_version
from gauntlet.bench.executors.library import LibraryExecutable
from gauntlet.bench.executors.make import executable
from gauntlet.bench.models.load_model import LoadedModel
from gauntlet.bench.registries import ATTACKS
from gauntlet.bench.strength.measurements import Measurement, pack
from gauntlet.leaderboard.report.cell_text import attack_settings

_DIGITS = 16
"""Hexadecimal digits of a digest."""


def attack_version(attack: str, threat: ThreatModel) -> str:
    """See `Measurement.version`. Raises LookupError for an unknown attack, ValueError for settings or a norm that do not fit."""
    named = parse_named(attack)
    made = executable(ATTACKS.get(named.name), threat, **named.keywords)
    if isinstance(made, LibraryExecutable) and made.library:
        return library_version(made.library)
    return attack_settings(made.spec)


def measure(attack: str, network: LoadedModel, data: Data, threat: ThreatModel, seed: int) -> Measurement:
    """Run the attack in float32 on all samples, on one thread of the CPU. Raises as `gauntlet.evaluate`."""
    from gauntlet.bench.api import evaluate

    began = time.process_time()
    done = evaluate(
        network.module,
        data,
        threat=threat,
        attacks=attack,
        seed=seed,
        device="cpu",
        precision="float32",
        checks="none",
    )
    seconds = time.process_time() - began
    (cost,) = done.per_attack.to_dict("records")
    return Measurement(
        network=network.name,
        threat=str(threat),
        samples=len(data),
        attack=attack,
        seed=seed,
        correct=int(done.correct.sum()),
        standing=int(done.robust.sum()),
        forwards=round(len(data) * cost["forwards_per_sample"]),
        backwards=round(len(data) * cost["backwards_per_sample"]),
        cpu_seconds=round(seconds, 1),
        correct_bits=pack(done.correct),
        standing_bits=pack(done.robust),
        version=attack_version(attack, threat),
        torch=package_version("torch"),
        weights=network.digest[:_DIGITS],
    )
