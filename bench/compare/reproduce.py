"""Reproducing a published figure: its protocol, run again, and whether the result agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.config.schema import Config, ConfigError, load_config
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.sources.parse_source import complete_robustbench_name, parse_source
from gauntlet.bench.models.sources.robustbench_figures import robustbench_card
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.run.engine import Engine, write_leaderboard
from gauntlet.leaderboard.results.published_figure import CORRUPTIONS, PublishedFigure
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.references import Reference, references

_AUTOATTACK = "AutoAttack"


def chosen(model: str, options: Mapping[str, Any], folder: Path) -> tuple[str, PublishedFigure]:
    """The full name of a model, and the published figure to measure again.

    The figure comes from the configuration's [[published]] tables of the model, else from its card; of several figures the one
    under AutoAttack is taken, else the first. Raises ValueError if none is published.
    """
    threat, data = options.get("threat"), options.get("data") or "cifar10"
    name = complete_robustbench_name(model, data, ThreatModel.parse(threat).norm if threat else "Linf")
    stated = [one for pattern, one in load_config({}, folder=folder).published if pattern in (model, name)]
    source = parse_source(name)
    if not stated and source is not None and source.kind == "robustbench":
        stated = list(robustbench_card(source.name).published)
    if not stated:
        card = load_model(name).card
        stated = list(card.published) if card is not None else []
    wanted = str(ThreatModel.parse(threat)) if threat else None
    robust = [one for one in stated if one.robust is not None and one.threat != CORRUPTIONS]
    some = [one for one in robust if wanted in (None, one.threat)]
    if not some:
        known = ", ".join(dict.fromkeys(one.threat for one in robust)) or "none"
        raise ValueError(
            f"no robust accuracy of model {model!r} is published{f' at {wanted}' if wanted else ''} (known: {known}): write the "
            "figure as a table [[published]] of gauntlet.toml, with model, robust, threat, attack, n and source"
        )
    return name, min(some, key=lambda one: _AUTOATTACK not in one.attack)


def protocol(name: str, one: PublishedFigure, options: Mapping[str, Any], folder: Path) -> Config:
    """The configuration of the published protocol: data, samples, threat model and attack, overridden by options.

    Raises ConfigError if the published attack has no counterpart here.
    """
    attack = options.get("attacks") or ("autoattack" if _AUTOATTACK in one.attack else None)
    if attack is None:
        raise ConfigError(f"{one.model} was attacked by {one.attack!r}: name the corresponding attack with --attacks")
    data = options.get("data") or one.data
    if not data:
        raise ConfigError(f"the data set on which {one.model} was attacked is not stated: name it with --data")
    given = {key: value for key, value in options.items() if value is not None}
    asked = {
        **given,
        "model": [name],
        "defense": ["none"],
        "attacks": [attack],
        "data": data,
        "samples": options.get("samples") or (f"0:{one.n}" if one.n else ""),
        "threat": [one.threat],
    }
    config = load_config(asked, folder=folder)
    return replace(config, published=(("*", one),), expect=())


def reproduce(config: Config, one: PublishedFigure, tell: Callable[[int], None]) -> tuple[Reference, Path]:
    """Run the protocol; returns the published figure beside the measured one, and the results folder.

    Raises RuntimeError if the attack failed; finished results are stored.
    """
    engine = Engine(make_plan(config), config)
    for cell in engine.run.plan.cells:
        result = engine.cell(cell, tell)
        if result.error is not None:
            raise RuntimeError(f"{cell.info.title}: {result.error.kind}: {result.error.message}")
    _, results = write_leaderboard(engine.run)
    table = build_rows(results)
    found = references(table, [(row.model, one) for row in table])
    return next(each for each in found if each.figure == "robust"), config.out


def verdict(found: Reference) -> Iterator[str]:
    """The lines that show both figures and say whether they agree."""
    low, high = found.measured.interval
    measured = f"{100 * found.measured.estimate:.2f} % [{100 * low:.2f}, {100 * high:.2f}] (n={found.measured.n:,})"
    said = found.published
    by = f" under {said.attack}" if said.attack else ""
    count = f", n={said.n:,}" if said.n else ""
    yield f"published: {100 * found.stated:.2f} %{by} at {said.threat} on {said.data or 'data not named'}{count}: {said.source}"
    yield f"measured:  {measured} on {found.row.data}"
    points = f"{100 * found.difference:+.2f} points"
    if found.covered:
        yield f"reproduced: the difference of {points} is within the interval"
    else:
        why = (
            "a stronger attack than the published one, or another model"
            if found.difference < 0
            else "a weaker attack than the published one, or another model, data or preprocessing"
        )
        yield f"differs by {points}: {why}"
