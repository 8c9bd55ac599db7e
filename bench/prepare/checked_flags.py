"""The flags of the checks of a cell: cheap checks once for a pipeline, tests of the attack where one of them fires."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from gauntlet.bench.checks.carry_over import carried_over
from gauntlet.bench.checks.catalog import flags, run_checks
from gauntlet.bench.checks.evidence import SAMPLES, gather, is_tested, with_evidence
from gauntlet.bench.checks.subject import FEW, FEW_SLOW, Finding, Subject, is_costly
from gauntlet.bench.config.cell import Cell
from gauntlet.bench.data.samples.lazy_images import MEMORY_LIMIT, image_bytes
from gauntlet.bench.executors.executable import Executable
from gauntlet.bench.prepare.cache_key import digest
from gauntlet.bench.prepare.loaded import Loaded
from gauntlet.leaderboard.results.measurements import Measurement
from gauntlet.leaderboard.results.record import EVIDENCE, Flag
from gauntlet.leaderboard.rows.evidence import PLANTED, TESTS

Known = Callable[[str, Callable[[], Measurement]], Measurement]
"""A measurement by its name: stored, remembered, or taken now by the function."""


@dataclass(frozen=True)
class Checking:
    """A cell whose checks are to be run. `subject`: with the attack, or without it; `declared`: flags of model and defense."""

    cell: Cell
    attack: Executable
    checks: str
    declared: Sequence[Flag]
    subject: Callable[[bool], Subject]
    known: Known
    device: str

    def flags(self) -> tuple[Flag, ...]:
        """The flags of the checks that are asked for. Declared flags that ask for evidence are among them, with its figures."""
        info = self.cell.info
        if self.checks == "none":
            return ()
        if self.checks == "all" and info.searches:
            return self._measured(f"checks all {self._of_attack}", self._every)
        cheap = self._measured(f"checks {self.checks} {self.cell.threat} {info.seed} ", self._cheap)
        # What a naive attack leaves is no figure: it is shown beside that of an attack that knows the defense.
        if not info.searches or info.naive:
            return cheap
        asking = [*(flag for flag in self.declared if EVIDENCE in flag.needs), *cheap]
        if not is_tested(self.subject(True), asking):
            return cheap
        return self._measured(f"evidence {self._of_attack}", lambda: with_evidence(asking, gather(self.subject(True))))

    @property
    def _of_attack(self) -> str:
        parts = digest(self.attack.key_parts([]))
        return f"{self.cell.threat} {self.cell.info.seed} {self.cell.attack} {parts}"

    def _cheap(self) -> tuple[Flag, ...]:
        return flags(run_checks(self.subject(False)))

    def _every(self) -> tuple[Flag, ...]:
        subject = self.subject(True)
        findings = run_checks(subject, "all")
        tests = [finding for finding in findings if finding.check in TESTS]
        others = flags(finding for finding in findings if finding.check not in TESTS)
        if _not_planted(tests):
            tests += carried_over(subject.few(SAMPLES))
        return with_evidence([*(flag for flag in self.declared if EVIDENCE in flag.needs), *others], tests)

    def _measured(self, what: str, measure: Callable[[], Sequence[Flag]]) -> tuple[Flag, ...]:
        def taken() -> Measurement:
            return {"flags": [flag.fields() for flag in measure()], "device": self.device}

        return tuple(Flag.read(fields) for fields in self.known(what, taken)["flags"])


def checked_subject(
    loaded: Loaded, cell: Cell, attack: Executable, victim: nn.Module, device: torch.device, attacked: bool
) -> Subject:
    """What the checks of a cell look at; `attacked`: with the attack."""
    data, card = loaded.data, loaded.defense.card
    # As many samples as are in memory at once: of larger sets the first ones.
    most = max(FEW, MEMORY_LIMIT // image_bytes(data.images))
    if card.samples is not None:
        most = FEW_SLOW if attacked else 2
    images, labels = (part[:most].to(device) for part in (data.images, data.labels))
    return Subject(
        loaded.pipeline,
        images,
        labels,
        data.ids[:most],
        cell.threat,
        card=card,
        seed=cell.info.seed,
        classes=data.classes,
        attack=attack if attacked else None,
        victim=victim if attacked else None,
        views=loaded.views,
        costly=is_costly(loaded.pipeline, images[:1]),
    )


def _not_planted(tests: Sequence[Finding]) -> bool:
    return any(finding.check == PLANTED and finding.result == "not applicable" for finding in tests)
