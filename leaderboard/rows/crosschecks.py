"""What the cells of a row say of each other, and of the rows at another eps: pure functions of results.

Sources: Carlini et al., "On evaluating adversarial robustness", 2019 (arXiv 1902.06705), section 4; Croce and Hein 2020 (arXiv
2003.01690), whose checks compare Square with the attacks before it, by accuracy. Here it is by sample: two attacks of equal
accuracy may break different ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import CellInfo, CellResult, Flag
from gauntlet.leaderboard.rows.worst_case import row_key, worst_case

LEAST = 3
"""Samples that must show a fault: one or two happen on sound models, next to the boundary."""
SHARE = 0.002
"""Of the row's samples, which they must exceed, too (the threshold of AutoAttack's checks)."""
GRADIENT_WAYS = ("white-box", "bpda", "eot", "bpda+eot")
_GRADIENT_KINDS = ("white-box", "naive")
_BLIND_WAYS = ("black-box", "transfer")
_BLIND_KINDS = ("black-box", "decision-based", "transfer")
SINGLE_STEP = ("fgsm", "torchattacks.FGSM", "art.FastGradientMethod", "foolbox.FGSM")
"""Attacks of one step, by the name before the colon in `CellInfo.attack_spec`."""
GREY = 0.5
"""At this eps in Linf a uniformly grey image is in every ball."""
_IDS = 5


def cross_flags(row: Sequence[CellResult], siblings: Sequence[CellResult] = ()) -> tuple[Flag, ...]:
    """The flags of a row, from the results of its cells and of `siblings`: cells of rows that differ in eps alone.

    Cells that failed, are not finished, or have no adversary (certificates, corruptions) play no part. Raises ValueError where
    cells of several rows are given as `row`.
    """
    if len({row_key(result.cell) for result in row}) > 1:
        raise ValueError("cells of several rows are mixed: give the cells of one row")
    own = [result for result in row if _counts(result)]
    if not own:
        return ()
    found = (
        black_box_beats_white_box(own),
        single_step_beats_iterative(own),
        rises_with_eps(own, [result for result in siblings if _counts(result)]),
        above_chance_at_grey(own),
    )
    return tuple(flag for flag in found if flag is not None)


def black_box_beats_white_box(row: Sequence[CellResult]) -> Flag | None:
    """Attacks without gradients, transfer and replayed examples break samples that every attack by gradients faced and left."""
    gradients = [result for result in row if _faces_gradients(result.cell)]
    if not gradients:
        return None
    ids = _common(row)
    blind: set[str] = set()
    kept = set(ids)
    for result in row:
        if result.cell.randomised:
            # Verdicts are by majority of draws; which stage broke a sample says less.
            continue
        by_gradient, without = _broken(result)
        blind |= without
        kept -= by_gradient
    shown = [name for name in ids if name in blind and name in kept]
    if not _enough(len(shown), len(ids)):
        return None
    return Flag(
        "black-box-beats-white-box",
        "block",
        f"{len(shown)} of {len(ids)} samples fall to attacks without gradients, to transfer or to replayed examples after all "
        "attacks by gradients had left them standing: gradients are masked. Attack by BPDA and without gradients for longer: "
        "--attacks adaptive",
        needs=("bpda", "black-box"),
        evidence=(("samples", len(shown)), ("n", len(ids))),
        samples=tuple(shown[:_IDS]),
    )


def single_step_beats_iterative(row: Sequence[CellResult]) -> Flag | None:
    """One step breaks samples that no attack of many steps breaks."""
    steps = [result for result in row if _name(result.cell) in SINGLE_STEP]
    more = [
        result
        for result in row
        if result not in steps and result.cell.attack_kind == "white-box" and not result.cell.minimum_norm
    ]
    if not steps or not more:
        return None
    ids = _common(row)
    single = set[str]().union(*(_fallen(result) for result in steps))
    iterative = set[str]().union(*(_fallen(result) for result in more))
    shown = [name for name in ids if name in single - iterative]
    if not _enough(len(shown), len(ids)):
        return None
    return Flag(
        "single-step-beats-iterative",
        "block",
        f"{len(shown)} of {len(ids)} samples fall to a single step, but to no attack of many steps: those lose their way on the "
        "loss surface, as behind masked gradients. Attack by BPDA, other losses and without gradients: --attacks adaptive",
        needs=("bpda", "black-box"),
        evidence=(("samples", len(shown)), ("n", len(ids))),
        samples=tuple(shown[:_IDS]),
    )


def rises_with_eps(row: Sequence[CellResult], siblings: Sequence[CellResult]) -> Flag | None:
    """More samples stand at this eps than at a smaller one: the ball there lies inside this one, so the attack is at fault."""
    eps = row[0].cell.eps
    mine = _standing(row)
    worst: tuple[int, float, list[str]] = (0, 0.0, [])
    for smaller in sorted({one.cell.eps for one in siblings if one.cell.eps < eps}):
        theirs = _standing([one for one in siblings if one.cell.eps == smaller])
        common = mine.keys() & theirs.keys()
        risen = [name for name in mine if name in common and mine[name] and not theirs[name]]
        rise = len(risen) - sum(theirs[name] and not mine[name] for name in common)
        if rise > worst[0]:
            worst = rise, smaller, risen
    rise, smaller, risen = worst
    if not _enough(rise, len(mine)):
        return None
    return Flag(
        "rises-with-eps",
        "block",
        f"{rise} more samples stand at eps {eps:g} than at {smaller:g}, although the larger ball holds the smaller: the attack "
        "at the larger eps is too weak. Replay the examples of the smaller one, or attack for longer",
        evidence=(("rise", rise), ("eps", eps), ("smaller_eps", smaller), ("n", len(mine))),
        samples=tuple(risen[:_IDS]),
    )


def above_chance_at_grey(row: Sequence[CellResult]) -> Flag | None:
    """At Linf 0.5 one grey image is in all balls and has one class: more cannot be robust than the most frequent class has."""
    cell = row[0].cell
    if cell.norm != "Linf" or cell.eps < GREY or ":target=" in cell.threat:
        return None
    worst = worst_case(list(row))
    if not len(worst):
        return None
    most, stand, n = int(np.unique(worst.label, return_counts=True)[1].max()), int(worst.robust.sum()), len(worst)
    if stand <= most:
        return None
    return Flag(
        "above-chance-at-grey",
        "block",
        f"{stand} of {n} samples stand at Linf {cell.eps:g}, where a grey image is in every ball and at most {most} can: the "
        "attack is broken, or blind here",
        evidence=(("standing", stand), ("most_frequent_class", most), ("n", n)),
    )


def _counts(result: CellResult) -> bool:
    return cells.status(result) == "ok" and result.cell.adversarial


def _enough(count: int, n: int) -> bool:
    return count >= LEAST and count > SHARE * n


def _name(cell: CellInfo) -> str:
    return cell.attack_spec.partition(":")[0]


def _ways(result: CellResult) -> dict[str, str]:
    """Stages and their ways, as the blocks say."""
    return {stage: way for block in result.blocks for stage, way in block.cell.ways.items()}


def _faces_gradients(cell: CellInfo) -> bool:
    return cell.attack_kind in _GRADIENT_KINDS


def _fallen(result: CellResult) -> set[str]:
    found = cells.outcomes(result)
    return {str(name) for name in found.id[found.correct & ~found.robust]}


def _broken(result: CellResult) -> tuple[set[str], set[str]]:
    """Ids of the samples that fell to gradients, and of those that fell without, of one cell."""
    fallen = _fallen(result)
    if result.cell.attack_kind in _BLIND_KINDS:
        return set(), fallen
    ways, after = _ways(result), False
    blind_stages = set()
    for stage, way in ways.items():
        after = after or way in GRADIENT_WAYS
        if after and way in _BLIND_WAYS:
            blind_stages.add(stage)
    blocks = [block.samples for block in result.blocks if len(block.samples.stage)]
    blind = {
        str(name)
        for samples in blocks
        for name, stage in zip(samples.id, samples.stage, strict=True)
        if stage in blind_stages
    }
    return fallen - blind, fallen & blind


def _common(row: Sequence[CellResult]) -> list[str]:
    """Ids that every cell covers, in the order of the first."""
    covered = [{str(name) for name in cells.outcomes(result).id} for result in row]
    everywhere = set.intersection(*covered)
    return [str(name) for name in cells.outcomes(row[0]).id if str(name) in everywhere]


def _standing(row: Sequence[CellResult]) -> dict[str, bool]:
    """Whether each sample stands against all cells of a row."""
    worst = worst_case(list(row))
    return dict(zip(worst.id.tolist(), worst.robust.tolist(), strict=True))
