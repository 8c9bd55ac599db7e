"""The command that follows a first look: the attack that fits the model, on as many samples as take minutes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from gauntlet.bench.config.model_ref import MODEL_SETTINGS
from gauntlet.bench.config.schema import ModelRef, default_threat
from gauntlet.bench.first_look.look import Look
from gauntlet.bench.models.sources.parse_source import parse_source

PASSES, RANDOM_PASSES = 500, 2000
"""Passes forward and back that `adaptive` spends on a sample that it does not break, about: 450 on digits; of a random model."""
_SECONDS = 600.0
"""Seconds that the command should take at most, if no sample is broken."""
_FEWEST, _USUAL = 20, 1000


def run_options(found: Look, threat: str | None = None) -> dict[str, Any]:
    """The options of `gauntlet run` for the model that was looked at, each with its value; True for flags."""
    model, data = found.model, found.data
    spec = data.spec if data is not None else "DATA"
    samples = data.samples if data is not None else None
    return {
        **model_options(model),
        "data": spec,
        **({"samples": samples or str(_samples(found))} if samples or 0 < _samples(found) < found.n else {}),
        "threat": threat or default_threat(spec, found.pixels),
        "attacks": "standard" if _is_black_box(model) else "adaptive",
    }


def model_options(model: ModelRef) -> dict[str, Any]:
    """A model as options: its name, and each setting that is given."""
    given = {name: value for name in MODEL_SETTINGS if (value := getattr(model, name)) is not None}
    return {"model": model.spec, **given}


def next_command(found: Look, threat: str | None = None, plugins: Sequence[str] = ()) -> str:
    """The command in a line."""
    parts = ["gauntlet", "run", *(part for file in plugins for part in ("--plugin", file))]
    for name, value in run_options(found, threat).items():
        parts += [f"--{name.replace('_', '-')}", *([] if value is True else [option_text(value)])]
    return shlex.join(parts)


def option_text(value: Any) -> str:
    """The value as the text of an option."""
    return ",".join(f"{part:.6g}" for part in value) if isinstance(value, tuple) else str(value)


def _samples(found: Look) -> int:
    """As many samples as `adaptive` decides in ten minutes even if it breaks none, in a round number."""
    if not found.image_seconds:
        return min(found.n, _USUAL)
    most = int(_SECONDS / ((RANDOM_PASSES if found.model.randomised else PASSES) * found.image_seconds))
    rounded = next((size for size in (1000, 500, 200, 100, 50) if size <= most), _FEWEST)
    return min(found.n, rounded)


def _is_black_box(model: ModelRef) -> bool:
    source = parse_source(model.spec)
    return source is not None and source.access != "white-box"
