"""The configuration of a run, from gauntlet.toml or [tool.gauntlet] of pyproject.toml, overridden by options."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.attacks.ops.validators import one_of, positive, whole_number
from gauntlet.bench.config.cluster_options import ClusterOptions, read_cluster
from gauntlet.bench.config.files import ConfigError as ConfigError
from gauntlet.bench.config.files import plugins_of, read_file, texts
from gauntlet.bench.config.gate_table import GateTable, read_gate_table
from gauntlet.bench.config.model_ref import MODEL_SETTINGS, model_settings, parse_model
from gauntlet.bench.config.model_ref import ModelRef as ModelRef
from gauntlet.bench.config.model_ref import channel_values as channel_values
from gauntlet.bench.config.published_table import read_published
from gauntlet.bench.config.shard import Shard
from gauntlet.leaderboard.gate.conditions import CHECKS
from gauntlet.leaderboard.results.published_figure import PublishedFigure

_PAIRING = ("model", *MODEL_SETTINGS, "defense", "attacks", "data", "samples", "threat")
_RUN = ("plugin", "seed", "device", "precision", "compile", "checks", "batch_size", "out", "fresh", "no_adversarials")
_ISOLATION = ("isolate", "timeout")
_TOP = (*_PAIRING, *_RUN, *_ISOLATION, "group", "expect", "gate", "published")

PRECISIONS = ("auto", "float32", "tf32", "bfloat16", "float16")


@dataclass(frozen=True)
class DataRef:
    """A data set as named, and the samples to use."""

    spec: str
    samples: str | None = None


@dataclass(frozen=True)
class Group:
    """Models, defenses, attacks and threat models that are paired with each other, on the same data."""

    models: tuple[ModelRef, ...]
    defenses: tuple[str, ...]
    attacks: tuple[str, ...]
    threats: tuple[str, ...]
    data: DataRef


@dataclass(frozen=True)
class Expectation:
    """Bounds on the accuracies of cells, in [0, 1]; the names are wildcards."""

    model: str = "*"
    defense: str = "*"
    attack: str = "*"
    threat: str = "*"
    min_clean: float | None = None
    min_robust: float | None = None
    max_robust: float | None = None

    def applies(self, model: str, defense: str, attack: str, threat: str) -> bool:
        """Whether the bounds apply to a cell with these names."""
        pairs = ((model, self.model), (defense, self.defense), (attack, self.attack), (threat, self.threat))
        return all(name == pattern or fnmatch.fnmatchcase(name, pattern) for name, pattern in pairs)


@dataclass(frozen=True)
class Config:
    """Everything that decides a run."""

    groups: tuple[Group, ...]
    plugins: tuple[str, ...] = ()
    """Python files that register models, attacks, defenses or data sets."""
    seed: int = 0
    device: str = "auto"
    batch_size: int | None = None
    """Number of samples attacked at once; None: measured on a GPU, else chosen by the size of an image."""
    precision: str = "auto"
    """One of `PRECISIONS`: the precision of the model copy that native attacks use."""
    compile: bool = False
    """Whether that copy is compiled where this was measured to be faster."""
    checks: str = "default"
    """One of `CHECKS`: the gradient-masking checks to run."""
    out: Path = Path("gauntlet-results")
    reuse: Path | None = None
    """A results folder whose blocks are taken where they fit; an option alone names it, no configuration."""
    fresh: bool = False
    keep_adversarials: bool = True
    isolate: bool = False
    """Whether a process of its own is asked for by name; see `elsewhere`."""
    timeout: float | None = None
    """Seconds that preparing a cell, and then attacking it, may take in a process of its own; None: no limit."""
    shard: Shard | None = None
    """The part of each cell's blocks to run, which an option or variable names, no configuration; None: all."""
    cluster: ClusterOptions | None = None
    """The Ray cluster to run on, which an option names, no configuration; None: this process, or one of its own."""
    expect: tuple[Expectation, ...] = field(default=())
    gate: GateTable = field(default_factory=GateTable)
    published: tuple[tuple[str, PublishedFigure], ...] = ()
    """Published figures, each with a pattern of model names."""
    by_hand: frozenset[str] = frozenset()
    """What options of the command line chose: `cells` (models, attacks, threat models, data), `seed`, `checks`."""
    narrowed: bool = False
    """Whether options change the groups: then the gate of the file does not apply, and its expectations may match no cell."""

    @property
    def elsewhere(self) -> bool:
        """Whether the configuration or an option has the code under evaluation run in other processes."""
        return self.isolate or self.timeout is not None or self.cluster is not None


def load_config(options: Mapping[str, Any], *, folder: Path, file: str | None = None) -> Config:
    """The configuration of `file`, or of the file that applies in `folder`, overridden by options.

    Without a file the default benchmark applies. If an option names a model, defense, attack, data set, samples or threat
    model, the groups of the file are replaced by one group of the options and the file's top-level values. Raises ConfigError.
    """
    if options.get("shard") == "":
        raise ConfigError("--shard is empty: write I/N, such as 1/4, or leave it out for the whole run")
    table = read_file(folder, file)
    # A seed of 0 is given; it equals False.
    given = {key: value for key, value in options.items() if value is not False and value not in (None, (), [], "")}
    _known(table, _TOP, "configuration")
    try:
        gate = read_gate_table(table.pop("gate", {}))
        published = read_published(_tables(table, "published"))
        merged = _merged(table, given)
        _validate(merged)
        shard = Shard.parse(merged["shard"]) if "shard" in merged else None
        cluster = read_cluster(given, merged.get("device"), shard)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    narrowed = any(key in given for key in _PAIRING)
    return Config(
        groups=_groups(merged),
        plugins=plugins_of(merged),
        seed=merged.get("seed", 0),
        device=merged.get("device", "auto"),
        batch_size=merged.get("batch_size"),
        precision=merged.get("precision", "auto"),
        compile=merged.get("compile", False),
        checks=merged.get("checks", "default"),
        out=Path(merged.get("out", "gauntlet-results")),
        reuse=Path(merged["reuse"]) if "reuse" in merged else None,
        fresh=merged.get("fresh", False),
        keep_adversarials=not merged.get("no_adversarials", False),
        isolate=merged.get("isolate", False),
        timeout=merged.get("timeout"),
        shard=shard,
        cluster=cluster,
        expect=tuple(_expectation(row) for row in _tables(merged, "expect")),
        gate=gate,
        published=published,
        by_hand=frozenset({"cells"} if narrowed else ()) | (given.keys() & {"seed", "checks"}),
        narrowed=narrowed,
    )


def _merged(table: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The file's table with the options `given` laid over it."""
    dropped = set()
    if any(key in given for key in _PAIRING):
        dropped.add("group")
    if "model" in given:
        # Weights and other settings belong to the model that the file names.
        dropped |= set(MODEL_SETTINGS)
    if "data" in given:
        dropped.add("samples")
    return {**{key: value for key, value in table.items() if key not in dropped}, **given}


def _validate(merged: Mapping[str, Any]) -> None:
    """Check the values that apply to the whole run. Raises ValueError that names the key, its value and the accepted values."""
    whole_number("seed", merged.get("seed", 0), least=0)
    if "batch_size" in merged:
        whole_number("batch_size", merged["batch_size"], least=1)
    for name in ("device", "out"):
        if not isinstance(merged.get(name, ""), str | Path):
            raise ConfigError(f"{name}={merged[name]!r} must be a string")
    for name in ("compile", "fresh", "no_adversarials", "isolate"):
        if not isinstance(merged.get(name, False), bool):
            raise ConfigError(f"{name}={merged[name]!r} must be true or false")
    if "timeout" in merged:
        positive("timeout", merged["timeout"])
    one_of("precision", merged.get("precision", "auto"), PRECISIONS)
    one_of("checks", merged.get("checks", "default"), CHECKS)


def _groups(merged: Mapping[str, Any]) -> tuple[Group, ...]:
    """The groups; top-level values are defaults of every group."""
    shared = {key: merged[key] for key in _PAIRING if key in merged}
    rows = _tables(merged, "group") or [{}]
    for row in rows:
        _known(row, _PAIRING, "group")
    return tuple(_group({**shared, **row}) for row in rows)


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
    models = texts(row.get("model", "cnn.*_digits"), "model")
    shared = model_settings(row)
    refs = tuple(parse_model(text, shared) for text in models)
    taking = [ref.spec for ref in refs if ref.weights == shared.get("weights")]
    if "weights" in shared and len(taking) > 1:
        raise ConfigError(
            f"weights={row['weights']!r} fit one model, but {len(taking)} are named ({', '.join(taking)}): name one, leave "
            "weights out, or give each its own, NAME@FILE"
        )
    data = DataRef(str(row.get("data", "digits")), str(row["samples"]) if "samples" in row else None)
    return Group(
        models=refs,
        defenses=texts(row.get("defense", "none"), "defense"),
        attacks=texts(row.get("attacks", "standard"), "attacks"),
        threats=texts(row.get("threat") or default_threat(data.spec), "threat"),
        data=data,
    )


_SMALL = {"digits": "Linf:0.15", "pairs": "Linf:0.1"}
"""Threat models of the zoo's data, whose images have few pixels: a change of 8/255 is less than it is of a photo."""
_FEW_PIXELS = 128


def default_threat(data: str, pixels: int = 0) -> str:
    """The default threat model: that of the zoo for its data, Linf 0.1 for other images as small, else the usual Linf 8/255.

    `pixels`: height times width of an image; 0 if that is not known.
    """
    usual = "Linf:0.1" if 0 < pixels <= _FEW_PIXELS else "Linf:8/255"
    return _SMALL.get(data.removesuffix("-train"), usual)


def _expectation(row: Mapping[str, Any]) -> Expectation:
    _known(row, [one.name for one in fields(Expectation)], "expect table")
    for name in ("model", "defense", "attack", "threat"):
        if not isinstance(row.get(name, ""), str):
            raise ConfigError(f"{name}={row[name]!r} in an expect table must be a string, with or without wildcards")
    for name in ("min_clean", "min_robust", "max_robust"):
        value = row.get(name)
        if value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
            raise ConfigError(f"{name}={value!r} in an expect table must be a share in [0, 1]")
    if set(row.get("threat", "*")) & set("*?["):
        return Expectation(**row)
    # In canonical form, so that 0.1 and 1/10 mean the same.
    return Expectation(**{**row, "threat": str(ThreatModel.parse(row["threat"]))})
