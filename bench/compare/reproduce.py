"""Reproducing a published figure: run its protocol again, and compare the results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gauntlet.attacks.ops.threat import ThreatModel
from gauntlet.bench.config.schema import Config, ConfigError, load_config
from gauntlet.bench.models.load_model import load_model
from gauntlet.bench.models.sources.parse_source import complete_robustbench_name, parse_source
from gauntlet.bench.models.sources.robustbench_figures import robustbench_card
from gauntlet.bench.planning.plan import make_plan
from gauntlet.bench.run.cell_runner import SampleProgress
from gauntlet.bench.run.engine import Engine
from gauntlet.bench.run.tables import write_leaderboard
from gauntlet.leaderboard.results.published_figure import CORRUPTIONS, PublishedFigure
from gauntlet.leaderboard.rows.build_rows import build_rows
from gauntlet.leaderboard.rows.references import Reference, references

_AUTOATTACK = "AutoAttack"


def choose_figure(model: str, options: Mapping[str, Any], folder: Path) -> tuple[str, PublishedFigure]:
    """The full name of a model, and the published figure to reproduce.

    The figure comes from the configuration's [[published]] tables that name the model, else from the model's card. Among several
    figures, one under AutoAttack is preferred, else the first. Raises ValueError if no figure is published.
    """
    threat, data = options.get("threat"), options.get("data") or "cifar10"
    name = complete_robustbench_name(model, data, ThreatModel.parse(threat).norm if threat else "Linf")
    stated = [figure for pattern, figure in load_config({}, folder=folder).published if pattern in (model, name)]
    source = parse_source(name)
    if not stated and source is not None and source.kind == "robustbench":
        stated = list(robustbench_card(source.name).published)
    if not stated:
        card = load_model(name).card
        stated = list(card.published) if card is not None else []
    wanted = str(ThreatModel.parse(threat)) if threat else None
    robust = [figure for figure in stated if figure.robust is not None and figure.threat != CORRUPTIONS]
    candidates = [figure for figure in robust if wanted in (None, figure.threat)]
    if not candidates:
        known = ", ".join(dict.fromkeys(figure.threat for figure in robust)) or "none"
        raise ValueError(
            f"no robust accuracy of model {model!r} is published{f' at {wanted}' if wanted else ''} (known: {known}): add a "
            "table [[published]] with model, robust, threat, attack, n and source to gauntlet.toml"
        )
    return name, min(candidates, key=lambda figure: _AUTOATTACK not in figure.attack)


def protocol_config(name: str, figure: PublishedFigure, options: Mapping[str, Any], folder: Path) -> Config:
    """The configuration of the published protocol: data, samples, threat model and attack, unless options override them.

    Raises ConfigError if options do not name the attack or the data, and the figure names none that Gauntlet has.
    """
    attack = options.get("attacks") or ("autoattack" if _AUTOATTACK in figure.attack else None)
    if attack is None:
        raise ConfigError(
            f"{figure.model} was attacked by {figure.attack!r}: name the corresponding attack with --attacks"
        )
    data = options.get("data") or figure.data
    if not data:
        raise ConfigError(f"the published figure of {figure.model} does not state its data: name the data with --data")
    given = {key: value for key, value in options.items() if value is not None}
    settings = {
        **given,
        "model": [name],
        "defense": ["none"],
        "attacks": [attack],
        "data": data,
        "samples": options.get("samples") or (f"0:{figure.n}" if figure.n else ""),
        "threat": [figure.threat],
    }
    config = load_config(settings, folder=folder)
    return replace(config, published=(("*", figure),), expect=())


def reproduce(config: Config, figure: PublishedFigure, progress: SampleProgress) -> tuple[Reference, Path]:
    """Run the protocol. Returns the published figure with the measured one, and the results folder.

    Raises RuntimeError if the attack failed; finished results are stored.
    """
    engine = Engine(make_plan(config), config)
    for cell in engine.run.plan.cells:
        result = engine.cell(cell, progress)
        if result.error is not None:
            raise RuntimeError(f"{cell.info.title}: {result.error.kind}: {result.error.message}")
    results = engine.run.results()
    write_leaderboard(engine.run, results)
    table = build_rows(results)
    measured = references(table, [(row.model, figure) for row in table])
    return next(one for one in measured if one.figure == "robust"), config.out


def describe_reproduction(reference: Reference) -> Iterator[str]:
    """Lines with the published figure, the measured one, and whether they agree."""
    low, high = reference.measured.interval
    measured = (
        f"{100 * reference.measured.estimate:.2f} % [{100 * low:.2f}, {100 * high:.2f}] (n={reference.measured.n:,})"
    )
    figure = reference.published
    by = f" under {figure.attack}" if figure.attack else ""
    count = f", n={figure.n:,}" if figure.n else ""
    where = f"at {figure.threat} on {figure.data or 'data not named'}"
    yield f"published: {100 * reference.stated:.2f} %{by} {where}{count}: {figure.source}"
    yield f"measured:  {measured} on {reference.row.data}"
    points = f"{100 * reference.difference:+.2f} points"
    if reference.covered:
        yield f"reproduced: the difference of {points} is within the interval"
    else:
        why = (
            "a stronger attack than the published one, or another model"
            if reference.difference < 0
            else "a weaker attack than the published one, or another model, data or preprocessing"
        )
        yield f"differs by {points}: {why}"
