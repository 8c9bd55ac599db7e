"""The rounds of a comparison: each round has its own seed, in which every participant runs once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from statistics import median
from typing import Any

import torch
from torch import nn

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.registry.card import AnyAttack
from gauntlet.attacks.registry.settings import parse_named
from gauntlet.attacks.solving.solver import Stage
from gauntlet.bench.registries import ATTACKS, executable_entry
from gauntlet.bench.speed.comparisons import Comparison
from gauntlet.bench.speed.measure import AttackRun, BarePasses, Workload, bare_passes, measure
from gauntlet.bench.speed.whole_run import WholeRun, library_whole_run, our_whole_run

OURS = "gauntlet"


@dataclass(frozen=True)
class Participant:
    """An attack in a comparison, with the form of the model that it attacks."""

    name: str
    """Name of the library."""
    spec: str
    form: str
    """Empty for the original model, else the name of the converted form."""
    attack: AnyAttack
    stages: tuple[Stage, ...]
    """The stages that our solver runs; empty for attacks of libraries, which run whole."""
    model: nn.Module
    minimum_norm: bool


@dataclass(frozen=True)
class Turn:
    """A measurement of a participant in a round."""

    row: str
    participant: str
    form: str
    seed: int
    measured: AttackRun
    bare: BarePasses
    whole: WholeRun | None = None
    """The whole evaluation; None on a converted form of the model, which users of a library do not have."""
    checked: WholeRun | None = None
    """The same with the default checks; None for libraries, which have none."""


@dataclass(frozen=True)
class ParticipantSummary:
    """The summary of a participant over the rounds."""

    participant: str
    form: str
    seconds: float
    """Median over the rounds."""
    forwards: float
    """Forward passes per sample, mean over the rounds."""
    backwards: float
    robust: tuple[float, float]
    """Lowest and highest robust accuracy over the rounds."""
    median: float
    """Median over the rounds of the median distance."""
    overhead: float
    """Seconds divided by those of the passes that were made, minus 1, median over the rounds."""
    bare: float
    """Seconds divided by those of the passes of the full budget for every sample, median over the rounds."""
    whole: float | None = None
    """Seconds of the whole evaluation, median over the rounds."""
    checked: float | None = None
    """The same with the default checks."""


def participants(
    row: Comparison,
    work: Workload,
    threat: ThreatModel,
    forms: dict[str, nn.Module],
    peers: str,
    missing: Callable[[str, str], None],
) -> list[Participant]:
    """Our attack on the first form, and every importable peer that matches the pattern `peers`, on every form.

    `forms`: forms of the model by name, first the form that our attacks choose. `missing(spec, reason)` is called for peers
    that cannot run.
    """
    entrants = [_participant(OURS, row.ours, threat, next(iter(forms.items())))]
    for spec in row.peers:
        library = spec.partition(".")[0]
        if not fnmatchcase(library, peers):
            continue
        for form in sorted(forms.items()):
            entrant = _participant(library, spec, threat, form)
            try:
                # A batch of two shows whether the library can be imported and supports this attack on this model.
                entrant.attack(entrant.model, work.images[:2], work.labels[:2], 0)  # type: ignore[operator]
            except (ImportError, ValueError) as error:
                missing(spec, str(error))
                break
            entrants.append(entrant)
    return entrants


def _participant(name: str, spec: str, threat: ThreatModel, form: tuple[str, nn.Module]) -> Participant:
    named = parse_named(spec)
    entry = ATTACKS.get(named.name)
    stages = executable_entry(named.name).make(threat, **named.keywords).stages
    least = any(stage.rule.minimum_norm for stage in stages) if stages else entry.card.minimum_norm
    return Participant(name, spec, form[0], entry.make(threat, **named.keywords), stages, form[1], least)


def rounds(
    row: Comparison, entrants: list[Participant], work: Workload, threat: ThreatModel, count: int
) -> Iterator[Turn]:
    """Run `count` rounds. The bare passes are measured in every round, under the same conditions."""
    for seed in range(count):
        bare = {entrant.form: bare_passes(work, entrant.model) for entrant in entrants}
        # The order rotates, so that a drift of the machine's speed favours no participant.
        for entrant in entrants[seed % len(entrants) :] + entrants[: seed % len(entrants)]:
            with torch.random.fork_rng():
                measured = measure(
                    entrant.attack,
                    entrant.stages,
                    work,
                    entrant.model,
                    threat,
                    seed,
                    minimum_norm=entrant.minimum_norm,
                )
            whole, checked = _whole(row, entrant, work, threat, seed)
            yield Turn(row.name, entrant.name, entrant.form, seed, measured, bare[entrant.form], whole, checked)


def _whole(
    row: Comparison, entrant: Participant, work: Workload, threat: ThreatModel, seed: int
) -> tuple[WholeRun | None, WholeRun | None]:
    """The whole evaluation, and that with checks."""
    if work.data is None or (entrant.form and not entrant.stages):
        return None, None
    settings: dict[str, Any] = {"batch_size": work.batch_size, "device": work.images.device}
    with torch.random.fork_rng():
        if not entrant.stages:
            return library_whole_run(entrant.attack, work.model, work.data, seed, **settings), None
        whole, checked = (
            our_whole_run(row.ours, work.model, work.data, threat, seed, checks=checks, **settings)
            for checks in ("none", "default")
        )
    return whole, checked


def summary(row: Comparison, turns: list[Turn], work: Workload) -> list[ParticipantSummary]:
    """The summaries of all participants, ours first."""
    lines, count = [], len(work.ids)
    for name, form in dict.fromkeys((turn.participant, turn.form) for turn in turns):
        mine = [turn for turn in turns if (turn.participant, turn.form) == (name, form)]
        robust = [int(turn.measured.standing.sum()) / work.total for turn in mine]
        made = [turn.bare.seconds(turn.measured.forwards, turn.measured.backwards) for turn in mine]
        budget = [turn.bare.seconds(row.passes[0] * count, row.passes[1] * count) for turn in mine]
        seconds = [turn.measured.seconds for turn in mine]
        lines.append(
            ParticipantSummary(
                participant=name,
                form=form,
                seconds=median(seconds),
                forwards=sum(turn.measured.forwards for turn in mine) / len(mine) / count,
                backwards=sum(turn.measured.backwards for turn in mine) / len(mine) / count,
                robust=(min(robust), max(robust)),
                median=median(turn.measured.distance for turn in mine),
                overhead=median(a / b for a, b in zip(seconds, made, strict=True)) - 1,
                bare=median(a / b for a, b in zip(seconds, budget, strict=True)),
                whole=_median(turn.whole for turn in mine),
                checked=_median(turn.checked for turn in mine),
            )
        )
    return sorted(lines, key=lambda line: (line.participant != OURS, line.form, line.seconds))


def _median(runs: Iterable[WholeRun | None]) -> float | None:
    seconds = [run.seconds for run in runs if run is not None]
    return median(seconds) if seconds else None
