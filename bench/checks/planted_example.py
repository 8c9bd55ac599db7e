"""The check with planted adversarial examples: one is planted in the ball of each sample, and the attack has to find it.

Zimmermann, Brendel, Tramèr and Carlini, "Increasing confidence in adversarial robustness evaluations", NeurIPS 2022 (arXiv
2206.13991). The example exists by construction (`gauntlet.bench.checks.readout`), and an attack that misses it would miss
examples of the model too.
"""

from __future__ import annotations

import torch

from gauntlet.attacks.ops.norms import distance
from gauntlet.attacks.views.guard import guarded
from gauntlet.bench.checks.plant import plant_examples
from gauntlet.bench.checks.readout import NoReadoutError, PlantedModel
from gauntlet.bench.checks.run_attack import run_attack, unbroken
from gauntlet.bench.checks.subject import Finding, Subject, fired, not_applicable, passed

SAMPLES = 32
LEAST, SHARE = 3, 0.25
"""Fewer planted examples than this, in all and as a share of the samples, are no evidence."""
FOUND = 0.95
"""Least share of the planted examples that an attack must find."""


def planted_example(subject: Subject) -> Finding:
    """The attack finds the adversarial example that is planted in the ball of each sample."""
    name, few = "planted-example", subject.right.few(SAMPLES)
    if subject.attack is None:
        return not_applicable(name, "No attack is given.")
    few = _apart(few)
    try:
        readout, points = plant_examples(few)
    except NoReadoutError as error:
        return not_applicable(name, str(error))
    model = PlantedModel(few.pipeline, readout)
    every = torch.arange(len(few.labels), device=few.labels.device)
    with guarded(model, 0):
        verify = few.verifier(few.threat, model)
        there = verify(points, every, torch.zeros_like(every)).success
        clean = verify.measure(few.images, every).prediction.to(few.labels.device) == few.labels
    rows = (there & clean).nonzero().squeeze(1)
    if len(rows) < max(LEAST, SHARE * len(few.labels)):
        return not_applicable(name, f"An example could be planted for only {len(rows)} of {len(few.labels)} samples.")
    chosen = few.of(rows)
    left = unbroken(
        run_attack(chosen, subject.attack, wrap=lambda model_view: PlantedModel(model_view, readout)), few.labels.device
    )
    missed, count = int(left.sum()), len(rows)
    figures = {"missed": missed, "planted": count}
    if missed <= (1 - FOUND) * count:
        return passed(name, f"The attack finds {count - missed} of {count} planted examples.", **figures)
    return fired(
        name,
        "block",
        f"The attack misses {missed} of {count} examples that were planted in the balls (by a linear readout of the last "
        "layer's features): it may miss those of the model too. Use another attack: --attacks adaptive.",
        needs=(name,),
        evidence=figures,
        samples=chosen.named(left),
    )


def _apart(subject: Subject) -> Subject:
    """Only samples whose balls do not overlap, so that a point belongs to one sample."""
    chosen: list[int] = []
    for row in range(len(subject.labels)):
        others = subject.images[chosen]
        gaps = distance(others, subject.images[row].expand_as(others), subject.threat.norm) if chosen else None
        if gaps is None or float(gaps.min()) > 2 * subject.threat.eps:
            chosen.append(row)
    return subject.of(torch.tensor(chosen, dtype=torch.int64, device=subject.labels.device))
