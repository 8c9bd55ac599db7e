"""Flags from comparing the cells of a row, sample by sample."""

from __future__ import annotations

import numpy as np

from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import Flag
from gauntlet.leaderboard.rows.crosschecks import (
    _GRADIENT_FREE_KINDS,
    _GRADIENT_FREE_TECHNIQUES,
    _GRADIENT_KINDS,
    _MOST_IDS,
    GRADIENT_TECHNIQUES,
    GREY_EPS,
    MASKED_SHARE,
    MIN_SAMPLES,
    MIN_SHARE,
    SINGLE_STEP,
)
from simple_rows.worst_case import row_key, worst_case


def cross_flags(row, siblings=()):
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


def certificate_failed(row):
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


def black_box_beats_white_box(row):
    """Attacks without gradients, transfer or replayed examples break samples that all gradient-based attacks left standing."""
    if not any(result.cell.attack_kind in _GRADIENT_KINDS for result in row):
        return None
    ids = _common_ids(row)
    broken_without = set()
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


def single_step_beats_iterative(row):
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


def rises_with_eps(row, siblings):
    """More samples stand at this eps than at a smaller one, whose ball lies inside this one: the attack is too weak."""
    eps = row[0].cell.eps
    standing = _standing(row)
    worst = (0, 0.0, [])
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


def above_chance_at_grey(row):
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


def _is_finished_attack(result):
    return cells.status(result) == "ok" and result.cell.adversarial


def _is_enough(count, n):
    return count >= MIN_SAMPLES and count > MIN_SHARE * n


def _attack_name(cell):
    return cell.attack_spec.partition(":")[0]


def _broken_ids(result):
    samples = cells.outcomes(result)
    return set(samples.id[samples.correct & ~samples.robust].tolist())


def _broken(result):
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


def _common_ids(row):
    """Ids that every cell covers, in the order of the first."""
    covered = [cells.outcomes(result).id.tolist() for result in row]
    common = set.intersection(*map(set, covered))
    return [name for name in covered[0] if name in common]


def _standing(row):
    """Whether each sample stands against all cells of a row."""
    worst = worst_case(list(row))
    return dict(zip(worst.id.tolist(), worst.robust.tolist(), strict=True))
