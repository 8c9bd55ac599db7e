"""What follows from a defense and from a measurement: flags that every figure carries."""

from __future__ import annotations

from dataclasses import asdict

from torch import nn

from gauntlet.bench.config.schema import ModelRef
from gauntlet.bench.models.parts.classifier import Classifier
from gauntlet.defenses.pipeline.batch_dependence import BatchDependence, batch_norms
from gauntlet.defenses.pipeline.card import DefenseCard
from gauntlet.defenses.pipeline.defended_model import DefendedModel
from gauntlet.leaderboard.results.record import EVIDENCE, Flag


def defense_flags(card: DefenseCard, pipeline: DefendedModel, model: ModelRef, *, checked: bool = True) -> list[Flag]:
    """Flags of a figure behind this defense, by what is declared of it and of the model, or was measured of the pipeline.

    `checked`: whether evidence is gathered.
    """
    flags, part = [], "model" if card.differentiable else "defense"
    if not card.differentiable or model.not_differentiable:
        flags.append(
            Flag(
                "non-differentiable-defense",
                "block",
                f"autograd gives no useful gradient through the {part}: an attack that takes its word finds nothing. Only "
                "attacks by BPDA, by transfer and without gradients say something of it",
                needs=("bpda", "transfer", "black-box", *([EVIDENCE] if checked else [])),
            )
        )
    if pipeline.randomised:
        declared = card.randomised or model.randomised
        hidden = "" if declared else " (measured: nothing was declared, and it is attacked as if it were)"
        flags.append(
            Flag(
                "randomised-defense",
                "block",
                f"the model answers the same image differently{hidden}: an attack that sees one draw a step aims at noise. Only "
                "attacks on the expectation over draws (EOT) say something of it",
                needs=("eot",),
            )
        )
    return flags


def batch_flags(measured: BatchDependence, model: nn.Module) -> list[Flag]:
    """The flag of a model whose answers depend on the batch; it names the batch norms that use the statistics of the batch."""
    if not measured.found:
        return []
    names = batch_norms(model.model if isinstance(model, Classifier) else model)
    cause = "a mean, a maximum or a norm over the first dimension of a tensor has this effect"
    if names:
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        cause = (
            f"batch norm without running statistics: {', '.join(names[:_MOST_NAMES])}{more}; keep running statistics"
        )
    return [
        Flag(
            "batch-dependent",
            "block",
            "the model's answers depend on the other images of the batch, so that no figure holds for an image as such: "
            f"{measured.changed} of {measured.images} images get other logits alone, by up to "
            f"{100 * measured.largest:.2g} % of the mean margin ({cause}). "
            "Make each answer depend on its image alone",
            evidence=tuple((name, float(value)) for name, value in asdict(measured).items()),
        )
    ]


_MOST_NAMES = 3
_SAME = {
    "non-differentiable-defense": {"unavailable-gradients", "zero-gradient", "finite-differences"},
    "randomised-defense": {"randomised-model"},
}
"""Flags of declared defenses, each with the checks that find just that."""


def merge_flags(declared: tuple[Flag, ...], measured: tuple[Flag, ...]) -> tuple[Flag, ...]:
    """Declared flags, and those of checks that say something else; of two flags with one name the check's, with evidence."""
    names = {flag.name for flag in measured}
    covered = set[str]().union(*(_SAME.get(flag.name, set()) for flag in declared))
    return (
        *(flag for flag in declared if flag.name not in names),
        *(flag for flag in measured if flag.name not in covered),
    )
