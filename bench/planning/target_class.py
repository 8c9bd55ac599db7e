"""The class of a targeted attack, compared with the number of classes where that is known before anything is loaded."""

from __future__ import annotations

from gauntlet.attacks.ops.threat import NEXT, RANDOM, ThreatModel
from gauntlet.bench.config.schema import ConfigError, DataRef, ModelRef
from gauntlet.bench.data.catalog import DATA
from gauntlet.bench.data.data_name import parse_data_name
from gauntlet.bench.registries import MODELS


def check_target(threat: ThreatModel, model: ModelRef, data: DataRef) -> None:
    """Raise ConfigError for a target that is no class of a registered model's data, or of registered data.

    Files do not state their number of classes, and a list of classes changes it: there the first pass of the model shows it, and
    `ThreatModel.targets` raises ValueError.
    """
    if threat.target in ("", NEXT, RANDOM) or model.classes is not None:
        return
    found = _classes(model, data)
    if found is not None and int(threat.target) >= found[0]:
        classes, where = found
        raise ConfigError(
            f"--threat {threat}: target {threat.target} is not a class of {where}, which has {classes}: "
            f"use 0 to {classes - 1}, {NEXT} or {RANDOM}"
        )


def _classes(model: ModelRef, data: DataRef) -> tuple[int, str] | None:
    """The number of classes, and what it is of; None where it is not known yet."""
    if model.spec in MODELS and (trained := MODELS.get(model.spec).card.data) in DATA:
        return DATA.get(trained).card.classes, f"model {model.spec!r}"
    named = parse_data_name(data.spec)
    return None if named is None else (named.entry.card.classes, f"data {data.spec!r}")
