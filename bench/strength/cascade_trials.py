"""Runs of the candidates for a cascade, under the conditions of `gauntlet strength` and on images that those do not use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from gauntlet.attacks.gauntlet import budget
from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.registry.settings import parse_named
from gauntlet.attacks.solving.solver import Outcome, Stage, Task, solve
from gauntlet.attacks.solving.stage_conditions import nearest
from gauntlet.bench.data.load_data import load_data
from gauntlet.bench.data.samples.dataset import Data
from gauntlet.bench.executors.make import executable
from gauntlet.bench.registries import ATTACKS
from gauntlet.bench.strength.conditions import SAMPLES, Condition
from gauntlet.bench.strength.greedy_cascade import Trial
from gauntlet.bench.strength.networks import is_published, load_data_of, load_network
from gauntlet.bench.verify.verifier import Verifier

NEAR = (0.05, 0.1, 0.3, np.inf)
"""The limits of nearness that each candidate is offered with; in L1 four times as much."""
FIRST = 2
BEGIN = "begin"
"""The name of the first trial."""


def other_images(network: str, folder: Path | None, samples: int) -> Data:
    """Training images for a network of the zoo; of the published ones, whose training images are not at hand, the test images
    that follow the first `SAMPLES`. Raises as `load_data_of`."""
    if is_published(network):
        return load_data_of(network, folder, f"{SAMPLES}:{SAMPLES + samples}")
    return load_data(f"{network.rpartition('_')[2]}-train", samples=samples)


def run_candidates(
    candidates: Sequence[str], condition: Condition, data: Data, folder: Path | None, seed: int = 0
) -> Iterator[Trial]:
    """Run each candidate, a native attack as `--attacks` takes it, on all samples that the first stages leave.

    These are the `FIRST` stages of `gauntlet`, which every cascade begins with, and tell each sample's nearest class; the first
    trial is theirs. Attacks of a norm that is not theirs are left out. Raises LookupError for an unknown attack, and ValueError
    for one that is not a native rule or cascade.
    """
    model = load_network(condition.network, folder).module.requires_grad_(False).eval()
    images, labels = data.images[:], data.labels
    with torch.no_grad():
        logits = torch.cat([model(part) for part in images.split(256)])
    rows = (logits.argmax(1) == labels).nonzero().squeeze(1)
    images, labels, logits = images[rows], labels[rows], logits[rows]
    ids = [data.ids[row] for row in rows.tolist()]
    threat = condition.threat
    verify = Verifier(model, images, labels, ids, threat, seed=seed, minimum_norm=False)
    task = Task(images, labels, ids, threat, seed, "candidates", clean_logits=logits)
    # The flag has the solver keep how near a sample came.
    first = [replace(stage, rival_first=True) for stage in budget("gauntlet", threat.norm)[:FIRST]]

    def run(*stages: Stage) -> list[Outcome]:
        outcomes = solve([*first, *stages], model, task, verify, classes=data.classes, batch_size=256)
        return sorted(outcomes, key=lambda one: one.sample)

    begun = run()
    before = np.array([_passes(one) for one in begun])
    yield Trial(BEGIN, np.array([one.adversarial is not None for one in begun]), before, _nearness(begun))
    labels_of_first = {stage.label for stage in first}
    for spec in candidates:
        stages = _stages(spec, threat)
        if stages:
            outcomes = run(*stages)
            broken = np.array([one.adversarial is not None and one.stage not in labels_of_first for one in outcomes])
            yield Trial(spec, broken, np.array([_passes(one) for one in outcomes]) - before, _nearness(outcomes))


def _stages(spec: str, threat: ThreatModel) -> tuple[Stage, ...]:
    """The stages of a candidate; none where it is not for the norm."""
    named = parse_named(spec)
    entry = ATTACKS.get(named.name)
    if threat.norm not in entry.card.norms:
        return ()
    stages = tuple(executable(entry, threat, **named.keywords).stages)
    if not stages:
        raise ValueError(f"candidate {spec!r} is no native attack: give rules or cascades, such as apgd(steps=20)")
    return stages if len(stages) > 1 else (replace(stages[0], label=spec, rival_first=True),)


def _passes(outcome: Outcome) -> float:
    return outcome.forwards + outcome.backwards


def _nearness(outcomes: Sequence[Outcome]) -> npt.NDArray[np.float64]:
    return np.array([nearest(one) for one in outcomes])


def joined(trials: Sequence[Trial]) -> Trial:
    """The trials of one candidate under several conditions as one."""
    broken, passes = [one.broken for one in trials], [one.passes for one in trials]
    nearness = [one.nearness for one in trials]
    return Trial(trials[0].name, np.concatenate(broken), np.concatenate(passes), np.concatenate(nearness))


def offered(trials: Sequence[Trial], scale: float = 1.0) -> list[Trial]:
    """Each trial with each limit of nearness."""
    return [replace(one, near=scale * near) for one in trials for near in NEAR]
