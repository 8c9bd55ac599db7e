"""`gauntlet strength`: attacks under all conditions, each result written when it is there, and the comparison with AutoAttack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.models.load_model import LoadedModel
from gauntlet.bench.speed.measure import torch_threads
from gauntlet.bench.strength.conditions import SAMPLES, Condition
from gauntlet.bench.strength.measure import attack_version, measure
from gauntlet.bench.strength.measurements import Measurement, find, read_measurements, write_measurements
from gauntlet.bench.strength.networks import is_published, load_data_of, load_network

Progress = Callable[[str], None]
AUTOATTACK = "pyautoattack.AutoAttack"
CASCADES = ("gauntlet:fast", "gauntlet", "gauntlet:thorough")


@dataclass(frozen=True)
class StrengthConfig:
    """The settings of the measurement."""

    conditions: Sequence[Condition]
    attacks: Sequence[str] = CASCADES
    seeds: Sequence[int] = (0, 1)
    networks: Path | None = None
    """The folder with the files of published networks; None: the zoo alone."""
    samples: int = SAMPLES


def run_strength(setup: StrengthConfig, path: Path, progress: Progress) -> list[Measurement]:
    """Measure what the file does not hold yet, in the order of the conditions; returns all measurements of the file.

    A measurement of another version of the attack, of another network or of other samples is made again. Published networks
    are left out where their folder is not named. Raises as `gauntlet.evaluate`, LookupError for an unknown attack, ValueError
    for a file of another kind, FileNotFoundError for a missing file of a network, and WriteError.
    """
    held = read_measurements(path)
    load = cache(load_network)
    with torch_threads(1):
        for condition in setup.conditions:
            if setup.networks is None and is_published(condition.network):
                progress(f"{condition}: left out, name the folder with the network's files (--networks)")
                continue
            network = replace(load(condition.network, setup.networks), name=condition.network)
            data = load_data_of(condition.network, setup.networks, setup.samples)
            for attack in setup.attacks:
                for seed in setup.seeds:
                    known = find(held, condition.network, condition.threat, attack, seed)
                    if known is None or not _holds(known, condition, network, data):
                        made = measure(attack, network, data, condition.threat, seed)
                        progress(
                            f"{condition}, {attack}, seed {seed}: {made.standing} of {made.correct} stand, "
                            f"{made.passes:.0f} passes a sample, {made.cpu_seconds:.1f} CPU s"
                        )
                        held = [*(one for one in held if one != known), made]
                        write_measurements(path, held)
    return held


def _holds(known: Measurement, condition: Condition, network: LoadedModel, data: Data) -> bool:
    """Whether a measurement is of the present attack, network and samples."""
    present = known.version == attack_version(known.attack, condition.threat) and known.samples == len(data)
    return present and network.digest.startswith(known.weights)
