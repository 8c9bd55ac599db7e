"""What a configuration asks to be planned, as plain data: names as they were written, nothing looked up or imported."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from gauntlet.bench.config.model_ref import read_model
from gauntlet.bench.config.schema import Config, DataRef, Expectation, Group


@dataclass(frozen=True)
class PlanRequest:
    """The groups of a configuration, with what decides which cells they mean.

    Names may be wildcards or come from plugins: they are resolved by `gauntlet.bench.planning.plan.resolve_plan`, on the side
    where the user's code lives.
    """

    groups: tuple[Group, ...]
    seed: int = 0
    plugins: tuple[str, ...] = ()
    expect: tuple[Expectation, ...] = ()
    """Expectations, each of which must apply to some cell; empty where the command line narrowed the configuration."""

    @classmethod
    def of(cls, config: Config) -> PlanRequest:
        """The request of a configuration."""
        return cls(config.groups, config.seed, config.plugins, () if config.narrowed else config.expect)

    @property
    def described(self) -> str:
        """What the worker does, as the end of a sentence."""
        return "planning"

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> PlanRequest:
        """From `to_json`. Raises ValueError, KeyError or TypeError for anything else."""
        fields = json.loads(text)
        groups = tuple(
            Group(
                models=tuple(read_model(model) for model in group["models"]),
                defenses=tuple(group["defenses"]),
                attacks=tuple(group["attacks"]),
                threats=tuple(group["threats"]),
                data=DataRef(**group["data"]),
            )
            for group in fields["groups"]
        )
        expect = tuple(Expectation(**expectation) for expectation in fields["expect"])
        return cls(groups, fields["seed"], tuple(fields["plugins"]), expect)
