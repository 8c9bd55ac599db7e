"""A cascade: one attack made of stages. Each stage faces only the samples that the stages before it left standing."""

from __future__ import annotations

from dataclasses import dataclass

from gauntlet.attacks.solving.solver import Stage


@dataclass(frozen=True)
class Cascade:
    """Stages in order. The record names the stage that broke each sample; the first success ends the cascade.

    A single stage may seek the minimum norm. Raises ValueError for no stage, for labels that are not unique, and for a stage
    that seeks the minimum norm among others.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        labels = [stage.label for stage in self.stages]
        if not labels or len(set(labels)) < len(labels):
            raise ValueError(f"a cascade needs at least one stage, with labels that are unique, not {labels!r}")
        seekers = [stage.label for stage in self.stages if stage.rule.minimum_norm]
        if seekers and len(self.stages) > 1:
            raise ValueError(
                f"stage {seekers[0]!r} seeks the minimum norm: a cascade needs rules that stop inside the ball"
            )

    @property
    def version(self) -> tuple[int, ...]:
        """The versions of the rules."""
        return tuple(stage.rule.version for stage in self.stages)
