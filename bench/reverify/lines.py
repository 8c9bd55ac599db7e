"""What `gauntlet verify` prints of attacks that were repeated, and of bare examples, as lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gauntlet.bench.reverify.attack_again import AdaptiveAgain, AttackedAgain
from gauntlet.bench.reverify.bare_examples import INVALID, BareVerdicts
from gauntlet.leaderboard.report.formatting import target_meaning, with_interval
from gauntlet.leaderboard.results.escape import visible
from gauntlet.leaderboard.stats.proportions import Proportion, holm

ALPHA = 0.01
"""A folder fails where a cell has so many falls that honest folders have them more seldom, corrected for the number of cells."""
_SHOWN = 5


def unlikely(repeated: Sequence[AttackedAgain]) -> list[bool]:
    """Of each repeated attack whether an honest folder has so many falls in less than `ALPHA` of cases (Holm over all)."""
    return [bool(value < ALPHA) for value in holm([one.counts.p_value for one in repeated])]


def repeated_line(one: AttackedAgain, *, failed: bool) -> str:
    """A repeated attack: what fell beside what was claimed, and how likely that is."""
    counts, title = one.counts, visible(one.title)
    if one.failure:
        return f"FAILED {title}: {visible(one.failure)}"
    if not counts.attacked:
        return f"again  {title}: no sample stands, so nothing was attacked again"
    names = f" ({_some(one.fell)})" if one.fell else ""
    return (
        f"{'FAILED' if failed else 'again':<7}{title}: {counts.attacked} of {counts.standing} standing samples attacked again, "
        f"{counts.fell} fell{names}, {_percent(one.counts.share)}; of {counts.repeated} broken ones {counts.stood} stood; as "
        f"many falls or more in {_chance(counts.p_value)} of honest folders"
    )


def adaptive_line(one: AdaptiveAgain) -> str:
    """What `adaptive` broke of a row: a bound, and no evidence against who wrote the folder."""
    title = visible(one.title)
    if one.absent:
        return f"absent {title}: not attacked by adaptive: {visible(one.absent)}"
    if not one.broken.n:
        return f"again  {title}: no sample stands under every attack, so adaptive attacked nothing"
    low, high = one.broken.interval
    stands = one.claimed.estimate
    names = f" ({_some(one.fell)})" if one.fell else ""
    return (
        f"again  {title}: adaptive attacked {one.broken.n} of {one.claimed.successes} samples that stand under every attack, "
        f"{one.broken.successes} fell{names}, {_percent(one.broken)}: of {100 * stands:.1f} % claimed "
        f"{100 * stands * (1 - one.broken.estimate):.1f} % [{100 * stands * (1 - high):.1f}, {100 * stands * (1 - low):.1f}] "
        "would be left"
    )


def closing_lines(key: int) -> Iterator[str]:
    """What was assumed, and how to repeat it."""
    yield (
        "honest: what is recorded is one run of the recorded attack, and this is another with its own seed; then a sample falls "
        "as often as a broken one stands"
    )
    yield f"key {key}: --seed {key} draws the same samples and attacks them by the same seed"


def example_lines(name: str, found: BareVerdicts) -> Iterator[str]:
    """The verdict on a file of bare examples: accuracies, images outside the threat model, and those that are not adversarial."""
    n = len(found.table)
    first = "" if n == found.samples else f"the first {n} of "
    yield f"{n} images of {visible(name)} for {first}{found.samples} samples of {visible(found.data)}, {found.threat}"
    yield f"clean accuracy   {with_interval(found.clean)} % (n={n})"
    yield f"robust accuracy  {with_interval(found.robust)} % (n={n})"
    meanings = {
        "adversarial": "adversarial within the threat model",
        "not adversarial": "not adversarial: these samples count as robust",
        "misclassified": "of samples that are misclassified when clean: not needed",
        "unstable": "misclassified in a batch and not alone, or the other way round: not counted as adversarial",
    }
    for verdict, meaning in meanings.items():
        lines = found.of(verdict)
        if len(lines):
            names = "" if verdict in ("adversarial", "misclassified") else f" ({_some(lines['id'].tolist())})"
            yield f"{len(lines):>6} {meaning}{names}"
    for verdict in INVALID:
        lines = found.of(verdict)
        if len(lines):
            far = f", the farthest at {lines['distance'].max():.6g}" if verdict == "beyond eps" else ""
            yield f"FAILED {len(lines)} {verdict}{far} ({_some(lines['id'].tolist())}): not counted as adversarial"
    for flag in found.flags:
        yield f"note   {flag.name}: {visible(flag.message)}"
    if meaning := target_meaning(found.threat):
        yield meaning


def _percent(share: Proportion) -> str:
    low, high = share.interval
    return f"{100 * share.estimate:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _chance(p_value: float) -> str:
    return f"{100 * p_value:.2g} %" if p_value < 0.1 else f"{100 * p_value:.0f} %"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(visible(name) for name in names[:_SHOWN]) + more
