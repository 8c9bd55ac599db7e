"""Flags from comparing the cells of a row with each other, and with rows at another eps: pure functions of results.

Sources: Carlini et al., "On evaluating adversarial robustness", 2019 (arXiv 1902.06705), section 4; Croce and Hein 2020 (arXiv
2003.01690), whose checks compare the accuracy of Square with that of the attacks before it. Here the comparison is by sample,
because two attacks of equal accuracy may break different samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import CellInfo, CellResult, Flag
from gauntlet.leaderboard.rows.worst_case import row_key, worst_case

MIN_SAMPLES = 3
"""Smallest number of samples that raises a flag: one or two occur on sound models, next to the decision boundary."""
MIN_SHARE = 0.002
"""Share of the row's samples that must be exceeded too (the threshold of AutoAttack's checks)."""
MASKED_SHARE = 0.05
"""Share of all broken samples from which on samples that only attacks without gradients break block a rank.

Masked gradients break hardly anything themselves; of an honest network with flat regions (interval-trained, in L2) search broke 6
samples after gradients had broken 723.
"""
GRADIENT_TECHNIQUES = ("white-box", "bpda", "eot", "bpda+eot")
_GRADIENT_KINDS = ("white-box", "naive")
_GRADIENT_FREE_TECHNIQUES = ("black-box", "probe", "transfer")
_GRADIENT_FREE_KINDS = ("black-box", "decision-based", "transfer")
SINGLE_STEP = ("fgsm", "torchattacks.FGSM", "art.FastGradientMethod", "foolbox.FGSM")
"""Attacks of one step, by the name before the colon in `CellInfo.attack_spec`."""
GREY_EPS = 0.5
"""From this Linf eps on, a uniformly grey image lies in every ball."""
_MOST_IDS = 5


def cross_flags(row: Sequence[CellResult], siblings: Sequence[CellResult] = ()) -> tuple[Flag, ...]:
    """The flags of a row, from the results of its cells and of `siblings`: cells of rows that differ in eps alone.

    Of cells that failed, are not finished, or are no attacks only certificates that failed are named. Raises ValueError if
    cells of several rows are given as `row`.
    """
    if len({row_key(result.cell) for result in row}) > 1:
        raise ValueError("cells of several rows are mixed: give the cells of one row")
    attacks = [result for result in row if _is_finished_attack(result)]
    if not attacks:
        return ()
    flags = (
        certificate_failed(row),
        black_box_beats_white_box(attacks),
        single_step_beats_iterative(attacks),
        rises_with_eps(attacks, [result for result in siblings if _is_finished_attack(result)]),
        above_chance_at_grey(attacks),
    )
    return tuple(flag for flag in flags if flag is not None)


def certificate_failed(row: Sequence[CellResult]) -> Flag | None:
    """A certificate ended in an error; the figures of the attacks stand without it."""
    failed = next((result for result in row if result.cell.proves and result.error is not None), None)
    if failed is None or failed.error is None:
        return None
    return Flag(
        "certificate-failed",
        "warn",
        f"the certificate failed ({failed.error.kind}: {failed.error.message}): the figures of the attacks stand, what is proven "
        "may be less than could be. Run the same command again, or leave certificate out of --attacks",
        evidence=(("samples", cells.covered(failed)),),
    )


def black_box_beats_white_box(row: Sequence[CellResult]) -> Flag | None:
    """Attacks without gradients, transfer or replayed examples break samples that all gradient-based attacks left standing."""
    if not any(result.cell.attack_kind in _GRADIENT_KINDS for result in row):
        return None
    ids = _common_ids(row)
    broken_without: set[str] = set()
    left_standing = set(ids)
    for result in row:
        if result.cell.randomised:
            # Verdicts are majorities over draws; the stage that broke a sample is less informative.
            continue
        by_gradient, without = _broken(result)
        broken_without |= without
        left_standing -= by_gradient
    samples = [name for name in ids if name in broken_without and name in left_standing]
    if not _is_enough(len(samples), len(ids)):
        return None
    broken = len(ids) - len(left_standing) + len(samples)
    masked = len(samples) >= MASKED_SHARE * broken
    means = "gradients are masked" if masked else f"of {broken} broken samples these are few, so that gradients work"
    return Flag(
        "black-box-beats-white-box",
        "block" if masked else "warn",
        f"{len(samples)} of {len(ids)} samples are broken by attacks without gradients, by transfer or by replayed examples "
        f"after all gradient-based attacks had left them standing: {means}. Attack longer without gradients: --attacks adaptive",
        needs=("black-box",) if masked else (),
        evidence=(("samples", len(samples)), ("broken", broken), ("n", len(ids))),
        samples=tuple(samples[:_MOST_IDS]),
    )


def single_step_beats_iterative(row: Sequence[CellResult]) -> Flag | None:
    """A single step breaks samples that no iterative attack breaks."""
    single = [result for result in row if _attack_name(result.cell) in SINGLE_STEP]
    iterative = [
        result
        for result in row
        if result not in single and result.cell.attack_kind == "white-box" and not result.cell.minimum_norm
    ]
    if not single or not iterative:
        return None
    ids = _common_ids(row)
    by_one_step = set[str]().union(*(_broken_ids(result) for result in single))
    by_many_steps = set[str]().union(*(_broken_ids(result) for result in iterative))
    samples = [name for name in ids if name in by_one_step - by_many_steps]
    if not _is_enough(len(samples), len(ids)):
        return None
    return Flag(
        "single-step-beats-iterative",
        "block",
        f"{len(samples)} of {len(ids)} samples are broken by a single step, but by no iterative attack: iterative attacks "
        "lose their way on the loss surface, as with masked gradients. Attack by BPDA, other losses and without gradients: "
        "--attacks adaptive",
        needs=("black-box",),
        evidence=(("samples", len(samples)), ("n", len(ids))),
        samples=tuple(samples[:_MOST_IDS]),
    )


def rises_with_eps(row: Sequence[CellResult], siblings: Sequence[CellResult]) -> Flag | None:
    """More samples stand at this eps than at a smaller one, whose ball lies inside this one: the attack is too weak."""
    eps = row[0].cell.eps
    standing = _standing(row)
    worst: tuple[int, float, list[str]] = (0, 0.0, [])
    for smaller in sorted({result.cell.eps for result in siblings if result.cell.eps < eps}):
        at_smaller = _standing([result for result in siblings if result.cell.eps == smaller])
        common = standing.keys() & at_smaller.keys()
        risen = [name for name in standing if name in common and standing[name] and not at_smaller[name]]
        rise = len(risen) - sum(at_smaller[name] and not standing[name] for name in common)
        if rise > worst[0]:
            worst = rise, smaller, risen
    rise, smaller, risen = worst
    if not _is_enough(rise, len(standing)):
        return None
    return Flag(
        "rises-with-eps",
        "block",
        f"{rise} more samples stand at eps {eps:g} than at {smaller:g}, although the larger ball contains the smaller: the "
        "attack at the larger eps is too weak. Replay the examples of the smaller one, or attack for longer: "
        "--attacks adaptive",
        evidence=(("rise", rise), ("eps", eps), ("smaller_eps", smaller), ("n", len(standing))),
        samples=tuple(risen[:_MOST_IDS]),
    )


def above_chance_at_grey(row: Sequence[CellResult]) -> Flag | None:
    """At Linf 0.5 all balls share a grey image, which has one class: at most the most frequent class can be robust.

    A model that may reject can reject the grey image, so that no sample breaks there.
    """
    cell = row[0].cell
    if cell.norm != "Linf" or cell.eps < GREY_EPS or ":target=" in cell.threat or cell.rejects:
        return None
    worst = worst_case(list(row))
    if not len(worst):
        return None
    most, standing, n = int(np.unique(worst.label, return_counts=True)[1].max()), int(worst.robust.sum()), len(worst)
    if standing <= most:
        return None
    return Flag(
        "above-chance-at-grey",
        "block",
        f"{standing} of {n} samples stand at Linf {cell.eps:g}, where a grey image is in every ball and at most {most} can "
        "stand: the attack is broken or does not work on this model. Use another attack: --attacks adaptive",
        evidence=(("standing", standing), ("most_frequent_class", most), ("n", n)),
    )


def _is_finished_attack(result: CellResult) -> bool:
    return cells.status(result) == "ok" and result.cell.adversarial


def _is_enough(count: int, n: int) -> bool:
    return count >= MIN_SAMPLES and count > MIN_SHARE * n


def _attack_name(cell: CellInfo) -> str:
    return cell.attack_spec.partition(":")[0]


def _broken_ids(result: CellResult) -> set[str]:
    samples = cells.outcomes(result)
    return set(samples.id[samples.correct & ~samples.robust].tolist())


def _broken(result: CellResult) -> tuple[set[str], set[str]]:
    """Ids of the samples of a cell that were broken by gradients, and of those broken without."""
    broken = _broken_ids(result)
    if result.cell.attack_kind in _GRADIENT_FREE_KINDS:
        return set(), broken
    after_gradients = False
    gradient_free = set()
    for stage, technique in cells.stage_techniques(result).items():
        after_gradients = after_gradients or technique in GRADIENT_TECHNIQUES
        if after_gradients and technique in _GRADIENT_FREE_TECHNIQUES:
            gradient_free.add(stage)
    blocks = [block.samples for block in result.blocks if len(block.samples.stage)]
    without = {
        str(name)
        for samples in blocks
        for name, stage in zip(samples.id, samples.stage, strict=True)
        if stage in gradient_free
    }
    return broken - without, broken & without


def _common_ids(row: Sequence[CellResult]) -> list[str]:
    """Ids that every cell covers, in the order of the first."""
    covered = [cells.outcomes(result).id.tolist() for result in row]
    common = set.intersection(*map(set, covered))
    return [name for name in covered[0] if name in common]


def _standing(row: Sequence[CellResult]) -> dict[str, bool]:
    """Whether each sample stands against all cells of a row."""
    worst = worst_case(list(row))
    return dict(zip(worst.id.tolist(), worst.robust.tolist(), strict=True))
