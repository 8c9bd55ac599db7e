"""Configuration: what a run pairs, from `gauntlet.toml`, `[tool.gauntlet]` of pyproject.toml, and options, which win."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.config.files import ConfigError as ConfigError
from gauntlet.bench.config.files import plugins_of, read_file, texts
from gauntlet.bench.config.gate_table import GateTable, read_gate_table
from gauntlet.bench.config.published_table import read_published
from gauntlet.leaderboard.results.published_figure import PublishedFigure

_PAIRING = ("model", "weights", "mean", "std", "defense", "attacks", "data", "samples", "threat")
_RUN = ("plugin", "seed", "device", "precision", "checks", "batch_size", "out", "fresh", "no_adversarials")
_TOP = (*_PAIRING, *_RUN, "group", "expect", "gate", "published")

CHECKS = ("default", "all", "none")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ModelRef:
    """Where a model comes from: a registered name or wildcard, `module:factory` or `file.py:factory`."""

    spec: str
    weights: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True)
class DataRef:
    """Where data comes from, and which samples of it."""

    spec: str
    samples: str | None = None


@dataclass(frozen=True)
class Group:
    """Every model is paired with every defense, attack and threat model of its group, on the same data."""

    models: tuple[ModelRef, ...]
    defenses: tuple[str, ...]
    attacks: tuple[str, ...]
    threats: tuple[str, ...]
    data: DataRef


@dataclass(frozen=True)
class Expectation:
    """Bounds that cells are expected to keep; names are wildcards, accuracies are shares in [0, 1]."""

    model: str = "*"
    defense: str = "*"
    attack: str = "*"
    threat: str = "*"
    min_clean: float | None = None
    min_robust: float | None = None
    max_robust: float | None = None

    def applies(self, model: str, defense: str, attack: str, threat: str) -> bool:
        """Whether the cell of those names is meant."""
        pairs = ((model, self.model), (defense, self.defense), (attack, self.attack), (threat, self.threat))
        return all(name == pattern or fnmatch.fnmatchcase(name, pattern) for name, pattern in pairs)


@dataclass(frozen=True)
class Config:
    """All that decides a run."""

    groups: tuple[Group, ...]
    plugins: tuple[str, ...] = ()
    """Python files that register what is named."""
    seed: int = 0
    device: str = "auto"
    batch_size: int | None = None
    """Samples attacked at once; None: by the size of an image."""
    precision: str = "auto"
    """One of `PRECISIONS`: the form of the model that native attacks see."""
    checks: str = "default"
    """One of `CHECKS`: of what attacks can be fooled by."""
    out: Path = Path("gauntlet-results")
    fresh: bool = False
    keep_adversarials: bool = True
    expect: tuple[Expectation, ...] = field(default=())
    gate: GateTable = field(default_factory=GateTable)
    published: tuple[tuple[str, PublishedFigure], ...] = ()
    """What others state of models, by a pattern of their names in the tables."""
    narrowed: bool = False
    """Options name what is paired, so that not every expectation of the file need apply, and its gate does not."""


def load_config(options: Mapping[str, Any], *, folder: Path, file: str | None = None) -> Config:
    """Read the config file that applies in `folder` and lay the options over it.

    Without a file of the user, the default benchmark is taken. Where an option names what is paired (models, defenses,
    attacks, data, samples, threat models), the groups of the file give way to one group of the options and the file's
    top-level values. Raises ConfigError.
    """
    table = read_file(folder, file)
    # A seed of 0 is given; it equals False.
    given = {key: value for key, value in options.items() if value is not False and value not in (None, (), [], "")}
    _known(table, _TOP, "config")
    try:
        gate = read_gate_table(table.pop("gate", {}))
        published = read_published(_tables(table, "published"))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if any(key in given for key in _PAIRING):
        table = {key: value for key, value in table.items() if key != "group"}
        if "model" in given:
            # Weights and normalisation belong to the model they were written for.
            table = {key: value for key, value in table.items() if key not in ("weights", "mean", "std")}
        if "data" in given:
            table.pop("samples", None)
    merged = {**table, **given}
    groups = []
    for row in _tables(merged, "group") or [{}]:
        _known(row, _PAIRING, "group")
        groups.append(_group({**{key: merged[key] for key in _PAIRING if key in merged}, **row}))
    batch_size, seed = merged.get("batch_size"), merged.get("seed", 0)
    for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0)):
        if value is None and name == "batch_size":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{name}={value!r} must be a whole number of at least {least}")
    for name in ("device", "out"):
        if not isinstance(merged.get(name, ""), str | Path):
            raise ConfigError(f"{name}={merged[name]!r} must be a text")
    for name in ("fresh", "no_adversarials"):
        if not isinstance(merged.get(name, False), bool):
            raise ConfigError(f"{name}={merged[name]!r} must be true or false")
    return Config(
        groups=tuple(groups),
        plugins=plugins_of(merged),
        seed=seed,
        device=str(merged.get("device", "auto")),
        batch_size=batch_size,
        precision=known("precision", merged.get("precision", "auto"), PRECISIONS),
        checks=known("checks", merged.get("checks", "default"), CHECKS),
        out=Path(merged.get("out", "gauntlet-results")),
        fresh=merged.get("fresh", False),
        keep_adversarials=not merged.get("no_adversarials", False),
        expect=tuple(_expectation(row) for row in _tables(merged, "expect")),
        gate=gate,
        published=published,
        narrowed=any(key in given for key in _PAIRING),
    )


def _tables(table: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = table.get(name, [])
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise ConfigError(f"{name}={found!r} must be a list of tables: write [[{name}]]")
    return found


def _known(table: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    unknown = [key for key in table if key not in keys]
    if unknown:
        raise ConfigError(f"unknown key {unknown[0]!r} in the {where}: use {', '.join(keys)}")


def _group(row: Mapping[str, Any]) -> Group:
    models = texts(row.get("model", "cnn.*"), "model")
    numbers = {name: channel_values(row.get(name), name) for name in ("mean", "std")}
    if row.get("weights") and len(models) > 1:
        raise ConfigError(f"weights={row['weights']!r} fit one model, but {len(models)} are named: {', '.join(models)}")
    data = DataRef(str(row.get("data", "digits")), str(row["samples"]) if "samples" in row else None)
    weights = str(row["weights"]) if row.get("weights") else None
    return Group(
        models=tuple(ModelRef(spec, weights, **numbers) for spec in models),
        defenses=texts(row.get("defense", "none"), "defense"),
        attacks=texts(row.get("attacks", "standard"), "attacks"),
        threats=texts(row.get("threat") or default_threat(data.spec), "threat"),
        data=data,
    )


def default_threat(data: str) -> str:
    """The threat model where none is asked for: Linf 0.15 on the 8×8 digits, else the field's usual Linf 8/255."""
    return "Linf:0.15" if data in ("digits", "digits-train") else "Linf:8/255"


def known(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """The value of a setting that is one of a few. Raises ConfigError."""
    if value not in choices:
        raise ConfigError(f"{name}={value!r} is not known: use one of {', '.join(choices)}")
    return str(value)


def channel_values(value: Any, name: str) -> tuple[float, ...] | None:
    """One number for each channel, from a list or a text with commas; None for None. Raises ConfigError."""
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, Sequence) else [value]
    try:
        return tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        raise ConfigError(f"{name}={value!r} must be numbers separated by commas, one for each channel") from None


def _expectation(row: Mapping[str, Any]) -> Expectation:
    _known(row, [one.name for one in fields(Expectation)], "expect table")
    for name in ("model", "defense", "attack", "threat"):
        if not isinstance(row.get(name, ""), str):
            raise ConfigError(f"{name}={row[name]!r} in an expect table must be a text, with or without wildcards")
    for name in ("min_clean", "min_robust", "max_robust"):
        value = row.get(name)
        if value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
            raise ConfigError(f"{name}={value!r} in an expect table must be a share in [0, 1]")
    if set(row.get("threat", "*")) & set("*?["):
        return Expectation(**row)
    # Written as in the tables, so that 0.1 and 1/10 mean the same.
    return Expectation(**{**row, "threat": str(ThreatModel.parse(row["threat"]))})
