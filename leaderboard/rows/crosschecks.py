"""Flags from comparing the cells of a row with each other, and with rows at another eps: pure functions of results.

Sources: Carlini et al., "On evaluating adversarial robustness", 2019 (arXiv 1902.06705), section 4; Croce and Hein 2020 (arXiv
2003.01690), whose checks compare the accuracy of Square with that of the attacks before it. Here the comparison is by sample,
because two attacks of equal accuracy may break different samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gauntlet.leaderboard.results.record import CellInfo, Flag
from gauntlet.leaderboard.results.sample_set import numbered
from gauntlet.leaderboard.results.summary import AnyResult, Bits, CellSummary, summaries
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


def cross_flags(row: Sequence[AnyResult], siblings: Sequence[AnyResult] = ()) -> tuple[Flag, ...]:
    """The flags of a row, from the results of its cells and of `siblings`: cells of rows that differ in eps alone.

    Of cells that failed, are not finished, or are no attacks only certificates that failed are named. Raises ValueError if
    cells of several rows are given as `row`.
    """
    if len({row_key(result.cell) for result in row}) > 1:
        raise ValueError("cells of several rows are mixed: give the cells of one row")
    attacks = [result for result in summaries(row) if _is_finished_attack(result)]
    if not attacks:
        return ()
    others = summaries(siblings)
    flags = (
        certificate_failed(row),
        black_box_beats_white_box(attacks),
        single_step_beats_iterative(attacks),
        rises_with_eps(attacks, [result for result in others if _is_finished_attack(result)]),
        above_chance_at_grey(attacks),
    )
    return tuple(flag for flag in flags if flag is not None)


def certificate_failed(row: Sequence[AnyResult]) -> Flag | None:
    """A certificate ended in an error; the figures of the attacks stand without it."""
    failed = next((result for result in summaries(row) if result.cell.proves and result.error is not None), None)
    if failed is None or failed.error is None:
        return None
    return Flag(
        "certificate-failed",
        "warn",
        f"the certificate failed ({failed.error.kind}: {failed.error.message}): the figures of the attacks stand, what is proven "
        "may be less than could be. Run the same command again, or leave certificate out of --attacks",
        evidence=(("samples", len(failed)),),
    )


def black_box_beats_white_box(row: Sequence[AnyResult]) -> Flag | None:
    """Attacks without gradients, transfer or replayed examples break samples that all gradient-based attacks left standing."""
    if not any(result.cell.attack_kind in _GRADIENT_KINDS for result in row):
        return None
    common = _Common.of(summaries(row))
    by_gradients, without_gradients = common.none(), common.none()
    for result in common.cells:
        if result.cell.randomised:
            # Verdicts are majorities over draws; the stage that broke a sample is less informative.
            continue
        without = _broken_without_gradients(result)
        without_gradients |= common.bits(result, without)
        by_gradients |= common.bits(result, result.broken & ~without)
    samples, n = common.named(without_gradients & ~by_gradients), len(common)
    if not _is_enough(len(samples), n):
        return None
    broken = int(by_gradients.sum()) + len(samples)
    masked = len(samples) >= MASKED_SHARE * broken
    means = "gradients are masked" if masked else f"of {broken} broken samples these are few, so that gradients work"
    return Flag(
        "black-box-beats-white-box",
        "block" if masked else "warn",
        f"{len(samples)} of {n} samples are broken by attacks without gradients, by transfer or by replayed examples "
        f"after all gradient-based attacks had left them standing: {means}. Attack longer without gradients: --attacks adaptive",
        needs=("black-box",) if masked else (),
        evidence=(("samples", len(samples)), ("broken", broken), ("n", n)),
        samples=samples[:_MOST_IDS],
    )


def single_step_beats_iterative(row: Sequence[AnyResult]) -> Flag | None:
    """A single step breaks samples that no iterative attack breaks."""
    common = _Common.of(summaries(row))
    single = [result for result in common.cells if _attack_name(result.cell) in SINGLE_STEP]
    others = [result for result in common.cells if result not in single]
    iterative = [result for result in others if result.cell.attack_kind == "white-box" and not result.cell.minimum_norm]
    if not single or not iterative:
        return None
    one_step = np.logical_or.reduce([common.bits(result, result.broken) for result in single])
    many_steps = np.logical_or.reduce([common.bits(result, result.broken) for result in iterative])
    samples, n = common.named(one_step & ~many_steps), len(common)
    if not _is_enough(len(samples), n):
        return None
    return Flag(
        "single-step-beats-iterative",
        "block",
        f"{len(samples)} of {n} samples are broken by a single step, but by no iterative attack: iterative attacks "
        "lose their way on the loss surface, as with masked gradients. Attack by BPDA, other losses and without gradients: "
        "--attacks adaptive",
        needs=("black-box",),
        evidence=(("samples", len(samples)), ("n", n)),
        samples=samples[:_MOST_IDS],
    )


def rises_with_eps(row: Sequence[AnyResult], siblings: Sequence[AnyResult]) -> Flag | None:
    """More samples stand at this eps than at a smaller one, whose ball lies inside this one: the attack is too weak."""
    eps = row[0].cell.eps
    here = worst_case(row)
    worst: tuple[int, float, tuple[str, ...]] = (0, 0.0, ())
    for smaller in sorted({result.cell.eps for result in siblings if result.cell.eps < eps}):
        there = worst_case([result for result in siblings if result.cell.eps == smaller])
        count, (own, other) = numbered([here.samples, there.samples])
        covered, stood = np.zeros((2, count), np.bool_)
        covered[other], stood[other] = True, there.robust
        risen = covered[own] & here.robust & ~stood[own]
        rise = int(risen.sum()) - int((covered[own] & stood[own] & ~here.robust).sum())
        if rise > worst[0]:
            worst = rise, smaller, tuple(here.id[risen].tolist())
    rise, smaller, named = worst
    if not _is_enough(rise, len(here)):
        return None
    return Flag(
        "rises-with-eps",
        "block",
        f"{rise} more samples stand at eps {eps:g} than at {smaller:g}, although the larger ball contains the smaller: the "
        "attack at the larger eps is too weak. Replay the examples of the smaller one, or attack for longer: "
        "--attacks adaptive",
        evidence=(("rise", rise), ("eps", eps), ("smaller_eps", smaller), ("n", len(here))),
        samples=named[:_MOST_IDS],
    )


def above_chance_at_grey(row: Sequence[AnyResult]) -> Flag | None:
    """At Linf 0.5 all balls share a grey image, which has one class: at most the most frequent class can be robust.

    A model that may reject can reject the grey image, so that no sample breaks there.
    """
    cell = row[0].cell
    if cell.norm != "Linf" or cell.eps < GREY_EPS or ":target=" in cell.threat or cell.rejects:
        return None
    worst = worst_case(row)
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


def _is_finished_attack(result: CellSummary) -> bool:
    return result.status == "ok" and result.cell.adversarial


def _is_enough(count: int, n: int) -> bool:
    return count >= MIN_SAMPLES and count > MIN_SHARE * n


def _attack_name(cell: CellInfo) -> str:
    return cell.attack_spec.partition(":")[0]


@dataclass(frozen=True, eq=False)
class _Common:
    """The samples that every cell of a row covers, in the order of the first cell."""

    cells: Sequence[CellSummary]
    names: npt.NDArray[np.str_]
    places: Mapping[int, npt.NDArray[np.intp]]
    """Where each cell has them, by the cell's id."""

    @classmethod
    def of(cls, cells: Sequence[CellSummary]) -> _Common:
        count, numbers = numbered([cell.samples for cell in cells])
        places = np.full((len(cells), count), -1, dtype=np.intp)
        for own, number in zip(places, numbers, strict=True):
            own[number] = np.arange(len(number))
        common = numbers[0][(places[:, numbers[0]] >= 0).all(axis=0)]
        own = places[:, common]
        return cls(cells, cells[0].samples.id[own[0]], {id(cell): at for cell, at in zip(cells, own, strict=True)})

    def __len__(self) -> int:
        return len(self.names)

    def none(self) -> Bits:
        return np.zeros(len(self), np.bool_)

    def bits(self, cell: CellSummary, own: Bits) -> Bits:
        """The bits of a cell's samples for the common ones."""
        common: Bits = own[self.places[id(cell)]]
        return common

    def named(self, bits: Bits) -> tuple[str, ...]:
        return tuple(self.names[bits].tolist())


def _broken_without_gradients(result: CellSummary) -> Bits:
    """The samples of a cell that were broken by attacks or stages without gradients."""
    if result.cell.attack_kind in _GRADIENT_FREE_KINDS:
        return result.broken
    after_gradients = False
    gradient_free = set()
    for stage, technique in result.stage_techniques.items():
        after_gradients = after_gradients or technique in GRADIENT_TECHNIQUES
        if after_gradients and technique in _GRADIENT_FREE_TECHNIQUES:
            gradient_free.add(stage)
    if result.stage is None:
        return np.zeros(len(result), np.bool_)
    return result.broken & result.stage.where(lambda label: label in gradient_free)
