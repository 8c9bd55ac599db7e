"""Running an attack on the missing blocks of a cell: each block's outcomes as soon as its last sample is decided."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch

from gauntlet.attacks.adapters.run_whole import run_whole
from gauntlet.attacks.solving.cascade import Cascade
from gauntlet.attacks.solving.low_precision import solve_fast
from gauntlet.attacks.solving.rule import Rule
from gauntlet.attacks.solving.solver import Meter, Outcome, Task
from gauntlet.bench.environment.device import peak_memory, synchronised_time
from gauntlet.bench.prepare.prepare import Prepared
from gauntlet.bench.verify.sample_record import Clean
from gauntlet.bench.verify.verifier import Verifier
from gauntlet.leaderboard.results.record import Samples, Stats


@dataclass(frozen=True)
class Settings:
    """How to run cells, none of which changes their outcome."""

    device: torch.device
    batch_size: int | None = None
    """None: by the size of an image."""
    fresh: bool = False
    keep_adversarials: bool = True

    def slots(self, image: torch.Tensor) -> int:
        """Samples attacked at once, for images like this (C, H, W): about a million pixels, 32 samples at least.

        At most 1,024 on a GPU; on a CPU 384, beyond which small networks fall out of its caches.
        """
        most = 1024 if self.device.type == "cuda" else 384
        return self.batch_size or max(32, min(most, 2**20 // image.numel()))


@dataclass(frozen=True)
class Finished:
    """A finished block."""

    number: int
    outcomes: list[Outcome]
    """Of its samples that were attacked; `sample` counts through the samples of all blocks."""
    stats: Stats
    certified: torch.Tensor | None = None
    """bool, for each sample of the block; None: nothing was to be proven."""
    samples: Samples | None = None
    """What is recorded of the block where no example is sought; None: what the outcomes say."""


Execute: TypeAlias = Callable[[Prepared, Verifier, Clean, Sequence[range], Settings], Iterator[Finished]]
"""Runs a prepared attack on blocks: the verifier has their samples, `range`s say where in it each block lies."""


def attacked_in(place: range, clean: Clean) -> torch.Tensor:
    """Which samples of a block have to be attacked, as rows of the verifier's."""
    return place.start + clean.attacked[place.start : place.stop].nonzero().squeeze(1)


def run_native(
    prepared: Prepared, verify: Verifier, clean: Clean, places: Sequence[range], settings: Settings
) -> Iterator[Finished]:
    """One solve over all blocks, so that the batch stays full across them."""
    attack = prepared.attack
    assert isinstance(attack, Rule | Cascade)
    cell = prepared.cell
    rows = clean.attacked.nonzero().squeeze(1)
    where = rows.tolist()
    labels = verify.labels[rows]
    task = Task(
        verify.images[rows],
        labels,
        [verify.ids[i] for i in where],
        cell.threat,
        cell.info.seed,
        cell.attack.name,
        verify.targets()[rows] if cell.threat.target else None,
        None if clean.measured.logits is None else clean.measured.logits[rows],
    )
    block_of = [number for number, place in enumerate(places) for _ in place]
    outcomes: list[list[Outcome]] = [[] for _ in places]
    left = [0] * len(places)
    for i in where:
        left[block_of[i]] += 1
    for number in (number for number, count in enumerate(left) if count == 0):
        yield Finished(number, [], Stats(0.0, 0.0))
    meter = Meter()
    with peak_memory(settings.device) as peak:
        began, judged = synchronised_time(), verify.seconds
        for outcome in solve_fast(
            attack if isinstance(attack, Rule) else attack.stages,
            prepared.light,
            task,
            lambda points, samples, attempt: verify(points, rows[samples], attempt),
            batch_size=settings.slots(verify.images[0]),
            verify_every=10 if cell.info.randomised else 1,
            classes=clean.classes,
            meter=meter,
            views=prepared.views,
            rejects=prepared.defended.rejects,
        ):
            sample = where[outcome.sample]
            number = block_of[sample]
            outcomes[number].append(replace(outcome, sample=sample))
            left[number] -= 1
            if left[number] == 0:
                seconds = synchronised_time() - began - (verify.seconds - judged)
                peak.update()
                costs = Stats(seconds, peak.mib, occupancy=meter.occupancy, halved=meter.halved)
                yield Finished(number, outcomes[number], costs)
                began, judged = synchronised_time(), verify.seconds


def run_library(
    prepared: Prepared, verify: Verifier, clean: Clean, places: Sequence[range], settings: Settings
) -> Iterator[Finished]:
    """A whole attack, a block at a time: its result may depend on the batch, so the batch is always the block."""
    attack = prepared.attack
    assert callable(attack)
    for number, place in enumerate(places):
        rows = attacked_in(place, clean)
        if not len(rows):
            yield Finished(number, [], Stats(0.0, 0.0))
            continue
        seed, labels = prepared.cell.info.seed, verify.labels[rows]
        targets = verify.targets()[rows] if prepared.cell.threat.target else None
        with peak_memory(settings.device) as peak:
            began = synchronised_time()
            points, forwards, backwards = run_whole(attack, prepared.victim, verify.images[rows], labels, seed, targets)
            seconds = synchronised_time() - began
        verdict = verify(points, rows, torch.zeros_like(rows))
        # An unmoved image is an attack that found nothing, not one that cheated.
        claimed = (points != verify.images[rows]).flatten(1).any(1)
        rejected = (verdict.rejected & claimed).tolist()
        outcomes = [
            Outcome(
                sample=sample,
                adversarial=points[i].clone() if won else None,
                forwards=forwards,
                backwards=backwards,
                rejected=int(rejected[i]),
                disagreements=int(split),
            )
            for i, (sample, won, split) in enumerate(
                zip(rows.tolist(), verdict.success.tolist(), verdict.disagreement.tolist(), strict=True)
            )
        ]
        yield Finished(number, outcomes, Stats(seconds, peak.mib))
