"""Checks of results: of a row's cells, and of their adversarial examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from gauntlet.attacks.ops.norms import distance, limit
from gauntlet.attacks.views.guard import guarded
from gauntlet.bench.checks.run_attack import run_attack, unbroken
from gauntlet.bench.checks.subject import Finding, Subject, fired, not_applicable, passed, reported
from gauntlet.leaderboard.results import cell_summary as cells
from gauntlet.leaderboard.results.record import CellResult, Flag
from gauntlet.leaderboard.rows import crosschecks


def black_box_beats_white_box(subject: Subject) -> Finding:
    """See `gauntlet.leaderboard.rows.crosschecks`."""
    return _crossed("black-box-beats-white-box", subject, crosschecks.black_box_beats_white_box)


def single_step_beats_iterative(subject: Subject) -> Finding:
    """See `gauntlet.leaderboard.rows.crosschecks`."""
    return _crossed("single-step-beats-iterative", subject, crosschecks.single_step_beats_iterative)


def above_chance_at_grey(subject: Subject) -> Finding:
    """See `gauntlet.leaderboard.rows.crosschecks`."""
    if subject.threat.norm != "Linf" or subject.threat.eps < crosschecks.GREY_EPS:
        return not_applicable("above-chance-at-grey", f"Applies to Linf of at least {crosschecks.GREY_EPS:g}.")
    if subject.pipeline.rejects:
        return not_applicable(
            "above-chance-at-grey", "The model may reject the grey image, so that no sample breaks there."
        )
    return _crossed("above-chance-at-grey", subject, crosschecks.above_chance_at_grey)


def rises_with_eps(subject: Subject) -> Finding:
    """See `gauntlet.leaderboard.rows.crosschecks`."""
    name = "rises-with-eps"
    smaller = [result for result in subject.siblings if result.cell.eps < subject.threat.eps]
    if not smaller:
        return not_applicable(name, "Nothing was attacked at a smaller eps.")
    return _crossed(name, subject, lambda row: crosschecks.rises_with_eps(row, smaller))


def invalid_candidates(subject: Subject) -> Finding:
    """The verifier rejected none of the attack's points as not finite, or outside the box or the ball (with rounding slack)."""
    name = "invalid-candidates"
    if not subject.row:
        return not_applicable(name, "No cell has been run.")
    refused = sum(cells.costs(result).candidates_rejected for result in subject.row)
    if not refused:
        return passed(name, "Every proposed point is finite, in the box and in the ball.")
    return fired(
        name,
        "warn",
        f"{refused} proposed points are outside the ball or the box, or not finite: they were rejected, and the figure may "
        "overstate robustness. Correct the attack.",
        evidence={"refused": refused},
    )


def survival_of_rounding(subject: Subject) -> Finding:
    """The share of adversarial examples that remain in the ball and misclassified as 8-bit images."""
    name = "8-bit-survival"
    examples: dict[str, np.ndarray] = {}
    for result in subject.row:
        for block in result.blocks:
            pairs = zip(block.samples.id.tolist(), block.samples.adversarial, strict=True)
            examples.update(
                {sample_id: image for sample_id, image in pairs if image is not None and sample_id not in examples}
            )
    rows = [row for row, sample_id in enumerate(subject.ids) if sample_id in examples]
    if not rows:
        return not_applicable(name, "No example was kept.")
    own = subject.of(torch.tensor(rows, dtype=torch.int64, device=subject.labels.device))
    points = torch.stack([torch.tensor(examples[sample_id]) for sample_id in own.ids]).to(own.images)
    every = torch.arange(len(rows), device=own.labels.device)
    rounded = (points * 255).round() / 255
    with guarded(own.pipeline, 0):
        held = own.verifier(own.threat)(rounded, every, torch.zeros_like(every)).success
        # Rounding to the nearest level may leave the ball by half a level; rounding towards the clean image cannot.
        inward = own.images + (points - own.images).sign() * ((points - own.images).abs() * 255).floor() / 255
        held |= own.verifier(own.threat)(inward.clamp(0, 1), every, torch.zeros_like(every)).success
    share = float(held.double().mean())
    return reported(
        name,
        f"{100 * share:.0f} % of {len(rows)} examples remain adversarial as 8-bit images, rounded to the nearest level or "
        "towards the clean image.",
        share=share,
        examples=len(rows),
    )


def silent_success(subject: Subject) -> Finding:
    """A library's attack evaluated an adversarial example and returned another point (Pintor et al. 2022, indicator 2).

    Native attacks cannot: the oracle records every success that they evaluate.
    """
    name, attack = "silent-success", subject.attack
    if attack is None or attack.stages:
        return not_applicable(name, "Native attacks keep every success that they evaluate.")
    few = subject.few().right
    if not len(few.labels):
        return not_applicable(name, "No sample is classified correctly.")
    watcher = _Watcher(few.view if few.victim is None else few.victim, few)
    broken = ~unbroken(run_attack(replace(few, victim=watcher), attack), few.labels.device)
    with guarded(few.pipeline, few.seed):
        candidates = watcher.seen.nonzero().squeeze(1)
        held = torch.zeros_like(broken)
        if len(candidates):
            judged = few.verifier(few.threat)(watcher.points[candidates], candidates, torch.zeros_like(candidates))
            held[candidates] = judged.success
    lost = held & ~broken
    count = int(lost.sum())
    figures = {"lost": count, "samples": len(broken)}
    if not count:
        return passed(name, f"No success was lost on {len(broken)} samples.", **figures)
    return fired(
        name,
        "warn",
        f"For {count} of {len(broken)} samples the attack evaluated an adversarial example but returned another point. Return "
        "the best point instead of the last.",
        evidence=figures,
        samples=few.named(lost),
    )


class _Watcher(nn.Module):
    """A model that stores, for each sample, a misclassified point of the ball that was evaluated."""

    def __init__(self, model: nn.Module, subject: Subject) -> None:
        super().__init__()
        self.model = model
        self.clean = subject.images
        self.labels = subject.labels
        self.threat = subject.threat
        self.seen = torch.zeros_like(subject.labels, dtype=torch.bool)
        self.points = subject.images.clone()
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.model(images)
        with torch.no_grad():
            evaluated = images.detach().to(self.clean.dtype)
            rows = torch.cdist(evaluated.flatten(1), self.clean.flatten(1), p=torch.inf).argmin(1)
            inside = distance(evaluated, self.clean[rows], self.threat.norm) <= limit(self.threat)
            for at in (inside & (outputs.argmax(1) != self.labels[rows])).nonzero().squeeze(1).tolist():
                self.seen[rows[at]] = True
                self.points[rows[at]] = evaluated[at]
        return outputs


def _crossed(name: str, subject: Subject, check: Callable[[Sequence[CellResult]], Flag | None]) -> Finding:
    row = [result for result in subject.row if cells.status(result) == "ok"]
    if not row:
        return not_applicable(name, "No cell has been run.")
    flag = check(row)
    if flag is None:
        labels = ", ".join(dict.fromkeys(result.cell.attack for result in row))
        return passed(name, f"Not observed in the results of {labels}.")
    return Finding(name, "fired", f"{flag.message}.", flag.evidence, flag)
