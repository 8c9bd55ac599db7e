"""Evidence that an attack works on a pipeline: what lifts a block about gradients is that it finds what is there to be found.

That stages of some name were run is effort. So where a cheap check fires, or the outputs are labels or votes, the attack is put
to three tests on the first samples of this pipeline: in the whole box it must break everything, it must find the examples that
are planted in the balls (Zimmermann et al. 2022, arXiv 2206.13991), and random points must break none of the samples that
it left (Carlini et al. 2019, arXiv 1902.06705). Where nothing can be planted, a view that falls and carries over takes its place
(`gauntlet.bench.checks.carry_over`), else a search by decisions that breaks nothing more
(`gauntlet.leaderboard.rows.evidence`). The pipeline is attacked in float32, whatever form of it a run attacks.

Of many random points a randomised pipeline loses some by the luck of its draws: they say nothing there. Nor does a search for
planted examples say more of randomness than that it was averaged over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gauntlet.bench.checks.carry_over import carried_over
from gauntlet.bench.checks.catalog import CHECKS, Check, run_check
from gauntlet.bench.checks.effort import random_noise
from gauntlet.bench.checks.subject import Finding, Subject
from gauntlet.bench.models.parts.black_box import model_access
from gauntlet.leaderboard.results.record import EVIDENCE, Flag
from gauntlet.leaderboard.rows.evidence import NOISE, PLANTED, TESTS

SAMPLES = 32
"""Number of samples that are tested; 8 of slow defenses."""
AROUND = 16
"""Of these, the number of samples around which random points are tried, where the attack leaves them."""
POINTS = 20_000
"""Number of random points around all samples together: 10,000 around each would cost more than the attack where many stand."""
_RANDOMNESS = frozenset({"eot"})
"""What answers a flag about randomness alone, which is no question of gradients."""


def is_tested(subject: Subject, flags: Sequence[Flag]) -> bool:
    """Whether an attack on the subject has to show that it works: a flag is about more than randomness, or outputs are coarse.

    A block that nothing lifts needs no evidence. A model of which only outputs can be observed is not tested, since each of its
    answers may have a price.
    """
    if model_access(subject.pipeline) != "white-box":
        return False
    return any(_asks(flag) for flag in flags) or subject.coarse


def gather(subject: Subject) -> list[Finding]:
    """The findings of the tests on the subject's attack, and of the views where no example can be planted."""
    few = subject.few(SAMPLES)
    names = TESTS if not subject.randomised else tuple(test for test in TESTS if test != NOISE)
    findings = [run_check(_bounded(check), few) for check in CHECKS if check.name in names]
    if any(finding.check == PLANTED and finding.result == "not applicable" for finding in findings):
        findings += carried_over(few)
    return findings


def _bounded(check: Check) -> Check:
    if check.name != NOISE:
        return check
    return replace(check, run=lambda subject: random_noise(subject.few(AROUND), POINTS))


def with_evidence(flags: Sequence[Flag], findings: Sequence[Finding]) -> tuple[Flag, ...]:
    """The flags, with the figures of passed tests in those that ask for them; and the flags of failed tests."""
    figures = tuple(
        (f"{finding.check}: {name}", value)
        for finding in findings
        if finding.result == "passed"
        for name, value in finding.evidence
    )
    asking = [replace(flag, evidence=(*flag.evidence, *figures)) if _asks(flag) else flag for flag in flags]
    return (*asking, *(finding.flag for finding in findings if finding.flag is not None))


def _asks(flag: Flag) -> bool:
    if flag.severity == "warn":
        return True
    return EVIDENCE in flag.needs or bool(set(flag.needs) - _RANDOMNESS - set(TESTS))
