"""Evidence that an attack works where gradients are masked: what lifts a block is that it finds what is there to be found.

That stages of some name were run is effort. So where a check of the gradients blocks a figure, and the attack that made it has
the techniques that answer the block, the attack is put to two tests on this pipeline at this radius: examples that are planted
(Zimmermann et al. 2022, arXiv 2206.13991), and random points around the samples that it left (Carlini et al. 2019, arXiv
1902.06705). Of 10,000 random points a randomised pipeline loses some by the luck of its draws: they say nothing there. Nor does
a search for planted examples say more of randomness than that it was averaged over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gauntlet.bench.checks.catalog import CHECKS, run_check
from gauntlet.bench.checks.subject import Finding, Subject
from gauntlet.leaderboard.results.record import Flag

TESTS = ("planted-example", "random-noise")
RANDOMNESS = frozenset({"eot"})
"""What answers a block about randomness alone, which is no question of gradients."""


def to_answer(flags: Sequence[Flag], techniques: frozenset[str]) -> bool:
    """Whether an attack with these techniques answers a block of the flags, so that it has to show that it works."""
    needed = (set(flag.needs) for flag in flags if flag.severity == "block")
    return any(needs - RANDOMNESS and needs <= techniques for needs in needed)


def gather(subject: Subject) -> list[Finding]:
    """The findings of the tests on the subject's attack."""
    tests = TESTS[:1] if subject.randomised else TESTS
    return [run_check(check, subject) for check in CHECKS if check.name in tests]


def with_evidence(flags: Sequence[Flag], techniques: frozenset[str], findings: Sequence[Finding]) -> tuple[Flag, ...]:
    """The flags, those that the attack answers with the figures of the tests; and the flags of tests that it failed."""
    figures = tuple(
        (f"{finding.check}: {name}", value)
        for finding in findings
        if finding.result == "passed"
        for name, value in finding.evidence
    )
    answered = [
        replace(flag, evidence=(*flag.evidence, *figures)) if to_answer([flag], techniques) else flag for flag in flags
    ]
    return (*answered, *(finding.flag for finding in findings if finding.flag is not None))
